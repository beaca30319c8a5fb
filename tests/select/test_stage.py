"""The stage, in threads and once on Spark, on rows that can be checked by eye."""

import io
import json
import logging
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.select import gather
from coyo_labeler.select import plan as plans
from coyo_labeler.select import stage as stages
from tests.select.tables import gold_key, questions, select, write_csv, write_labels

#: By falling risk: 5, 4, 3, 2, 1.
ROWS = {
    1: {"probs": {0: 0.95, 1: 0.05}},
    2: {"probs": {1: 0.8, 0: 0.1, 2: 0.1}},
    3: {"probs": {2: 0.7, 4: 0.2}},
    4: {"probs": {3: 0.5, 1: 0.4}},
    5: {"probs": {4: 0.4, 5: 0.3, 0: 0.2}},
}
VOTES = "image_id,worker_id,label,response"


def many(n=300, **more):
    rows = {}
    for i in range(n):
        top = round(0.2 + 0.75 * ((i * 37) % 101) / 101, 3)
        probs = {i % 6: top, (i + 1) % 6: 0.3 * (1 - top)}
        rows[i * 5 - 20] = {"probs": probs, "hash": f"{(i // 2) * 7919:016x}" if i % 3 else None}
        rows[i * 5 - 20] |= more
    return rows


def test_the_riskiest_are_asked_about(tmp_path):
    labels = write_labels(tmp_path / "labels", ROWS)
    manifest = select(tmp_path, labels=labels, budget=2, audit=0)
    asked = questions(tmp_path)
    assert asked.keys() == {5, 4}
    row = asked[5]
    assert (row["question_id"], row["kind"], row["purpose"]) == ("1:5", "choice", "uncertain")
    assert (row["candidates"], row["label"]) == ([4, 5, 0], None)
    assert row["candidate_probs"] == pytest.approx([0.4, 0.3, 0.2])
    assert row["risk"] == pytest.approx(0.6)
    assert (row["url"], row["key"], row["worker_id"]) == ("http://x/5.jpg", None, None)
    assert (row["inclusion_probability"], row["overlap"]) == (1.0, 1)
    assert gold_key(tmp_path) == []
    assert manifest.rows.to_json() == {"in": 5, "out": 2, "rejected": {"not_chosen": 3}}
    for name, schema in (("questions", schemas.QUESTIONS), ("gold_key", schemas.GOLD_KEY)):
        (file,) = (tmp_path / "out" / name).glob("*.parquet")
        assert pq.read_schema(file).equals(schema)
    assert not (tmp_path / "out" / "_state").exists()


@pytest.mark.parametrize(
    ("strategy", "first"), [("risk", {5, 4}), ("margin", {4, 5}), ("entropy", {5, 3})]
)
def test_strategies_differ_in_what_comes_first(tmp_path, strategy, first):
    rows = ROWS | {3: {"probs": {c: 0.51 if c == 2 else 0.098 for c in (2, 0, 1, 3, 4, 5)}}}
    labels = write_labels(tmp_path / "labels", rows)
    select(tmp_path, labels=labels, budget=2, audit=0, strategy=strategy)
    assert questions(tmp_path).keys() == first


def test_a_verification_asks_about_the_class_closest_to_one_half(tmp_path):
    rows = {1: {"probs": {3: 0.9, 2: 0.55}}, 2: {"probs": {5: 0.3, 4: 0.2}}, 3: {"probs": {}}}
    labels = write_labels(tmp_path / "labels", rows)
    manifest = select(tmp_path, labels=labels, kind="verify", round=4)
    asked = questions(tmp_path)
    assert {image: row["label"] for image, row in asked.items()} == {1: 2, 2: 5}
    assert {row["question_id"] for row in asked.values()} == {"4:1:2", "4:2:5"}
    assert {row["candidates"] for row in asked.values()} == {None}
    assert manifest.rows.rejected == {"no_class": 1}


def given_votes(tmp_path):
    """1: two who disagree, of three allowed; 2: one, and the posterior is sure; 3: one, and it is
    not; 4: three; 5: none."""
    rows = {image: {**row, "votes": 0} for image, row in ROWS.items()}
    for image, n in ((1, 2), (2, 1), (3, 1), (4, 3)):
        rows[image]["votes"] = n
    rows[2]["probs"] = {1: 0.97}
    labels = write_labels(tmp_path / "labels", rows, posterior=True)
    votes = [(1, "ann", 0, None), (1, "bob", 0, "no"), (2, "ann", 1, None), (3, "ann", 2, "yes"),
             *((4, name, 3, None) for name in ("ann", "bob", "cid"))]  # fmt: skip
    return {"labels": labels, "votes": write_csv(tmp_path / "votes.csv", VOTES, votes)}


def test_images_with_votes_are_asked_about_again_where_these_leave_them_open(tmp_path):
    manifest = select(tmp_path, budget=9, audit=0, **given_votes(tmp_path))
    purposes = {image: row["purpose"] for image, row in questions(tmp_path).items()}
    assert purposes == {1: "repeat", 3: "repeat", 5: "uncertain"}
    assert manifest.rows.rejected == {"asked_before": 1, "max_votes": 1}
    assert "only 3 images can be asked" in " ".join(manifest.details["summary"])


def test_an_image_never_gets_more_votes_than_are_allowed(tmp_path):
    select(tmp_path, budget=9, audit=0, overlap=2, **given_votes(tmp_path))
    assert {i: row["overlap"] for i, row in questions(tmp_path).items()} == {1: 1, 3: 2, 5: 2}


def test_nobody_is_asked_again_where_votes_are_missing(tmp_path):
    """Image 3 has a vote by the labels; whose it was, these votes do not say."""
    given = given_votes(tmp_path)
    few = [(1, "ann", 0, "yes"), (1, "bob", 0, "no")]
    given["votes"] = write_csv(tmp_path / "few.csv", VOTES, few)
    select(tmp_path, budget=9, audit=0, **given)
    assert questions(tmp_path).keys() == {1, 5}


def test_without_the_votes_nobody_is_asked_again(tmp_path):
    given = given_votes(tmp_path)
    select(tmp_path, budget=9, labels=given["labels"])
    assert questions(tmp_path).keys() == {5}


def test_nobody_answers_about_an_image_twice(tmp_path):
    for assign in ("random", "greedy"):
        crew = [("ann", 0.99), ("bob", 0.6), ("cid", 0.7)]
        names = write_csv(tmp_path / "workers.csv", "worker_id,accuracy", crew)
        select(tmp_path, output=assign, budget=3, audit=0, assign=assign, workers=names,
               **given_votes(tmp_path))  # fmt: skip
        asked = questions(tmp_path, assign)
        assert asked[1]["worker_id"] == "cid"
        assert asked[3]["worker_id"] == "bob"
        assert asked[5]["worker_id"] == "ann"


def test_a_worker_named_without_a_tool_is_known_by_the_name_in_any(tmp_path):
    given = given_votes(tmp_path)
    votes = tmp_path / "votes.csv"
    votes.write_text(votes.read_text().replace(",ann,", ",file:ann,").replace(",bob,", ",x:bob,"))
    (tmp_path / "workers.txt").write_text("ann\nbob\ncid\n")
    select(tmp_path, budget=3, audit=0, assign="random", workers=tmp_path / "workers.txt", **given)
    asked = questions(tmp_path)
    assert asked[1]["worker_id"] == "cid"
    assert asked[3]["worker_id"] != "ann"


@pytest.mark.parametrize("assign", ["random", "greedy"])
def test_an_assigned_question_has_a_row_for_each_of_its_workers(tmp_path, assign):
    (tmp_path / "workers.txt").write_text("ann\nbob\ncid\ndee\n")
    select(tmp_path, budget=6, audit=0, overlap=2, assign=assign,
           workers=tmp_path / "workers.txt", **given_votes(tmp_path))  # fmt: skip
    rows = pq.read_table(tmp_path / "out" / "questions").to_pylist()
    pairs = [(row["question_id"], row["worker_id"]) for row in rows]
    assert sorted(question for question, _ in pairs) == ["1:1", "1:3", "1:3", "1:5", "1:5"]
    assert len(set(pairs)) == 5
    assert {row["overlap"] for row in rows} == {1}
    earlier = {("1:1", "ann"), ("1:1", "bob"), ("1:3", "ann")}
    assert not earlier & set(pairs)
    assert None not in {worker for _, worker in pairs}


def test_questions_that_nobody_can_answer_are_left_to_anybody_and_counted(tmp_path):
    (tmp_path / "workers.txt").write_text("ann\nbob\n")
    manifest = select(tmp_path, budget=3, audit=0, assign="random",
                      workers=tmp_path / "workers.txt", **given_votes(tmp_path))  # fmt: skip
    assert questions(tmp_path)[1]["worker_id"] is None
    assert "1 answer without a worker" in " ".join(manifest.details["summary"])


def test_near_twins_are_asked_about_once(tmp_path):
    rows = {1: {"probs": {0: 0.5}, "hash": "ab" * 8}, 2: {"probs": {0: 0.1}, "hash": "ab" * 8},
            3: {"probs": {0: 0.5}, "hash": "cd" * 8}, 4: {"probs": {0: 0.4}}}  # fmt: skip
    manifest = select(tmp_path, labels=write_labels(tmp_path / "labels", rows))
    assert questions(tmp_path).keys() == {1, 3, 4}
    assert manifest.rows.rejected == {"near_twin": 1}
    votes = write_csv(tmp_path / "votes.csv", VOTES, [(2, "ann", 0, None), (2, "bob", 1, None)])
    select(tmp_path, output="second", labels=tmp_path / "labels", votes=votes)
    assert questions(tmp_path, "second").keys() == {2, 3, 4}


def test_gold_is_among_the_questions_and_its_classes_are_kept_apart(tmp_path):
    labels = write_labels(tmp_path / "labels", many())
    gold = write_csv(
        tmp_path / "gold.csv", "image_id,label", [(-20, 3), (-15, 1), (-15, 2), (7, 1)]
    )
    manifest = select(tmp_path, labels=labels, gold=gold, budget=40, gold_share=0.05)
    asked = questions(tmp_path)
    of_gold = {image for image, row in asked.items() if row["purpose"] == "gold"}
    assert of_gold == {-20, -15}
    key = [(row["question_id"], row["image_id"], row["label"]) for row in gold_key(tmp_path)]
    assert sorted(key) == [("1:-15", -15, 1), ("1:-15", -15, 2), ("1:-20", -20, 3)]
    assert manifest.tables["gold"].to_json() == {
        "in": 3,
        "out": 2,
        "rejected": {"not_in_labels": 1},
    }
    assert manifest.details["questions"]["gold"] == 2
    # Gold is no exception in anything that is sent.
    other = next(row for row in asked.values() if row["purpose"] != "gold")
    hidden = {"purpose", "risk", "inclusion_probability"}
    assert {k for k, v in asked[-20].items() if v is None} - hidden == {
        k for k, v in other.items() if v is None
    } - hidden


def test_keys_come_from_the_tars(tmp_path):
    (tmp_path / "images").mkdir()
    with tarfile.open(tmp_path / "images" / "00000.tar", "w") as tar:
        for image in (1, 2, 5):
            for ending, data in ((".jpg", b"x"), (".json", json.dumps({"id": image}).encode())):
                info = tarfile.TarInfo(f"0000000{image}{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    labels = write_labels(tmp_path / "labels", ROWS)
    manifest = select(tmp_path, labels=labels, images=tmp_path / "images", budget=9)
    keys = {image: row["key"] for image, row in questions(tmp_path).items()}
    assert keys == {1: "00000001", 2: "00000002", 3: None, 4: None, 5: "00000005"}
    assert manifest.details["with_key"] == 3


def test_partitions_files_and_splits_change_nothing(tmp_path, monkeypatch):
    votes = [(i * 5 - 20, f"w{i % 4}", i % 3, None) for i in range(60)]
    votes += [(i * 5 - 20, f"w{(i + 1) % 4}", i % 2, None) for i in range(0, 60, 2)]
    truth = [(500 + 5 * i, 1) for i in range(30)]
    crew = [(f"w{i}", 0.6 + i / 20) for i in range(6)]
    given = {
        "votes": write_csv(tmp_path / "votes.csv", VOTES, votes),
        "gold": write_csv(tmp_path / "gold.csv", "image_id,label", truth),
        "budget": 120, "max_per_class": 16, "assign": "greedy", "gold_share": 0.1,
        "workers": write_csv(tmp_path / "w.csv", "worker_id,accuracy", crew),
    }  # fmt: skip
    one = write_labels(tmp_path / "one", many(), files=1, groups=1000)
    select(tmp_path, "a", labels=one, partitions=1, **given)
    expected = pq.read_table(tmp_path / "a" / "questions")
    assert expected.num_rows > 100
    assert set(expected["purpose"].to_pylist()) == {"uncertain", "repeat", "gold", "audit"}
    monkeypatch.setattr(plans, "ROWS_PER_SPLIT", 20)
    other = write_labels(tmp_path / "other", dict(reversed(many().items())), files=5, groups=7)
    select(tmp_path, "b", labels=other, partitions=5, **given)
    assert pq.read_table(tmp_path / "b" / "questions").equals(expected)
    assert gold_key(tmp_path, "b") == gold_key(tmp_path, "a")


def test_spark_asks_the_same(tmp_path, spark):
    labels = write_labels(tmp_path / "labels", many(40))
    votes = write_csv(tmp_path / "v.csv", VOTES, [(-20, "ann", 1, None), (-20, "bob", 2, None)])
    gold = write_csv(tmp_path / "gold.csv", "image_id,label", [(0, 1), (5, 2)])
    given = {"labels": labels, "votes": votes, "gold": gold, "budget": 20, "gold_share": 0.1}
    select(tmp_path, "threads", **given)
    select(tmp_path, "spark", spark=spark, partitions=3, **given)
    one, other = (pq.read_table(tmp_path / name / "questions") for name in ("threads", "spark"))
    assert one.num_rows == 20
    assert one.equals(other)


def test_many_questions_are_divided_among_files(tmp_path, monkeypatch):
    labels = write_labels(tmp_path / "labels", many())
    select(tmp_path, "one", labels=labels, budget=100)
    monkeypatch.setattr(gather, "_PER_FILE", 30)
    select(tmp_path, "four", labels=labels, budget=100)
    assert len(list((tmp_path / "four" / "questions").glob("*.parquet"))) == 4
    assert questions(tmp_path, "four") == questions(tmp_path, "one")


def test_another_round_audits_others_and_another_seed_too(tmp_path):
    labels = write_labels(tmp_path / "labels", many())
    for name, more in {"a": {}, "b": {"round": 2}, "c": {"seed": 1}, "d": {}}.items():
        select(tmp_path, name, labels=labels, budget=60, audit=0.5, **more)
    asked = {name: questions(tmp_path, name).keys() for name in "abcd"}
    assert asked["a"] == asked["d"]
    assert len({frozenset(ids) for ids in asked.values()}) == 3


def test_all_finished_is_no_error_and_gives_an_empty_table(tmp_path, caplog):
    given = given_votes(tmp_path)
    rows = {4: {**ROWS[4], "votes": 3}}
    labels = write_labels(tmp_path / "done", rows, files=1, posterior=True)
    with caplog.at_level(logging.INFO, "coyo_labeler"):
        manifest = select(tmp_path, labels=labels, votes=given["votes"])
    assert manifest.rows.rows_out == 0
    assert pq.read_table(tmp_path / "out" / "questions").num_rows == 0
    assert "nothing left to ask about: all 1 images are finished (1 have max_votes)" in caplog.text


def test_a_killed_run_is_done_again(tmp_path, monkeypatch):
    labels = write_labels(tmp_path / "labels", many())

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stages, "finish_files", killed)
        with pytest.raises(KeyboardInterrupt):
            select(tmp_path, labels=labels, budget=50)
    assert (tmp_path / "out" / "_state").exists()
    select(tmp_path, labels=labels, budget=50)
    select(tmp_path, "whole", labels=labels, budget=50)
    assert questions(tmp_path) == questions(tmp_path, "whole")
    assert not (tmp_path / "out" / "_state").exists()


BAD = {
    "budget of nothing": ({"budget": 0}, r"budget: 0 is wrong; it must be greater than or"),
    "budget below nothing": ({"budget": -5}, r"budget: -5 is wrong"),
    "overlap above votes": ({"overlap": 4}, r"4 answers per question are more than max_votes=3"),
    "workers for nothing": ({"workers": "w.csv"}, r"workers: nobody is assigned; give assign="),
    "no workers": ({"assign": "random"}, r"nobody knows who can be asked; give workers=PATH"),
    "shares": ({"audit": 0.9, "gold_share": 0.2, "gold": "g"}, r"together they are more than all"),
    "unknown strategy": ({"strategy": "best"}, r"strategy: 'best' is wrong"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_settings_that_do_not_fit_are_refused_in_one_line(tmp_path, case):
    settings, message = BAD[case]
    labels = write_labels(tmp_path / "labels", ROWS)
    with pytest.raises(InputError, match=message) as raised:
        select(tmp_path, labels=labels, **settings)
    assert "\n" not in str(raised.value)


def test_labels_that_cannot_be_used_are_named(tmp_path):
    def refused(table, message, **settings):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
        pq.write_table(pa.table(table), path)
        with pytest.raises(InputError, match=message) as raised:
            select(tmp_path, output=f"out-{path.stem}", labels=path, **settings)
        left = [each for each in tmp_path.joinpath(f"out-{path.stem}").rglob("*") if each.is_file()]
        assert {each.name for each in left} <= {"_run.json"}  # so that other settings are taken
        assert path.name in str(raised.value) or "two rows" in str(raised.value)

    lists = {"labels": [[0], [1]], "label_probs": [[0.5], [0.25]]}
    refused(lists, "has no column 'id'")
    refused({"id": [1, None], **lists}, "has a row without an id; drop it")
    refused({"id": [1, 2], "labels": [[0], [1]]}, "has no column 'label_probs'")
    refused({"id": [1, 2], **lists, "risk": [0.5, float("nan")]}, "id 2 has the risk nan")
    refused({"id": [1, 2], **lists, "risk": [0.5, None]}, "id 2 has the risk nan")
    refused(
        {"id": [1, 2], **lists | {"label_probs": [[0.5], [1.5]]}}, "id 2 has the probability 1.5"
    )
    refused(
        {"id": [1, 2], **lists | {"labels": [[0], [99]]}}, "id 2 has the label 99, which is out"
    )
    refused({"id": [1, 2], **lists | {"labels": [[0], [1, 2]]}}, "2 labels but 1 prob", budget=2)
    refused({"id": [7, 7], **lists}, "id 7 has two rows; drop one")
    with pytest.raises(InputError, match=r"nothing at .*missing; give an existing file"):
        select(tmp_path, labels=tmp_path / "missing")
    empty = tmp_path / "empty.parquet"
    pq.write_table(schemas.BELIEFS.empty_table(), empty)
    assert select(tmp_path, "no rows", labels=empty).rows.rows_out == 0


def test_a_setting_is_corrected_where_the_first_try_was_refused(tmp_path):
    labels = write_labels(tmp_path / "labels", ROWS)
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match="outside label_space"):
        select(tmp_path, labels=labels, label_space=tmp_path / "two.txt")
    (tmp_path / "six.txt").write_text("a\nb\nc\nd\ne\nf\n")
    select(tmp_path, labels=labels, label_space=tmp_path / "six.txt", budget=9)
    assert questions(tmp_path).keys() == ROWS.keys()


def test_minimal_labels_are_enough(tmp_path):
    """Three columns: neither URLs nor hashes nor risk."""
    table = {"id": [1, 2], "labels": [[0], [1]], "label_probs": [[0.5], [0.25]]}
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    manifest = select(tmp_path, labels=tmp_path / "labels.parquet", budget=1, audit=0)
    assert questions(tmp_path)[2]["risk"] == pytest.approx(0.75)
    assert "1 question without URL and key" in " ".join(manifest.details["summary"])
