"""Calibration of machines that are almost right: `python -m benchmarks.calibration_networks`.

scikit-learn classifiers on `make_classification`, 10 classes and 10,000 images: networks that are
too sure by little (one is right already, one errs on images that it is sure of), and classifiers
that saw some classes more often than others. People are asked about the riskiest images, and about
a few that are drawn by chance. Their votes go through all choices that `merge` makes by default.

Of the images that nobody was asked about: the expected calibration error of the machine, of one
temperature with and without weights, and of `merge`; that of a machine that is right (`floor`), for
so many images; and the accuracy of the first label. `one_coin` is `merge` with that worker model.
Of the voted images: accuracy and calibration error of the machine, of `one_coin` and of `merge`.
"""

import argparse
import csv
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import softmax
from scipy.stats import sem
from sklearn.datasets import make_classification
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier

from benchmarks.calibration import Score, calibrate, model_of, score, score_voted
from benchmarks.calibration_crowds import Crowd, World, inputs_of
from coyo_labeler.em.build import problems_of
from coyo_labeler.em.calibration import expected_calibration_error, reliability_of
from coyo_labeler.em.coverage import gather_coverage
from coyo_labeler.em.inputs import Inputs
from coyo_labeler.em.model import Calibration, Model
from coyo_labeler.em.model_choice import Choice, Wanted, choose_model, name_of, with_calibration
from coyo_labeler.em.segments import F64, I64, Bool

CLASSES, IMAGES = 10, 10_000


def dataset(seed: int, separation: float, training: int) -> tuple[F64, I64]:
    """Points and their classes, `training` more than there are images."""
    x, y = make_classification(
        IMAGES + training,
        30,
        n_informative=12,
        n_redundant=8,
        n_classes=CLASSES,
        n_clusters_per_class=2,
        class_sep=separation,
        flip_y=0.0,
        random_state=seed,
    )
    return x, y


def network_logits(seed: int, separation: float) -> tuple[I64, F64]:
    """True classes, and log probabilities of a network that was trained on 2,000 others."""
    x, y = dataset(seed, separation, 2_000)
    network = MLPClassifier((100,), max_iter=60, early_stopping=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some do not converge
        p = network.fit(x[:2_000], y[:2_000]).predict_proba(x[2_000:])
    return y[2_000:], np.log(np.clip(p, 1e-12, None))


def at_power(logits: F64, power: float) -> F64:
    """The probabilities at 1 / temperature."""
    return np.asarray(softmax(power * logits, axis=1))


def best_power(truth: I64, logits: F64) -> float:
    """1 / temperature at which the true classes are most probable."""

    def loss(power: float) -> float:
        p = at_power(logits, power)[np.arange(len(truth)), truth]
        return -float(np.log(np.maximum(p, 1e-12)).mean())

    return float(minimize_scalar(loss, bounds=(0.05, 20.0), method="bounded").x)


def too_sure(seed: int, separation: float = 2.5, share: float = 1.0) -> World:
    """Surer of its labels than right by 0.0115 on average, 94 % right.

    share: on the average of this share of the images, those that it is surest of.
    """
    truth, logits = network_logits(seed, separation)
    surest = np.argsort(-at_power(logits, 1.0).max(axis=1))[: round(share * IMAGES)]
    right = float((logits.argmax(axis=1) == truth)[surest].mean())

    def excess(power: float) -> float:
        return float(at_power(logits, power).max(axis=1)[surest].mean()) - right - 0.0115

    return World("too sure by 0.0115", truth, at_power(logits, float(brentq(excess, 0.2, 20.0))))


def too_sure_of_others(seed: int) -> World:
    """Too sure by 0.0115 of those images that hardly anybody is asked about, 90 % right."""
    world = too_sure(seed, separation=2.2, share=0.82)
    return World("too sure by 0.0115 of unvoted images", world.truth, world.p)


def almost_right(seed: int) -> World:
    """96 % right; its best temperature is between 1.2 and 1.35."""
    truth, logits = network_logits(seed, 3.0)
    temperature = np.random.default_rng(seed).uniform(1.2, 1.35)
    return World(
        "96 % right, temperature 1.2 to 1.35",
        truth,
        at_power(logits, temperature * best_power(truth, logits)),
    )


def right_already(seed: int) -> World:
    """At its best temperature."""
    truth, logits = network_logits(seed, 2.5)
    return World("at its best temperature", truth, at_power(logits, best_power(truth, logits)))


def drawn_truth(seed: int) -> World:
    """At its best temperature, but 2 % of the true classes are drawn at random."""
    world = right_already(seed)
    random = np.random.default_rng([seed, 2])
    drawn = random.random(IMAGES) < 0.02
    truth = np.where(drawn, random.integers(0, CLASSES, IMAGES), world.truth)
    return World("2 % of true classes drawn at random", truth, world.p)


NETWORKS: Sequence[Callable[[int], World]] = (
    too_sure,
    too_sure_of_others,
    almost_right,
    right_already,
    drawn_truth,
)

CLASSIFIERS: Mapping[str, Callable[[], object]] = {
    "trees": lambda: ExtraTreesClassifier(60, min_samples_leaf=2, random_state=0),
    "network": lambda: MLPClassifier((100,), max_iter=60, random_state=0),
    "logistic": lambda: LogisticRegression(C=100.0, max_iter=300),
    "naive Bayes": GaussianNB,
}


def unevenly_trained(seed: int, spread: float) -> Iterator[World]:
    """Classifiers that saw about 40 images of a class; spread: of the log of that number."""
    x, y = dataset(seed, 1.5, 6_000)
    random = np.random.default_rng([seed, 3])
    wanted = np.exp(random.normal(0.0, spread, CLASSES))
    wanted = np.maximum(np.round(40 * CLASSES * wanted / wanted.sum()), 4).astype(int)
    training = np.concatenate([np.flatnonzero(y[:6_000] == c)[: wanted[c]] for c in range(CLASSES)])
    for name, make in CLASSIFIERS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = make().fit(x[training], y[training])  # type: ignore[attr-defined]
        p = np.clip(fitted.predict_proba(x[6_000:]), 1e-6, None)
        kind = "unevenly" if spread else "evenly"
        yield World(f"{name}, {kind} trained", y[6_000:], p / p.sum(axis=1, keepdims=True))


def worlds(kind: str, seed: int) -> Iterator[World]:
    """kind: networks, uneven or even."""
    if kind == "networks":
        yield from (make(seed) for make in NETWORKS)
    else:
        yield from unevenly_trained(seed, 0.7 if kind == "uneven" else 0.0)


#: People are asked as CIFAR-10H's: right in 95 %, and few votes of each.
CROWDS: Mapping[str, Crowd] = {
    "plain": Crowd(accuracy=0.8),
    "unknown": Crowd(accuracy=0.8, known=False),
    "structured": Crowd(accuracy=0.85, structured=True, workers=50),
    "people": Crowd(accuracy=0.95, structured=True, workers=200),
    "people, unknown": Crowd(accuracy=0.95, structured=True, workers=200, known=False),
    "many people": Crowd(accuracy=0.95, structured=True, workers=1_000),
    "structured, twice": Crowd(accuracy=0.85, structured=True, workers=50, twice=1.0),
    "plain, twice": Crowd(accuracy=0.8, twice=1.0),
}


@dataclass(frozen=True)
class Run:
    """One machine with one crowd. Errors of calibration and accuracies, by name; and what was
    chosen: worker model and map. gains: nats per image over the machine.
    """

    machine: str
    crowd: str
    seed: int
    error: Mapping[str, float]
    accuracy: Mapping[str, float]
    gain: Mapping[str, float]
    voted: Mapping[str, Score]
    chosen: str

    def row(self) -> list[object]:
        """One line of CSV."""
        numbers = [*self.error.values(), *self.accuracy.values(), *self.gain.values()]
        for each in self.voted.values():
            numbers += [each.accuracy, each.error]
        return [self.machine, self.crowd, self.seed, *(f"{n:.5f}" for n in numbers), self.chosen]


def floor(world: World, rest: Bool) -> float:
    """The calibration error of a machine that is right, of images that it is as sure of."""
    power = best_power(world.truth[rest], np.log(np.maximum(world.p[rest], 1e-30)))
    p = at_power(np.log(np.maximum(world.p[rest], 1e-30)), power).max(axis=1)
    random = np.random.default_rng(len(p))
    offsets, ones = np.arange(len(p) + 1), np.ones(len(p))
    errors = [
        expected_calibration_error(
            reliability_of(np.log(p), (random.random(len(p)) < p).astype(float), offsets, ones)
        )
        for _ in range(20)
    ]
    return float(np.mean([error or 0.0 for error in errors]))


def run(world: World, name: str, seed: int, sigmoid: bool = False) -> Run:
    """The machine, simple maps, and `merge`, on the images that nobody was asked about."""
    crowd = CROWDS[name]
    random = np.random.default_rng([seed, 10 + list(CROWDS).index(name)])
    inputs, rest = inputs_of(world, crowd, random)
    model = model_of(world, crowd, inputs, sigmoid)
    everything = _choice(inputs, model, Wanted(True, True, True))
    one_coin = everything
    if name_of(everything.model) != "one_coin":
        one_coin = _choice(inputs, model, Wanted(False, True, True))
    weighted = _weighted(inputs, model)
    scores: dict[str, Score] = {"machine": score(world, rest, Calibration(), model)}
    for key, each in (
        ("one", model),
        ("weighted", weighted),
        ("one_coin", one_coin.model),
        ("merge", everything.model),
    ):
        scores[key] = score(world, rest, calibrate(inputs, each), each)
    document = everything.document
    voted = {"machine": score(world, ~rest, Calibration(), model)} | {
        key: score_voted(world, inputs, each.model)
        for key, each in (("one_coin", one_coin), ("merge", everything))
    }
    return Run(
        world.name,
        name,
        seed,
        {key: each.error for key, each in scores.items()} | {"floor": floor(world, rest)},
        {key: scores[key].accuracy for key in ("machine", "merge")},
        {
            key: float((scores[key].log - scores["machine"].log).mean())
            for key in ("one", "weighted", "one_coin", "merge")
        },
        voted,
        " ".join(str(document[key]["chosen"]) for key in ("worker_model", "calibration")),
    )


def _choice(inputs: Inputs, model: Model, wanted: Wanted) -> Choice:
    return choose_model(inputs, model, wanted, Calibration(), 200)


def _weighted(inputs: Inputs, model: Model) -> Model:
    """One temperature with weights, where inclusion probabilities are known."""
    return with_calibration(model, gather_coverage(problems_of(inputs, model), model), curved=False)


def table(runs: Sequence[Run], by: str) -> None:
    """Means by machine or crowd; ±: standard error of what `merge` adds to the machine's own."""
    errors, gains = ("machine", "one", "weighted", "merge", "floor"), ("one", "weighted", "merge")
    print(f"\n{by:36}{'n':>4}{'calibration error: ' + ', '.join(errors):>62}", end="")
    print(f"{'accuracy: machine, merge':>38}   nats x 1000: {', '.join(gains)}; worse by 5: merge")
    groups = list(dict.fromkeys(getattr(each, by) for each in runs))
    for group in [*groups, "all"]:
        part = [each for each in runs if group in ("all", getattr(each, by))]
        error = np.array([[each.error[name] for name in errors] for each in part])
        right = np.array([[each.accuracy[name] for name in ("machine", "merge")] for each in part])
        gain = 1000 * np.array([[each.gain[name] for name in gains] for each in part])
        print(
            f"{group:36}{len(part):4}   "
            + "".join(f"{mean:9.4f}" for mean in error.mean(axis=0))
            + f" ±{sem(error[:, 3] - error[:, 0]):.4f}"
            + "".join(f"{mean:9.4f}" for mean in right.mean(axis=0))
            + f" ±{sem(right[:, 1] - right[:, 0]):.4f} worst "
            + f"{(right[:, 1] - right[:, 0]).min():+.4f}"
            + "".join(f"{mean:8.1f}" for mean in gain.mean(axis=0))
            + f"{(gain[:, 2] < -5).mean():6.0%}"
        )


def table_of_voted(runs: Sequence[Run], by: str) -> None:
    """Means by machine or crowd; ±: standard error of what `merge` differs from `one_coin` by."""
    names = ("machine", "one_coin", "merge")
    print(f"\n{by:36}{'n':>4}   voted images: accuracy and calibration error: {', '.join(names)}")
    for group in dict.fromkeys(getattr(each, by) for each in runs):
        part = [each for each in runs if group == getattr(each, by)]
        accuracy, error = (
            np.array([[getattr(each.voted[name], key) for name in names] for each in part])
            for key in ("accuracy", "error")
        )
        print(f"{group:36}{len(part):4}   " + "".join(
            "".join(f"{mean:9.4f}" for mean in each.mean(axis=0))
            + f" ±{sem(each[:, 2] - each[:, 1]):.4f}"
            for each in (accuracy, error)
        ))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(1000, 1003), help="from, before")
    parser.add_argument("--kinds", nargs="+", default=["networks", "uneven", "even"])
    parser.add_argument("--crowds", nargs="+", default=list(CROWDS))
    parser.add_argument("--sigmoid", action="store_true", help="read beliefs as sigmoid outputs")
    arguments = parser.parse_args()
    writer = csv.writer(sys.stdout)
    runs = []
    for kind in arguments.kinds:
        for seed in range(*arguments.seeds):
            for world in worlds(kind, seed):
                for crowd in arguments.crowds:
                    runs.append(run(world, crowd, seed, arguments.sigmoid))
                    writer.writerow(runs[-1].row())
                    sys.stdout.flush()
    table(runs, "machine")
    table(runs, "crowd")
    table_of_voted(runs, "crowd")


if __name__ == "__main__":
    main()
