"""The model's choices, and the parameters that EM estimates."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64

#: pooled: confusion with one skill that all workers share (`Model.shared_skill`). shared_mistakes:
#: one_coin, and mistakes that the machine would make (`Model.shared_mistakes`).
WorkerModel = Literal["confusion", "pooled", "one_coin", "shared_mistakes", "perfect"]
Truth = Literal["single", "multi"]
#: posterior: categorical, computed by an earlier fit; it is used as it is, without clipping.
BeliefsAre = Literal["sigmoid", "categorical", "posterior"]
CalibratedOn = Literal["votes", "gold", "none"]


@dataclass(frozen=True)
class Model:
    """The choices that do not change from iteration to iteration.

    classes: C. workers: J. prior_strength: α. pooling_strength: β, or None for `pooling: none`.
    prior_accuracy: a. prior_floor: least probability left to classes outside a belief. hard_counts:
    count the most probable class instead of the posterior. support_all: every class of every image
    is a state. support_mass: share of a belief whose classes become states. fit_calibration: on
    which problems a and b are fitted. start: the first counts come from beliefs and majorities
    (labels), or there are none and skills are their prior (skills). count_unit: weights of votes
    are multiples of it, so that their sums do not depend on the order (`exact_sum.count_unit`).
    shared_skill: all workers have the pooled skill (`worker_model: pooled`). weighting: largest
    weight of an image in the fit of a and b on votes, and what weights are multiplied by
    (`coverage`); None: no weights. mean_inverse: what the weights of a curve are relative to.
    knots: of the curve that is fitted, as log-odds; none: one a and b. fades, tied: see `Curve`.
    class_bias: besides one a and b a bias of each class is fitted (`class_bias`). shared_mistakes:
    share of the mistakes of one-coin workers that the machine would make (`choices`).
    """

    classes: int
    workers: int
    truth: Truth = "single"
    beliefs_are: BeliefsAre = "sigmoid"
    worker_model: WorkerModel = "confusion"
    prior_strength: float = 10.0
    pooling_strength: float | None = 10.0
    prior_accuracy: float = 0.8
    prior_floor: float = 1e-4
    hard_counts: bool = False
    estimate_class_prior: bool = False
    support_all: bool = False
    support_mass: float = 0.9999
    fit_calibration: CalibratedOn = "none"
    start: Literal["labels", "skills"] = "labels"
    count_unit: float = 2.0**-40
    shared_skill: bool = False
    weighting: tuple[float, float] | None = None
    mean_inverse: tuple[float, ...] = ()
    knots: tuple[float, ...] = ()
    fades: bool = False
    tied: bool = False
    class_bias: bool = False
    shared_mistakes: float = 0.0

    @property
    def shrinks_calibration(self) -> bool:
        """Whether one a and b that is fitted has a prior: its weights go by few votes."""
        return self.fit_calibration == "votes" and self.weighting is not None

    @property
    def fits_bias(self) -> bool:
        """Whether biases of classes are fitted."""
        return self.class_bias and self.fit_calibration == "votes"

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Model":
        """The reverse of `dataclasses.asdict`, after JSON, which has no tuples."""
        tuples = {name: tuple(value) for name, value in document.items() if isinstance(value, list)}
        return cls(**{**document, **tuples})


@dataclass(frozen=True)
class Curve:
    """a and b by confidence (`curve`): knots (k,) rising log-odds, a (k,) and b (k,) there.

    fades: beyond the first and the last knot it goes to a = 1, b = 0; else it is constant there.
    tied: all knots have the same a and b.
    """

    knots: tuple[float, ...]
    a: tuple[float, ...]
    b: tuple[float, ...]
    fades: bool = False
    tied: bool = False


@dataclass(frozen=True)
class Calibration:
    """A monotone map of the machine's beliefs, shared by all classes but for their biases.

    sigmoid: sigmoid(a · logit(p) + b). categorical: p^a, normalised; a is 1 / temperature, b is 0.
    curve: a and b by confidence; a and b then are those of its middle knot. bias: (C,) what is
    added to a · logit(p) + b or a · log p, by class; empty: nothing.
    """

    a: float = 1.0
    b: float = 0.0
    curve: Curve | None = None
    bias: tuple[float, ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Calibration":
        """The reverse of `dataclasses.asdict`, after JSON."""
        curve = document.get("curve")
        if curve is not None:
            knots, a, b = (tuple(map(float, curve[name])) for name in ("knots", "a", "b"))
            curve = Curve(knots, a, b, bool(curve["fades"]), bool(curve.get("tied")))
        return cls(document["a"], document["b"], curve, tuple(document.get("bias", ())))


@dataclass(frozen=True)
class SkillCheckpoint:
    """Expected counts, and the skills made of them, that lie in files because they are too many.

    version: which of them; each E-step writes a new one. log_prior: of these skills.
    """

    version: int
    log_prior: float


@dataclass(frozen=True)
class Parameters:
    """What an E-step computes with.

    log_theta: (cells,) log probability of each cell's vote in its state; None before the first
    M-step. checkpoint: where the skills are, if not here. log_class_prior: (C,) for images without
    a belief; None: uniform. true_share: probability that a question without a belief is true
    (`truth: multi`).
    """

    log_theta: F64 | None = None
    calibration: Calibration = field(default_factory=Calibration)
    log_class_prior: F64 | None = None
    true_share: float = 0.5
    checkpoint: SkillCheckpoint | None = None

    def of_cells(self, index: NDArray[np.integer[Any]]) -> "Parameters":
        """The parameters of some of these cells; index: theirs, (n,)."""
        if self.log_theta is None:
            return self
        return replace(self, log_theta=self.log_theta.take(index))
