"""Whether the learner is believed beside a teacher: what held-out images say of both."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.learn.evidence import Evidence
from coyo_labeler.learn.pool import ByPosteriors, ByVotes, Judge, Pool, fit_pool
from coyo_labeler.learn.softmax import F32
from coyo_labeler.learn.teacher import RowGroups, log_beliefs, read_beliefs

logger = logging.getLogger(__name__)

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """Images that some softmax has not seen, and what it says of them.

    image: (m,) ids. targets: (m, C) posteriors. learner: (m, C) log probabilities. classes: (C,).
    """

    image: I64
    targets: F32
    learner: F32
    classes: I64


def judge(
    held_out: HeldOut,
    beliefs: RowGroups | None,
    evidence: Evidence | None,
    space: LabelSpace,
) -> tuple[Pool, Mapping[str, Any]]:
    """The weights of teacher and learner, and metrics.

    beliefs: the teacher's. evidence: the votes on these images, which judge; None: their posteriors
    do.
    """
    metrics: dict[str, Any] = {
        "judged_images": len(held_out.image),
        "learner": held_out_metrics(held_out.learner, held_out.targets),
    }
    if beliefs is None:
        return Pool(0.0, 1.0, 0.0, len(held_out.image)), metrics
    rows = read_beliefs(beliefs, held_out.image)
    own, position, index = np.intersect1d(
        held_out.image, rows["id"].to_numpy(), return_indices=True
    )
    if not len(own):
        logger.warning(
            "learn: the teacher has no belief of any image to learn from; where it has one, its "
            "belief stays as it is"
        )
        return Pool(), metrics
    teacher = log_beliefs(rows.take(index), held_out.classes, space.size)
    learner, targets = held_out.learner[position], held_out.targets[position]
    by: Judge = ByPosteriors(targets)
    chosen: slice | I64 = slice(None)
    if evidence is not None:
        own, chosen, voted = np.intersect1d(own, evidence.image, return_indices=True)
        by = ByVotes(evidence.log_likelihood[voted])
    pool = fit_pool(teacher[chosen], learner[chosen], by, own)
    both = _pooled(pool, teacher, learner)
    metrics |= {
        "teacher": held_out_metrics(teacher, targets),
        "teacher_and_learner": held_out_metrics(both, targets),
        "pool": {
            "judged_by": "posteriors" if evidence is None else "votes",
            "teacher": round(pool.teacher, 6),
            "learner": round(pool.learner, 6),
            "gain": round(pool.gain, 6),
            "images": pool.images,
        },
    }
    if evidence is not None:
        metrics["pool"]["votes"] = evidence.votes
        named = {"teacher": teacher, "learner": learner, "teacher_and_learner": both}
        metrics["votes_log_likelihood"] = {
            name: round(float(by.judge(belief[chosen])[0].mean()), 6) if len(own) else None
            for name, belief in named.items()
        }
    _say(pool)
    return pool, metrics


def _say(pool: Pool) -> None:
    if pool.learner == 0:
        logger.warning(
            "learn: held-out images do not gain by the learner (%+.4f nats per image, %s images): "
            "beliefs are the teacher's",
            pool.gain,
            f"{pool.images:,}",
        )
    else:
        logger.info(
            "learn: teacher^%.2f × learner^%.2f gains %.4f nats per held-out image",
            pool.teacher,
            pool.learner,
            pool.gain,
        )


def _pooled(pool: Pool, teacher: F32, learner: F32) -> F32:
    return np.asarray(np.log(np.maximum(pool.apply(teacher, learner), np.float32(1e-30))))


def held_out_metrics(log_probability: F32, targets: F32) -> dict[str, float]:
    """Of some held-out images: mean log likelihood of the posteriors, and agreement of top classes.

    log_probability, targets: (m, C).
    """
    likelihood = np.einsum("nc,nc->n", targets, log_probability, dtype=np.float64)
    agrees = log_probability.argmax(axis=1) == targets.argmax(axis=1)
    return {
        "log_likelihood": round(float(likelihood.mean()), 6),
        "agreement": round(float(agrees.mean()), 6),
    }
