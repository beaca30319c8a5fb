"""How labels are made of votes: the learner of this package, and the methods of the seed paper.

The seed paper is Liao, Kar & Fidler, CVPR 2021. Its four methods, by the names of its code:

                        learner is trained on                       checked on
    ds_model            nothing                                     –
    lean                voted images and those known at the start   three folds, averaged
    improved_lean       voted images                                images known at the start
    efficient_annotation  finished images, voted or not             images known at the start

They count the most probable class as true, give each worker one accuracy, and take the learner's
prediction as the prior of every image, of those that it was trained on too. Their code is not
copied with its defects: the prior of skills does not know the true accuracy, and nobody is asked
twice about one image.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.learn.out_of_fold import (
    CrossFitted,
    Recipe,
    folds_of,
    predict,
    probabilities,
    sample_by_class,
    shrunk_sharpness,
)
from coyo_labeler.learn.pool import ByPosteriors, fit_pool
from coyo_labeler.learn.softmax import F32, Softmax, class_weights, fit_sharpness, fit_softmax
from coyo_labeler.simulate.inference import (
    SkillPrior,
    Skills,
    VoteMatrix,
    estimate_skills,
    fit_skills,
    posterior_of,
)
from coyo_labeler.simulate.world import World

I64 = NDArray[np.int64]

#: The least probability that a learner's prediction gives a class.
_LEAST = np.float32(1e-6)
#: EM of the seed paper: iterations at most, and the change of skills at which it stops.
_PAPER_ITERATIONS, _PAPER_TOLERANCE = 20, 1e-3
#: Ridges that the seed paper's learners choose from on images known at the start.
_PAPER_RIDGES = (0.1, 1.0, 10.0)


@dataclass(frozen=True)
class Labels:
    """What is believed after a round. posterior, learner: (n, C); skills: of the workers."""

    posterior: F32
    learner: F32
    skills: Skills


class Method(Protocol):
    """Makes labels of all votes so far. finishes: whether finished images are not asked about."""

    finishes: bool

    def update(self, world: World, features: F32) -> Labels:
        """The labels after a round; features: (n, d)."""


def _one_hot(label: I64, classes: int) -> F32:
    targets = np.zeros((len(label), classes), np.float32)
    targets[np.arange(len(label)), label] = 1.0
    return targets


def _vote_matrix(world: World) -> tuple[I64, VoteMatrix]:
    """The voted images, ascending, and their votes."""
    voted = np.flatnonzero(world.votes)
    index = np.zeros(len(world), np.int64)
    index[voted] = np.arange(len(voted))
    matrix = VoteMatrix.of(
        index[world.row], world.worker, world.voted, len(voted), world.crowd.workers, world.classes
    )
    return voted, matrix


def _log(learner: F32) -> F32:
    return np.asarray(np.log(np.maximum(learner, _LEAST)))


@dataclass
class OwnMethod:
    """Pooled confusion matrices and a cross-fitted softmax, each fitted to the other.

    The two take turns with the learner's probabilities as they are. What is stated at the end has
    a temperature, by the known images. A learner that is sharpened before it trains on posteriors
    confirms its own mistakes (docs/simulate.md).

    passes: how often the learner and EM take turns per round. teacher: (n, C) beliefs that are the
    first prior of images, and later one of two: learner and teacher are multiplied, with weights.
    """

    recipe: Recipe
    prior: SkillPrior
    passes: int = 2
    teacher: F32 | None = None
    finishes: bool = False
    _learner: CrossFitted | None = None
    _skills: Skills | None = None
    _learned: F32 | None = None

    def update(self, world: World, features: F32) -> Labels:
        """See Method."""
        skills = self._skills or Skills.before_votes(world.crowd.workers, world.classes, self.prior)
        learned = self._learned if self._learned is not None else self.teacher
        if learned is None:
            learned = np.full((len(world), world.classes), 1 / world.classes, np.float32)
        voted, votes = _vote_matrix(world)
        known = np.flatnonzero(world.known)
        if self._learner is None and len(known):  # a first opinion, from what is known
            learned = self._learn(
                world, features, known, _one_hot(world.truth[known], world.classes)
            )
        rows = np.union1d(known, voted)
        for _ in range(self.passes if len(voted) else 0):
            labels = self._with_known(world, learned)
            labels[voted], skills = fit_skills(_log(labels[voted]), votes, self.prior, skills)
            learned = self._learn(world, features, rows, labels[rows])
        stated = self._stated(world, learned)
        labels = self._with_known(world, stated)
        if len(voted):
            prior = self._with_known(world, learned)[voted]
            _, skills = fit_skills(_log(prior), votes, self.prior, skills)
            labels[voted] = posterior_of(_log(labels[voted]), votes, skills)
        self._skills, self._learned = skills, learned
        return Labels(labels, stated, skills)

    def _with_known(self, world: World, learned: F32) -> F32:
        """The learner's probabilities, and certainty of the known images, (n, C)."""
        labels = learned.copy()
        labels[world.known] = _one_hot(world.truth[world.known], world.classes)
        return labels

    def _stated(self, world: World, learned: F32) -> F32:
        """The learner's probabilities with the temperature that fits the known images."""
        if self._learner is None:
            return learned
        known = np.flatnonzero(world.known)
        targets = _one_hot(world.truth[known], world.classes)
        logits = _log(learned)
        return probabilities(logits, shrunk_sharpness(logits[known], targets))

    def _learn(self, world: World, features: F32, rows: I64, targets: F32) -> F32:
        if self._learner is None:
            self._learner = CrossFitted(self.recipe)
        logits = self._learner.fit(features, world.image, rows, targets)
        learned = probabilities(logits)
        if self.teacher is None:
            return learned
        log_teacher, log_learner = _log(self.teacher), _log(learned)
        judge = ByPosteriors(targets)
        weights = fit_pool(log_teacher[rows], log_learner[rows], judge, world.image[rows])
        return weights.apply(log_teacher, log_learner)


@dataclass
class PaperMethod:
    """One of the four methods of the seed paper; see the table above."""

    name: str
    recipe: Recipe
    prior: SkillPrior
    finished_risk: float = 0.1
    finishes: bool = True
    _posterior: F32 | None = None
    _learned: F32 | None = None
    _starts: dict[int, Softmax] = field(default_factory=dict)

    def update(self, world: World, features: F32) -> Labels:
        """See Method."""
        known = np.flatnonzero(world.known)
        if self._learned is None:
            self._learned = self._learn(world, features, known)
        learned = self._learned  # of the round before: the prior of all images
        skills = Skills.before_votes(world.crowd.workers, world.classes, self.prior)
        posterior = learned.copy()
        voted, votes = _vote_matrix(world)
        if len(voted):
            skills, posterior[voted] = self._infer(learned[voted], votes, skills)
            self._posterior = posterior
            if self.name != "ds_model":
                # The learner is fitted to these labels, and its predictions are the next prior.
                learned = self._learn(world, features, known)
                posterior = learned.copy()
                posterior[voted] = posterior_of(_log(learned[voted]), votes, skills)
        posterior[known] = _one_hot(world.truth[known], world.classes)
        self._learned = learned
        return Labels(posterior, learned, skills)

    def _infer(self, learned: F32, votes: VoteMatrix, skills: Skills) -> tuple[Skills, F32]:
        """EM with hard counts: (skills, posterior)."""
        log_prior = _log(learned)
        posterior = posterior_of(log_prior, votes, skills)
        before = np.full(len(posterior), -1)
        for _ in range(_PAPER_ITERATIONS):
            top = posterior.argmax(axis=1)
            counts = votes.expected_counts(_one_hot(top, posterior.shape[1]))
            updated = estimate_skills(counts, self.prior)
            moved = abs(float((updated.accuracy - skills.accuracy).mean()))
            skills = updated
            posterior = posterior_of(log_prior, votes, skills)
            if (top == before).all() or (self.name != "lean" and moved < _PAPER_TOLERANCE):
                break
            before = top
        return skills, posterior

    def _learn(self, world: World, features: F32, known: I64) -> F32:
        """Predictions for all images."""
        classes = world.classes
        uniform = np.full((len(world), classes), 1 / classes, np.float32)
        if self.name == "ds_model":
            return uniform
        own, labels = self._training(world)
        if self.name == "lean":
            rows = np.concatenate([known, own])
            label = np.concatenate([world.truth[known], labels])
            return self._three_folds(world, features, rows, label) if len(rows) else uniform
        if len(own) <= len(known):  # until there are more, those that are known
            if not len(known):
                return uniform
            return self._three_folds(world, features, known, world.truth[known], sharpen=True)
        return self._checked(world, features, own, labels, known)

    def _training(self, world: World) -> tuple[I64, I64]:
        """The images that the method learns from, without the known ones, and their labels."""
        if self._posterior is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        label = self._posterior.argmax(axis=1)
        chosen = world.votes > 0
        if self.name == "efficient_annotation":
            chosen = 1 - self._posterior.max(axis=1) < self.finished_risk
        rows = np.flatnonzero(chosen & ~world.known)
        return rows, label[rows]

    def _three_folds(
        self, world: World, features: F32, rows: I64, label: I64, sharpen: bool = False
    ) -> F32:
        """The mean of three learners, each of which lacks a third; it saw most votes itself.

        sharpen: fit a temperature on the thirds that were left out.
        """
        fold = folds_of(world.image[rows], 3)
        models = {
            number: self._fit(world, features, rows[fold != number], label[fold != number], number)
            for number in range(3)
            if (fold != number).any()
        }
        sharpness = 1.0
        held_out = [number for number in models if (fold == number).any()]
        if sharpen and held_out:
            logits = [models[number].logits(features[rows[fold == number]]) for number in held_out]
            targets = [_one_hot(label[fold == number], world.classes) for number in held_out]
            sharpness = fit_sharpness(np.concatenate(logits), np.concatenate(targets))
        total = np.zeros((len(world), world.classes), np.float32)
        for model in models.values():
            total += probabilities(predict(model, features), sharpness)
        return total / np.float32(len(models))

    def _checked(self, world: World, features: F32, rows: I64, label: I64, known: I64) -> F32:
        """The learner with the ridge and temperature that fit the known images best."""
        if not len(known):
            return probabilities(predict(self._fit(world, features, rows, label, 3), features))
        targets = _one_hot(world.truth[known], world.classes)
        best: tuple[float, Softmax, float] | None = None
        for number, ridge in enumerate(_PAPER_RIDGES):
            model = self._fit(world, features, rows, label, 3 + number, ridge)
            logits = model.logits(features[known])
            sharpness = fit_sharpness(logits, targets)
            chance = probabilities(logits, sharpness)
            value = float(np.log(np.maximum(chance[targets > 0], _LEAST)).sum())
            if best is None or value > best[0]:
                best = (value, model, sharpness)
        assert best is not None
        return probabilities(predict(best[1], features), best[2])

    def _fit(
        self,
        world: World,
        features: F32,
        rows: I64,
        label: I64,
        number: int,
        ridge: float = 1.0,
    ) -> Softmax:
        kept = sample_by_class(world.image[rows], label, self.recipe.per_class)
        order = np.argsort(rows[kept], kind="stable")
        kept = kept[order]
        targets = _one_hot(label[kept], world.classes)
        model = fit_softmax(
            features[rows[kept]],
            targets,
            class_weights(targets),
            ridge / len(kept),
            self._starts.get(number),
            self.recipe.max_iterations,
            1e-6,
        )
        self._starts[number] = model
        return model
