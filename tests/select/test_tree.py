"""Questions about nodes of the label tree: chosen, sent, answered, and merged."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from tests.annotation_tools.tables import rows_of, run
from tests.collect.exports import annotation
from tests.merge.tables import posterior
from tests.select.tables import questions, select, write_csv, write_labels

#: dog, beagle, pug, cat, car; carnivore stands above all but the car, and is no class.
SYNSETS = ("n02084071", "n02088364", "n02110958", "n02121620", "n02958343")
DOGS, CARNIVORES = [0, 1, 2], [0, 1, 2, 3]
ROWS = {
    1: {"probs": {1: 0.3, 2: 0.3, 3: 0.3}},  # a dog?
    2: {"probs": {1: 0.55, 2: 0.35}},  # a dog for certain: a beagle?
    3: {"probs": {1: 0.2, 3: 0.3, 4: 0.45}},  # a carnivore?
    4: {"probs": {4: 0.98}},
}


@pytest.fixture
def given(tmp_path):
    space = tmp_path / "pets.txt"
    space.write_text("\n".join(SYNSETS) + "\n")
    return {"label_space": space, "labels": write_labels(tmp_path / "labels", ROWS)}


def ask(tmp_path, given, output="out", **settings):
    select(tmp_path, output, kind="tree", budget=3, audit=0, **given, **settings)
    return questions(tmp_path, output)


def test_the_node_is_asked_about_that_the_list_is_torn_about(tmp_path, given):
    asked = ask(tmp_path, given)
    ids = {image: row["question_id"] for image, row in asked.items()}
    assert ids == {1: "1:1:n02084071", 2: "1:2:n02088364", 3: "1:3:n02075296"}
    assert {row["kind"] for row in asked.values()} == {"verify"}
    about = {image: (row["label"], row["candidates"]) for image, row in asked.items()}
    assert about == {1: (None, DOGS), 2: (1, None), 3: (None, CARNIVORES)}
    assert asked[1]["candidate_probs"] == pytest.approx([0, 0.3, 0.3])
    (file,) = (tmp_path / "out/questions").glob("*.parquet")
    assert pq.read_schema(file).equals(schemas.QUESTIONS)


def test_nodes_of_too_many_classes_are_not_asked_about(tmp_path, given):
    asked = ask(tmp_path, given, max_node_classes=2)
    assert {row["candidates"] is None for row in asked.values()} == {True}


def test_workers_are_assigned_by_what_the_node_holds(tmp_path, given):
    workers = write_csv(tmp_path / "w.csv", "worker_id,accuracy", [("ann", 0.9), ("bob", 0.5)])
    asked = ask(tmp_path, given, workers=workers, assign="greedy", max_per_worker=2)
    assert sorted(row["worker_id"] for row in asked.values()) == ["ann", "ann", "bob"]


def test_the_answers_come_back_as_what_merge_takes(tmp_path, given):
    ask(tmp_path, given)
    asked, space = tmp_path / "out/questions", given["label_space"]
    words = {"questions": asked, "label_space": space}
    run("send", to="label_studio_files", output=tmp_path / "sent", **words)
    tasks = json.loads((tmp_path / "sent/tasks-00000.json").read_text())
    shown = {task["data"]["question_id"]: task["data"] for task in tasks}
    dog = shown["1:1:n02084071"]
    assert dog["question"] == "Does the image show this, of any kind: dog?"
    assert "a member of the genus Canis" in dog["definition"]
    assert "Kinds: " in dog["definition"]
    assert "any kind: carnivore?" in shown["1:3:n02075296"]["question"]
    assert shown["1:2:n02088364"]["question"] == "Does the image show this: beagle?"
    assert "label" not in dog

    said = {"1:1:n02084071": "yes", "1:2:n02088364": "no", "1:3:n02075296": "no"}
    for n, task in enumerate(tasks, 1):
        answer = annotation(n, {"id": 1, "email": "ann@x"}, said[task["data"]["question_id"]])
        task |= {"id": n, "project": 1, "annotations": [answer]}
    export = tmp_path / "export.json"
    export.write_text(json.dumps(tasks))
    run("collect", source=export, output=tmp_path / "collected", **words)
    votes = {row["image_id"]: row for row in rows_of(tmp_path / "collected", "votes")}
    assert (votes[1]["response"], votes[1]["candidates"]) == ("yes", DOGS)
    assert (votes[2]["response"], votes[2]["label"]) == ("no", 1)

    beliefs = {"beliefs": given["labels"], "beliefs_are": "categorical", "calibration": "none"}
    more = {"votes": tmp_path / "collected", "tree": "true", "output": tmp_path / "merged"}
    run("merge", label_space=space, **beliefs, **more)
    found = {i: dict(zip(r["labels"], r["label_probs"], strict=True))
             for i, r in posterior(tmp_path / "merged").items()}  # fmt: skip
    assert found[1][1] > 0.4
    assert found[1][3] < 0.1
    assert found[3][4] > 0.8
    assert found[2][2] > found[2][1]

    # The next round asks which dog it is: the beagle or the pug.
    more = {"votes": tmp_path / "collected/votes", "round": 2, "labels": tmp_path / "merged"}
    again = ask(tmp_path, given | more, "again")
    assert again[1]["question_id"] in {"2:1:n02088364", "2:1:n02110958"}


def test_a_spreadsheet_says_what_the_node_is(tmp_path, given):
    ask(tmp_path, given)
    words = {"questions": tmp_path / "out/questions", "label_space": given["label_space"]}
    run("send", to="csv", output=tmp_path / "sent", **words)
    text = (tmp_path / "sent/questions-00000.csv").read_text()
    rows = {row["question_id"]: row for row in csv.DictReader(text.splitlines(keepends=True))}
    definition, kinds = rows["1:1:n02084071"]["definition"].split("\n")
    assert definition.startswith("dog: a member of the genus Canis")
    assert kinds == "Kinds: pug, hunting dog"
    assert rows["1:1:n02084071"]["options"] == "yes\nno\nunsure"
    # CVAT has a task for each node.
    run("send", to="cvat_files", output=tmp_path / "cvat", **words)
    sent = [path.read_text() for path in (tmp_path / "cvat").rglob("*.json")]
    assert any('"name": "1 dog of any kind: a member of the genus Canis' in text for text in sent)


def test_classes_without_a_tree_have_no_nodes_to_ask_about(tmp_path, given):
    (tmp_path / "plain.txt").write_text("a\nb\nc\nd\ne\n")
    with pytest.raises(InputError, match=r"plain.txt has no tree"):
        ask(tmp_path, given | {"label_space": tmp_path / "plain.txt"})
