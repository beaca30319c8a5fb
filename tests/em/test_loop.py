"""When EM has converged."""

import numpy as np
import pytest

from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.model import Model, Parameters
from tests.em.in_memory import build, votes_of


class Scripted:
    """Passes whose objective is given beforehand."""

    def __init__(self, objectives):
        self.whole = build(votes_of([(0, 0, 0), (0, 1, 1)]), Model(classes=2, workers=2))
        self.objectives = [0.0, *objectives]

    def run(self, parameters, reliability=False):
        sums = self.whole.run(Parameters())
        return type(sums)(
            **(sums.__dict__ | {"log_likelihood": ExactSum.of(np.array([self.objectives.pop(0)]))})
        )

    def parameters_of(self, state):
        return Parameters(), 0.0


@pytest.mark.parametrize(
    ("objectives", "iterations"),
    [
        ([-100, -90, -90.00001, -89, -88.99999], 5),  # a fall is no convergence,
        ([-100, -90, -90.00001, -90.000011, -80], 4),  # unless it goes on as slowly
        ([-100, -90, -90.00000000001, -80], 3),  # nor is rounding a fall
        ([-100, -90, -89.99999, -80], 3),
    ],
)
def test_a_fall_does_not_count_as_standing_still(objectives, iterations):
    passes = Scripted(objectives)
    state = fit(passes, passes.whole.model, StoppingRule(10, 1e-6), State(), lambda _: None)
    assert len(state.history) == iterations
    assert state.stopped == "the objective stands still"
    changes = [entry["change"] for entry in state.history]
    assert changes[0] is None
    assert changes[1] == pytest.approx(10 / 90)  # with its sign
