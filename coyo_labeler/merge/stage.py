"""Beliefs and votes to posterior labels, by EM on Spark or in this process (docs/merge.md)."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.em.class_prior import expected_classes
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import load_label_space
from coyo_labeler.formats.parquet_splits import Split, plan_splits
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.merge.broadcast import StagePasses
from coyo_labeler.merge.earlier import CLASSES_FOLDER, classes_table, read_earlier
from coyo_labeler.merge.executor import tasks_of
from coyo_labeler.merge.increment import TALLY_FOLDER, as_increment, plan_posterior, tally_table
from coyo_labeler.merge.prepare import ROWS_PER_SPLIT, Layout, lay_out
from coyo_labeler.merge.reports import (
    calibration_document,
    history_document,
    manifest_details,
    report_document,
)
from coyo_labeler.merge.settings import given_calibration
from coyo_labeler.merge.state import Store
from coyo_labeler.merge.workers import workers_table
from coyo_labeler.merge.write import write_posterior
from coyo_labeler.progress import Progress

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def merge(spark: "SparkSession | None", settings: MergeSettings, run: Run) -> Outcome:
    """Merge machine beliefs with human votes by EM; without a session, in threads right here.

    Reads `settings.beliefs` (schemas.BELIEFS), `settings.votes` (schemas.VOTES) and `settings.gold`
    (schemas.GOLD); writes posterior/, workers/, tally/, confusions/, skills/, classes/, rejects/,
    history.json and worker_report.json.

    Raises: InputError naming the file, row, column or value at fault.
    """
    space = load_label_space(settings.label_space)
    store = Store.open(run.output, f"{run.fingerprint}-{int(run.started * 1000)}")
    if settings.warm_start is not None:  # a wrong one is found before the work, not after
        earlier = read_earlier(settings.warm_start, settings.worker_model)
        settings = settings.model_copy(update={"worker_model": earlier.worker_model})
    if settings.incremental:
        settings = as_increment(settings, space)
        beliefs = plan_posterior(str(settings.beliefs))
    else:
        beliefs = _plan(settings.beliefs, "beliefs", schemas.BELIEFS)
    gold = _plan(settings.gold, "gold", schemas.GOLD)
    tasks = tasks_of(None if settings.engine == "local" else spark)
    layout, passes = lay_out(tasks, settings, space, store, beliefs, gold)
    state = _iterate(passes, layout, settings, store)
    last = passes.run(passes.parameters_of(state)[0], reliability=True)
    with tasks.watch("merge: writing posterior"):
        rows = write_posterior(tasks, store, passes, state, beliefs, layout.voted, layout.model)
    found = passes.conclude(last, layout.workers)
    workers = workers_table(layout.workers, layout.tally, found.right, layout.model)
    storage.write_parquet(storage.join(run.output, "workers", "part-00000.parquet"), workers)
    tally = tally_table(layout.workers, layout.tally)
    storage.write_parquet(storage.join(run.output, TALLY_FOLDER, "part-00000.parquet"), tally)
    if state.log_class_prior is not None:
        url = storage.join(run.output, CLASSES_FOLDER, "part-00000.parquet")
        counts = expected_classes(last, state.log_class_prior)
        storage.write_parquet(url, classes_table(state.log_class_prior, counts))
    _write_rejects(run.output)
    calibration = calibration_document(layout.model, state, last)
    history = history_document(state, calibration, last)
    storage.write_json(storage.join(run.output, "history.json"), history)
    report = report_document(layout, found, space)
    storage.write_json(storage.join(run.output, "worker_report.json"), report)
    tasks.each(range(tasks.cores), store.forget)  # on every machine that has tasks
    store.clear()
    images = sum(split.rows for split in beliefs) + layout.unbelieved
    details = manifest_details(layout, state, calibration, report)
    return Outcome(Counts(images, rows), {"votes": layout.votes}, details)


def _plan(url: str | None, key: str, schema: pa.Schema) -> list[Split]:
    return [] if url is None else plan_splits(key, url, schema, ROWS_PER_SPLIT)


def _iterate(passes: StagePasses, layout: Layout, settings: MergeSettings, store: Store) -> State:
    control = StoppingRule(settings.max_iterations, settings.tolerance, settings.criterion)
    state = store.load_state() or _first_state(passes, layout, settings)
    done = len(state.history)
    if done:
        logger.info("merge: going on after iteration %d", done)
    with Progress("merge: EM", settings.max_iterations, "iterations", done=done) as progress:

        def save(state: State) -> None:
            store.save_state(state)
            if state.history:
                latest = state.history[-1]
                progress.update(len(state.history), objective=f"{latest['objective']:.6g}")

        return fit(passes, layout.model, control, state, save)


def _first_state(passes: StagePasses, layout: Layout, settings: MergeSettings) -> State:
    calibration, state = given_calibration(settings), State()
    if settings.warm_start is not None:
        earlier = read_earlier(settings.warm_start, settings.worker_model)
        state = passes.warm(earlier, layout.workers)
        if layout.model.fit_calibration != "none":
            calibration = earlier.calibration
    return replace(state, calibration=calibration)


def _write_rejects(output: str) -> None:
    """An empty table of rejects where no vote was rejected."""
    if not storage.exists(storage.join(output, "rejects")):
        empty = schemas.VOTES_REJECTS.empty_table()
        storage.write_parquet(storage.join(output, "rejects", "part-00000.parquet"), empty)
