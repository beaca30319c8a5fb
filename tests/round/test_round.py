"""The loop, step by step: real merge and select, and an annotation tool that answers at once."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import cli, storage
from coyo_labeler.audit.stop import answer_gain
from coyo_labeler.config.read import read_settings
from coyo_labeler.config.round import RoundSettings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.formats import schemas
from coyo_labeler.inputs import MANIFEST
from coyo_labeler.manifest import Counts, Manifest
from coyo_labeler.round import lock
from coyo_labeler.round import run as runs
from coyo_labeler.round.gain import mean_gain, verification_gain
from coyo_labeler.round.lock import locked
from coyo_labeler.round.run import run_round
from coyo_labeler.round.steps import run_words
from tests.select.tables import write_labels

CLASSES = 6


def truth(image):
    return image % CLASSES


def rows(n=120):
    """The machine is right about two images of three, and knows which it is less sure of."""
    table = {}
    for image in range(n):
        said = truth(image) if image % 3 else (image + 1) % CLASSES
        top = 0.9 - 0.004 * (image % 90)
        table[image] = {"probs": {said: top, (said + 2) % CLASSES: 0.5 * (1 - top)}}
    return table


class Tool:
    """Stands for send, collect, report and learn; everything else is the real stage.

    share: of the questions, those that are answered. lost: questions that cannot be sent. calls:
    the stages that were run.
    """

    def __init__(self, share=1.0, low=0.0, lost=0):
        self.share, self.low, self.calls, self.words, self.fail = share, low, [], {}, ""
        self.lost = lost

    def __call__(self, name, words):
        given = dict(word.split("=", 1) for word in words)
        self.calls.append(f"{name} {'/'.join(given['output'].split('/')[-2:])}")
        self.words[name] = given
        if name == self.fail:
            raise WorkError(f"{name}: killed")
        if name in ("merge", "select"):
            return run_words(name, [*words, "engine=local"])
        return getattr(self, name)(given), True

    def send(self, given):
        n = pq.read_table(given["questions"] + "/questions").num_rows
        return finish("send", given["output"], n, n - self.lost)

    def collect(self, given):
        asked = pq.read_table(given["questions"] + "/questions").to_pylist()
        answered = asked[: round(self.share * len(asked))]
        votes = [
            {**row, "worker_id": "ann", "label": truth(row["image_id"]), "response": None}
            for row in answered
        ]
        table = pa.Table.from_pylist(votes, schema=schemas.COLLECTED_VOTES)
        storage.write_parquet(given["output"] + "/votes/part-00000.parquet", table)
        return finish("collect", given["output"], len(asked), len(votes))

    def report(self, given):
        audit = {"accuracy": self.low + 0.02, "low": self.low, "high": 0.99, "answers": 12}
        storage.write_json(given["output"] + "/report.json", {"audit": {"labels": audit}})
        return finish("report", given["output"], 1, 1)

    def learn(self, given):
        source = Path(given["beliefs"])
        for file in source.glob("*.parquet"):
            storage.write_bytes(f"{given['output']}/{file.name}", file.read_bytes())
        return finish("learn", given["output"], 1, 1)


def finish(stage, output, rows_in, rows_out):
    left = {"left": rows_in - rows_out}
    finished = "2026-01-01T00:00:00+00:00"
    counts = Counts(rows_in, rows_out, left)
    manifest = Manifest(stage, "0", "f", finished, 1.0, counts, {}, {}, {}, {})
    storage.write_json(storage.join(output, MANIFEST), manifest.to_json())
    return manifest


@pytest.fixture
def step(tmp_path):
    """Does a step of the loop; returns its sentence."""
    (tmp_path / "space.txt").write_text("\n".join(f"class {c}" for c in range(CLASSES)))
    beliefs = write_labels(tmp_path / "beliefs", rows())

    def run(tool, **settings):
        given = {"rounds": tmp_path / "rounds", "beliefs": beliefs, "send.to": "label_studio"}
        given |= {"label_space": tmp_path / "space.txt", "select.budget": 20, "select.audit": 0.25}
        words = [f"{key}={value}" for key, value in {**given, **settings}.items()]
        return run_round(read_settings(RoundSettings, "round", None, words), tool)

    return run


def test_the_loop_asks_collects_and_merges(step, tmp_path):
    tool = Tool()
    assert step(tool) == "round 1: sent 20 questions for 20 answers to label_studio"
    assert tool.calls == ["select 001/questions", "send 001/sent"]
    tool.calls.clear()
    assert step(tool) == "round 1 has 20 of 20 answers; the next run begins round 2"
    assert tool.calls == ["collect 001/collected"]
    tool.calls.clear()
    assert step(tool) == (
        "round 2: merged 20 answers and sent 20 questions for 20 answers to label_studio"
    )
    assert tool.calls == ["merge 002/merged", "select 002/questions", "send 002/sent"]
    first, second = (
        pq.read_table(tmp_path / "rounds" / number / "questions/questions").to_pylist()
        for number in ("001", "002")
    )
    before = {row["image_id"] for row in first}
    again = {row["purpose"] for row in second if row["image_id"] in before}
    assert again <= {"repeat"}
    posterior = pq.read_table(tmp_path / "rounds/002/merged/posterior")
    assert sum(posterior["n_votes"].to_pylist()) == 20
    asked = pq.read_table(tmp_path / "rounds/002/questions/questions")
    assert {name[:2] for name in asked["question_id"].to_pylist()} == {"2:"}


def test_other_settings_within_a_round_are_refused_with_the_key_to_give(step):
    tool = Tool()
    tool.fail = "send"
    with pytest.raises(WorkError):
        step(tool)
    tool.fail = ""
    with pytest.raises(
        InputError, match=r"strategy was 'risk', .*with select\.overwrite=true"
    ) as e:
        step(tool, **{"select.strategy": "random"})
    assert "choose another output" not in str(e.value)
    assert "sent 20" in step(tool, **{"select.strategy": "random", "select.overwrite": "true"})


def test_a_round_waits_for_enough_answers_or_until_its_hours_are_over(step):
    tool = Tool(share=0.5)
    step(tool)
    assert step(tool) == "round 1 has 10 of 20 answers so far and waits for more"
    assert step(tool) == "round 1 has 10 of 20 answers so far and waits for more"
    assert step(tool, enough=0.5).startswith("round 2: merged")
    late = Tool(share=0.25)
    assert step(late, max_hours=1).startswith("round 3: merged 15 answers and sent 20 questions")
    assert late.calls[0] == "collect 002/collected"  # what came since the last look is not lost


def test_a_round_that_nobody_answers_does_not_end(step):
    tool = Tool(share=0.0)
    step(tool)
    for _ in range(2):
        assert step(tool, max_hours=1) == "round 1 has 0 of 20 answers so far and waits for more"


def test_questions_that_cannot_be_sent_do_not_count(step, tmp_path):
    tool = Tool(lost=4)
    overlap = {"select.overlap": 2, "select.budget": 40}
    sentence = step(tool, **overlap)
    assert sentence == "round 1: sent 16 questions for 32 answers to label_studio; not sent: left 4"
    assert step(tool, **overlap).startswith("round 1 has 20 of 32 answers so far")
    tool = Tool(lost=20)
    for _ in range(2):
        with pytest.raises(InputError, match=r"none of the 20 questions .* \(left 20\)"):
            step(tool, rounds=tmp_path / "others")


def test_answers_in_files_are_waited_for(step, tmp_path):
    tool = Tool()
    source = f"{tmp_path}/answers-{{round}}.csv"
    step(tool, source=source, **{"send.to": "csv"})
    assert step(tool, **{"send.to": "csv"}).endswith("say where they will be with source=PATH")
    assert step(tool, source=source).endswith(f"there is nothing at {tmp_path}/answers-001.csv yet")
    (tmp_path / "answers-001.csv").write_text("")
    step(tool, source=source)
    assert tool.words["collect"]["source"] == f"{tmp_path}/answers-001.csv"


@pytest.mark.parametrize("stage", ["select", "send", "collect", "merge"])
def test_a_step_that_was_killed_is_gone_on_with(step, stage):
    tool, whole = Tool(), []
    for _ in range(5):
        tool.fail = stage if stage not in {call.split()[0] for call in whole} else ""
        before = len(tool.calls)
        try:
            step(tool)
        except WorkError:
            tool.fail = ""
            step(tool)
        whole += tool.calls[before:]
    finished = [call for call in whole if call.startswith(("send", "collect"))]
    if stage in ("send", "collect"):
        finished.remove(finished[[call.split()[0] for call in finished].index(stage)])
    assert finished == [
        "send 001/sent", "collect 001/collected", "send 002/sent", "collect 002/collected",
        "send 003/sent",
    ]  # fmt: skip


def test_it_stops_when_the_accuracy_is_reached(step):
    tool = Tool(low=0.91)
    step(tool)
    step(tool)
    sentence = step(tool, wanted_accuracy=0.9)
    assert sentence.startswith(
        "stopped: the labels' accuracy is 0.930 (95 % interval 0.910 to 0.990, from 12 answers), "
        "above the 0.9 wanted; the labels are in "
    )
    assert sentence.endswith("/rounds/002/merged")
    assert "send 002/sent" not in tool.calls
    assert step(tool, wanted_accuracy=0.9) == sentence
    tool.low = 0.9  # the interval touches it: not above
    (Path(sentence.split(" are in ")[1]).parent / "report" / "report.json").unlink()
    assert step(tool, wanted_accuracy=0.95).startswith("round 2: merged")


def test_it_stops_when_the_budget_is_spent_and_never_asks_for_more(step):
    tool = Tool()
    for _ in range(2):
        step(tool, budget=30)
    assert "sent 10 questions for 10 answers" in step(tool, budget=30)
    step(tool, budget=30)
    sentence = step(tool, budget=30)
    assert sentence.startswith("stopped: 30 answers are collected, and the budget is 30; ")
    assert tool.calls[-1] == "merge 003/merged"


def test_it_stops_when_answers_gain_too_little(step):
    tool = Tool()
    assert "sent 20" in step(tool, min_gain=0.0001)
    step(tool)
    assert "is expected to gain 0." in step(tool, min_gain=0.9)
    assert "less than min_gain=0.9; the labels are in" in step(tool, min_gain=0.9)
    assert step(tool, min_gain=0.0).startswith("round 2")


def test_it_stops_when_there_is_nothing_left_to_ask(step):
    tool = Tool()
    for _ in range(2):
        step(tool, **{"select.budget": 500})
    sentence = step(tool, **{"select.budget": 500, "select.repeat_risk": 1})
    assert sentence.startswith("stopped: there is nothing left to ask about: all 120 images are")


def test_with_embeddings_each_round_learns_from_all_votes(step, tmp_path):
    (tmp_path / "embeddings").mkdir()
    tool = Tool()
    for _ in range(3):
        step(tool, embeddings=tmp_path / "embeddings")
    assert tool.calls[3:] == [
        "merge 002/voted", "learn 002/learned", "merge 002/merged", "select 002/questions",
        "send 002/sent",
    ]  # fmt: skip
    assert tool.words["merge"]["beliefs"].endswith("002/learned")
    assert tool.words["merge"]["beliefs_are"] == "categorical"
    assert tool.words["learn"]["labels"].endswith("002/voted")
    assert tool.words["learn"]["votes"] == tool.words["merge"]["votes"]


def test_votes_from_before_the_loop_are_merged_at_once(step, tmp_path):
    folder = tmp_path / "rounds/000/collected/votes"
    folder.mkdir(parents=True)
    (folder / "old.csv").write_text("image_id,worker_id,label\n1,ann,1\n2,ann,2\n")
    tool = Tool()
    assert step(tool).startswith("round 1: sent")
    assert tool.calls[0] == "merge 001/merged"


def test_two_at_once_do_no_harm(step, tmp_path):
    tool = Tool()
    with locked(str(tmp_path / "rounds")) as is_held:
        assert is_held
        assert step(tool).endswith("nothing was done")
    assert tool.calls == []
    assert step(tool).startswith("round 1: sent")


def test_an_object_store_is_locked_by_a_sign_of_life(monkeypatch):
    monkeypatch.setattr(lock, "_SETTLE", 0.0)
    url = "memory://rounds-of-test"
    with locked(url) as first, locked(url) as second:
        assert (first, second) == (True, False)
    with locked(url) as again:
        assert again
    storage.write_json(f"{url}/{lock.LOCK}", {"token": "x", "host": "gone", "time": 0})
    with locked(url) as after_a_death:
        assert after_a_death


BAD = {
    "select.labels=x": r"select.labels: the loop sets it; leave it out",
    "rounds=a*b": r"a\*b has a character of patterns",
    "select.budget=many": r"budget: 'many' is wrong",
    "select.strategi=risk": r"strategi: no such key; did you mean strategy\?",
    "wanted_accuracy=1.5": r"wanted_accuracy: 1.5 is wrong",
}


@pytest.mark.parametrize("word", BAD)
def test_settings_that_do_not_fit_are_refused_in_one_line(step, word):
    key, _, value = word.partition("=")
    with pytest.raises(InputError, match=BAD[word]):
        step(Tool(), **{key: value})


def test_what_has_to_be_given_is_named(tmp_path):
    for words, message in (
        (["send.to=csv"], r"select.budget: missing; give select.budget="),
        (["select.budget=3"], r"send.to: missing"),
    ):
        given = [f"rounds={tmp_path}/r", "beliefs=b", *words]
        with pytest.raises(InputError, match=message):
            run_round(read_settings(RoundSettings, "round", None, given), Tool())


def test_the_command_prints_the_sentence(monkeypatch, capsys, tmp_path):
    def say(settings):
        return f"{settings.select['budget']} {settings.merge['calibration']}"

    monkeypatch.setattr(runs, "run_round", say)
    config = tmp_path / "loop.yaml"
    config.write_text(json.dumps({"rounds": "r", "beliefs": "b", "merge": {"calibration": [1, 0]}}))
    assert cli.main(["round", "--config", str(config), "select.budget=0010"]) == cli.DONE
    assert capsys.readouterr().out == "round: 0010 [1, 0]\n"


def test_the_gain_is_the_rise_of_the_highest_posterior():
    random = np.random.default_rng(0)
    classes, accuracy = 5, 0.7
    lists = [random.dirichlet(np.ones(n)) * 0.95 for n in (1, 2, 3, 5, 4)]
    offsets = np.append(0, np.cumsum([len(p) for p in lists]))
    gains = answer_gain(offsets, np.concatenate(lists), accuracy, classes)
    astray = (1 - accuracy) / (classes - 1)
    for p, gain in zip(lists, gains, strict=True):
        full = np.append(p, np.zeros(classes - len(p)))
        joint = full[:, None] * np.where(np.eye(classes), accuracy, astray)
        assert gain == pytest.approx(joint.max(axis=0).sum() - full.max(), abs=1e-12)
    p = np.array([0.5, 0.9, 0.3])
    expected = [
        max(0.8 * q, 0.2 * (1 - q)) + max(0.2 * q, 0.8 * (1 - q)) - max(q, 1 - q) for q in p
    ]
    assert verification_gain(p, 0.8) == pytest.approx(expected)


def test_the_gain_of_a_question_about_a_node_is_that_of_a_yes_or_no(tmp_path):
    """Its candidates are the classes of the node: nobody chooses among them."""

    def question(kind, probs, purpose="uncertain"):
        return {"kind": kind, "risk": 0.4, "candidate_probs": probs, "purpose": purpose}

    probs = [0.3, 0.2]
    asked = [question("verify", probs), question("verify", [0.7, 0.6]), question("choice", probs)]
    asked += [question("verify", None), question("verify", [0.5], "gold")]
    storage.write_parquet(str(tmp_path / "0.parquet"), pa.Table.from_pylist(asked))
    of_nodes = verification_gain(np.array([0.5, 0.7, 0.6]), 0.8).sum()
    of_choice = answer_gain(np.array([0, 2]), np.array(probs), 0.8, 4)[0]
    wanted = (of_nodes + of_choice) / 4
    assert mean_gain(str(tmp_path), 0.8, 4) == pytest.approx(wanted)
