"""What the curves say in words: the votes that a wanted accuracy takes, under each policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Columns that are averaged over seeds.
MEASURES = (
    "votes_per_image",
    "accuracy",
    "learner_accuracy",
    "calibration_error",
    "estimated_accuracy",
    "estimate_low",
    "estimate_high",
    "finished",
    "seconds",
    "cost",
)


@dataclass(frozen=True)
class Curve:
    """The rounds of one policy. mean, low, high: by measure, (rounds,), over seeds.

    seeds: how many there are. stopped: why they ended.
    """

    policy: str
    mean: Mapping[str, F64]
    low: Mapping[str, F64]
    high: Mapping[str, F64]
    seeds: int
    stopped: tuple[str, ...]


def curves_of(
    table: pa.Table, policies: Sequence[str], stopped: Mapping[str, Sequence[str]]
) -> list[Curve]:
    """The curves of the policies, in their order; table: curve.CURVE, in any order.

    Rounds that some seed did not reach are left out of the mean.
    """
    curves = []
    for policy in policies:
        own = table.filter(pa.compute.equal(table["policy"], policy))
        seeds = sorted(set(own["seed"].to_pylist()))
        parts = [own.filter(pa.compute.equal(own["seed"], seed)).sort_by("round") for seed in seeds]
        rounds = min(part.num_rows for part in parts)
        values = {
            name: np.stack(
                [part[name].slice(0, rounds).to_numpy().astype(np.float64) for part in parts]
            )
            for name in MEASURES
        }
        curves.append(
            Curve(
                policy,
                {name: value.mean(axis=0) for name, value in values.items()},
                {name: value.min(axis=0) for name, value in values.items()},
                {name: value.max(axis=0) for name, value in values.items()},
                len(seeds),
                tuple(sorted(set(stopped[policy]))),
            )
        )
    return curves


def votes_needed(curve: Curve, accuracy: float) -> float | None:
    """Votes per image at which the mean accuracy first reaches a value; None if it never does.

    Between two rounds the curve is a straight line.
    """
    reached = curve.mean["accuracy"]
    votes = curve.mean["votes_per_image"]
    hits = np.flatnonzero(reached >= accuracy)
    if not len(hits):
        return None
    hit = int(hits[0])
    if hit == 0:
        return float(votes[0])
    before, after = reached[hit - 1], reached[hit]
    share = (accuracy - before) / (after - before)
    return float(votes[hit - 1] + share * (votes[hit] - votes[hit - 1]))


def answer(curves: Sequence[Curve], accuracy: float) -> str:
    """One sentence: which policy reaches an accuracy with the fewest votes, and the others.

    Such as "0.80 needs 0.34 votes per image with risk (random: 0.55; lean: not reached)".
    """
    needed = [(votes_needed(curve, accuracy), curve) for curve in curves]
    reached = sorted(
        ((votes, order) for order, (votes, _) in enumerate(needed) if votes is not None)
    )
    if not reached:
        best = max(curves, key=lambda curve: float(curve.mean["accuracy"][-1]))
        return (
            f"{accuracy:.2f} is not reached: the best is {best.mean['accuracy'][-1]:.3f} at "
            f"{best.mean['votes_per_image'][-1]:.2f} votes per image with {best.policy}"
        )
    first = reached[0][1]
    others = [
        f"{curve.policy}: {'not reached' if votes is None else f'{votes:.2f}'}"
        for order, (votes, curve) in enumerate(needed)
        if order != first
    ]
    sentence = (
        f"{accuracy:.2f} needs {reached[0][0]:.2f} votes per image with {curves[first].policy}"
    )
    return f"{sentence} ({'; '.join(others)})" if others else sentence


def summary_of(
    curves: Sequence[Curve], accuracy: float, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """summary.json: the answer, the facts, and of each policy the means at its rounds."""
    best = max(float(curve.mean["accuracy"].max()) for curve in curves)
    steps = {accuracy} | {level / 20 for level in range(1, 20) if level / 20 <= best}
    wanted = sorted(level for level in steps if level >= 0.5 or level == accuracy)
    return {
        "answer": answer(curves, accuracy),
        "answers": [answer(curves, level) for level in wanted],
        **facts,
        "policies": {
            curve.policy: {
                "votes_needed": {f"{level:.2f}": votes_needed(curve, level) for level in wanted},
                "stopped": list(curve.stopped),
                "seeds": curve.seeds,
                **{
                    name: [None if np.isnan(v) else round(float(v), 6) for v in curve.mean[name]]
                    for name in MEASURES
                },
            }
            for curve in curves
        },
    }
