"""Draws from the joint posterior: parameters of workers and table, then which labels are right.

Each draw takes parameters from the normal approximation at their mode, the true class of every
image given them and its answers, and one weight per image (bootstrap over images, Rubin 1981).
Drawing the workers' parameters does for workers what the bootstrap does for images.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse
from scipy.special import log_expit

from coyo_labeler.audit.fit import Fit
from coyo_labeler.audit.inputs import Judged
from coyo_labeler.audit.states import Model
from coyo_labeler.em.segments import F64, I32, I64, Bool

#: Degrees of freedom of the distribution that parameters are drawn from.
_FREEDOM = 30.0
#: Numbers that one block of draws may hold.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Draws:
    """base_right, label_right: (images, draws) whether `Judged.base` and `label` are right.
    chance: (images, draws) weights of the bootstrap, exponential with mean 1. log_weight: (draws,)
    log of the posterior density of the parameters over that of what they were drawn from.
    """

    base_right: Bool
    label_right: Bool
    chance: F64
    log_weight: F64


def parameter_draws(fitted: Fit, draws: int, random: np.random.Generator) -> tuple[F64, F64]:
    """Parameters from Student's t around the mode, (parameters, draws), and their log density.

    Its tails are longer than the normal ones, as those of the posterior are with few answers.
    """
    values, vectors = linalg.eigh(fitted.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    size = len(values)
    normal = random.standard_normal((size, draws))
    stretch = np.sqrt(_FREEDOM / random.chisquare(_FREEDOM, draws))
    away = normal * stretch
    log_density = -0.5 * (_FREEDOM + size) * np.log1p((away**2).sum(axis=0) / _FREEDOM)
    return np.asarray(fitted.parameters[:, None] + root @ away), log_density


def draw(
    model: Model, judged: Judged, fitted: Fit, draws: int, random: np.random.Generator
) -> Iterator[Draws]:
    """Blocks of draws, `draws` in all."""
    parameters, log_density = parameter_draws(fitted, draws, random)
    log_weight = fitted.log_prior(parameters) - log_density
    states = len(model.label)
    count = sparse.csr_matrix(
        (np.ones(len(model.state)), (model.state, model.kind)), shape=(states, len(model.row))
    )
    step = max(1, _BLOCK // max(states, 1))
    for first in range(0, draws, step):
        block = parameters[:, first : first + step]
        linear = np.asarray(model.design @ block)[model.row] + model.offset[:, None]
        factors = model.power[:, None] * log_expit(model.sign[:, None] * linear)
        score = model.constant[:, None] + count @ factors
        yield _judge(model, judged, score, log_weight[first : first + step], random)


def _judge(
    model: Model, judged: Judged, score: F64, log_weight: F64, random: np.random.Generator
) -> Draws:
    """The labels that are right in each draw. score: (states, draws) log of joint probability."""
    starts = model.offsets[:-1]
    image = np.repeat(np.arange(model.images), np.diff(model.offsets))
    top = np.maximum.reduceat(score, starts, axis=0)
    score = np.exp(score - top[image])
    total = np.add.reduceat(score, starts, axis=0)
    of_base = _probability(model, image, judged.base, score, total)
    of_label = _probability(model, image, judged.label, score, total)
    level = random.random(total.shape)
    base_right = level < of_base
    same = (judged.base == judged.label)[:, None]
    other = (level >= of_base) & (level < of_base + of_label)
    return Draws(
        base_right,
        np.where(same, base_right, other),
        random.standard_exponential(total.shape),
        log_weight + (top + np.log(total)).sum(axis=0),
    )


def _probability(model: Model, image: I64, wanted: I32, score: F64, total: F64) -> F64:
    """The probability of one class per image, (images, draws); 0 where there is none."""
    hit = np.flatnonzero((model.label == wanted[image]) & (model.label >= 0))
    share = np.zeros(total.shape)
    share[image[hit]] = score[hit] / total[image[hit]]
    return share
