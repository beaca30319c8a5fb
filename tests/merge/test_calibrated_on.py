"""What calibration is fitted on."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import DawidSkene
from tests.em.test_calibration_on_gold import doubtful
from tests.merge.tables import posterior
from tests.merge.test_stage import merge, write_beliefs, write_votes


def given_gold(tmp_path, count):
    """Beliefs on 30 images, gold on the first `count` of them and on others; one vote."""
    beliefs, true = doubtful(30)
    image = [*range(count), *range(100, 120)]
    label = pa.array([*true[:count], *[0] * 20], pa.int32())
    pq.write_table(pa.table({"image_id": image, "label": label}), tmp_path / "gold.parquet")
    return {
        "beliefs": write_beliefs(tmp_path / "beliefs", beliefs),
        "votes": write_votes(tmp_path / "votes.csv", [(29, "ann", 1)]),
        "gold": tmp_path / "gold.parquet",
        "calibration": "gold",
        "min_calibration_votes": 12,
    }


@pytest.mark.parametrize(("count", "fitted"), [(11, "none"), (12, "gold")])
def test_gold_on_too_few_images_with_a_belief_fits_nothing_and_warns(
    tmp_path, caplog, count, fitted
):
    beliefs = doubtful(30)[0]
    calibration = merge(None, tmp_path, **given_gold(tmp_path, count)).details["calibration"]
    assert calibration["fitted_on"] == fitted
    assert ((calibration["a"], calibration["b"]) == (1.0, 0.0)) == (fitted == "none")
    warned = "11 gold images with a belief are too few" in caplog.text
    row = posterior(tmp_path / "out")[20]
    kept = row["label_probs"] == pytest.approx(list(beliefs[20].values()), rel=1e-6)
    assert warned == kept == (fitted == "none")


@pytest.mark.parametrize(("least", "fitted"), [(13, "none"), (12, "votes")])
def test_only_votes_on_images_with_a_belief_count_for_calibration(tmp_path, caplog, least, fitted):
    beliefs, true = doubtful(12)
    votes = [(image, "ann", label) for image, label in enumerate(true)]
    votes += [(image, "bob", 0) for image in range(500, 600)]
    calibration = merge(
        None, tmp_path, min_calibration_votes=least,
        beliefs=write_beliefs(tmp_path / "beliefs", beliefs),
        votes=write_votes(tmp_path / "votes.csv", votes),
    ).details["calibration"]  # fmt: skip
    assert calibration["fitted_on"] == fitted
    assert ((calibration["a"], calibration["b"]) == (1.0, 0.0)) == (fitted == "none")
    assert ("12 votes with a belief are too few" in caplog.text) == (fitted == "none")


@pytest.mark.parametrize("calibration", ["votes", "gold"])
def test_a_notebook_is_warned_too(caplog, calibration):
    votes = pd.DataFrame({"task": ["t1"], "worker": ["ann"], "label": ["cat"]})
    belief = {"task": ["t1"], "labels": [["cat", "dog"]], "label_probs": [[0.6, 0.2]]}
    gold = pd.DataFrame({"task": ["t1"], "label": ["cat"]})
    model = DawidSkene(calibration=calibration).fit(votes, pd.DataFrame(belief), gold)
    assert model.calibration_ == (1.0, 0.0)
    assert "too few" in caplog.text
