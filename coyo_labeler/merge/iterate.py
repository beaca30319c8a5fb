"""EM over the prepared partitions, from the first state or the last checkpoint, until it stops."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from coyo_labeler.em.loop import State, fit
from coyo_labeler.em.model_choice import first_calibration
from coyo_labeler.executor import Executor
from coyo_labeler.merge.broadcast import BroadcastEStep
from coyo_labeler.merge.prepare import Prepared
from coyo_labeler.merge.settings import Plan
from coyo_labeler.merge.sharded import ShardedEStep
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.progress import Progress

logger = logging.getLogger(__name__)

#: The E-step of the stage, in either way.
StageEStep = BroadcastEStep | ShardedEStep


def make_e_step(
    executor: Executor, state: StateFolder, prepared: Prepared, plan: Plan
) -> StageEStep:
    """The E-step over the prepared partitions: sharded where skills are too many to broadcast."""
    partitions, model, workers = prepared.partitions, prepared.model, prepared.workers
    if prepared.shards is not None:
        logger.info("merge: skills are sharded, in %d shards", len(prepared.shards))
        return ShardedEStep(executor, state, partitions, prepared.shards, model, workers)
    return BroadcastEStep(executor, state, partitions, model, workers, plan.add_to)


def iterate(
    e_step: StageEStep,
    prepared: Prepared,
    plan: Plan,
    state: StateFolder,
    check_owner: Callable[[], None],
) -> State:
    """Iterate until EM stops; every state is saved, for a killed run to resume from the last.

    A state is written while the next iteration runs, so a killed run may repeat one that had ended.
    check_owner: raises where another run has taken over the output.
    """
    rule = plan.stopping_rule
    begin = state.load_checkpoint() or _first_state(e_step, prepared, plan)
    done = len(begin.history)
    if done:
        logger.info("merge: resuming after iteration %d", done)
    with (
        Progress("merge: EM", rule.max_iterations, "iterations", done=done) as progress,
        ThreadPoolExecutor(1, "checkpoint") as writer,
    ):
        written: Future[None] | None = None

        def save(em_state: State) -> None:
            nonlocal written
            check_owner()
            if written is not None:
                written.result()
            written = writer.submit(state.save_checkpoint, em_state)
            if em_state.history:
                latest = em_state.history[-1]
                progress.update(len(em_state.history), objective=f"{latest['objective']:.6g}")

        fitted = fit(e_step, prepared.model, rule, begin, save)
        if written is not None:
            written.result()
    check_owner()
    return fitted


def _first_state(e_step: StageEStep, prepared: Prepared, plan: Plan) -> State:
    if plan.earlier is None:
        return State(calibration=first_calibration(prepared.model, plan.calibration))
    fitted = prepared.model.fit_calibration != "none"
    calibration = plan.earlier.calibration if fitted else plan.calibration
    calibration = first_calibration(prepared.model, calibration)
    return replace(e_step.warm_start(plan.earlier), calibration=calibration)
