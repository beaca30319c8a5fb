"""Classes of a categorical belief that are no states of their own: their mass at any temperature.

`support_mass` leaves the least probable classes of a belief out. What they hold together, Σ p^a,
grows as the temperature does. Without them, a flat map would cost nothing where the support is one
class, and calibration would run away to it. Of each image three numbers are kept: how many these
classes are, Σ √p and Σ p. log Σ p^a is a convex function of a, whose values at 0, 1/2 and 1 these
are; a parabola through them is used between, and its tangent beyond 1.
"""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.segments import F64, I64, bin_sum


@dataclass(frozen=True)
class Tails:
    """count: (n,) classes left out of each problem's belief. half, whole: (n,) Σ √p and Σ p."""

    count: F64
    half: F64
    whole: F64

    @classmethod
    def none(cls, problems: int) -> "Tails":
        """Nothing is left out."""
        return cls(*(np.zeros(problems) for _ in range(3)))

    @classmethod
    def of(cls, problems: int, index: I64, log_probability: F64) -> "Tails":
        """index: (left out,) the problem of each class; log_probability: of the class."""
        sums = (
            bin_sum(index, np.exp(power * log_probability), problems) for power in (0.0, 0.5, 1.0)
        )
        return cls(*sums)

    def mass(self, a: F64) -> tuple[F64, F64]:
        """Σ p^a and the slope of its log by a, (n,) each; 0 where nothing is left out."""
        some = self.count > 0
        zero, half, one = (
            np.log(np.where(some, values, 1.0)) for values in (self.count, self.half, self.whole)
        )
        linear, square = 4 * half - 3 * zero - one, 2 * zero - 4 * half + 2 * one
        inside = np.minimum(a, 1.0)
        slope = linear + 2 * square * inside
        log = zero + inside * (linear + square * inside) + (a - inside) * slope
        return np.where(some, np.exp(log), 0.0), np.where(some, slope, 0.0)
