"""EM over choices of few classes, dense: posteriors of images and confusion matrices of workers.

    p_i(y) ∝ π_i(y) Π_votes θ_j(z | y)
    θ_j(z | y) = (α g(z | y) + n_j(y, z)) / (α + n_j(y, ·))
    g(z | y)   = (β h(z | y) + N(y, z)) / (β + N(y, ·))
    h(z | y)   = a if z = y, else (1 − a) / (C − 1)

It is the model of `em` (docs/model.md), to which the tests compare it. `em` keeps a support for
each image and lists every pair of a vote and a class. A simulation runs EM after every round over
all classes, for which two products with one sparse matrix of the votes are enough.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from coyo_labeler.learn.softmax import F32, F64, log_softmax

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class SkillPrior:
    """What is believed of workers before any vote.

    strength: α, of the pool's pull on each worker. pooling: β, of h's pull on the pool. accuracy:
    a. one_coin: one accuracy for all classes of a worker, mistakes spread evenly.
    """

    strength: float = 10.0
    pooling: float = 20.0
    accuracy: float = 0.7
    one_coin: bool = False


@dataclass(frozen=True)
class Skills:
    """Confusion matrices. log_theta: (workers, voted, truth) natural log of θ_j(z | y)."""

    log_theta: F32

    @classmethod
    def before_votes(cls, workers: int, classes: int, prior: SkillPrior) -> "Skills":
        """Every worker's matrix is h."""
        table = np.log(_base(classes, prior.accuracy)).astype(np.float32)
        return cls(np.broadcast_to(table.T, (workers, classes, classes)).copy())

    @property
    def accuracy(self) -> F64:
        """(workers, classes) θ_j(y | y)."""
        return np.exp(np.diagonal(self.log_theta, axis1=1, axis2=2)).astype(np.float64)


@dataclass(frozen=True)
class VoteMatrix:
    """Choices as a sparse matrix. counts: (images, workers · C), how often worker j voted z."""

    counts: csr_matrix
    workers: int
    classes: int

    @classmethod
    def of(
        cls, row: I64, worker: I64, voted: I64, rows: int, workers: int, classes: int
    ) -> "VoteMatrix":
        """row, worker, voted: (votes,). rows: how many images there are."""
        key = worker * classes + voted
        ones = np.ones(len(row), np.float32)
        shape = (rows, workers * classes)
        return cls(csr_matrix((ones, (row, key)), shape=shape), workers, classes)

    def log_likelihood(self, skills: Skills) -> F32:
        """Σ over the votes of each image of log θ_j(z | y), (images, C)."""
        table = skills.log_theta.reshape(self.workers * self.classes, self.classes)
        return np.asarray(self.counts @ table, dtype=np.float32)

    def expected_counts(self, posterior: F32) -> F64:
        """n_j(y, z), (workers, voted, truth)."""
        counts = np.asarray(self.counts.T @ posterior, dtype=np.float64)
        return counts.reshape(self.workers, self.classes, self.classes)


def fit_skills(
    log_prior: F32,
    votes: VoteMatrix,
    prior: SkillPrior,
    start: Skills,
    max_iterations: int = 30,
    tolerance: float = 1e-3,
) -> tuple[F32, Skills]:
    """Posterior of each image (images, C) and skills, by EM.

    log_prior: (images, C), each row the log of a distribution. tolerance: EM stops when no θ moves
    by more.
    """
    skills = start
    for _ in range(max_iterations):
        posterior = posterior_of(log_prior, votes, skills)
        updated = estimate_skills(votes.expected_counts(posterior), prior)
        moved = np.abs(np.exp(updated.log_theta) - np.exp(skills.log_theta)).max(initial=0.0)
        skills = updated
        if moved < tolerance:
            break
    return posterior_of(log_prior, votes, skills), skills


def posterior_of(log_prior: F32, votes: VoteMatrix, skills: Skills) -> F32:
    """Bayes' rule, (images, C)."""
    joint = votes.log_likelihood(skills)
    joint += log_prior
    log_softmax(joint)
    return np.exp(joint, out=joint)


def estimate_skills(counts: F64, prior: SkillPrior) -> Skills:
    """θ from expected counts (workers, voted, truth), by the formulas above."""
    classes = counts.shape[1]
    base = _base(classes, prior.accuracy).T  # voted, truth
    if prior.one_coin:
        return _one_coin(counts, prior, classes)
    pooled_counts = counts.sum(axis=0)
    pooled = (prior.pooling * base + pooled_counts) / (prior.pooling + pooled_counts.sum(axis=0))
    theta = (prior.strength * pooled + counts) / (
        prior.strength + counts.sum(axis=1, keepdims=True)
    )
    return Skills(np.log(theta).astype(np.float32))


def _one_coin(counts: F64, prior: SkillPrior, classes: int) -> Skills:
    right = np.trace(counts, axis1=1, axis2=2)
    total = counts.sum(axis=(1, 2))
    pooled = (prior.pooling * prior.accuracy + right.sum()) / (prior.pooling + total.sum())
    accuracy = (prior.strength * pooled + right) / (prior.strength + total)
    theta = np.broadcast_to(
        ((1 - accuracy) / max(classes - 1, 1))[:, np.newaxis, np.newaxis], counts.shape
    ).copy()
    every = np.arange(classes)
    theta[:, every, every] = accuracy[:, np.newaxis]
    return Skills(np.log(theta).astype(np.float32))


def _base(classes: int, accuracy: float) -> F64:
    """h(z | y), (truth, voted)."""
    if classes == 1:
        return np.ones((1, 1))
    base = np.full((classes, classes), (1 - accuracy) / (classes - 1))
    np.fill_diagonal(base, accuracy)
    return base
