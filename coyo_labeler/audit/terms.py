"""The logistic terms that probabilities of answers are made of, and the parameters in them.

Every probability is a product of constants and of logistic terms σ(± (x·p + offset)) to the power
of 1 or −1, so that fitting and sampling need no other formula. x is a row of a design matrix, p the
parameters. A mixture σ(−h) B + σ(h) S is such a product: B σ(−h) / σ(−(h + log S / B)).
"""

import numpy as np

from coyo_labeler.audit.inputs import Answers
from coyo_labeler.em.segments import F64, I64, offsets_of

#: Prior mean and standard deviation of each parameter that all workers share, in log-odds.
#: choice: right answers of choices. wrong_base: how much more often where `base` is wrong. lure:
#: how much more often a wrong choice falls on `base` than on another class. verify: right answers
#: of verifications. yes: how much more often where yes is right, and less often where no is.
#: unsure, unsure_true: unsure answers, and how much more often where yes is right. level, slope,
#: weight: calibration of the table. offered, first: how much more often `base` is right where the
#: question about the image offered it, or offered it first. even: how much of the probability
#: outside `base` is spread evenly, against what the table says. alike: how many of the wrong
#: choices are those that the table takes for probable too, where `base` is right. again: how many
#: of the wrong choices repeat a wrong choice that another worker made for the image, beyond chance.
PRIORS = {
    "choice": (1.2, 0.9),
    "wrong_base": (0.0, 0.4),
    "lure": (0.2, 0.8),
    "verify": (1.2, 0.9),
    "yes": (0.0, 0.35),
    "unsure": (-2.5, 1.5),
    "unsure_true": (0.0, 0.5),
    "level": (0.0, 1.2),
    "slope": (0.8, 0.6),
    "weight": (0.0, 0.7),
    "offered": (0.0, 1.5),
    "first": (0.0, 1.0),
    "even": (-1.5, 1.0),
    "alike": (-1.5, 1.2),
    "again": (-1.5, 1.2),
}
SHARED = tuple(PRIORS)
#: The column of each shared parameter in the design.
COLUMN = {name: index for index, name in enumerate(SHARED)}


class Terms:
    """Terms under construction."""

    def __init__(self) -> None:
        self.parts: list[tuple[I64, I64, F64, F64, F64]] = []
        self.design: list[tuple[I64, I64, F64]] = []
        self.rows = 0

    def rows_of(self, columns: list[tuple[I64, F64]]) -> I64:
        """New rows of the design: entries (column, value), each (rows,); column −1 is left out."""
        n = len(columns[0][0])
        rows = self.rows + np.arange(n)
        for column, value in columns:
            used = column >= 0
            self.design.append((rows[used], column[used], value[used]))
        self.rows += n
        return rows

    def add(
        self, state: I64, row: I64, sign: F64, offset: F64 | float = 0.0, power: float = 1.0
    ) -> None:
        """Terms of states, (terms,) each."""
        shape = sign.shape
        self.parts.append(
            (state, row, sign, np.broadcast_to(offset, shape), np.broadcast_to(power, shape))
        )

    def mix(self, constant: F64, state: I64, column: int, even: F64, said: F64) -> None:
        """The factor σ(−h) even + σ(h) said of each state, (terms,); h: the parameter `column`.

        constant: (states,), to which its constant part is added.
        """
        if not len(state):
            return
        row = np.full(len(state), self.rows_of([(np.array([column]), np.ones(1))])[0])
        np.add.at(constant, state, np.log(even))
        minus = -np.ones(len(state))
        self.add(state, row, minus)
        self.add(state, row, minus, np.log(said) - np.log(even), -1.0)


def pairs_of(answers: Answers, chosen: I64, offsets: I64) -> tuple[I64, I64]:
    """Every chosen answer with every state of its image: (answer, state), (pairs,) each."""
    lengths = np.diff(offsets)[answers.image[chosen]]
    answer = np.repeat(chosen, lengths)
    starts = offsets_of(lengths)[:-1]
    first = offsets[answers.image[chosen]] - starts
    return answer, np.arange(len(answer)) + np.repeat(first, lengths)
