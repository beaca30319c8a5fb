"""Whole simulations: what they write, and that each ends well whatever it is given."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from coyo_labeler.config.read import check_settings
from coyo_labeler.config.simulate import OWN_POLICIES, PAPER_POLICIES, SimulateSettings
from coyo_labeler.demo.digits import load
from coyo_labeler.errors import InputError
from coyo_labeler.learn.features import normalise, principal_components
from coyo_labeler.learn.out_of_fold import Recipe, sample_by_class
from coyo_labeler.learn.softmax import one_thread_blas
from coyo_labeler.simulate import methods
from coyo_labeler.simulate.choose import POLICIES
from coyo_labeler.simulate.crowd import Crowd, structured_crowd, uniform_crowd
from coyo_labeler.simulate.curve import Budget, simulate
from coyo_labeler.simulate.inference import SkillPrior
from coyo_labeler.simulate.methods import OwnMethod, PaperMethod
from coyo_labeler.simulate.world import Assignment, World
from coyo_labeler.stages import STAGES, run_stage
from tests.learn.blobs import blobs, write_embeddings

IMAGES, CLASSES = 200, 4


def run(
    policy, *, images=IMAGES, classes=CLASSES, known=8, crowd=None, seed=0, assign=None, **budget
):
    """The rows of one simulation, and why it ended."""
    features, truth = blobs(images, classes, 6)
    crowd = crowd or uniform_crowd(10, classes, 0.8)
    is_known = np.arange(images) < known
    world = World(np.arange(images) * 3, truth, is_known, classes, crowd, 0)
    method = (
        PaperMethod(policy, Recipe(), SkillPrior(200.0, 1e6, 0.7, one_coin=True))
        if policy in PAPER_POLICIES
        else OwnMethod(Recipe(), SkillPrior())
    )
    budget = {"votes": images - known, "rounds": 4} | budget
    with one_thread_blas():
        table, why = simulate(
            policy, world, features, method, assign or Assignment(), Budget(**budget)
        )
    return table.to_pylist(), why, world


def test_the_names_of_policies_are_those_of_the_settings():
    assert POLICIES.keys() == set(OWN_POLICIES)


@pytest.mark.parametrize("policy", OWN_POLICIES + PAPER_POLICIES)
def test_every_policy_spends_its_budget_and_gets_better(policy):
    rows, why, world = run(policy)
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4]
    if why == "the budget is spent":
        assert rows[-1]["votes"] == 192
    else:
        assert policy in PAPER_POLICIES
        assert why.startswith(("every image is finished", "fewer could be asked"))
    assert rows[-1]["accuracy"] > (0.5 if policy == "ds_model" else 0.85)
    pairs = np.stack([world.row, world.worker])
    assert np.unique(pairs, axis=1).shape == pairs.shape  # nobody is asked twice about one image


@pytest.mark.parametrize("policy", ["risk", "lean", "efficient_annotation"])
def test_no_image_needs_to_be_known(policy):
    rows, _, _ = run(policy, known=0)
    assert rows[0]["accuracy"] < 0.5
    assert rows[-1]["accuracy"] > 0.6


@pytest.mark.parametrize("policy", ["risk", "improved_lean"])
def test_a_budget_of_zero_buys_nothing(policy):
    rows, why, _ = run(policy, votes=0)
    assert len(rows) == 1
    assert why == "the budget is zero"


@pytest.mark.parametrize("policy", ["risk", "random", "efficient_annotation"])
def test_adversaries_end_like_others(policy):
    rows, why, _ = run(policy, crowd=uniform_crowd(5, CLASSES, 0.0))
    assert why == "the budget is spent"
    assert np.isfinite([row["accuracy"] for row in rows]).all()


@pytest.mark.parametrize("policy", ["gumbel", "margin", "entropy", "efficient_annotation"])
def test_one_class_is_always_right(policy):
    rows, _, _ = run(policy, classes=1, crowd=uniform_crowd(5, 1, 0.7))
    assert {row["accuracy"] for row in rows} == {1.0}


def test_images_of_one_class_among_many():
    features = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    truth = np.full(60, 2)
    world = World(np.arange(60), truth, np.zeros(60, bool), 4, uniform_crowd(6, 4, 0.8), 0)
    table, _ = simulate(
        "risk", world, features, OwnMethod(Recipe(), SkillPrior()), Assignment(), Budget(60, 3)
    )
    assert table["accuracy"][-1].as_py() > 0.9


def test_finished_images_are_not_asked_about_and_that_ends_the_paper_s_methods():
    rows, why, world = run(
        "ds_model", crowd=uniform_crowd(10, CLASSES, 1.0), votes=2_000, rounds=10
    )
    assert why == "every image is finished (risk below 0.1) or has its 3 votes"
    assert rows[-1]["votes"] < 2_000
    assert world.votes.max() <= 3


def test_votes_end_with_the_images():
    rows, why, world = run("random", votes=5_000, rounds=6, audit=0.0, gold=0.0)
    assert why == "every image has its 3 votes"
    assert rows[-1]["votes"] == 3 * 192
    assert (world.votes[8:] == 3).all()


def test_one_worker_is_asked_once_about_each_image():
    _, why, world = run("risk", crowd=uniform_crowd(1, CLASSES, 0.9), votes=1_000)
    assert why == "every image has its 1 vote"
    assert world.votes.max() == 1


@pytest.mark.parametrize("images", [1, 2, 5])
def test_few_images_are_enough(images):
    rows, _, _ = run("risk", images=images, known=0, votes=images, rounds=3)
    assert rows[-1]["votes"] == images


def test_more_rounds_than_votes():
    rows, why, _ = run("risk", votes=3, rounds=50)
    assert [row["votes"] for row in rows] == [0, 1, 2, 3]
    assert why == "the budget is spent"


def test_quotas_hold_in_every_round_and_greedy_asks_the_better_workers():
    good, bad = uniform_crowd(5, CLASSES, 0.95), uniform_crowd(5, CLASSES, 0.3)
    crowd = Crowd(np.concatenate([good.theta, bad.theta]), tuple("abcdefghij"))
    _, _, world = run("risk", crowd=crowd, votes=192, rounds=4, assign=Assignment(quota=6))
    assert np.bincount(world.worker, minlength=10).max() <= 4 * 6
    _, _, greedy = run("risk", crowd=crowd, rounds=6, assign=Assignment(greedy=True, explore=0.1))
    assert (greedy.worker < 5).mean() > 0.6


def test_known_images_are_never_counted_and_audits_are_by_chance():
    rows, _, world = run("risk", votes=192, audit=0.25, gold=0.1)
    assert world.audited.sum() == 48
    assert world.known[world.row].sum() == 20
    assert not world.known[world.row[world.audited]].any()
    assert rows[-1]["estimate_low"] <= rows[-1]["estimated_accuracy"] <= rows[-1]["estimate_high"]
    assert rows[0]["estimate_low"] is None


def test_the_temperature_is_stated_and_not_learned_from(monkeypatch):
    """A learner that trains on posteriors of its own sharpened beliefs confirms its mistakes."""

    def last_labels(sharpness):
        monkeypatch.setattr(methods, "shrunk_sharpness", lambda *_: sharpness)
        features, truth = blobs(IMAGES, CLASSES, 6)
        world = World(
            np.arange(IMAGES), truth, np.arange(IMAGES) < 8, CLASSES, uniform_crowd(10, 4, 0.8), 0
        )
        method = OwnMethod(Recipe(), SkillPrior())
        labels = []
        for round_ in (1, 2):
            world.ask(
                world.choose_audit(60, round_),
                np.ones(60, dtype=bool),
                Assignment(),
                round_,
                np.zeros((0, CLASSES), np.float32),
                np.zeros((0, CLASSES)),
            )
            labels.append(method.update(world, features))
        return labels[-1]

    flat, sharp = last_labels(1.0), last_labels(3.0)
    assert np.array_equal(flat.skills.log_theta, sharp.skills.log_theta)
    assert np.array_equal(flat.learner.argmax(axis=1), sharp.learner.argmax(axis=1))
    assert sharp.learner.max(axis=1).mean() > flat.learner.max(axis=1).mean() + 0.05


def test_digits_are_labelled_well_and_stated_as_sure_as_they_are():
    """While the temperature was in the loop, the calibration error was 0.044 at 0.2 per image."""
    ink, truth = load()
    features = normalise(ink.reshape(len(ink), -1).astype(np.float32))
    image, truth = np.arange(len(truth)), truth.astype(np.int64)
    known = np.isin(image, sample_by_class(image, truth, 10))
    world = World(image, truth, known, 10, structured_crowd(50, 10, 0.7, 0), 0)
    with one_thread_blas():
        projected = principal_components(features, 64).apply(features)
        table, _ = simulate(
            "risk",
            world,
            projected,
            OwnMethod(Recipe(), SkillPrior()),
            Assignment(),
            Budget(votes=600, rounds=7),
        )
    late = table.filter(pc.greater(table["votes_per_image"], 0.19))
    assert pc.max(late["calibration_error"]).as_py() <= 0.04
    assert late["accuracy"].to_pylist()[-1] >= 0.97


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulate")
    features, truth = blobs(IMAGES, CLASSES, 6)
    ids = np.arange(IMAGES) * 3
    gold = pa.table({"image_id": ids, "label": pa.array(truth, pa.int32())})
    pq.write_table(gold, folder / "gold.parquet")
    pq.write_table(gold.slice(0, 8), folder / "seed.parquet")
    return {
        "embeddings": write_embeddings(folder / "features", ids, features),
        "gold": str(folder / "gold.parquet"),
        "seed_gold": str(folder / "seed.parquet"),
    }


def settings(inputs, tmp_path, **changes):
    keys = inputs | {"output": str(tmp_path / "out"), "rounds": 4, "crowd": "structured:0.8"}
    return check_settings(SimulateSettings, "simulate", keys | changes)


def test_the_stage_writes_the_same_bytes_with_any_number_of_processes(inputs, tmp_path):
    curves = []
    for processes in (1, 2):
        keys = {"policies": ["risk", "lean"], "seeds": 2, "processes": processes}
        made = settings(inputs, tmp_path / str(processes), **keys)
        manifest, worked = run_stage(STAGES["simulate"], made)
        assert worked
        assert manifest.rows.rows_in == manifest.rows.rows_out == IMAGES
        curves.append((tmp_path / str(processes) / "out" / "curve.parquet").read_bytes())
    assert curves[0] == curves[1]
    table = pq.read_table(tmp_path / "1" / "out" / "curve.parquet")
    assert set(table["policy"].to_pylist()) == {"risk", "lean"}
    assert set(table["seed"].to_pylist()) == {0, 1}
    summary = json.loads((tmp_path / "1" / "out" / "summary.json").read_text())
    assert summary["images"] == IMAGES - 8
    assert summary["answer"].startswith("0.80 needs ")
    assert summary["answer"] == manifest.details["answer"]
    page = (tmp_path / "1" / "out" / "index.html").read_text()
    assert summary["answer"] in page
    assert page.count("<svg") == 6
    assert "http" not in page.replace("http://www.w3.org", "")
    assert run_stage(STAGES["simulate"], made)[1] is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": ["riskk"]}, r"'riskk' is no policy; give some of risk"),
        ({"crowd": "uniform:7"}, r"'uniform:7' is no crowd; give uniform:<accuracy>"),
        ({"policies": ["risk", "risk"]}, r"named twice"),
    ],
)
def test_wrong_settings_are_explained(inputs, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        settings(inputs, tmp_path, **changes)


def test_something_must_be_learned_from(inputs, tmp_path):
    with pytest.raises(InputError, match=r"give embeddings, beliefs or both"):
        run_stage(STAGES["simulate"], settings(inputs, tmp_path, embeddings=None))


def gold_table(tmp_path, ids, labels):
    table = pa.table({"image_id": ids, "label": pa.array(labels, pa.int32())})
    pq.write_table(table, tmp_path / "wrong.parquet")
    return str(tmp_path / "wrong.parquet")


@pytest.mark.parametrize(
    ("key", "ids", "labels", "message"),
    [
        ("gold", [1, 2], [0, 1], r"no image of .* has a true class in gold"),
        ("gold", [0, 0], [0, 1], r"image 0 has two rows"),
        ("gold", [0, 3], [0, -1], r"image 3 has the label -1"),
        ("gold", [0, 3], [0, 5000], r"5,001 classes; a simulation holds 1,000 at most"),
        ("seed_gold", [0, 3], [3, 3], r"seed_gold: image \d has another class than in gold"),
    ],
)
def test_wrong_gold_is_explained(inputs, tmp_path, key, ids, labels, message):
    made = settings(inputs, tmp_path, **{key: gold_table(tmp_path, ids, labels)})
    if key == "gold":
        made = made.model_copy(update={"seed_gold": None})
    with pytest.raises(InputError, match=message):
        run_stage(STAGES["simulate"], made)


def test_all_images_known_leaves_nothing_to_simulate(inputs, tmp_path):
    made = settings(inputs, tmp_path, seed_gold=inputs["gold"])
    with pytest.raises(InputError, match=r"no image with features is left"):
        run_stage(STAGES["simulate"], made)
