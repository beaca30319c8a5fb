"""The model word for word, over all classes, in loops: slow, dense, and easy to check by eye.

The model as docs/model.md states it. Images are dicts: belief {class: probability} or None, votes
[(worker, label, response)], gold class or None, sets [(worker, classes, response)]: answers to "is
the class one of these?". Everything is in probabilities, not logs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace

OUTSIDE = -1
#: The state of class c where it is not listed is UNLISTED − c.
UNLISTED = -100
ANSWERS = ("yes", "no", "unsure")
#: Stands for 0 where workers are perfect.
IMPOSSIBLE = 1e-100


class TieError(Exception):
    """Two classes are as probable as each other but for rounding, which decides the top one."""


@dataclass
class Image:
    votes: list[tuple[int, int, str]]
    belief: dict[int, float] | None = None
    gold: int | None = None
    sets: list[tuple[int, frozenset[int], str]] = field(default_factory=list)


@dataclass
class Choices:
    classes: int
    worker_model: str = "confusion"
    beliefs_are: str = "sigmoid"
    alpha: float = 10.0
    beta: float | None = 10.0
    accuracy: float = 0.8
    floor: float = 1e-4
    hard: bool = False
    estimated: bool = False
    a: float = 1.0
    b: float = 0.0
    listed_set: int = 32
    shared_mistakes: float = 0.0
    offered: int = 0


@dataclass
class Fit:
    posterior: list[dict[int, float]]
    objective: list[float] = field(default_factory=list)
    counts: dict = field(default_factory=dict)
    class_prior: list[float] | None = None


def support(image: Image, choices: Choices) -> list[int]:
    named = set(image.belief or {}) | {label for _, label, _ in image.votes}
    if image.gold is not None:
        named.add(image.gold)
    for _, classes, _ in image.sets:
        named |= classes if len(classes) <= choices.listed_set else set()
    if image.sets:  # nothing is lumped: every unlisted class is a state of its own
        return sorted(named) + [UNLISTED - c for c in range(choices.classes) if c not in named]
    lumped = [OUTSIDE] if len(named) < choices.classes else []
    return sorted(named) + lumped


def prior(image: Image, choices: Choices, class_prior: list[float] | None) -> dict[int, float]:
    states = support(image, choices)
    named = [c for c in states if c >= 0]
    others = choices.classes - len(named)
    if not image.belief:
        share = class_prior or [1 / choices.classes] * choices.classes
        result = {c: share[c] for c in named}
        if OUTSIDE in states:
            result[OUTSIDE] = sum(share[c] for c in range(choices.classes) if c not in named)
        return result | {c: share[UNLISTED - c] for c in states if c <= UNLISTED}
    if choices.beliefs_are == "sigmoid":
        logit = {c: math.log(p / (1 - p)) for c, p in image.belief.items()}
        q = {c: 1 / (1 + math.exp(-choices.a * x - choices.b)) for c, x in logit.items()}
        left = 1 - sum(q.values())
    else:
        q = {c: p**choices.a for c, p in image.belief.items()}
        left = 1 - sum(image.belief.values())
    rest = max(choices.floor, left)
    not_believed = choices.classes - len(q)
    if not_believed == 0:
        rest = 0.0
    result = {}
    for c in states:
        if c == OUTSIDE:
            result[c] = rest * others / not_believed
        elif c in q:
            result[c] = q[c] * (1 - rest) / sum(q.values())
        else:
            result[c] = rest / not_believed
    return result


def cell(truth: int, worker: int, label: int, response: str, choices: Choices) -> tuple:
    """What a vote adds to when the image's class is `truth`: (row of the worker, outcome)."""
    if choices.worker_model == "perfect":
        wrong = response != "unsure" and (truth == label) != (response != "no")
        return ("perfect", "wrong" if wrong else "as told")
    if response == "":
        if choices.worker_model == "one_coin":
            return ("choice", worker, "right" if truth == label else "wrong")
        return ("outside",) if truth < 0 else ("choice", worker, truth, label)
    return answer_cell(truth == label, worker, response, choices)


def set_cell(truth: int, worker: int, classes: frozenset[int], response: str, choices) -> tuple:
    true = (UNLISTED - truth if truth <= UNLISTED else truth) in classes
    if choices.worker_model == "perfect":
        wrong = response != "unsure" and true != (response == "yes")
        return ("perfect", "wrong" if wrong else "as told")
    return answer_cell(true, worker, response, choices)


def answer_cell(true: bool, worker: int, response: str, choices: Choices) -> tuple:
    if choices.worker_model == "one_coin":
        if response == "unsure":
            return ("answer", worker, "unsure")
        return ("answer", worker, "right" if (response == "yes") == true else "wrong")
    return ("answer", worker, true, response)


def mistake(truth: int, label: int, image: Image, choices: Choices) -> float:
    """How much more probable a wrong choice is than an even mistake, where the class is `truth`."""
    if truth == label or choices.worker_model != "one_coin":
        return 1.0
    size = choices.classes - 1
    even = size / (min(choices.offered, size) or size)
    share = choices.shared_mistakes
    if share == 0 or not image.belief:
        return even
    q = prior(image, replace(choices, a=1.0, b=0.0), None)
    others = choices.classes - len([c for c in q if c != OUTSIDE])
    of_truth = q[truth] / others if truth == OUTSIDE else q[truth]
    return (1 - share) * even + share * size * q[label] / (1 - of_truth)


class Skill:
    """θ by the formulas, from counts n of cells."""

    def __init__(self, counts: dict[tuple, float], choices: Choices) -> None:
        self.n, self.choices = counts, choices

    def outcomes(self, row: tuple) -> list:
        kind = row[0]
        if self.choices.worker_model == "one_coin":
            return ["right", "wrong"] if kind == "choice" else ["right", "wrong", "unsure"]
        return list(range(self.choices.classes)) if kind == "choice" else list(ANSWERS)

    def h(self, row: tuple, outcome) -> float:
        if self.choices.worker_model == "one_coin":
            right = outcome == "right"
        elif row[0] == "choice":
            right = row[2] == outcome
        else:
            right = outcome == ("yes" if row[2] else "no")
        size = len(self.outcomes(row))
        return self.choices.accuracy if right else (1 - self.choices.accuracy) / (size - 1)

    def pooled(self, row: tuple, outcome) -> float:
        beta = self.choices.beta
        if beta is None:
            return self.h(row, outcome)
        same = {
            key: n
            for key, n in self.n.items()
            if key[0] == row[0] and key[2:-1] == row[2:] and len(key) == len(row) + 1
        }
        total = sum(same.values())
        hits = sum(n for key, n in same.items() if key[-1] == outcome)
        if beta + total == 0:
            return self.h(row, outcome)
        return (beta * self.h(row, outcome) + hits) / (beta + total)

    def theta(self, key: tuple) -> float:
        if key[0] == "perfect":
            return IMPOSSIBLE if key[-1] == "wrong" else 1.0
        if key == ("outside",):
            return (1 - self.choices.accuracy) / (self.choices.classes - 1)
        *row, outcome = key
        row = tuple(row)
        g, alpha = self.pooled(row, outcome), self.choices.alpha
        total = sum(n for k, n in self.n.items() if k[:-1] == row)
        value = g if alpha + total == 0 else (alpha * g + self.n.get(key, 0.0)) / (alpha + total)
        if self.choices.worker_model == "one_coin" and key[0] == "choice" and outcome == "wrong":
            value /= self.choices.classes - 1
        return value

    def log_prior(self) -> float:
        """−α Σ KL(g ‖ θ), over the rows that have counts and all their outcomes."""
        rows = {key[:-1] for key in self.n if key[0] not in ("outside", "perfect")}
        total = 0.0
        for row in rows:
            for outcome in self.outcomes(row):
                g, alpha = self.pooled(row, outcome), self.choices.alpha
                n_row = sum(n for k, n in self.n.items() if k[:-1] == row)
                theta = (alpha * g + self.n.get((*row, outcome), 0.0)) / (alpha + n_row)
                total += alpha * g * math.log(theta / g)
        return total


def start(image: Image, choices: Choices) -> dict[int, float]:
    states = support(image, choices)
    if image.gold is not None:
        return {c: float(c == image.gold) for c in states}
    if image.belief:
        return prior(image, choices, None)
    named = [label for _, label, response in image.votes if response in ("", "yes")]
    if not named:
        return prior(image, choices, None)
    return {c: named.count(c) / len(named) for c in states}


def count(images, posterior, choices) -> dict[tuple, float]:
    counts: dict[tuple, float] = defaultdict(float)
    for image, probabilities in zip(images, posterior, strict=True):
        weights = probabilities
        if choices.hard:
            best = max(probabilities.values())
            if any(0 < best - p < 1e-9 for p in probabilities.values()):
                raise TieError
            states = [c for c in probabilities if c != OUTSIDE]
            states += [OUTSIDE] if OUTSIDE in probabilities else []
            top = next(c for c in states if probabilities[c] == best)
            weights = {c: float(c == top) for c in probabilities}
        for worker, label, response in image.votes:
            for truth, weight in weights.items():
                counts[cell(truth, worker, label, response, choices)] += weight
        for worker, classes, response in image.sets:
            for truth, weight in weights.items():
                counts[set_cell(truth, worker, classes, response, choices)] += weight
    return dict(counts)


def expectation_maximisation(images: list[Image], choices: Choices, iterations: int) -> Fit:
    posterior = [start(image, choices) for image in images]
    class_prior = None
    result = Fit(posterior)
    for _ in range(iterations):
        skill = Skill(count(images, posterior, choices), choices)
        if choices.estimated:
            class_prior = estimate_class_prior(images, posterior, choices, class_prior)
        likelihood = 0.0
        posterior = []
        for image in images:
            joint = prior(image, choices, class_prior)
            for worker, label, response in image.votes:
                for truth in joint:
                    joint[truth] *= skill.theta(cell(truth, worker, label, response, choices))
                    if response == "":
                        joint[truth] *= mistake(truth, label, image, choices)
            for worker, classes, response in image.sets:
                for truth in joint:
                    joint[truth] *= skill.theta(set_cell(truth, worker, classes, response, choices))
            if image.gold is not None:
                joint = {c: p if c == image.gold else 0.0 for c, p in joint.items()}
            total = sum(joint.values())
            likelihood += math.log(total)
            posterior.append({c: p / total for c, p in joint.items()})
        result.objective.append(likelihood + (skill.log_prior() if choices.alpha else 0.0))
        result.posterior, result.counts = posterior, count(images, posterior, choices)
        result.class_prior = class_prior
    return result


def estimate_class_prior(images, posterior, choices, before) -> list[float] | None:
    """The mean posterior over all classes: the lumped state is taken apart into those it stands
    for, each in proportion to its prior."""
    share = before or [1 / choices.classes] * choices.classes
    free = [p for image, p in zip(images, posterior, strict=True) if not image.belief]
    if not free:
        return None
    total = [0.0] * choices.classes
    for probabilities in free:
        lumped = [c for c in range(choices.classes) if c not in probabilities]
        outside = sum(share[c] for c in lumped)
        for c in range(choices.classes):
            if c in probabilities:
                total[c] += probabilities[c]
            elif UNLISTED - c in probabilities:
                total[c] += probabilities[UNLISTED - c]
            elif outside > 0:
                total[c] += probabilities[OUTSIDE] * share[c] / outside
    return [n / sum(total) for n in total]
