"""The stage on Spark, on rows that can be checked by eye."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import schemas
from coyo_labeler.errors import InputError
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.merge.tables import assert_same_tables, posterior, read_rows

BELIEFS = {
    1: {0: 0.7, 1: 0.2},
    2: {1: 0.6, 2: 0.5},
    3: {2: 0.9},
    4: {0: 0.4, 1: 0.35, 2: 0.3},
}
VOTES = [(1, "ann", 1), (1, "bob", 1), (2, "ann", 2), (2, "cid", 2), (9, "bob", 0), (9, "cid", 0)]


def write_beliefs(folder, beliefs=BELIEFS, files=2):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        ids = [image for i, image in enumerate(beliefs) if i % files == number]
        table = pa.table(
            {
                "id": ids,
                "url": [f"http://x/{image}" for image in ids],
                "imagehash": ["0" * 16] * len(ids),
                "labels": [list(beliefs[image]) for image in ids],
                "label_probs": [list(beliefs[image].values()) for image in ids],
                "width": [640] * len(ids),
                "height": [480] * len(ids),
            },
            schema=schemas.BELIEFS,
        )
        pq.write_table(table, folder / f"{number:05d}.parquet")
    (folder / "failures").mkdir(exist_ok=True)
    return str(folder)


def write_votes(path, votes=VOTES):
    lines = ["image_id,worker_id,label", *(",".join(map(str, vote)) for vote in votes)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def labels_file(tmp_path, classes=3):
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(f"class {c}" for c in range(classes)))
    return str(path)


def merge(spark, tmp_path, output="out", **settings):
    given = {"label_space": labels_file(tmp_path), "output": str(tmp_path / output), **settings}
    overrides = [f"{key}={value}" for key, value in given.items()]
    return run_stage(STAGES["merge"], read_stage_settings(STAGES["merge"], overrides), spark)[0]


@pytest.fixture
def inputs(tmp_path):
    return {
        "beliefs": write_beliefs(tmp_path / "beliefs"),
        "votes": write_votes(tmp_path / "votes.csv"),
    }


def test_every_image_of_the_beliefs_or_votes_has_one_posterior_row(spark, tmp_path, inputs):
    manifest = merge(spark, tmp_path, **inputs)
    rows = posterior(tmp_path / "out")
    assert sorted(rows) == [1, 2, 3, 4, 9]
    assert (manifest.rows.rows_in, manifest.rows.rows_out) == (5, 5)
    assert manifest.tables["votes"].to_json() == {"in": 6, "out": 6, "rejected": {}}
    assert [rows[image]["n_votes"] for image in (1, 2, 3, 4, 9)] == [2, 2, 0, 0, 2]
    assert rows[1]["url"] == "http://x/1"
    assert rows[9]["url"] is None
    for row in rows.values():
        assert sorted(row["label_probs"], reverse=True) == row["label_probs"]
        assert row["risk"] == pytest.approx(1 - row["label_probs"][0], abs=1e-6)
    assert rows[1]["labels"][0] == 1  # two votes against the machine
    assert rows[9]["labels"][0] == 0  # votes alone


def test_the_tables_have_the_agreed_schemas(spark, tmp_path, inputs):
    merge(spark, tmp_path, **inputs)
    for name, schema in {
        "posterior": schemas.POSTERIOR,
        "workers": schemas.WORKERS,
        "confusions": schemas.CONFUSIONS,
        "rejects": schemas.VOTES_REJECTS,
    }.items():
        files = list((tmp_path / "out" / name).glob("*.parquet"))
        assert files
        for path in files:
            assert pq.read_schema(path).names == schema.names
            assert pq.read_schema(path).types == schema.types
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert {"objective", "change", "seconds"} <= history["iterations"][0].keys()


def test_an_image_without_votes_keeps_its_calibrated_belief(spark, tmp_path, inputs):
    merge(spark, tmp_path, calibration="1,0", **inputs)
    rows = posterior(tmp_path / "out")
    assert rows[3]["label_probs"] == pytest.approx([0.9])
    # Over-full: 1.05 in sum, brought down to 1 − prior_floor.
    shares = np.array([0.4, 0.35, 0.3]) / 1.05
    assert rows[4]["labels"] == [0, 1, 2]
    assert rows[4]["label_probs"] == pytest.approx(shares, rel=1e-5)


def test_one_vote_against_a_belief_is_bayes_rule(spark, tmp_path):
    """A worker who is right in 8 of 10, whatever he did before: prior_strength is immense."""
    beliefs = write_beliefs(tmp_path / "beliefs", {1: {0: 0.6, 1: 0.3}}, files=1)
    votes = write_votes(tmp_path / "votes.csv", [(1, "ann", 1)])
    merge(
        spark, tmp_path, beliefs=beliefs, votes=votes, calibration="none", pooling="none",
        prior_strength="1e12", prior_accuracy="0.8",
    )  # fmt: skip
    joint = np.array([0.6 * 0.1, 0.3 * 0.8, 0.1 * 0.1])  # class 2: what the belief left over
    row = posterior(tmp_path / "out")[1]
    assert row["labels"] == [1, 0]
    shares = joint[[1, 0, 2]] / joint.sum()
    assert row["label_probs"] == pytest.approx(shares[:2], rel=1e-6)
    assert row["risk"] == pytest.approx(1 - shares[0], rel=1e-6)
    assert row["entropy"] == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-6)


@pytest.mark.parametrize("truth", ["single", "multi"])
def test_entropy_is_that_of_all_classes_the_lumped_ones_too(tmp_path, truth):
    """Image 1 has a belief alone, image 2 a vote too, but the worker says nothing new."""
    beliefs = write_beliefs(tmp_path / "beliefs", {1: {0: 0.5, 3: 0.2}, 2: {0: 0.5, 3: 0.2}}, 1)
    (tmp_path / "votes.csv").write_text("image_id,worker_id,label,response\n2,ann,0,unsure\n")
    space = tmp_path / "five.txt"
    space.write_text("a\nb\nc\nd\ne\n")
    merge(
        None, tmp_path, beliefs=beliefs, votes=tmp_path / "votes.csv", label_space=space,
        truth=truth, worker_model="perfect", calibration="none",
    )  # fmt: skip
    # Single: what the belief leaves over, 0.3, lies on three classes. Multi: two questions.
    shares = [0.5, 0.2, 0.1, 0.1, 0.1] if truth == "single" else [0.5, 0.5, 0.2, 0.8]
    expected = -sum(share * np.log(share) for share in shares)
    for row in posterior(tmp_path / "out").values():
        assert row["entropy"] == pytest.approx(expected, rel=1e-6)


def test_hard_stops_when_no_top_class_changes(tmp_path, inputs):
    """The objective still moves then."""
    manifest = merge(None, tmp_path, criterion="hard", tolerance=0, **inputs)
    assert manifest.details["stopped"] == "no top class changed"
    assert manifest.details["iterations"] < 10
    merge(None, tmp_path, "long", tolerance=0, **inputs)
    for image, row in posterior(tmp_path / "long").items():
        assert posterior(tmp_path / "out")[image]["labels"][0] == row["labels"][0]


def test_start_skills_begins_with_workers_as_the_prior_has_them(tmp_path):
    """Bayes' rule by hand is the first objective, however few votes the prior is worth."""
    beliefs = write_beliefs(tmp_path / "beliefs", {1: {0: 0.6, 1: 0.3}}, files=1)
    votes = write_votes(tmp_path / "votes.csv", [(1, "ann", 1)])
    given = {"beliefs": beliefs, "votes": votes, "calibration": "none", "prior_strength": 0.1}
    manifest = merge(None, tmp_path, start="skills", max_iterations=1, **given)
    evidence = 0.6 * 0.1 + 0.3 * 0.8 + 0.1 * 0.1
    assert manifest.details["objective"] == pytest.approx(np.log(evidence), rel=1e-7)
    other = merge(None, tmp_path, "other", start="labels", max_iterations=1, **given)
    assert other.details["objective"] != pytest.approx(np.log(evidence), rel=1e-3)


def test_perfect_workers_give_the_vote(spark, tmp_path, inputs):
    merge(spark, tmp_path, worker_model="perfect", **inputs)
    rows = posterior(tmp_path / "out")
    assert [rows[image]["labels"][0] for image in (1, 2, 9)] == [1, 2, 0]
    assert [rows[image]["label_probs"][0] for image in (1, 2, 9)] == [1.0, 1.0, 1.0]


def test_a_bad_vote_stops_the_run_and_names_file_row_and_mend(spark, tmp_path, inputs):
    inputs["votes"] = write_votes(tmp_path / "votes.csv", [*VOTES, (1, "dee", 7), (2, "dee", 8)])
    with pytest.raises(InputError) as caught:
        merge(spark, tmp_path, **inputs)
    assert str(caught.value) == (
        "votes: row 7 of votes.csv: label 7 is outside labels.txt (0..2); drop the row, set "
        "label_space, or set on_bad_vote=reject to set such rows aside"
    )


def test_bad_and_superseded_votes_are_set_aside_with_reasons_and_counted(spark, tmp_path, inputs):
    bad = [*VOTES, (1, "dee", 7), ("", "dee", 1), (1, "ann", 1)]
    inputs["votes"] = write_votes(tmp_path / "votes.csv", bad)
    manifest = merge(spark, tmp_path, on_bad_vote="reject", **inputs)
    assert manifest.tables["votes"].to_json() == {
        "in": 9,
        "out": 6,
        "rejected": {"duplicate": 1, "label_outside": 1, "missing_image": 1},
    }
    rejects = {row["row"]: row["reason"] for row in read_rows(tmp_path / "out", "rejects")}
    assert rejects == {1: "duplicate", 7: "label_outside", 8: "missing_image"}


def test_the_same_worker_twice_stops_the_run_where_asked(spark, tmp_path, inputs):
    inputs["votes"] = write_votes(tmp_path / "votes.csv", [*VOTES, (1, "ann", 0)])
    with pytest.raises(Exception, match=r"worker ann voted twice on image 1 \(row 1 and row 7\)"):
        merge(spark, tmp_path, duplicate_votes="error", **inputs)


def test_gold_is_taken_as_given(spark, tmp_path, inputs):
    pq.write_table(
        pa.table({"image_id": [1, 3], "label": [0, 1]}, schema=schemas.GOLD),
        tmp_path / "gold.parquet",
    )
    merge(spark, tmp_path, gold=tmp_path / "gold.parquet", **inputs)
    rows = posterior(tmp_path / "out")
    assert (rows[1]["labels"][0], rows[1]["label_probs"][0]) == (0, 1.0)
    assert (rows[3]["labels"][0], rows[3]["label_probs"][0]) == (1, 1.0)


@pytest.mark.parametrize("way", [32, 0], ids=["broadcast", "joined"])
def test_a_killed_run_goes_on_after_its_last_finished_iteration(
    spark, tmp_path, inputs, monkeypatch, way
):
    from coyo_labeler.merge import store  # noqa: PLC0415

    settings = {"tolerance": 0, "max_iterations": 6, "max_broadcast_mb": way, **inputs}
    merge(spark, tmp_path, "whole", **settings)
    save, saved = store.Store.save_state, []

    def save_or_die(self, state):
        save(self, state)
        saved.append(len(state.history))
        if len(state.history) == 3 and saved.count(3) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(store.Store, "save_state", save_or_die)
    with pytest.raises(KeyboardInterrupt):
        merge(spark, tmp_path, "killed", **settings)
    merge(spark, tmp_path, "killed", **settings)
    assert saved == [0, 1, 2, 3, 4, 5, 6]
    assert_same_tables(tmp_path / "killed", tmp_path / "whole")
    assert not (tmp_path / "killed" / "_state").exists()
