"""`truth: multi` word for word, in loops: every image and class is a question of its own.

Images are those of `dense.py`; gold is the set of all labels of an image, or None. Skills are those
of `dense.py` too: answers have the same rates in both modes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from tests.em.dense import Choices, Image, Skill

RIGHT_IF = {("yes", True), ("no", False)}


@dataclass
class Question:
    answers: list[tuple[int, str]]
    belief: float | None = None
    truth: bool | None = None


@dataclass
class Fit:
    true: dict[tuple[int, int], float]
    objective: list[float] = field(default_factory=list)
    share: float = 0.5


def questions(images: list[Image]) -> dict[tuple[int, int], Question]:
    """The classes believed, voted on or known to be there, of every image."""
    asked: dict[tuple[int, int], Question] = {}
    for i, image in enumerate(images):
        for c in image.belief or {}:
            asked[i, c] = Question([], belief=image.belief[c])
        for worker, label, response in image.votes:
            question = asked.setdefault((i, label), Question([]))
            question.answers.append((worker, response or "yes"))
        for label in image.gold or ():
            asked.setdefault((i, label), Question([]))
        if image.gold is not None:
            for (j, label), question in asked.items():
                if j == i:
                    question.truth = label in image.gold
    return asked


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


def count(asked, true, choices) -> dict[tuple, float]:
    counts: dict[tuple, float] = defaultdict(float)
    for key, question in asked.items():
        yes = float(true[key] >= 0.5) if choices.hard else true[key]
        for worker, response in question.answers:
            counts[cell(worker, True, response, choices)] += yes
            counts[cell(worker, False, response, choices)] += 1 - yes
    return dict(counts)


def log(probability: float) -> float:
    return math.log(probability) if probability else -math.inf


def true_share(asked, true) -> float:
    """Of the questions that were answered and that no belief says anything of."""
    free = [true[key] for key, q in asked.items() if q.answers and q.belief is None]
    return min(max(sum(free) / len(free), 1e-6), 1 - 1e-6) if free else 0.5


def expectation_maximisation(images: list[Image], choices: Choices, iterations: int) -> Fit:
    asked = questions(images)
    fit = Fit({key: start(question, choices) for key, question in asked.items()})
    for _ in range(iterations):
        skill = Skill(count(asked, fit.true, choices), choices)
        fit.share = true_share(asked, fit.true)
        likelihood = 0.0
        for key, question in asked.items():
            before = prior(question, fit.share, choices)
            yes, no = log(before), log(1 - before)
            for worker, response in question.answers:
                yes += math.log(theta(skill, cell(worker, True, response, choices)))
                no += math.log(theta(skill, cell(worker, False, response, choices)))
            if question.truth is not None:
                yes, no = (yes, -math.inf) if question.truth else (-math.inf, no)
            either = float(np.logaddexp(yes, no))
            if question.answers or question.belief is not None:
                likelihood += either
            fit.true[key] = math.exp(yes - either)
        estimated = choices.worker_model != "perfect" and choices.alpha
        fit.objective.append(likelihood + (skill.log_prior() if estimated else 0.0))
    return fit
