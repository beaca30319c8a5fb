"""How far workers agree: the share of agreeing pairs, and Krippendorff's alpha.

    α = 1 − D_o / D_e                                   nominal data, any number of answers per unit
    D_o = Σ_u (m_u² − Σ_c n_uc²) / (m_u − 1) / n        D_e = (n² − Σ_c n_c²) / (n (n − 1))

n_uc: answers c to unit u; m_u of them in all, at least two; n = Σ m_u. Krippendorff, Content
Analysis (2004), chapter 11. The package `krippendorff` wants a dense table of units and values,
which 21,841 classes do not allow.
"""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.audit.inputs import Answer, Answers
from coyo_labeler.em.segments import I64, bin_sum


@dataclass(frozen=True)
class Agreement:
    """units: questions with two answers or more. answers: to these. raw: share of the pairs of
    answers to one question that agree. alpha: None where all answers are the same, or there is no
    pair.
    """

    units: int
    answers: int
    raw: float | None
    alpha: float | None


def agreement(unit: I64, value: I64) -> Agreement:
    """The agreement of answers; unit: (answers,) what was asked, value: (answers,) the answer."""
    _, unit = np.unique(unit, return_inverse=True)
    size = np.bincount(unit) if len(unit) else np.zeros(0, dtype=np.int64)
    paired = size[unit] >= 2
    unit, value = unit[paired], value[paired]
    n = len(unit)
    if not n:
        return Agreement(0, 0, None, None)
    values, value = np.unique(value, return_inverse=True)
    cells, count = np.unique(unit * len(values) + value, return_counts=True)
    owner = cells // len(values)
    same = bin_sum(owner, count.astype(np.float64) ** 2, len(size))
    used = size >= 2
    m = size[used].astype(np.float64)
    unlike = m**2 - same[used]
    total = np.bincount(value).astype(np.float64)
    expected = (n**2 - (total**2).sum()) / (n * (n - 1))
    observed = (unlike / (m - 1)).sum() / n
    return Agreement(
        units=int(used.sum()),
        answers=n,
        raw=float(1 - unlike.sum() / (m**2 - m).sum()),
        alpha=float(1 - observed / expected) if expected > 0 else None,
    )


def units_of(answers: Answers, classes: int) -> tuple[I64, I64]:
    """What each answer is an answer to, and what it says, (answers,) each, for `agreement`.

    All choices for an image answer one question; every verification is one of its own, by its
    class (or, for a set, by its first class).
    """
    first = np.full(len(answers), -1, dtype=np.int64)
    some = np.diff(answers.offered.offsets) > 0
    first[some] = answers.offered.label[answers.offered.offsets[:-1][some]]
    asks = (answers.answer != Answer.CHOICE) & (answers.answer != Answer.NONE)
    about = np.where(answers.label >= 0, answers.label, classes + first + 1)
    unit = answers.image * (2 * classes + 3) + np.where(asks, about + 1, 0)
    value = np.where(asks, -1 - answers.answer.astype(np.int64), answers.label.astype(np.int64))
    value = np.where(answers.answer == Answer.NONE, classes, value)
    return unit, value
