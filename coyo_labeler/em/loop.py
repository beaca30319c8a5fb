"""EM: start, E-step, M-step, test of convergence.

The loop does not know where the problems are: an `EStep` runs over them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from coyo_labeler.em.calibration import halfway, log_prior_of, next_calibration
from coyo_labeler.em.cells import CellTable
from coyo_labeler.em.class_bias import next_bias
from coyo_labeler.em.class_prior import estimate_class_prior, expected_classes
from coyo_labeler.em.model import Calibration, Model, Parameters, SkillCheckpoint
from coyo_labeler.em.segments import F64
from coyo_labeler.em.skill import estimate_skill
from coyo_labeler.em.sums import Sums

#: Most steps of Fisher scoring where calibration is fitted on gold, before the first iteration.
_GOLD_STEPS = 25
#: A step of calibration that lowers the objective is halved this often, then undone.
_HALVINGS = 3
#: A fall of the objective by this share of it is rounding.
_ROUNDING = 1e-9


class EStep(Protocol):
    """The E-step over all problems, wherever they lie."""

    def run(self, parameters: Parameters, reliability: bool = False) -> Sums:
        """The sums over all problems. reliability: that of the beliefs too."""

    def parameters_of(self, state: "State") -> tuple[Parameters, float]:
        """The parameters of a state, and the log prior of its skills."""


@dataclass(frozen=True)
class StoppingRule:
    """When EM stops.

    criterion: objective, when its relative change is below `tolerance`; hard, when no problem's
    most probable class changes.
    """

    max_iterations: int = 100
    tolerance: float = 1e-6
    criterion: Literal["objective", "hard"] = "objective"


@dataclass(frozen=True)
class State:
    """All that the next iteration needs: small, and saved after each.

    counts: (cells,) expected counts of the last E-step; checkpoint: where they are, if not here;
    both None before the start. calibration: for the next E-step. accepted_calibration: of the last
    E-step, to fall back on; None before the first. argmax_checksum: of the last E-step.
    weighted_objective: of it, with the weights that calibration is fitted with. history:
    one entry per finished iteration. stopped: why EM stopped, or empty.
    """

    counts: F64 | None = None
    checkpoint: SkillCheckpoint | None = None
    calibration: Calibration = field(default_factory=Calibration)
    accepted_calibration: Calibration | None = None
    log_class_prior: F64 | None = None
    true_share: float = 0.5
    argmax_checksum: int = -1
    weighted_objective: float = -np.inf
    history: tuple[dict[str, Any], ...] = ()
    stopped: str = ""


def fit(
    e_step: EStep,
    model: Model,
    rule: StoppingRule,
    state: State,
    save: Callable[[State], None],
) -> State:
    """Iterate from `state` until EM stops; `save` is called after the start and each iteration."""
    if state.counts is None and state.checkpoint is None:
        state = start(e_step, model, state)
        save(state)
    while not state.stopped:
        began = time.monotonic()
        state, sums, objective = guarded_e_step(e_step, model, state)
        state = m_step(state, sums, model)
        state = _record(state, objective, time.monotonic() - began)
        stopped = stop_reason(state, sums, rule)
        state = replace(state, argmax_checksum=sums.argmax_checksum, stopped=stopped)
        save(state)
    return state


def start(e_step: EStep, model: Model, state: State) -> State:
    """The first M-step, from beliefs and majorities; calibration on gold is fitted before it."""
    sums = e_step.run(Parameters(calibration=state.calibration))
    if model.fit_calibration == "gold":
        state, sums = _calibrate_on_gold(e_step, state, sums)
    return m_step(state, sums, model)


def m_step(state: State, sums: Sums, model: Model) -> State:
    """The parameters that maximise the expected log posterior under these sums.

    Skills are left as counts. θ is computed from them when it is needed: `EStep.parameters_of`.
    """
    calibration = state.calibration
    if model.fit_calibration == "votes":
        gradient, information = sums.gradient.total(), sums.information.total()
        calibration = next_calibration(
            calibration, gradient, information, model.shrinks_calibration
        )
    if model.fits_bias:
        gradient, information = sums.bias_gradient.total(), sums.bias_information.total()
        bias = next_bias(calibration.bias, gradient, information)
        calibration = replace(calibration, bias=bias)
    log_class_prior, true_share = state.log_class_prior, state.true_share
    classes = expected_classes(sums, log_class_prior)
    if classes.sum() > 0:
        log_class_prior = estimate_class_prior(classes)
    true, asked = sums.true_counts.total()
    if asked > 0:
        true_share = float(np.clip(true / asked, 1e-6, 1 - 1e-6))
    return replace(
        state,
        counts=sums.counts if sums.checkpoint is None else None,
        checkpoint=sums.checkpoint,
        calibration=calibration,
        log_class_prior=log_class_prior,
        true_share=true_share,
    )


def estimate_parameters(
    state: State, table: CellTable, model: Model, threads: int = 1
) -> tuple[Parameters, float]:
    """The M-step of θ: the parameters of a state with counts, and the log prior of its skills.

    table: of all cells, in the order of the counts. Before the first M-step θ is None.
    """
    parameters = Parameters(None, state.calibration, state.log_class_prior, state.true_share)
    if state.counts is None:
        return parameters, 0.0
    skill = estimate_skill(table, state.counts, model, threads=threads)
    return replace(parameters, log_theta=skill.log_theta), float(skill.log_prior.total())


def stop_reason(state: State, sums: Sums, rule: StoppingRule) -> str:
    """The test of convergence: why EM stops after the last iteration of the history, or empty.

    sums: of that iteration. state.argmax_checksum: of the one before.
    """
    if rule.criterion == "hard" and sums.argmax_checksum == state.argmax_checksum:
        return "no top class changed"
    if rule.criterion == "objective" and _stands_still(state.history, rule.tolerance):
        return "the objective stands still"
    return "max_iterations" if len(state.history) >= rule.max_iterations else ""


def _stands_still(history: Sequence[Mapping[str, Any]], tolerance: float) -> bool:
    """Whether the relative change of the objective is so small that EM has converged.

    A small fall alone is not convergence: where the pooled skills are estimated too, the objective
    can turn, and its change is small there. It takes a second small change after it.
    """
    change = history[-1]["change"]
    if change is None or abs(change) >= tolerance:
        return False
    before = history[-2]["change"]
    return change >= -_ROUNDING or (before is not None and bool(abs(before) < tolerance))


def _record(state: State, objective: float, seconds: float) -> State:
    previous = state.history[-1]["objective"] if state.history else None
    change = None if previous is None else (objective - previous) / max(abs(objective), 1e-300)
    used = state.accepted_calibration or state.calibration
    entry = {
        "iteration": len(state.history) + 1,
        "objective": objective,
        "change": change,
        "seconds": round(seconds, 4),
        "a": used.a,
        "b": used.b,
    }
    if used.curve is not None:
        entry["curve"] = {"a": list(used.curve.a), "b": list(used.curve.b)}
    return replace(state, history=(*state.history, entry))


def _calibrate_on_gold(e_step: EStep, state: State, sums: Sums) -> tuple[State, Sums]:
    """Fit a and b to gold. Its likelihood does not depend on skills, so this is done once.

    sums: under the state's calibration. Returns the fitted state and its sums.
    """
    for _ in range(_GOLD_STEPS):
        before = state.calibration
        step = next_calibration(before, sums.gradient.total(), sums.information.total())
        state = replace(state, calibration=step)
        sums = e_step.run(Parameters(calibration=step))
        if abs(step.a - before.a) + abs(step.b - before.b) < 1e-6:
            break
    return state, sums


# A step of Fisher scoring can overshoot: this keeps calibration from lowering the objective.


def guarded_e_step(e_step: EStep, model: Model, state: State) -> tuple[State, Sums, float]:
    """The E-step under the state's parameters, and their objective.

    The objective is the log-likelihood plus the log prior of the skills. Where the last step of
    calibration has lowered it, that step is halved, and at last undone; the state is returned with
    the calibration that was used. Where images have weights in the fit of the calibration, they
    have them in the objective that must not fall.
    """
    least = state.weighted_objective
    for halving in range(_HALVINGS + 2):
        parameters, log_prior = e_step.parameters_of(state)
        sums = e_step.run(parameters)
        objective = float(sums.log_likelihood.total()) + log_prior
        objective += log_prior_of(state.calibration, model.shrinks_calibration)
        weighted = objective + float(sums.weighted_more.total())
        accepted = state.accepted_calibration
        if weighted >= least - _ROUNDING * abs(weighted):
            break
        if accepted is None or accepted == state.calibration:
            break
        shorter = halfway(accepted, state.calibration) if halving < _HALVINGS else accepted
        state = replace(state, calibration=shorter)
    accepted_state = replace(
        state, accepted_calibration=state.calibration, weighted_objective=weighted
    )
    return accepted_state, sums, objective
