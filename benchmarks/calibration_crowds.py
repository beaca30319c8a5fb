"""Simulated people for benchmarks of calibration: whom they are asked about, and what they say."""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.inputs import Beliefs, Gold, Inclusion, Inputs, SetVotes, Votes
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import F64, I64, Bool

#: Classes of a belief.
LISTED = 20


@dataclass(frozen=True)
class World:
    """truth: (n,) classes. p: (n, C) what the machine says. name: of the machine."""

    name: str
    truth: I64
    p: F64


@dataclass(frozen=True)
class Crowd:
    """votes: answers in all, one or two per image. audit: share of them drawn by chance.

    known: whether inclusion probabilities are. accuracy: of the workers, about. structured: they
    err where the machine is unsure (`hardness_of`), and mostly as it does. offered: people choose
    among so many classes, those that the machine finds likeliest; 0: among all.
    """

    votes: int = 2_000
    audit: float = 0.1
    known: bool = True
    accuracy: float = 0.85
    twice: float = 0.0
    workers: int = 20
    structured: bool = False
    offered: int = 0

    def __str__(self) -> str:
        known = "" if self.known else ", not known"
        right = "" if self.accuracy == 0.85 else f", {self.accuracy:.0%} right"
        workers = "" if self.workers == 20 else f", {self.workers} workers"
        structured = ", structured" if self.structured else ""
        return f"{self.votes} votes, {self.audit:.0%} by chance{known}{right}{workers}{structured}"


def asked(world: World, crowd: Crowd, random: np.random.Generator) -> tuple[Bool, F64]:
    """Which images are asked about, and with what probability each was."""
    n = len(world.truth)
    images = round(crowd.votes / (1 + crowd.twice))
    even = images * crowd.audit / n
    riskiest = np.argsort(world.p.max(axis=1), kind="stable")[: round(images * (1 - crowd.audit))]
    inclusion = np.full(n, even)
    inclusion[riskiest] = 1.0
    return random.random(n) < inclusion, inclusion


def inputs_of(world: World, crowd: Crowd, random: np.random.Generator) -> tuple[Inputs, Bool]:
    """What `merge` would read, and which images nobody was asked about."""
    chosen, inclusion = asked(world, crowd, random)
    images, classes = np.flatnonzero(chosen), world.p.shape[1]
    accuracy = np.clip(random.normal(crowd.accuracy, 0.08, crowd.workers), 0.5, 0.99)
    times = 1 + (random.random(len(images)) < crowd.twice)
    image = np.repeat(images, times)
    first = random.integers(0, crowd.workers, len(images))
    start = np.repeat(np.cumsum(times) - times, times)
    worker = (np.repeat(first, times) + np.arange(len(image)) - start) % crowd.workers
    error = 1 - accuracy[worker]
    wrong = (world.truth[image] + random.integers(1, classes, len(image))) % classes
    if crowd.structured:
        hardness, alike = hardness_of(world), likest_wrong_class(world)
        error = np.minimum(error * hardness[image], 0.6)
        wrong = np.where(random.random(len(image)) < 0.6, alike[image], wrong)
    right = random.random(len(image)) >= error
    set_votes = SetVotes.none()
    is_choice = np.ones(len(image), dtype=bool)
    if crowd.offered:
        offered = np.argsort(-world.p[image], axis=1)[:, : crowd.offered]
        wrong, is_choice = choose_of_offered(world.truth[image], offered, right, random)
        none = np.lexsort((worker, image))
        none = none[~is_choice[none]]
        set_votes = SetVotes(
            image[none],
            worker[none].astype(np.int32),
            np.full(len(none), Response.NO, np.int8),
            crowd.offered * np.arange(len(none) + 1),
            np.sort(offered[none], axis=1).ravel().astype(np.int32),
        )
    label = np.where(right, world.truth[image], wrong)
    order = np.lexsort((worker, image))
    order = order[is_choice[order]]
    votes = Votes(
        image[order],
        worker[order].astype(np.int32),
        label[order].astype(np.int32),
        np.zeros(len(order), np.int8),
        np.full(len(order), crowd.offered, np.int32),
    )
    listed, probability = top(world.p[images])
    beliefs = Beliefs(
        images,
        listed.shape[1] * np.arange(len(images) + 1),
        listed.ravel().astype(np.int32),
        probability.ravel(),
    )
    nothing = np.zeros(0, np.int64)
    known = images if crowd.known else nothing
    return Inputs(
        votes,
        set_votes,
        beliefs,
        Gold(nothing, nothing.astype(np.int32)),
        Inclusion(known, inclusion[known]),
    ), ~chosen


def choose_of_offered(
    truth: I64, offered: I64, right: Bool, random: np.random.Generator
) -> tuple[I64, Bool]:
    """A wrong class of those offered for each vote, and whether it is a choice, (votes,) each.

    Others say "none of these": who is right about a class that was not offered, and who errs about
    one that was, as often as by any other wrong answer. offered: (votes, classes offered).
    """
    is_truth = offered == truth[:, None]
    even = np.where(is_truth, -1.0, random.random(offered.shape))
    wrong = np.take_along_axis(offered, even.argmax(axis=1)[:, None], axis=1)[:, 0]
    is_listed = is_truth.any(axis=1)
    none = np.where(
        right, ~is_listed, is_listed & (random.random(len(truth)) < 1 / offered.shape[1])
    )
    return wrong, ~none


def hardness_of(world: World) -> F64:
    """How much more often than on average people err on each image, (n,): three times as often on
    the tenth of which the machine is least sure as on the others.
    """
    top = world.p.max(axis=1)
    hardness = np.where(top <= np.quantile(top, 0.1), 3.0, 1.0)
    return np.asarray(hardness / hardness.mean())


def likest_wrong_class(world: World) -> I64:
    """The most probable wrong class of each image, for the machine, (n,)."""
    wrong = world.p.copy()
    wrong[np.arange(len(wrong)), world.truth] = -1.0
    return wrong.argmax(axis=1)


def top(p: F64) -> tuple[I64, F64]:
    """The classes that a belief lists, most probable first, and their probabilities."""
    label = np.argsort(-p, axis=1, kind="stable")[:, :LISTED]
    return label, np.take_along_axis(p, label, axis=1)
