"""An estimate of accuracy that needs no truth: votes on images that chance alone chose.

The mean stated probability of all labels is corrected by how much it was wrong on audited images
(prediction-powered inference: Angelopoulos et al., Science 382, 2023). An audited image is judged
by its own vote, which the label that is judged has not seen:

    P(vote = label) = q A + (1 − q) E        A = θ_j(label | label)
    bias = Σ (agrees − E − c (A − E)) / Σ (A − E)
    accuracy = mean stated probability + bias

q: whether the label is right. c: its stated probability. E: the mean of θ_j(label | y) over the
other classes y, by their probabilities. The workers' own errors enter by A and E. They come from
votes on known images, where there are enough: skills that EM estimates are too low where the
learner is wrong with confidence, and then accuracy is overestimated.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.learn.softmax import F32, log_softmax
from coyo_labeler.simulate.inference import SkillPrior, Skills, estimate_skills
from coyo_labeler.simulate.world import World

#: Half the width of a 95 % interval, in standard errors.
_Z = 1.959964
#: Fewer audited votes than this say too little.
_FEWEST = 20
#: Pull of the mean accuracy on what votes on known images say of a class, and of a worker.
_GOLD_STRENGTH = 10.0


@dataclass(frozen=True)
class Estimate:
    """Accuracy of all labels, with a 95 % interval; low and high are None without an audit."""

    accuracy: float
    low: float | None = None
    high: float | None = None


def estimate_accuracy(world: World, posterior: F32, skills: Skills) -> Estimate:
    """The accuracy of the labels of all images that were not known at the start.

    posterior: (n, C). Without enough audited votes it is the mean stated probability.
    """
    gold = np.flatnonzero(world.known[world.row])
    if len(gold) >= _FEWEST:
        judges, uncertainty = _skills_on_gold(world, gold)
    else:
        judges, uncertainty = skills, 0.0
    stated = float(posterior[world.unknown].max(axis=1).mean(dtype=np.float64))
    votes = np.flatnonzero(world.audited)
    if len(votes) < _FEWEST:
        return Estimate(stated)
    row, worker, voted = world.row[votes], world.worker[votes], world.voted[votes]
    table = skills.log_theta[worker, voted]  # (v, truth): of the vote that was given
    others = log_softmax(np.log(np.maximum(posterior[row], np.float32(1e-30))) - table)
    without = np.exp(others).astype(np.float64)
    label = without.argmax(axis=1)
    every = np.arange(len(votes))
    c = without[every, label]
    agrees = (voted == label).astype(np.float64)
    says_label = np.exp(judges.log_theta[worker, label]).astype(np.float64)  # (v, truth)
    right = says_label[every, label]
    rest = without.copy()
    rest[every, label] = 0.0
    mass = rest.sum(axis=1)
    uniform = (says_label.sum(axis=1) - right) / max(world.classes - 1, 1)
    wrong = np.where(mass > 1e-9, (rest * says_label).sum(axis=1) / np.maximum(mass, 1e-9), uniform)
    power = right - wrong
    used = power > 0.02  # of others the vote says next to nothing
    if used.sum() < _FEWEST:
        return Estimate(stated)
    gap = (agrees - wrong - c * power)[used]
    total = float(power[used].sum())
    bias = float(gap.sum()) / total
    residual = gap - bias * power[used]
    # A and E are wrong together where the workers' accuracy is: a second source of error.
    slope = float((c[used] + bias).sum()) / total
    error = float(np.sqrt((residual**2).sum() / total**2 + (slope * uncertainty) ** 2))
    middle = stated + bias
    return Estimate(
        float(np.clip(middle, 0, 1)),
        float(np.clip(middle - _Z * error, 0, 1)),
        float(np.clip(middle + _Z * error, 0, 1)),
    )


def _skills_on_gold(world: World, votes: NDArray[np.int64]) -> tuple[Skills, float]:
    """Skills by votes on known images alone, and the standard error of the mean accuracy."""
    row, worker, voted = world.row[votes], world.worker[votes], world.voted[votes]
    truth = world.truth[row]
    accuracy = float(((voted == truth).sum() + 1) / (len(votes) + 2))
    counts = np.zeros((world.crowd.workers, world.classes, world.classes))
    np.add.at(counts, (worker, voted, truth), 1.0)
    prior = SkillPrior(_GOLD_STRENGTH, _GOLD_STRENGTH, min(accuracy, 0.999))
    return estimate_skills(counts, prior), float(np.sqrt(accuracy * (1 - accuracy) / len(votes)))
