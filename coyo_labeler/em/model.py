"""What EM computes with: the model's choices and its parameters, as plain values."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from coyo_labeler.em.segments import F64

WorkerModel = Literal["confusion", "one_coin", "perfect"]
Truth = Literal["single", "multi"]
#: posterior: categorical, found by an earlier merge, to be taken to the last digit.
BeliefsAre = Literal["sigmoid", "categorical", "posterior"]
CalibratedOn = Literal["votes", "gold", "none"]


@dataclass(frozen=True)
class Model:
    """The choices that do not change from iteration to iteration.

    classes: C. workers: J. prior_strength: α. pooling_strength: β, or None for `pooling: none`.
    prior_accuracy: a. fit_calibration: on which problems a and b are fitted. start: what the first
    E-step goes by, the beliefs (or the majority), or workers as the prior has them. count_unit: of
    which the weights of votes are made multiples, so that their sums do not depend on the order
    (`arrays.count_unit`).
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


@dataclass(frozen=True)
class Calibration:
    """One monotone map of the machine's beliefs, shared by all classes.

    sigmoid: sigmoid(a · logit(p) + b). categorical: p^a, normalised; a is 1 / temperature, b is 0.
    """

    a: float = 1.0
    b: float = 0.0

    def to_array(self) -> F64:
        """(a, b)."""
        return np.array([self.a, self.b])


@dataclass(frozen=True)
class Shelved:
    """Expected counts, and the skills they make, that lie with the shards (`shards.py`).

    version: of the counts. log_prior: of the skills.
    """

    version: int
    log_prior: float


@dataclass(frozen=True)
class Parameters:
    """What an iteration goes by.

    log_theta: (cells,) log probability of what each cell stands for; None before the first M-step.
    shelved: where the skills are kept with the shards, which.
    log_class_prior: (C,) for images without a belief; None: uniform. true_share: probability that a
    question without a belief is true (`truth: multi`).
    """

    log_theta: F64 | None = None
    calibration: Calibration = field(default_factory=Calibration)
    log_class_prior: F64 | None = None
    true_share: float = 0.5
    shelved: Shelved | None = None


@dataclass(frozen=True)
class PartialSums:
    """What one pass adds up over one partition, see `Sums`.

    log_likelihood (2,), gradient (2, 2), information (2, 2, 2), class_counts and class_ratios
    (2, C) and true_counts (2, 2) are in the two parts of `arrays.split`, so that nothing depends on
    how problems are partitioned; counts are exact as they are.
    """

    counts: F64
    log_likelihood: F64
    gradient: F64
    information: F64
    class_counts: F64
    class_ratios: F64
    true_counts: F64
    decisions: int
    reliability: F64


@dataclass(frozen=True)
class Sums:
    """What one pass over the problems adds up.

    counts: (cells,) expected counts; empty where they are shelved. log_likelihood: natural log.
    gradient (2,) and information (2, 2): of the expected log prior by (a, b). class_counts,
    class_ratios: (C,) `class_prior.class_sums`; empty unless the class prior is estimated.
    true_counts: true and all questions without a belief. decisions: a checksum of the top class of
    every problem. reliability: (2, bins, 3), before and after calibration.
    """

    counts: F64
    log_likelihood: float
    gradient: F64
    information: F64
    class_counts: F64
    class_ratios: F64
    true_counts: F64
    decisions: int
    reliability: F64
    shelved: Shelved | None = None
