"""Whether a table without a wrong label could have led to these answers.

The accuracy that draws from the posterior give is always below 1: log-odds are finite, and their
prior is wide but not that wide. Where the answers do not speak against a table without a mistake,
an interval has to reach up to it. So that hypothesis is tested by its likelihood ratio (Wilks
1938): all labels are known to be right then, and only the workers are fitted again.
"""

from dataclasses import replace

import numpy as np

from coyo_labeler.audit.fit import Fit, fit, log_likelihood
from coyo_labeler.audit.inputs import Answers, Judged
from coyo_labeler.audit.states import Model, build
from coyo_labeler.audit.terms import COLUMN
from coyo_labeler.em.segments import F64

#: Half the 95 % quantile of χ² with one degree of freedom.
_CRITICAL = 1.92
#: Shared parameters that say how good workers are; the others say where mistakes fall.
_OF_WORKERS = ("choice", "verify", "yes", "unsure", "unsure_true")


def may_have_no_mistake(
    judged: Judged, answers: Answers, classes: int, workers: int, model: Model, fitted: Fit
) -> bool:
    """Whether every `base` may be right. model, fitted: of these images and answers."""
    known = judged.truth >= 0
    if (judged.base < 0).any() or (judged.truth[known] != judged.base[known]).any():
        return False
    right = build(replace(judged, truth=judged.base), answers, classes, workers)
    return _evidence(model, fitted) - _evidence(right, fit(right)) <= _CRITICAL


def _evidence(model: Model, fitted: Fit) -> float:
    """Log-likelihood of the answers, with the prior density of what is fitted to the workers."""
    away = fitted.parameters - fitted.mean
    density: F64 = np.log(fitted.precision) - fitted.precision * away**2
    density[[column for name, column in COLUMN.items() if name not in _OF_WORKERS]] = 0.0
    return log_likelihood(model, fitted.parameters) + 0.5 * float(density.sum())
