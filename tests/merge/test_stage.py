"""The stage on Spark, on rows that can be checked by eye."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.merge import prepare as preparation
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.merge.kills import kill_once
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
    given = {"label_space": labels_file(tmp_path), "output": str(tmp_path / output)}
    given |= {"worker_model": "confusion", "class_prior": "estimated", **settings}
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


def test_beliefs_of_other_origin_may_have_ids_and_lists_alone(tmp_path, inputs):
    merge(None, tmp_path, "whole", engine="local", **inputs)
    for file in (tmp_path / "beliefs").glob("*.parquet"):
        pq.write_table(pq.read_table(file, columns=["label_probs", "id", "labels"]), file)
    merge(None, tmp_path, "bare", engine="local", **inputs)
    whole, bare = (pq.read_table(tmp_path / name / "posterior") for name in ("whole", "bare"))
    assert bare.schema.equals(whole.schema)
    assert [bare[name].null_count for name in schemas.CARRIED] == [len(whole)] * 4
    assert bare.drop(schemas.CARRIED).equals(whole.drop(schemas.CARRIED))
    pq.write_table(pa.table({"id": [1]}), tmp_path / "beliefs" / "00001.parquet")
    with pytest.raises(InputError, match="no column 'labels' or 'label_probs' "):
        merge(None, tmp_path, "out", engine="local", **inputs)


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


@pytest.mark.parametrize(("mass", "listed"), [(1, [1, 0, 2]), (0.85, [1, 0])])
def test_the_far_tail_of_a_belief_is_lumped_and_the_others_stay_as_they_were(
    tmp_path, mass, listed
):
    (tmp_path / "five.txt").write_text("a\nb\nc\nd\ne")
    beliefs = write_beliefs(tmp_path / "beliefs", {1: {0: 0.6, 1: 0.3, 2: 0.08}}, files=1)
    votes = write_votes(tmp_path / "votes.csv", [(1, "ann", 1)])
    merge(
        None, tmp_path, beliefs=beliefs, votes=votes, calibration="none", pooling="none",
        prior_strength="1e12", support_mass=mass, label_space=tmp_path / "five.txt",
    )  # fmt: skip
    joint = np.array([0.6 * 0.05, 0.3 * 0.8, 0.08 * 0.05])
    row = posterior(tmp_path / "out")[1]
    assert row["labels"] == listed
    expected = joint[listed] / (joint.sum() + 0.02 * 0.05)
    assert row["label_probs"] == pytest.approx(expected, rel=1e-5)


def test_the_accuracy_expected_of_workers_can_be_that_on_gold(tmp_path, inputs):
    gold = pa.table({"image_id": [1, 9], "label": [0, 0]}, schema=schemas.GOLD)
    pq.write_table(gold, tmp_path / "gold.parquet")
    given = inputs | {"gold": tmp_path / "gold.parquet", "prior_accuracy": "gold"}
    # Of four votes on gold images two are right, and one of each is added.
    assert merge(None, tmp_path, **given).details["prior_accuracy"] == 3 / 6
    given["votes"] = write_votes(tmp_path / "votes.csv", [*VOTES, (9, "dee", 0), (9, "eve", 0)])
    manifest = merge(None, tmp_path, "more", **given)
    assert manifest.details["prior_accuracy"] == 5 / 8
    # A worker who is not known is expected to be right as often, with alpha votes of weight.
    given |= {"pooling": "none", "worker_model": "one_coin"}
    merge(None, tmp_path, "alone", **given)
    workers = {
        row["worker_id"]: row["accuracy"] for row in read_rows(tmp_path / "alone", "workers")
    }
    assert workers["dee"] == pytest.approx((10 * 5 / 8 + 1) / 11)


def test_perfect_workers_give_the_vote(spark, tmp_path, inputs):
    merge(spark, tmp_path, worker_model="perfect", **inputs)
    rows = posterior(tmp_path / "out")
    assert [rows[image]["labels"][0] for image in (1, 2, 9)] == [1, 2, 0]
    assert [rows[image]["label_probs"][0] for image in (1, 2, 9)] == [1.0, 1.0, 1.0]


def test_a_bad_vote_stops_the_run_and_names_file_row_and_remedy(spark, tmp_path, inputs):
    inputs["votes"] = write_votes(tmp_path / "votes.csv", [*VOTES, (1, "dee", 7), (2, "dee", 8)])
    with pytest.raises(InputError) as caught:
        merge(spark, tmp_path, **inputs)
    assert str(caught.value) == (
        "votes: row 7 of votes.csv: label 7 is outside labels.txt (0..2); drop the row, set "
        "label_space, or set on_bad_vote=reject to set such rows aside"
    )


def test_of_many_bad_votes_the_first_is_named_though_many_tasks_read_them(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "ROWS_PER_SPLIT", 2)
    label = pa.array([0, 1, 2, 7, 8, 0, 1, 0, 9, 0], pa.int32())
    votes = pa.table({"image_id": range(10), "worker_id": ["ann"] * 10, "label": label})
    pq.write_table(votes, tmp_path / "votes.parquet", row_group_size=2)
    with pytest.raises(InputError, match=r"row 4 of votes\.parquet: label 7 is outside"):
        merge(None, tmp_path, votes=tmp_path / "votes.parquet", partitions=2)
    given = {"votes": tmp_path / "votes.parquet", "partitions": 2, "on_bad_vote": "reject"}
    assert merge(None, tmp_path, **given).tables["votes"].rejected == {"label_outside": 3}


def test_bad_and_superseded_votes_are_rejected_with_reasons_and_counted(spark, tmp_path, inputs):
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


def belief_rows(ids, labels, probabilities):
    n = len(ids)
    columns = {"id": ids, "url": [""] * n, "imagehash": [""] * n, "labels": labels}
    columns |= {"label_probs": probabilities, "width": [1] * n, "height": [1] * n}
    return pa.table(columns, schema=schemas.BELIEFS)


@pytest.mark.parametrize(
    ("ids", "labels", "probabilities", "message"),
    [
        ([1, 7], [[0], [99, 0]], [[0.7], [0.6, 0.2]], "id 7 has the label 99, which is outside"),
        ([1, 7], [[0], [1, 2]], [[0.7], [np.nan, 0.4]], "id 7 has the probability nan"),
        ([1, 7], [[0], [0]], [[0.7], [7.5]], "id 7 has the probability 7.5"),
        ([1, 7, 8], [[0], [0, 1], [2]], [[0.7], [0.9], [0.8, 0.1]], "id 7 has 2 labels but 1 p"),
        ([1, 7], [[0], [0]], [[0.7], None], "id 7 has 1 labels but 0 probabilities"),
        ([1, 7], [[0], [0, None]], [[0.7], [0.3, 0.2]], "id 7 has a list with a null"),
        ([1, 8, 7], [[0], [2], [1, 1]], [[0.7], [0.1], [0.3, 0.2]], "id 7 has a class twice"),
        ([7, 1, 7], [[0], [0], [1]], [[0.7], [0.7], [0.9]], "id 7 has two rows"),
    ],
)
def test_a_belief_of_an_image_without_votes_is_checked_before_em(
    tmp_path, ids, labels, probabilities, message
):
    pq.write_table(belief_rows(ids, labels, probabilities), tmp_path / "beliefs.parquet")
    votes = write_votes(tmp_path / "votes.csv", [(1, "ann", 0)])
    with pytest.raises(InputError, match=message):
        merge(None, tmp_path, beliefs=tmp_path / "beliefs.parquet", votes=votes)
    assert not (tmp_path / "out" / "posterior").exists()


def test_an_image_without_any_class_is_no_fault(tmp_path):
    rows = belief_rows([1, 7, 8], [[0], [], None], [[0.7], [], None])
    pq.write_table(rows, tmp_path / "beliefs.parquet")
    votes = write_votes(tmp_path / "votes.csv", [(1, "ann", 0)])
    merge(None, tmp_path, beliefs=tmp_path / "beliefs.parquet", votes=votes)
    classes = {image: row["labels"] for image, row in posterior(tmp_path / "out").items()}
    assert classes == {1: [0], 7: [], 8: []}


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


@pytest.mark.parametrize("way", [32, 0], ids=["broadcast", "sharded"])
def test_a_killed_run_resumes_after_its_last_finished_iteration(
    spark, tmp_path, inputs, monkeypatch, way
):
    settings = {"tolerance": 0, "max_iterations": 6, "max_broadcast_mb": way, **inputs}
    merge(spark, tmp_path, "whole", **settings)
    saved = kill_once(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        merge(spark, tmp_path, "killed", **settings)
    merge(spark, tmp_path, "killed", **settings)
    assert saved == [0, 1, 2, 3, 4, 5, 6]
    assert_same_tables(tmp_path / "killed", tmp_path / "whole")
    assert not (tmp_path / "killed" / "_state").exists()


def test_every_label_that_a_worker_gives_an_image_counts_where_it_may_have_many(tmp_path):
    """A choice is a yes to its own class: ann's 0 and 2 both count, her yes to 2 is a duplicate."""
    rows = [(1, "ann", 0, ""), (1, "ann", 2, ""), (1, "ann", 2, "yes"), (1, "bob", 0, "")]
    path = tmp_path / "votes.csv"
    lines = [",".join(map(str, row)) for row in [*rows, (1, "bob", 2, "")]]
    path.write_text("\n".join(["image_id,worker_id,label,response", *lines]))
    manifest = merge(None, tmp_path, votes=path, truth="multi")
    assert manifest.tables["votes"].to_json() == {
        "in": 5,
        "out": 4,
        "rejected": {"duplicate": 1},
    }
    (reject,) = read_rows(tmp_path / "out", "rejects")
    assert (reject["row"], reject["response"]) == (2, None)
    row = posterior(tmp_path / "out")[1]
    assert sorted(row["labels"]) == [0, 2]
    assert row["label_probs"][0] == row["label_probs"][1]
    assert row["n_votes"] == 4
