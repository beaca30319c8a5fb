"""The EM loop: what is done with the sums of a pass, when it stops, what is kept to go on from.

It knows nothing of where the problems are: `Passes` runs over them, on Spark or in this process.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from coyo_labeler.em.calibration import between, next_calibration
from coyo_labeler.em.cells import CellTable
from coyo_labeler.em.class_prior import estimate_class_prior, expected_classes
from coyo_labeler.em.model import Calibration, Model, Parameters, Shelved, Sums
from coyo_labeler.em.segments import F64
from coyo_labeler.em.skill import estimate_skill

#: Steps of Fisher scoring at most where a and b are fitted on gold, before the first iteration.
_GOLD_STEPS = 25
#: A step of calibration that makes the objective fall is halved this often, then taken back.
_HALVINGS = 3
#: Of the objective, how much of a fall is its rounding.
_ROUNDING = 1e-9


class Passes(Protocol):
    """Runs one pass over all problems."""

    def run(self, parameters: Parameters, last: bool = False) -> Sums:
        """The sums of all problems; log_theta and counts are over all cells."""

    def skilled(self, state: "State") -> tuple[Parameters, float]:
        """The parameters that a state stands for, and the log prior of its skills."""


@dataclass(frozen=True)
class Control:
    """When EM stops."""

    max_iterations: int = 100
    tolerance: float = 1e-6
    criterion: Literal["objective", "hard"] = "objective"


@dataclass(frozen=True)
class State:
    """All that the next iteration needs: small, and saved after each.

    counts: (cells,) of the last E-step, shelved: or where they lie; both None at the very start.
    history: one entry a finished
    iteration. before: the calibration of the iteration before. done: EM has stopped.
    """

    counts: F64 | None = None
    shelved: Shelved | None = None
    calibration: Calibration = field(default_factory=Calibration)
    before: Calibration = field(default_factory=Calibration)
    log_class_prior: F64 | None = None
    true_share: float = 0.5
    decisions: int = -1
    history: tuple[dict[str, Any], ...] = ()
    stopped: str = ""


def fit(
    passes: Passes,
    model: Model,
    control: Control,
    state: State,
    save: Callable[[State], None],
) -> State:
    """Iterate from `state` until EM stops; `save` is called after each iteration.

    The objective of an iteration is log-likelihood + log prior of the skills, at the parameters
    that it began with.
    """
    if state.counts is None and state.shelved is None:
        state = _start(passes, model, state)
        save(state)
    while not state.stopped:
        began = time.monotonic()
        state, sums, objective = _iterate(passes, model, state)
        state = _record(state, sums, objective, control, time.monotonic() - began)
        save(state)
    return state


def parameters_of(state: State, table: CellTable, model: Model) -> tuple[Parameters, float]:
    """The parameters that a state with counts at hand stands for, and the log prior of its skills.

    table: of all cells.
    """
    if state.counts is None:
        return Parameters(None, state.calibration, state.log_class_prior, state.true_share), 0.0
    skill = estimate_skill(table, state.counts, model)
    parameters = Parameters(
        skill.log_theta, state.calibration, state.log_class_prior, state.true_share
    )
    return parameters, float(skill.log_prior.sum())


def _start(passes: Passes, model: Model, state: State) -> State:
    """Counts from the first guess; a and b from gold where they are fitted on gold."""
    sums = passes.run(Parameters(calibration=state.calibration))
    if model.fit_calibration == "gold":
        for _ in range(_GOLD_STEPS):
            step = next_calibration(state.calibration, sums.gradient, sums.information)
            moved = abs(step.a - state.calibration.a) + abs(step.b - state.calibration.b)
            state = replace(state, calibration=step, before=step)
            sums = passes.run(Parameters(calibration=step))
            if moved < 1e-6:
                break
    return _maximise(state, sums, model)


def _iterate(passes: Passes, model: Model, state: State) -> tuple[State, Sums, float]:
    """One E-step under the state's parameters; a calibration step that did harm is shortened."""
    least = state.history[-1]["objective"] if state.history else -np.inf
    for halving in range(_HALVINGS + 2):
        parameters, log_prior = passes.skilled(state)
        sums = passes.run(parameters)
        objective = sums.log_likelihood + log_prior
        if objective >= least - _ROUNDING * abs(objective) or state.calibration == state.before:
            break
        shorter = between(state.before, state.calibration) if halving < _HALVINGS else state.before
        state = replace(state, calibration=shorter)
    return _maximise(replace(state, before=state.calibration), sums, model), sums, objective


def _maximise(state: State, sums: Sums, model: Model) -> State:
    """The M-step, except for θ, which `parameters_of` makes of the counts."""
    calibration = state.calibration
    if model.fit_calibration == "votes":
        calibration = next_calibration(calibration, sums.gradient, sums.information)
    log_class_prior, true_share = state.log_class_prior, state.true_share
    classes = expected_classes(sums, log_class_prior)
    if classes.sum() > 0:
        log_class_prior = estimate_class_prior(classes)
    if sums.true_counts[1] > 0:
        true_share = float(np.clip(sums.true_counts[0] / sums.true_counts[1], 1e-6, 1 - 1e-6))
    return replace(
        state,
        counts=None if sums.shelved else sums.counts,
        shelved=sums.shelved,
        calibration=calibration,
        log_class_prior=log_class_prior,
        true_share=true_share,
    )


def _record(state: State, sums: Sums, objective: float, control: Control, seconds: float) -> State:
    previous = state.history[-1]["objective"] if state.history else None
    change = None if previous is None else (objective - previous) / max(abs(objective), 1e-300)
    entry = {
        "iteration": len(state.history) + 1,
        "objective": objective,
        "change": change,
        "seconds": round(seconds, 4),
        "a": state.before.a,
        "b": state.before.b,
    }
    stopped = ""
    if control.criterion == "hard" and sums.decisions == state.decisions:
        stopped = "no top class changed"
    elif control.criterion == "objective" and _stands_still(state, change, control.tolerance):
        stopped = "the objective stands still"
    elif entry["iteration"] >= control.max_iterations:  # type: ignore[operator]
        stopped = "max_iterations"
    return replace(
        state, decisions=sums.decisions, history=(*state.history, entry), stopped=stopped
    )


def _stands_still(state: State, change: float | None, tolerance: float) -> bool:
    """Whether a relative change is so small that EM has converged; state: before this iteration.

    A fall is no convergence by itself: with a pool that is estimated anew the objective can turn,
    and its change is small then. It takes a second small change after it.
    """
    if change is None or abs(change) >= tolerance:
        return False
    before = state.history[-1]["change"]
    return change >= -_ROUNDING or (before is not None and bool(abs(before) < tolerance))
