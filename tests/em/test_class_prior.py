"""How frequent the classes are: the exact M-step, in every way that EM runs."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.em.class_prior import estimate_class_prior, expected_classes
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.model import Calibration, Model, Parameters
from coyo_labeler.merge.earlier import read_earlier
from tests.em import dense
from tests.em.in_memory import build, never_falls, run_em, votes_of
from tests.em.test_dense import arrays, problems
from tests.merge.sharded import ShardedInMemory
from tests.merge.tables import read_rows
from tests.merge.test_stage import merge, write_votes


def sparse_crowd(seed):
    """Votes of six workers over so many classes that most are left out by most images."""
    random = np.random.default_rng(seed)
    classes, images = int(random.integers(4, 40)), int(random.integers(5, 60))
    rows = [
        (image, worker, image * 7 % classes if random.random() < 0.6 else random.integers(classes))
        for image in range(images)
        for worker in random.choice(6, random.integers(1, 4), replace=False)
    ]
    return votes_of(rows), classes


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("worker_model", ["confusion", "one_coin", "perfect"])
def test_the_objective_never_falls_while_the_class_prior_is_estimated(seed, worker_model):
    votes, classes = sparse_crowd(seed)
    model = Model(
        classes=classes,
        workers=6,
        worker_model=worker_model,
        pooling_strength=None,
        estimate_class_prior=True,
    )
    passes = build(votes, model, partitions=2)
    ways = [passes]
    if worker_model == "confusion":
        ways.append(ShardedInMemory(passes.partitions, model, 3))
    for way in ways:
        assert never_falls(run_em(way, 60)[0].history)


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(1, 4))
def test_shares_equal_the_dense_loops(problem, iterations):
    """Every class has the share that it has where the lumped state is taken apart."""
    images, workers, choices = problem
    if not images:
        return
    choices.estimated = True
    slow = dense.expectation_maximisation(images, choices, iterations + 1)
    passes = build(*arrays(images, workers, choices), 2)
    state, _ = run_em(passes, iterations, calibration=Calibration(choices.a, choices.b))
    if slow.class_prior is None:
        assert state.log_class_prior is None
    else:
        assert np.exp(state.log_class_prior) == pytest.approx(slow.class_prior, abs=1e-9)


def test_one_step_by_hand():
    """Two images, three classes. Image 0 lists class 0, image 1 classes 0 and 1; π = 1/2, 1/4, 1/4.

    A worker who is right in 6 of 10 says 0, 0 and, another one, 1 of image 1.
    """
    model = Model(
        classes=3,
        workers=2,
        worker_model="one_coin",
        prior_strength=1e12,
        pooling_strength=None,
        prior_accuracy=0.6,
        estimate_class_prior=True,
    )
    passes = build(votes_of([(0, 0, 0), (1, 0, 0), (1, 1, 1)]), model)
    log_prior = np.log([0.5, 0.25, 0.25])
    theta = Parameters(log_theta=np.log([0.2, 0.6, 0.2, 0.6]), log_class_prior=log_prior)
    first = np.array([0.5 * 0.6, 0.25 * 0.2, 0.25 * 0.2])
    second = np.array([0.5 * 0.6 * 0.2, 0.25 * 0.2 * 0.6, 0.25 * 0.2 * 0.2])
    counts = expected_classes(passes.run(theta), log_prior)
    assert counts == pytest.approx(first / first.sum() + second / second.sum(), rel=1e-12)
    assert np.exp(estimate_class_prior(counts)) == pytest.approx(counts / 2, rel=1e-12)


class Scripted:
    """Passes whose objective is given beforehand."""

    def __init__(self, objectives):
        self.whole = build(votes_of([(0, 0, 0), (0, 1, 1)]), Model(classes=2, workers=2))
        self.objectives = [0.0, *objectives]

    def run(self, parameters, reliability=False):
        sums = self.whole.run(Parameters())
        return type(sums)(
            **(sums.__dict__ | {"log_likelihood": ExactSum.of(np.array([self.objectives.pop(0)]))})
        )

    def parameters_of(self, state):
        return Parameters(), 0.0


@pytest.mark.parametrize(
    ("objectives", "iterations"),
    [
        ([-100, -90, -90.00001, -89, -88.99999], 5),  # a fall is no convergence,
        ([-100, -90, -90.00001, -90.000011, -80], 4),  # unless it goes on as slowly
        ([-100, -90, -90.00000000001, -80], 3),  # nor is rounding a fall
        ([-100, -90, -89.99999, -80], 3),
    ],
)
def test_a_fall_does_not_count_as_standing_still(objectives, iterations):
    passes = Scripted(objectives)
    state = fit(passes, passes.whole.model, StoppingRule(10, 1e-6), State(), lambda _: None)
    assert len(state.history) == iterations
    assert state.stopped == "the objective stands still"
    changes = [entry["change"] for entry in state.history]
    assert changes[0] is None
    assert changes[1] == pytest.approx(10 / 90)  # with its sign


def write_crowd(path, seed, workers):
    random = np.random.default_rng(seed)
    rows = [
        (100 * seed + image, f"w{worker}", image % 5 if random.random() < 0.6 else 7)
        for image in range(25)
        for worker in random.choice(workers, 2, replace=False)
    ]
    return write_votes(path, rows)


def test_an_increment_has_an_objective_that_never_falls_and_counts_every_image(tmp_path):
    space = tmp_path / "twelve.txt"
    space.write_text("\n".join(map(str, range(12))))
    given = {"pooling": "none", "tolerance": 0, "label_space": space}
    votes = write_crowd(tmp_path / "one.csv", 1, range(6))
    merge(None, tmp_path, "earlier", votes=votes, max_iterations=8, **given)
    votes = write_crowd(tmp_path / "two.csv", 2, range(3, 9))
    more = {"warm_start": tmp_path / "earlier", "incremental": True, "max_iterations": 20}
    merge(None, tmp_path, "later", votes=votes, **more, **given)
    history = json.loads((tmp_path / "later" / "history.json").read_text())["iterations"]
    assert never_falls(history)
    for name, images in (("earlier", 25), ("later", 50)):
        rows = read_rows(tmp_path / name, "classes")
        assert sum(row["images"] for row in rows) == pytest.approx(images, abs=1e-9)
        assert sum(row["share"] for row in rows) == pytest.approx(1, abs=1e-12)
    # Classes that nobody named get a little, and the shares are shares still.
    begun = read_earlier(str(tmp_path / "earlier"), "confusion").log_class_prior(12)
    assert np.isfinite(begun).all()
    assert np.exp(begun).sum() == pytest.approx(1, abs=1e-12)


def test_the_objective_of_an_increment_counts_what_the_earlier_merge_counted(tmp_path):
    """With skills held: Σ log evidence + Σ images · log π + Σ votes · log θ."""
    given = {"pooling": "none", "prior_strength": 1e12, "tolerance": 0, "max_iterations": 1}
    votes = [(image, worker, image % 3) for image in range(7) for worker in "ab"]
    votes = write_votes(tmp_path / "one.csv", [*votes, (1, "c", 2), (2, "c", 0)])
    merge(None, tmp_path, "earlier", votes=votes, **given)
    votes = write_votes(tmp_path / "two.csv", [(9, "a", 0)])
    more = {"warm_start": tmp_path / "earlier", "incremental": True}
    manifest = merge(None, tmp_path, "later", votes=votes, **more, **given)
    classes = read_rows(tmp_path / "earlier", "classes")
    share = [row["share"] for row in classes]
    expected = np.log(share[0] * 0.8 + (1 - share[0]) * 0.1)
    expected += sum(row["images"] * np.log(row["share"]) for row in classes)
    for row in read_rows(tmp_path / "earlier", "confusions"):
        right = row["true_label"] == row["voted_label"]
        expected += row["count"] * np.log(0.8 if right else 0.1)
    assert manifest.details["objective"] == pytest.approx(expected, rel=1e-6)
