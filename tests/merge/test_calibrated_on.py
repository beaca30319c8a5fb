"""What calibration is fitted on."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import DawidSkene
from coyo_labeler.em import model_choice
from tests.em.test_calibration_on_gold import doubtful
from tests.em.test_class_bias import world
from tests.merge.tables import assert_same_tables, posterior
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


def test_biases_of_classes_reach_images_without_votes_however_the_work_is_done(
    spark, tmp_path, monkeypatch
):
    """In threads and on Spark, with skills that go to every task and with skills in shards."""
    monkeypatch.setattr(model_choice, "_HELD_OUT", 240)  # three tenths: faster
    inputs, _, rest, truth = world(shift=1.0, votes=800, images=2_000)
    asked = inputs.beliefs.image
    p = np.concatenate([inputs.beliefs.probability.reshape(-1, 6), rest])
    ids = [*asked.tolist(), *range(10_000, 10_000 + len(rest))]
    names = tmp_path / "six.txt"
    names.write_text("".join(f"class {c}\n" for c in range(6)))
    columns = {
        "image_id": inputs.votes.image,
        "worker_id": [f"w{worker}" for worker in inputs.votes.worker],
        "label": inputs.votes.label,
        "inclusion_probability": inputs.inclusion.probability[
            np.searchsorted(inputs.inclusion.image, inputs.votes.image)
        ],
    }
    pq.write_table(pa.table(columns), tmp_path / "votes.parquet")
    given = {
        "beliefs": write_beliefs(
            tmp_path / "beliefs", {i: dict(enumerate(row)) for i, row in zip(ids, p, strict=True)}
        ),
        "votes": tmp_path / "votes.parquet",
        "label_space": names,
        "beliefs_are": "categorical",
        "class_prior": "uniform",
    }
    shards = {"partitions": 2, "max_broadcast_mb": 0, "max_iterations": 2}
    for worker_model, session, more in (
        ("one_coin", None, {"partitions": 1, "max_iterations": 8}),
        ("one_coin", spark, {"partitions": 2, "max_iterations": 8}),
        ("pooled", None, {"partitions": 1, "max_iterations": 2}),
        ("pooled", spark, shards),
    ):
        name = f"{worker_model} {'here' if session is None else 'spark'}"
        manifest = merge(session, tmp_path, name, worker_model=worker_model, **more, **given)
        assert ("shards" in manifest.details["skills"]) == (more == shards)
        assert manifest.details["model_choice"]["calibration"]["chosen"] == "class_bias"
        assert len(manifest.details["calibration"]["class_bias"]) == 6
        assert_same_tables(tmp_path / f"{worker_model} here", tmp_path / name)
    rows = posterior(tmp_path / "one_coin here")
    labelled = np.array([rows[i]["labels"][0] for i in range(10_000, 10_000 + len(rest))])
    assert (labelled == truth).mean() > (rest.argmax(axis=1) == truth).mean() + 0.02
