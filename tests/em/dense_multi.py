"""`truth: multi` word for word, in loops: every image and class is a question of its own.

Images are those of `dense.py`; gold is the set of all labels of an image, or None. Skills are those
of `dense.py` too: answers have the same rates in both modes.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from tests.em.dense import Choices, Image, Skill, TieError

RIGHT_IF = {("yes", True), ("no", False)}


@dataclass
class Question:
    answers: list[tuple[int, str]]
    belief: float | None = None
    truth: bool | None = None
    classes: frozenset[int] = frozenset()


#: The machine's probability of the classes of a set that its belief does not list, as a whole.
FLOOR = 1e-4


@dataclass
class Fit:
    true: dict[tuple[int, int], float]
    objective: list[float] = field(default_factory=list)
    share: float = 0.5


def questions(images: list[Image]) -> dict[tuple[int, int], Question]:
    """The classes believed, voted on or known to be there, of every image."""
    asked: dict[tuple[int, int], Question] = {}
    for i, image in enumerate(images):
        for c in sorted(image.belief or {}):
            asked[i, c] = Question([], belief=image.belief[c])
        for worker, label, response in image.votes:
            question = asked.setdefault((i, label), Question([]))
            question.answers.append((worker, response or "yes"))
        for label in image.gold or ():
            asked.setdefault((i, label), Question([]))
        for c, number in unlisted(i, image, asked).items():
            question = asked.setdefault((i, number), Question([]))
            question.classes = question.classes | {c}
            if image.belief:
                question.belief = FLOOR
        if image.gold is not None:
            for (j, label), question in asked.items():
                if j == i:
                    question.truth = label in image.gold
    return asked


def unlisted(i: int, image: Image, asked) -> dict[int, int]:
    """{class: number of its question}, of the classes of sets that have no question of their own.

    Classes that are in the same sets have one question together: is any of them there?
    """
    of_sets = {c for _, classes, _ in image.sets for c in classes if (i, c) not in asked}
    signature = {c: tuple(c in classes for _, classes, _ in image.sets) for c in of_sets}
    # Numbered below −1; which number which one has does not matter.
    numbers = {s: -2 - n for n, s in enumerate(sorted(set(signature.values())))}
    return {c: numbers[signature[c]] for c in sorted(of_sets)}


def together(image: Image, keys, true, skill, choices) -> tuple[list[float], list[dict], float]:
    """The questions of an image under its answers about sets, over all combinations of truths.

    true: by their own votes. skill: None before the first M-step. Returns the posterior of each
    question, the counts of each answer's cells, and the log evidence of the answers.
    """
    total, marginal = 0.0, [0.0] * len(keys)
    counts: list[dict] = [defaultdict(float) for _ in image.sets]
    members = [
        [k for k, (_, question, label) in enumerate(keys) if label in s or question.classes & s]
        for _, s, _ in image.sets
    ]
    for truths in itertools.product([True, False], repeat=len(keys)):
        weight = math.prod(
            true[key] if t else 1 - true[key] for (key, *_), t in zip(keys, truths, strict=True)
        )
        cells = [
            cell(worker, any(truths[k] for k in inside), response, choices)
            for (worker, _, response), inside in zip(image.sets, members, strict=True)
        ]
        if skill is not None:
            weight *= math.prod(theta(skill, key) for key in cells)
        total += weight
        for k, t in enumerate(truths):
            marginal[k] += weight * t
        for number, key in enumerate(cells):
            counts[number][key] += weight
    for each in counts:
        for key in each:
            each[key] /= total
    return [m / total for m in marginal], counts, math.log(total)


def tie(images, asked, true, skill, choices) -> tuple[list[dict], float]:
    """Update `true` by the answers about sets; returns their counts and log evidence."""
    every, evidence = [], 0.0
    for i, image in enumerate(images):
        if image.sets:
            keys = [(key, question, key[1]) for key, question in asked.items() if key[0] == i]
            posterior, counts, log_evidence = together(image, keys, true, skill, choices)
            true |= {key: p for (key, *_), p in zip(keys, posterior, strict=True)}
            every += counts
            evidence += log_evidence
    return every, evidence


def implied(keys, above, prior, say) -> tuple[dict, dict, float]:
    """The questions of an image whose classes imply those above, over all combinations of causes.

    above: {class: all classes above it}. prior: probability of each cause. say: of what was
    answered to each question, where it is true and where it is false. Returns the posterior of
    the questions, of the causes, and the log evidence.
    """
    total, true, cause = 0.0, defaultdict(float), defaultdict(float)
    for causes in itertools.product([True, False], repeat=len(keys)):
        there = {k for k, x in zip(keys, causes, strict=True) if x}
        implied_there = there | {k for k in keys if any(k[1] in above[d] for _, d in there)}
        weight = math.prod(prior[k] if k in there else 1 - prior[k] for k in keys)
        weight *= math.prod(say[k][k not in implied_there] for k in keys)
        total += weight
        for k in implied_there:
            true[k] += weight
        for k in there:
            cause[k] += weight
    if not total:  # perfect workers who contradict each other
        raise TieError
    return (
        {k: true[k] / total for k in keys},
        {k: cause[k] / total for k in keys},
        math.log(total),
    )


def imply(images, asked, above, prior, say, true) -> tuple[dict, float]:
    """Update `true` by what classes imply; returns causes, and log evidence of images with gold
    left out: there each question is by itself."""
    causes, evidence = dict(true), 0.0
    for i, image in enumerate(images):
        keys = [key for key in asked if key[0] == i]
        if image.gold is None and keys:
            posterior, own, log_evidence = implied(keys, above, prior, say)
            true |= posterior
            causes |= own
            evidence += log_evidence
    return causes, evidence


def prior(question: Question, share: float, choices: Choices) -> float:
    if question.belief is None:
        return share
    logit = math.log(question.belief / (1 - question.belief))
    return 1 / (1 + math.exp(-choices.a * logit - choices.b))


def cell(worker: int, truth: bool, response: str, choices: Choices) -> tuple:
    if choices.worker_model == "confusion":
        return ("answer", worker, truth, response)
    if response == "unsure":
        return ("answer", worker, "unsure")
    return ("answer", worker, "right" if (response, truth) in RIGHT_IF else "wrong")


def theta(skill: Skill, key: tuple) -> float:
    if skill.choices.worker_model == "perfect":
        return 1e-100 if key[-1] == "wrong" else 1.0
    return skill.theta(key)


def start(question: Question, choices: Choices) -> float:
    if question.truth is not None:
        return float(question.truth)
    yes = [response for _, response in question.answers].count("yes")
    no = [response for _, response in question.answers].count("no")
    if question.belief is None and yes + no:
        return yes / (yes + no)
    return prior(question, 0.5, choices)


def count(asked, true, choices, of_sets=()) -> dict[tuple, float]:
    counts: dict[tuple, float] = defaultdict(float)
    for each in of_sets:
        for key, n in each.items():
            counts[key] += n
    for key, question in asked.items():
        yes = float(true[key] >= 0.5) if choices.hard else true[key]
        for worker, response in question.answers:
            counts[cell(worker, True, response, choices)] += yes
            counts[cell(worker, False, response, choices)] += 1 - yes
    return dict(counts)


def log(probability: float) -> float:
    return math.log(probability) if probability else -math.inf


def true_share(asked, true, in_set) -> float:
    """Of the questions that were answered and that no belief says anything of."""
    free = [
        true[key] for key, q in asked.items() if (q.answers or in_set(key)) and q.belief is None
    ]
    return min(max(sum(free) / len(free), 1e-6), 1 - 1e-6) if free else 0.5


def expectation_maximisation(
    images: list[Image], choices: Choices, iterations: int, above: dict[int, set[int]] | None = None
) -> Fit:
    """above: all classes above each, where a class implies them; then there are no sets."""
    asked = questions(images)
    if above is not None:
        for i, image in enumerate(images):
            for key, question in asked.items():
                if key[0] == i and image.gold is not None:
                    question.truth = any(key[1] in {g, *above[g]} for g in image.gold)
    fit = Fit({key: start(question, choices) for key, question in asked.items()})

    def in_set(key) -> bool:
        i, label = key
        return label < 0 or any(label in classes for _, classes, _ in images[i].sets)

    of_sets, _ = tie(images, asked, fit.true, None, choices)
    causes = fit.true
    if above is not None:
        nothing = dict.fromkeys(asked, (1.0, 1.0))
        causes, _ = imply(images, asked, above, dict(fit.true), nothing, fit.true)
    for iteration in range(iterations):
        weighed = [*fit.true.values(), *causes.values()] if iteration or above is not None else []
        if choices.hard and any(abs(p - 0.5) < 1e-9 for p in weighed):
            raise TieError  # rounding decides which side counts
        skill = Skill(count(asked, fit.true, choices, of_sets), choices)
        fit.share = true_share(asked, causes, in_set)
        likelihood, say, before_all = 0.0, {}, {}
        for key, question in asked.items():
            before = prior(question, fit.share, choices)
            yes, no = log(before), log(1 - before)
            for worker, response in question.answers:
                yes += math.log(theta(skill, cell(worker, True, response, choices)))
                no += math.log(theta(skill, cell(worker, False, response, choices)))
            before_all[key] = before
            say[key] = math.exp(yes - log(before)), math.exp(no - log(1 - before))
            if question.truth is not None:
                yes, no = (yes, -math.inf) if question.truth else (-math.inf, no)
            either = float(np.logaddexp(yes, no))
            counted = question.answers or question.belief is not None or in_set(key)
            if counted and (above is None or question.truth is not None):
                likelihood += either
            fit.true[key] = math.exp(yes - either)
        of_sets, evidence = tie(images, asked, fit.true, skill, choices)
        causes = fit.true
        if above is not None:
            causes, evidence = imply(images, asked, above, before_all, say, fit.true)
        estimated = choices.worker_model != "perfect" and choices.alpha
        log_prior = skill.log_prior() if estimated else 0.0
        fit.objective.append(likelihood + evidence + log_prior)
    return fit
