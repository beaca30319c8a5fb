import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import cli, storage
from coyo_labeler.config.demo import DemoSettings
from coyo_labeler.config.read import default_config, read_settings
from coyo_labeler.config.round import RoundSettings
from coyo_labeler.demo import annotators, rounds
from coyo_labeler.demo.annotators import MOST_PER_ROUND, answer, skills, write_answers
from coyo_labeler.formats import schemas
from coyo_labeler.round.run import run_round

IMAGES = 600
TRUTH = {image: image % 10 for image in range(IMAGES)}


def write_beliefs(folder):
    """Beliefs whose risk grows with the image's id; every fourth one misses the class."""
    rows = []
    for image, label in TRUTH.items():
        labels = [(label + offset) % 10 for offset in range(image % 4 == 3, 10)]
        top = 0.99 - 0.6 * image / IMAGES
        probabilities = [top, *np.linspace(0.02, 0.01, len(labels) - 1).tolist()]
        rows.append(
            {
                "id": image,
                "url": f"http://127.0.0.1/{image}.jpg",
                "imagehash": f"{image:016x}",
                "width": 64,
                "height": 64,
                "labels": labels,
                "label_probs": probabilities,
            }
        )
    table = pa.Table.from_pylist(rows, schemas.BELIEFS)
    storage.write_parquet(str(folder / "beliefs/00000.parquet"), table)
    known = [row["id"] for row in rows[:40]]
    gold = pa.table(
        {"image_id": known, "label": [TRUTH[image] for image in known]}, schema=schemas.GOLD
    )
    storage.write_parquet(str(folder / "known/known.parquet"), gold)
    (folder / "source").mkdir()
    (folder / "source/labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))


def ask(folder, stop_before=None):
    """The demo's rounds; the steps that ran. stop_before: a step that fails."""
    ran = []

    def run(name, words):
        assert name == "round"
        if len(ran) == stop_before:
            raise KeyboardInterrupt
        settings = read_settings(RoundSettings, name, default_config(name), words)
        ran.append(run_round(settings))

    rounds.ask(DemoSettings(output=str(folder), seed=3), TRUTH, run)
    return ran


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    write_beliefs(folder)
    with pytest.raises(KeyboardInterrupt):
        ask(folder, stop_before=1)  # round 1 is sent and answered, not collected
    ran = ask(folder)
    assert len(ran) == 3
    return folder


def read_votes(folder):
    return pa.concat_tables(pq.read_table(file) for file in sorted(folder.glob("votes/*.parquet")))


def test_two_rounds_ask_for_035_votes_per_image_of_the_demo(asked):
    votes = read_votes(asked)
    assert votes.schema.names == schemas.COLLECTED_VOTES.names
    found = rounds.counts(str(asked))
    assert sum(each["answers"]["out"] for each in found) == votes.num_rows
    purposes = Counter(votes["purpose"].to_pylist())
    gold = purposes.pop("gold")
    assert 0.9 * 620 < votes.num_rows - gold <= 620
    assert 0.9 * 64 < gold <= 64
    assert purposes.keys() == {"uncertain", "audit", "repeat"}
    assert {each["answers"]["rejected"].keys() == {"skipped"} for each in found} == {True}
    responses = Counter(votes["response"].to_pylist())
    assert responses.keys() == {None, "none", "unsure"}


def test_what_has_been_asked_and_answered_stays(asked):
    files = {file: file.stat().st_mtime_ns for file in asked.rglob("*.*") if file.is_file()}
    assert ask(asked) == []
    assert files == {file: file.stat().st_mtime_ns for file in asked.rglob("*.*") if file.is_file()}


def test_no_annotator_sees_an_image_twice(asked):
    votes = read_votes(asked)
    pairs = zip(votes["image_id"].to_pylist(), votes["worker_id"].to_pylist(), strict=True)
    assert max(Counter(pairs).values()) == 1
    assert set(votes["worker_id"].to_pylist()) == {
        f"label_studio:{annotators.name_of(worker)}" for worker in range(annotators.ANNOTATORS)
    }


def test_merge_takes_the_folder_of_votes(asked, tmp_path, capsys):
    output = tmp_path / "merged"
    words = [f"votes={asked}/votes", f"beliefs={asked}/beliefs", f"output={output}"]
    words += [f"label_space={asked}/source/labels.txt"]
    assert cli.main(["merge", *words]) == cli.DONE, capsys.readouterr().err
    manifest = json.loads((output / "_manifest.json").read_text())
    assert manifest["tables"]["votes"]["in"] == read_votes(asked).num_rows
    assert manifest["tables"]["votes"]["rejected"] == {}


def test_answers_depend_on_the_seed_alone(asked, tmp_path):
    sent = str(asked / "rounds/001/sent")
    same, other = tmp_path / "same.json", tmp_path / "other.json"
    write_answers(sent, str(same), TRUTH, 1, seed=3)
    write_answers(sent, str(other), TRUTH, 1, seed=4)
    assert same.read_bytes() == (asked / "answers/001.json").read_bytes() != other.read_bytes()


def test_each_question_gets_the_answers_that_its_file_asks_for(tmp_path):
    data = {"image_id": "5", "choices": [{"value": "5"}, {"value": "none"}, {"value": "unsure"}]}
    for name in ("tasks-00000.json", "tasks-3x-00000.json"):
        storage.write_bytes(str(tmp_path / f"sent/{name}"), json.dumps([{"data": data}]).encode())
    workers = []
    for number in (1, 2):
        url = tmp_path / f"{number}.json"
        write_answers(str(tmp_path / "sent"), str(url), TRUTH, number, seed=0)
        tasks = json.loads(url.read_text())
        assert [len(task["annotations"]) for task in tasks] == [1, 3]
        workers.append({each["completed_by"] for task in tasks for each in task["annotations"]})
    assert workers[0].isdisjoint(workers[1])
    assert rounds.ROUNDS * MOST_PER_ROUND <= annotators.ANNOTATORS
    assert rounds.OVERLAP <= MOST_PER_ROUND


def test_annotators_are_as_good_as_their_skills():
    random = np.random.default_rng(0)
    offered = [str(digit) for digit in range(10)]
    for accuracy in skills()[[0, -1]]:
        answers = [answer(random, 4, accuracy, offered) for _ in range(4000)]
        kinds = Counter(answers)
        chosen = [each for each in answers if each not in {None, "unsure"}]
        # of some 3,800 draws the mean lies within 0.04 but once in millions
        assert kinds["4"] / len(chosen) == pytest.approx(accuracy, abs=0.04)
        assert kinds[None] / 4000 == pytest.approx(annotators.SKIPPED, abs=0.012)
        assert kinds["unsure"] / 4000 == pytest.approx(annotators.UNSURE, abs=0.015)
        assert kinds["none"] == 0


def test_a_digit_that_is_not_offered_is_none_of_these():
    random = np.random.default_rng(0)
    answers = Counter(answer(random, 4, 0.98, ["1", "2"]) for _ in range(500))
    assert answers["none"] > 430
    assert answers["4"] == 0
