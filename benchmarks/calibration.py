"""How well calibrated images without votes are: `python -m benchmarks.calibration`.

Many small worlds, drawn at random: a machine whose beliefs are too sure, not sure enough, both or
right already; a crowd; and images that people are asked about, mostly those of highest risk. Each
world is calibrated as `merge` does it, and in simpler ways. Then the images that nobody was asked
about are compared with their true classes: the expected calibration error, and how much more
probable the true classes became (nats per image; below 0: less probable than the machine said).

The machines of `--machines trained` are scikit-learn classifiers, whose errors nobody designed.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from sklearn.datasets import make_classification
from sklearn.ensemble import AdaBoostClassifier, ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from benchmarks.calibration_crowds import Crowd, World, inputs_of, top
from coyo_labeler.em.build import problems_of
from coyo_labeler.em.calibration import expected_calibration_error, reliability_of
from coyo_labeler.em.class_bias import shift_of
from coyo_labeler.em.e_step import posterior_of
from coyo_labeler.em.exact_sum import count_unit
from coyo_labeler.em.inputs import Inputs
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.model import Calibration, Model
from coyo_labeler.em.model_choice import Wanted, choose_model, first_calibration
from coyo_labeler.em.partitions import InMemory, PartitionedEStep
from coyo_labeler.em.priors import belief_prior, belief_value
from coyo_labeler.em.segments import F64, I64, Bool, segment_argmax, spread


def sharpened(p: F64, unsure: float, sure: float) -> F64:
    """p^k, where k goes from one factor at log-odds 0 to the other at 3."""
    top = p.max(axis=1)
    odds = np.log(top) - np.log1p(-np.minimum(top, 1 - 1e-9))
    power = np.interp(odds, [0, 3], [unsure, sure])
    return np.asarray(softmax(power[:, None] * np.log(np.maximum(p, 1e-30)), axis=1))


#: How the beliefs of a machine that is right are changed.
DISTORTIONS: Mapping[str, tuple[float, float]] = {
    "right": (1.0, 1.0),
    "1.44 too sure": (1.44, 1.44),
    "2.5 too sure": (2.5, 2.5),
    "0.6 of sure": (0.6, 0.6),
    "2.5 where unsure": (2.5, 1.0),
    "1.7 too sure; 1.4 where sure": (1.7, 1.4),
    "2 where sure": (1.0, 2.0),
}


def simulated(random: np.random.Generator, classes: int, ease: float) -> tuple[I64, F64]:
    """True classes, and what a machine that is right says of them."""
    n = 10_000
    truth = random.integers(0, classes, n)
    clear = random.gamma(2.0, ease / 2.0, n)
    logits = random.standard_normal((n, classes))
    logits[np.arange(n), truth] += clear
    return truth, softmax(logits * clear[:, None], axis=1)


def simulated_worlds(seed: int) -> Iterator[World]:
    for classes, ease in ((2, 2.0), (10, 4.0), (20, 3.0), (100, 5.0)):
        random = np.random.default_rng([seed, classes])
        truth, p = simulated(random, classes, ease)
        for name, (unsure, sure) in DISTORTIONS.items():
            yield World(f"{name}, {classes} classes", truth, sharpened(p, unsure, sure))
        shift = random.normal(0, 0.7, classes)
        yield World(
            f"classes shifted, {classes} classes", truth, softmax(np.log(p + 1e-30) + shift, axis=1)
        )


CLASSIFIERS: Mapping[str, Callable[[], object]] = {
    "naive Bayes": GaussianNB,
    "logistic": lambda: LogisticRegression(C=100.0, max_iter=300),
    "trees": lambda: ExtraTreesClassifier(60, min_samples_leaf=2, random_state=0),
    "neighbours": lambda: KNeighborsClassifier(15),
    "network": lambda: MLPClassifier((100,), max_iter=60, random_state=0),
    "boosting": lambda: AdaBoostClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=30),
}


def trained_worlds(seed: int) -> Iterator[World]:
    for classes, separation, flipped in ((3, 0.8, 0.0), (10, 1.5, 0.0), (10, 1.0, 0.1)):
        x, y = make_classification(
            11_000,
            30,
            n_informative=12,
            n_redundant=8,
            n_classes=classes,
            n_clusters_per_class=2,
            class_sep=separation,
            flip_y=flipped,
            random_state=seed,
        )
        for name, make in CLASSIFIERS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some do not converge
                p = make().fit(x[:1000], y[:1000]).predict_proba(x[1000:])  # type: ignore[attr-defined]
            p = np.clip(p, 1e-6, None)
            p /= p.sum(axis=1, keepdims=True)
            yield World(f"{name}, {classes} classes, sep. {separation}", y[1000:], p)


@dataclass(frozen=True)
class Score:
    """error: expected calibration error. log: (n,) log probability of each image's true class.

    accuracy: of the first label.
    """

    error: float
    log: F64
    accuracy: float


def score(world: World, rest: Bool, calibration: Calibration, model: Model) -> Score:
    """The images that nobody was asked about, under a calibration."""
    truth = world.truth[rest]
    label, probability = top(world.p[rest])
    n, k = label.shape
    offsets = k * np.arange(n + 1)
    inside, full = np.ones(n * k, bool), np.full(n, k == world.p.shape[1])
    value = belief_value(probability.ravel(), model)
    shift = shift_of(calibration.bias, label.ravel())
    prior = belief_prior(value, inside, offsets, full, calibration, model, shift=shift)
    q = prior.probability
    right = (label == truth[:, None]).ravel().astype(np.float64)
    error = expected_calibration_error(reliability_of(np.log(q), right, offsets, np.ones(n)))
    others = max(world.p.shape[1] - k, 1)
    of_truth = np.where(right, q, 0.0).reshape(n, k).sum(axis=1)
    listed = right.reshape(n, k).any(axis=1)
    of_truth = np.where(listed, of_truth, prior.rest / others)
    first = label[np.arange(n), q.reshape(n, k).argmax(axis=1)]
    accuracy = float((first == truth).mean())
    return Score(error or 0.0, np.log(np.maximum(of_truth, 1e-12)), accuracy)


def calibrate(inputs: Inputs, model: Model) -> Calibration:
    """By EM, as `merge` does it."""
    return _fit(PartitionedEStep(InMemory([problems_of(inputs, model)]), model)).calibration


def _fit(step: PartitionedEStep) -> State:
    begin = State(calibration=first_calibration(step.model, Calibration()))
    return fit(step, step.model, StoppingRule(60), begin, lambda _: None)


def score_voted(world: World, inputs: Inputs, model: Model) -> Score:
    """The posterior of the images that people were asked about."""
    problems = problems_of(inputs, model)
    step = PartitionedEStep(InMemory([problems]), model)
    posterior = posterior_of(problems, step.parameters_of(_fit(step))[0], model)
    log = np.log(np.maximum(posterior, 1e-12))
    right = problems.label == spread(world.truth[problems.image], problems.offsets)
    ones = np.ones(len(problems))
    error = expected_calibration_error(
        reliability_of(log, right.astype(np.float64), problems.offsets, ones)
    )
    first = segment_argmax(posterior, problems.offsets)
    return Score(error or 0.0, log[right], float(right[first].mean()))


def model_of(world: World, crowd: Crowd, inputs: Inputs, sigmoid: bool) -> Model:
    """One accuracy per worker; one a and b, fitted on votes without weights."""
    return Model(
        classes=world.p.shape[1],
        workers=crowd.workers,
        worker_model="one_coin",
        beliefs_are="sigmoid" if sigmoid else "categorical",
        fit_calibration="votes",
        count_unit=count_unit(int(np.bincount(inputs.votes.worker).max())),
    )


def compare(world: World, crowd: Crowd, seed: int, sigmoid: bool = False) -> dict[str, Score]:
    """The machine, one temperature without weights, and what `merge` chooses."""
    inputs, rest = inputs_of(world, crowd, np.random.default_rng(seed))
    model = model_of(world, crowd, inputs, sigmoid)
    chosen = choose_model(inputs, model, Wanted(calibration=True), Calibration(), 200).model
    return {
        "machine": score(world, rest, Calibration(), model),
        "one": score(world, rest, calibrate(inputs, model), model),
        "merge": score(world, rest, calibrate(inputs, chosen), chosen),
    }


#: Many votes and few, chosen by chance and by risk, with and without probabilities.
CROWDS = (
    Crowd(),
    Crowd(known=False),
    Crowd(votes=400),
    Crowd(votes=6_000, audit=0.2, twice=0.5),
    Crowd(votes=1_000, audit=1.0),
    Crowd(votes=2_000, accuracy=0.7),
    Crowd(votes=600, known=False, audit=0.0),
    Crowd(accuracy=0.8, offered=10),
)
#: A loss of nats per image that noise does not explain.
WORSE = 0.005


@dataclass(frozen=True)
class Row:
    """The scores of one machine with one crowd."""

    machine: str
    crowd: str
    scores: Mapping[str, Score]

    def gain(self, name: str) -> float:
        """How much more probable the true classes became, nats per image."""
        return float((self.scores[name].log - self.scores["machine"].log).mean())


def show(rows: Sequence[Row], by: str) -> None:
    """A table with a row for each machine or crowd, and one for all."""
    groups = list(dict.fromkeys(getattr(row, by) for row in rows))
    head = "calibration error: machine, one, merge; nats gained: one, merge; worse: one, merge"
    print(f"\n{by:40}{head}")
    for group in [*groups, "all"]:
        part = [row for row in rows if group in ("all", getattr(row, by))]
        errors = [
            np.mean([row.scores[name].error for row in part])
            for name in ("machine", "one", "merge")
        ]
        gains = np.array([[row.gain(name) for row in part] for name in ("one", "merge")])
        worse = (gains < -WORSE).mean(axis=1)
        print(
            f"{group:40}"
            + "".join(f"{error:8.4f}" for error in errors)
            + "".join(f"{gain:9.4f}" for gain in gains.mean(axis=1))
            + "".join(f"{share:7.0%}" for share in worse)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", choices=("simulated", "trained"), default="simulated")
    parser.add_argument("--sigmoid", action="store_true", help="read beliefs as sigmoid outputs")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make = simulated_worlds if arguments.machines == "simulated" else trained_worlds
    rows = [
        Row(
            world.name.partition(",")[0],
            str(crowd),
            compare(world, crowd, 100 * arguments.seed + number, arguments.sigmoid),
        )
        for world in make(arguments.seed)
        for number, crowd in enumerate(CROWDS)
    ]
    show(rows, "machine")
    show(rows, "crowd")


if __name__ == "__main__":
    main()
