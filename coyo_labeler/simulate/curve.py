"""One simulation from the first round to the last, and what is written down of each round."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler.learn.softmax import F32
from coyo_labeler.simulate.audit import estimate_accuracy
from coyo_labeler.simulate.choose import POLICIES, most_wanted, risk_of
from coyo_labeler.simulate.methods import Labels, Method
from coyo_labeler.simulate.world import Assignment, World

I64 = NDArray[np.int64]

#: Bins of the expected calibration error.
_BINS = 15

CURVE = pa.schema(
    [
        pa.field("policy", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("round", pa.int32(), nullable=False),
        pa.field("votes", pa.int64(), nullable=False),
        pa.field("votes_per_image", pa.float64(), nullable=False),
        pa.field("accuracy", pa.float64(), nullable=False),
        pa.field("learner_accuracy", pa.float64(), nullable=False),
        pa.field("calibration_error", pa.float64(), nullable=False),
        pa.field("estimated_accuracy", pa.float64(), nullable=False),
        pa.field("estimate_low", pa.float64()),
        pa.field("estimate_high", pa.float64()),
        pa.field("finished", pa.float64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("cost", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Budget:
    """How much is asked.

    votes: in all. rounds: in how many. audit: share drawn by chance alone. gold: share on known
    images, where there are some, to see how right the workers are. most: votes of one image, audit
    apart. finished_risk: an image is finished below it. seconds, price: of one vote.
    """

    votes: int
    rounds: int
    audit: float = 0.1
    gold: float = 0.05
    most: int = 3
    finished_risk: float = 0.1
    seconds: float = 5.0
    price: float = 0.02


def simulate(
    policy: str,
    world: World,
    features: F32,
    method: Method,
    assignment: Assignment,
    budget: Budget,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[pa.Table, str]:
    """The curve (CURVE) of one policy, and why it ended.

    policy: of choose.POLICIES, or a method of the seed paper, which asks at random among images
    that are not finished. progress: called with the rounds done.
    """
    labels = method.update(world, features)
    rows = [_row(policy, world, labels, budget, 0)]
    spent = 0
    for round_ in range(1, budget.rounds + 1):
        wanted = round(budget.votes * round_ / budget.rounds) - spent
        if wanted <= 0:
            continue
        asked = _ask(policy, world, labels, method, assignment, budget, round_, wanted)
        if asked == 0:
            break
        spent += asked
        labels = method.update(world, features)
        rows.append(_row(policy, world, labels, budget, round_))
        progress(round_)
    progress(budget.rounds)
    why = "the budget is spent" if budget.votes else "the budget is zero"
    if spent < budget.votes:
        why = _why_nobody(world, labels, method, budget, spent)
    return pa.Table.from_pylist(rows, schema=CURVE), why


def _ask(
    policy: str,
    world: World,
    labels: Labels,
    method: Method,
    assignment: Assignment,
    budget: Budget,
    round_: int,
    wanted: int,
) -> int:
    """Ask `wanted` questions, or as many as there are images to ask about."""
    audit = 0 if method.finishes else round(budget.audit * wanted)
    gold = 0 if method.finishes else round(budget.gold * wanted)
    audited = world.choose_audit(audit, round_)
    known = world.choose_gold(min(gold, wanted - len(audited)), round_)
    open_ = _open(world, labels, method, budget)
    open_ = open_[~np.isin(open_, audited)]
    draw = world.scores_draw(open_, round_)
    score = POLICIES.get(policy, POLICIES["random"])(
        labels.posterior[open_], world.votes[open_], draw
    )
    chosen = open_[most_wanted(score, draw, wanted - len(audited) - len(known))]
    rows = np.concatenate([audited, chosen, known])
    if len(rows) == len(known):  # nothing is left to learn about
        return 0
    by_chance = np.arange(len(rows)) < len(audited)
    return world.ask(rows, by_chance, assignment, round_, labels.posterior, labels.skills.accuracy)


def _open(world: World, labels: Labels, method: Method, budget: Budget) -> I64:
    """Images that may be asked about: not known, and with a vote left."""
    most = min(budget.most, world.crowd.workers)
    rows = world.unknown[world.votes[world.unknown] < most]
    if method.finishes:
        rows = rows[risk_of(labels.posterior[rows]) >= budget.finished_risk]
    return rows


def _why_nobody(world: World, labels: Labels, method: Method, budget: Budget, spent: int) -> str:
    most = min(budget.most, world.crowd.workers)
    all_votes = f"has its {most} {'vote' if most == 1 else 'votes'}"
    if not (world.votes[world.unknown] < most).any():
        return f"every image {all_votes}"
    if method.finishes and not len(_open(world, labels, method, budget)):
        return f"every image is finished (risk below {budget.finished_risk:g}) or {all_votes}"
    finished = f"was finished (risk below {budget.finished_risk:g}), " if method.finishes else ""
    return (
        f"fewer could be asked than wanted, {spent:,} of {budget.votes:,} votes: at times every "
        f"other image {finished}had its {most} {'vote' if most == 1 else 'votes'}, or no worker "
        "was left within worker_quota"
    )


def _row(
    policy: str, world: World, labels: Labels, budget: Budget, round_: int
) -> dict[str, object]:
    rows = world.unknown
    truth = world.truth[rows]
    posterior = labels.posterior[rows]
    top = posterior.argmax(axis=1)
    estimate = estimate_accuracy(world, labels.posterior, labels.skills)
    votes = len(world.row)
    return {
        "policy": policy,
        "seed": world.seed,
        "round": round_,
        "votes": votes,
        "votes_per_image": votes / len(rows),
        "accuracy": float((top == truth).mean()),
        "learner_accuracy": float((labels.learner[rows].argmax(axis=1) == truth).mean()),
        "calibration_error": calibration_error(posterior, truth),
        "estimated_accuracy": estimate.accuracy,
        "estimate_low": estimate.low,
        "estimate_high": estimate.high,
        "finished": float((risk_of(posterior) < budget.finished_risk).mean()),
        "seconds": votes * budget.seconds,
        "cost": votes * budget.price,
    }


def calibration_error(posterior: F32, truth: I64) -> float:
    """The expected calibration error of the top class, in 15 bins of equal width.

    Naeini, Cooper & Hauskrecht, AAAI 2015.
    """
    stated = posterior.max(axis=1).astype(np.float64)
    right = (posterior.argmax(axis=1) == truth).astype(np.float64)
    bins = np.minimum((stated * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, stated - right, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(truth))
