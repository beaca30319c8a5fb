"""The posterior of every image, written by as many tasks as there are partitions and splits."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.em.e_step import posterior_of
from coyo_labeler.em.loop import State
from coyo_labeler.em.model import Calibration, Model, Parameters
from coyo_labeler.em.problems import Problems
from coyo_labeler.formats import parquet_splits, schemas
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.merge.assemble import CARRIED, FALSE_POSITIVES
from coyo_labeler.merge.executor import Executor
from coyo_labeler.merge.iterate import StageEStep
from coyo_labeler.merge.posterior import believed_rows, voted_rows
from coyo_labeler.merge.prepare import Prepared
from coyo_labeler.merge.read import image_ids, is_copied_whole
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.merge.voted_filter import VotedFilter


def write_posterior(
    executor: Executor,
    state: StateFolder,
    e_step: StageEStep,
    fitted: State,
    prepared: Prepared,
    beliefs: Sequence[Split],
) -> int:
    """Write the posterior of every image; returns how many rows it has.

    fitted: of EM, at its end. Files that a killed run has written are kept.
    """
    model = prepared.model
    with executor.watch("merge: writing posterior"):
        rows = sum(e_step.map(partial(_write_voted, state=state, model=model), fitted))
        with executor.share((fitted.calibration, prepared.voted)) as shared:
            write = partial(_write_not_voted, shared=shared, state=state, model=model)
            return rows + sum(executor.map(beliefs, write))


def _write_voted(
    partition: int, problems: Problems, parameters: Parameters, state: StateFolder, model: Model
) -> int:
    url = storage.join(state.output, "posterior", f"voted-{partition:05d}.parquet")
    return _keep_or_write(url, partial(_voted_rows, partition, problems, parameters, state, model))


def _write_not_voted(split: Split, shared: Any, state: StateFolder, model: Model) -> int:
    """The images of a split of beliefs that have no vote and no gold."""
    calibration, voted = shared.value
    url = storage.join(state.output, "posterior", f"{split.name}.parquet")
    if is_copied_whole(split, voted, state):
        if not storage.exists(url):
            storage.copy(split.url, url)
        return split.rows
    return _keep_or_write(url, partial(_not_voted_rows, split, voted, calibration, model))


def _keep_or_write(url: str, rows: Callable[[], Iterator[pa.Table]]) -> int:
    if storage.exists(url):  # written whole by a run with the same settings
        return int(storage.read_footer("output", url).num_rows)
    return storage.write_tables(url, schemas.POSTERIOR, rows())


def _voted_rows(
    partition: int, problems: Problems, parameters: Parameters, state: StateFolder, model: Model
) -> Iterator[pa.Table]:
    posterior = posterior_of(problems, parameters, model)
    yield voted_rows(problems, posterior, state.read_table(CARRIED, partition), model)
    false_positives = state.read_table(FALSE_POSITIVES, partition)
    yield believed_rows(false_positives, parameters.calibration, model)


def _not_voted_rows(
    split: Split, voted: VotedFilter, calibration: Calibration, model: Model
) -> Iterator[pa.Table]:
    for table in parquet_splits.read_split(split):
        not_voted = ~voted.may_have(image_ids(table, split))
        yield believed_rows(table.filter(pa.array(not_voted)), calibration, model)
