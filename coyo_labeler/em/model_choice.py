"""The choices that `auto` leaves to the votes, by the likelihood of votes that were held out.

A tenth of the images is held out, by the hash of their ids; a model is fitted to the votes on the
others, and the probability that it gives to the votes held out is compared. With few votes that is
repeated with other tenths.

A simpler model is kept unless the gain per vote held out is above two standard errors (of the
differences between the models, image by image) plus a margin. The margin is for votes that cannot
tell the models apart. With fewer than three views of an image (its votes, and the machine's belief)
the same votes are as probable if workers confuse classes as if the machine does, or if classes are
as frequent as the votes: confusions are not identified (Anandkumar et al., Tensor Decompositions
for Learning Latent Variable Models, JMLR 15, 2014, section 3.3, need three views). Then a gain is
no evidence of better labels. The margins were found on simulated and on real votes, docs/model.md.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.build import problems_of
from coyo_labeler.em.calibration import calibration_evidence
from coyo_labeler.em.choices import SHARED_MISTAKES
from coyo_labeler.em.coverage import (
    Coverage,
    choose_knots,
    gather_coverage,
    mean_inverse,
    problem_weights,
    weighting,
)
from coyo_labeler.em.curve import straight
from coyo_labeler.em.e_step import evidence_of
from coyo_labeler.em.held_out import TENTHS, TWO_ERRORS, Gain, blind_share, tells_mistakes, tenth_of
from coyo_labeler.em.hierarchy import Hierarchy
from coyo_labeler.em.inputs import Inputs
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.model import Calibration, Model, WorkerModel
from coyo_labeler.em.partitions import InMemory, PartitionedEStep
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import F64, I64, Bool, bin_sum, distinct, find
from coyo_labeler.hashing import splitmix64

logger = logging.getLogger(__name__)

#: Votes that the choice is based on, at most, and at least; images that tell mistakes, at least.
MOST_VOTES, LEAST_VOTES = 100_000, 100
#: Votes that are held out in all, about, where there are so many.
_HELD_OUT = 10_000
#: Step of the hash that says which images are sampled.
_SAMPLED = 51
#: Gain per vote that says nothing where votes have fewer than three views: of worker models, and of
#: class priors, which need a little more than nothing in any case.
_MARGIN, _MARGIN_PRIOR, _LEAST_PRIOR = 0.25, 0.02, 0.001
#: Standard errors that a gain takes for calibrations (the rule of one standard error: Breiman et
#: al., Classification and Regression Trees, 1984, section 3.4.3).
_ONE_ERROR = 1.0
_RULE = StoppingRule(max_iterations=50, tolerance=1e-5)

#: Worker models, by how much they can tell apart. pooled: confusion with a skill that all share.
#: shared_mistakes: one_coin, and mistakes that are in part those that the machine would make.
CANDIDATES: tuple[WorkerModel, ...] = ("one_coin", "shared_mistakes", "pooled", "confusion")


@dataclass(frozen=True)
class Wanted:
    """What is to be chosen: whether the worker model, the class prior, the calibration's form."""

    worker_model: bool = False
    class_prior: bool = False
    calibration: bool = False

    def any(self) -> bool:
        """Whether anything is."""
        return self.worker_model or self.class_prior or self.calibration


@dataclass(frozen=True)
class Choice:
    """The model, and for the manifest what was compared: log-likelihood per vote held out."""

    model: Model
    document: dict[str, Any] = field(default_factory=dict)


def is_sampled(image: I64, share: float) -> NDArray[np.bool_]:
    """Which images (n,) the choice is based on, by the hash of their ids; share: of all images."""
    return splitmix64(image, _SAMPLED) < np.uint64(min(share, 1.0) * (2**64 - 1025))


def named_model(model: Model, name: WorkerModel) -> Model:
    """The model with this worker model; two are others with a part that is shared."""
    model = replace(model, worker_model=name, shared_skill=False, shared_mistakes=0.0)
    if name == "pooled":
        return replace(model, worker_model="confusion", shared_skill=True)
    if name == "shared_mistakes":
        return replace(model, worker_model="one_coin", shared_mistakes=SHARED_MISTAKES)
    return model


def name_of(model: Model) -> WorkerModel:
    """The reverse of `named_model`."""
    if model.shared_mistakes > 0:
        return "shared_mistakes"
    return "pooled" if model.shared_skill else model.worker_model


def with_calibration(model: Model, coverage: Coverage, curved: bool) -> Model:
    """The model with all that the fit of its calibration on votes needs to know.

    curved: a curve rather than one a and b (and perhaps biases of classes). Where no inclusion
    probability is known, the curve fades beyond the images with votes.
    """
    if model.fit_calibration != "votes":
        return model
    if not curved:
        return replace(model, weighting=weighting(coverage), mean_inverse=(), knots=(), tied=False)
    return replace(
        model,
        class_bias=False,
        weighting=None,
        mean_inverse=mean_inverse(coverage),
        knots=choose_knots(coverage),
        fades=coverage.known == 0,
    )


def first_calibration(model: Model, begin: Calibration) -> Calibration:
    """The calibration to begin from, in the form that the model fits."""
    if model.fit_calibration != "votes" or not model.knots:
        if model.fit_calibration == "none":
            return begin
        bias = begin.bias or (0.0,) * model.classes if model.class_bias else ()
        return replace(begin, curve=None, bias=bias)
    curve = begin.curve
    if curve is not None and (curve.knots, curve.tied) == (model.knots, model.tied):
        return begin
    return straight(model.knots, model.fades, Calibration(begin.a, begin.b), model.tied)


def choose_model(
    sample: Inputs,
    model: Model,
    wanted: Wanted,
    begin: Calibration,
    least_to_calibrate: float,
    hierarchy: Hierarchy | None = None,
) -> Choice:
    """What the votes of a sample support. model: what is not wanted is as it is to be.

    begin: the calibration to begin from. least_to_calibrate: votes with a belief in the sample, or
    gold images, that a calibration takes. hierarchy: as of `problems_of`.
    """
    votes = len(sample.votes.image) + len(sample.set_votes)
    if not wanted.any():
        return Choice(model)
    if votes < LEAST_VOTES:
        return Choice(_by_default(sample, model, wanted), {"votes": votes})
    fit_on = model.fit_calibration
    evidence = calibration_evidence(problems_of(sample, model))
    if fit_on != "none" and evidence[0 if fit_on == "votes" else 1] < least_to_calibrate:
        model = replace(model, fit_calibration="none")
    trial = _Trial(sample, begin, votes, hierarchy)
    document: dict[str, Any] = {"votes": votes, "held_out": trial.held_out}
    curved = wanted.calibration and model.fit_calibration == "votes"
    if curved:
        model = trial.calibrated(model, curved=True)
    if wanted.worker_model:
        chosen, document["worker_model"] = _choose_worker_model(trial, model)
        model = named_model(model, chosen)
    if wanted.class_prior:
        model, document["class_prior"] = _choose_class_prior(trial, model)
    if curved:
        model, document["calibration"] = _choose_calibration(trial, model)
        fit_on = model.fit_calibration
    return Choice(replace(model, fit_calibration=fit_on), document)


def _by_default(sample: Inputs, model: Model, wanted: Wanted) -> Model:
    if wanted.worker_model:
        choices = bool((sample.votes.response == Response.CHOICE).any())
        single = model.truth == "single" and choices
        model = named_model(model, "one_coin" if single else "confusion")
    if wanted.class_prior:
        model = replace(model, estimate_class_prior=False)
    if wanted.calibration:  # a placeholder, which says that it is to be a curve
        model = replace(model, knots=(0.0,))
    return model


class _Trial:
    """Fits models to some tenths of a sample and evaluates them on the others."""

    def __init__(
        self, sample: Inputs, begin: Calibration, votes: int, hierarchy: Hierarchy | None
    ) -> None:
        self._begin, self._hierarchy = begin, hierarchy
        self._tenths = int(np.clip(-(-_HELD_OUT * TENTHS // votes), 1, TENTHS))
        self._parts = [
            (tenth_of(sample, number, held=False), tenth_of(sample, number, held=True))
            for number in range(self._tenths)
        ]
        held = [part for _, part in self._parts]
        self.held_out = sum(len(part.votes.image) + len(part.set_votes) for part in held)
        self.blind = blind_share(held, self.held_out)
        self.unbelieved = any(
            not find(part.beliefs.image, part.votes.image)[1].all() for part in held
        )
        self._sample = sample
        self._built: tuple[Model, list[tuple[Problems, Problems]]] | None = None
        self._coverage: Coverage | None = None

    def calibrated(self, model: Model, curved: bool) -> Model:
        """See `with_calibration`; the coverage is that of the whole sample."""
        if self._coverage is None:
            self._coverage = gather_coverage(problems_of(self._sample, model), model)
        return with_calibration(model, self._coverage, curved)

    def evaluate(self, model: Model) -> F64:
        """Log evidence of each image that was held out, (images,), in one order for all models."""
        return np.concatenate([self._evaluate(model, *pair) for pair in self._problems(model)])

    def _problems(self, model: Model) -> list[tuple[Problems, Problems]]:
        """The problems kept and held out, of each tenth; those of the last model are kept too.

        They depend on neither the calibration nor the class prior that is fitted.
        """
        shape = replace(
            model,
            fit_calibration="none",
            estimate_class_prior=False,
            weighting=None,
            mean_inverse=(),
            knots=(),
            fades=False,
            tied=False,
            class_bias=False,
        )
        if self._built is None or self._built[0] != shape:
            self._built = None  # before the next ones are built
            pairs = [
                (
                    problems_of(kept, shape, self._hierarchy),
                    problems_of(held, shape, self._hierarchy),
                )
                for kept, held in self._parts
            ]
            self._built = shape, pairs
        return self._built[1]

    def telling(self, model: Model) -> Bool:
        """Which images that were held out `tells_mistakes`, (images,), in the order of evidence."""
        return np.concatenate([tells_mistakes(each, model) for _, each in self._problems(model)])

    def weights(self, model: Model) -> F64:
        """How many images each image that was held out stands for, over their mean, (images,)."""
        values = []
        for _, problems in self._problems(model):
            images = distinct(problems.image)
            weight = np.zeros(len(images))
            index = np.searchsorted(images, problems.image)
            np.maximum.at(weight, index, problem_weights(problems, model))
            values.append(weight)
        every = np.concatenate(values)
        return np.asarray(every / max(float(every.mean()), 1e-12))

    def _evaluate(self, model: Model, *problems: Problems) -> F64:
        fitting = PartitionedEStep(InMemory([problems[0]]), model)
        begin = State(calibration=first_calibration(model, self._begin))
        fitted = fit(fitting, model, _RULE, begin, lambda _: None)
        both = PartitionedEStep(InMemory(problems), model)
        counts = np.zeros(len(both.cells))
        if fitted.counts is not None:
            counts[np.searchsorted(both.cells, fitting.cells)] = fitted.counts
        evidence = both.map(_Evidence(model), replace(fitted, counts=counts))[1]
        images = distinct(problems[1].image)
        index = np.searchsorted(images, problems[1].image)
        return bin_sum(index, evidence, len(images))


@dataclass(frozen=True)
class _Evidence:
    """The work on a partition that returns the log evidence of its problems."""

    model: Model

    def __call__(self, _: int, problems: Problems, parameters: Any) -> F64:
        return evidence_of(problems, parameters, self.model)


def _per_vote(values: Mapping[str, F64], votes: int) -> dict[str, float]:
    return {name: round(float(value.sum()) / votes, 6) for name, value in values.items()}


def _choose_worker_model(trial: _Trial, model: Model) -> tuple[WorkerModel, dict[str, Any]]:
    """Confusions must gain on biases of the machine's classes too, which look like them.

    Mistakes that are shared with the machine look like a machine that is right. Images with enough
    views tell them apart, so these alone decide, without a margin. It takes a hundred of them: in a
    crowd without such mistakes the losses by them are rare and large, and the gains small.
    """
    simple = named_model(model, CANDIDATES[0])
    telling = trial.telling(simple)
    possible = {
        "pooled": model.pooling_strength is not None,
        "shared_mistakes": int(telling.sum()) >= LEAST_VOTES,
    }
    candidates = [name for name in CANDIDATES if possible.get(name, True)]
    values: dict[str, F64] = {name: trial.evaluate(named_model(model, name)) for name in candidates}
    if model.mean_inverse and model.truth == "single":
        unbent = trial.calibrated(simple, curved=False)
        values["class_bias"] = trial.evaluate(replace(unbent, class_bias=True))
    margin = _MARGIN * trial.blind
    chosen: WorkerModel = candidates[0]
    for name in candidates[1:]:
        of, least = (telling, 0.0) if name == "shared_mistakes" else (1.0, margin)
        rivals = [values[rival] for rival in (chosen, "class_bias") if rival in values]
        gains = [Gain.of(values[name] * of, each * of, trial.held_out) for each in rivals]
        if all(gain.above(least) for gain in gains):
            chosen = name
    document = _document(chosen, values, candidates[0], margin, trial)
    if "shared_mistakes" in values:  # what it was judged by
        shared, even = (values[name] * telling for name in ("shared_mistakes", candidates[0]))
        gain = Gain.of(shared, even, trial.held_out)
        document["gain"]["shared_mistakes"] = round(gain.mean, 6)
        document["standard_error"]["shared_mistakes"] = round(gain.error, 6)
        document["telling_images"] = int(telling.sum())
    figures = ", ".join(f"{name} {x:.4f}" for name, x in _per_vote(values, trial.held_out).items())
    logger.info("merge: worker_model=%s: log likelihood per held-out vote: %s", chosen, figures)
    return chosen, document


def _choose_class_prior(trial: _Trial, model: Model) -> tuple[Model, dict[str, Any]]:
    """Only images without a belief have a class prior."""
    if not trial.unbelieved or model.truth == "multi":
        return replace(model, estimate_class_prior=False), {"chosen": "uniform"}
    models = {
        name: replace(model, estimate_class_prior=name == "estimated")
        for name in ("uniform", "estimated")
    }
    margin = _LEAST_PRIOR + _MARGIN_PRIOR * trial.blind
    values = {name: trial.evaluate(each) for name, each in models.items()}
    gain = Gain.of(values["estimated"], values["uniform"], trial.held_out)
    chosen = "estimated" if gain.above(margin) else "uniform"
    return models[chosen], _document(chosen, values, "uniform", margin, trial)


def _choose_calibration(trial: _Trial, model: Model) -> tuple[Model, dict[str, Any]]:
    """None, a flat curve, a curve, or one a and b with a bias of each class.

    They are tried in this order, and the simplest is kept unless votes held out support the next
    one by a standard error; by two where it has biases, for they are many. Most votes are on images
    that the machine is unsure of, where people err as it does. So a map must gain by a standard
    error of votes too that are weighted by the images they stand for. Biases are fitted with such
    weights, and are a candidate only where they are known.
    """
    none = replace(model, fit_calibration="none")
    curve, unbent = (trial.calibrated(model, curved=each) for each in (True, False))
    models = {"none": none, "flat": replace(curve, tied=True), "curve": curve}
    if curve.mean_inverse and model.truth == "single":
        models["class_bias"] = replace(unbent, class_bias=True)
    values = {name: trial.evaluate(each) for name, each in models.items()}
    weights = trial.weights(unbent)
    chosen = "none"
    for name in list(models)[1:]:
        plain, weighted = (
            Gain.of(values[name] * of, values[chosen] * of, trial.held_out) for of in (1.0, weights)
        )
        errors = TWO_ERRORS if name == "class_bias" else _ONE_ERROR
        if plain.above(0.0, errors) and weighted.above(0.0, _ONE_ERROR):
            chosen = name
    return models[chosen], _document(chosen, values, "none", 0.0, trial)


def _document(
    chosen: str, values: Mapping[str, F64], simple: str, margin: float, trial: _Trial
) -> dict[str, Any]:
    gains = {
        name: Gain.of(value, values[simple], trial.held_out)
        for name, value in values.items()
        if name != simple
    }
    return {
        "chosen": chosen,
        "log_likelihood_per_vote": _per_vote(values, trial.held_out),
        "gain": {name: round(gain.mean, 6) for name, gain in gains.items()},
        "standard_error": {name: round(gain.error, 6) for name, gain in gains.items()},
        "margin": round(margin, 6),
    }
