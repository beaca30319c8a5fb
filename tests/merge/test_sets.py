"""Votes about sets of classes through the stage."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.formats import schemas
from tests.merge.tables import assert_same_tables, posterior, read_rows
from tests.merge.test_stage import merge, write_beliefs


def write_collected(folder, rows):
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=schemas.COLLECTED_VOTES)
    pq.write_table(table, folder / "part-00000.parquet")
    (folder.parent / "_manifest.json").write_text('{"stage": "collect"}')
    return str(folder.parent)


def answers(images=12):
    rows = []
    for image in range(1, images + 1):
        given = {"image_id": image, "inclusion_probability": 0.25 if image % 2 else 1.0}
        rows.append({**given, "worker_id": "ann", "label": image % 3})
        rows.append({**given, "worker_id": "bob", "response": "none", "candidates": [0, 1]})
        rows.append({**given, "worker_id": "cid", "response": "unsure", "candidates": [1, 2]})
    return rows


def test_none_of_the_candidates_moves_mass_to_the_others_in_either_truth(tmp_path):
    """By hand: workers of accuracy 0.8 say no to {0, 1} where it is false, 0.1 where it is true."""
    votes = write_collected(
        tmp_path / "in" / "votes",
        [
            {"image_id": 1, "worker_id": "ann", "response": "none", "candidates": [0, 1]},
            {"image_id": 9, "worker_id": "ann", "response": "no", "candidates": [0, 1]},
        ],
    )
    given = {"votes": votes, "pooling": "none", "prior_strength": 1e6, "calibration": "none"}
    given["class_prior"] = "uniform"
    beliefs = write_beliefs(tmp_path / "beliefs", {1: {0: 0.6, 1: 0.3}, 2: {2: 0.9}})
    merge(None, tmp_path, "single", beliefs=beliefs, beliefs_are="categorical", **given)
    rows = posterior(tmp_path / "single")
    by_class = dict(zip(rows[1]["labels"], rows[1]["label_probs"], strict=True))
    total = 0.9 * 0.1 + 0.1 * 0.8
    assert by_class[0] == pytest.approx(0.6 * 0.1 / total, rel=1e-4)
    assert rows[1]["n_votes"] == 1
    # Image 9 has no belief: all three classes were as probable.
    assert sum(rows[9]["label_probs"]) == pytest.approx(2 * 0.1 / (2 * 0.1 + 0.8), rel=1e-3)

    merge(None, tmp_path, "multi", beliefs=beliefs, truth="multi", **given)
    row = posterior(tmp_path / "multi")[1]
    by_class = dict(zip(row["labels"], row["label_probs"], strict=True))
    none = 0.4 * 0.7
    evidence = (1 - none) * 0.1 + none * 0.8
    assert by_class[0] == pytest.approx(0.6 * 0.1 / evidence, rel=1e-4)
    assert by_class[1] == pytest.approx(0.3 * 0.1 / evidence, rel=1e-4)
    assert row["n_votes"] == 1


def test_a_later_answer_about_the_same_set_replaces_the_earlier(tmp_path):
    rows = [
        {"image_id": 1, "worker_id": "ann", "response": "yes", "candidates": [1, 0]},
        {"image_id": 1, "worker_id": "ann", "response": "none", "candidates": [0, 1]},
        {"image_id": 1, "worker_id": "ann", "response": "none", "candidates": [0, 2]},
    ]
    votes = write_collected(tmp_path / "in" / "votes", rows)
    manifest = merge(None, tmp_path, votes=votes)
    assert manifest.tables["votes"].rejected == {"duplicate": 1}
    (reject,) = read_rows(tmp_path / "out", "rejects")
    assert (reject["row"], reject["response"], reject["label"]) == (1, "yes", None)


@pytest.mark.parametrize("truth", ["single", "multi"])
def test_partitions_and_both_engines_give_the_same_tables(spark, tmp_path, truth):
    beliefs = write_beliefs(tmp_path / "beliefs")
    votes = write_collected(tmp_path / "in" / "votes", answers())
    given = {"beliefs": beliefs, "votes": votes, "truth": truth, "min_calibration_votes": 5}
    given["worker_model"] = "auto"
    manifest = merge(None, tmp_path, "one", partitions=1, **given)
    merge(None, tmp_path, "three", partitions=3, **given)
    more = {"engine": "spark", "partitions": 2, "max_broadcast_mb": 0}
    merge(spark, tmp_path, "sharded", **more, **given)
    assert_same_tables(tmp_path / "one", tmp_path / "three")
    assert_same_tables(tmp_path / "one", tmp_path / "sharded")
    details = manifest.details
    assert details["model_choice"]["votes"] == 36
    errors = details["calibration"]["expected_calibration_error"]
    assert errors["unvoted_by_drawn"]["after"] is not None
    assert errors["unvoted_by_gold"]["after"] is None
