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
from coyo_labeler.executor import Executor
from coyo_labeler.formats import parquet_splits, schemas
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.merge.assemble import CARRIED, FALSE_POSITIVES
from coyo_labeler.merge.iterate import StageEStep
from coyo_labeler.merge.posterior import believed_rows, voted_rows
from coyo_labeler.merge.prepare import Prepared
from coyo_labeler.merge.read import image_ids, is_copied_whole
from coyo_labeler.merge.state import StateFolder, Written
from coyo_labeler.merge.voted_filter import VotedFilter
from coyo_labeler.written import check_written, describe_files, differing, refuse_strangers

#: The folder of the table.
POSTERIOR = "posterior"


def write_posterior(
    executor: Executor,
    state: StateFolder,
    e_step: StageEStep,
    fitted: State,
    prepared: Prepared,
    beliefs: Sequence[Split],
) -> int:
    """Write the posterior of every image; returns how many rows it has.

    fitted: of EM, at its end. Files that a killed run has written are kept, if they are as it wrote
    them.

    Raises: WorkError where another file lies among them, or one of them has changed.
    """
    model = prepared.model
    with executor.watch("merge: writing posterior"):
        written = e_step.map(partial(_write_voted, state=state, model=model), fitted)
        with executor.share((fitted.calibration, prepared.voted)) as shared:
            write = partial(_write_not_voted, shared=shared, state=state, model=model)
            written += executor.map(beliefs, write)
    files = {each.name: each.file for each in written}
    check_written("merge", state.output, files)
    refuse_strangers("merge", state.output, [POSTERIOR], files)
    return sum(each.rows for each in written)


def _write_voted(
    partition: int, problems: Problems, parameters: Parameters, state: StateFolder, model: Model
) -> Written:
    name = f"{POSTERIOR}/voted-{partition:05d}.parquet"
    rows = partial(_voted_rows, partition, problems, parameters, state, model)
    return _keep_or_write(name, state, partial(_write_rows, rows))


def _write_not_voted(split: Split, shared: Any, state: StateFolder, model: Model) -> Written:
    """The images of a split of beliefs that have no vote and no gold."""
    calibration, voted = shared.value
    name = f"{POSTERIOR}/{split.name}.parquet"
    if is_copied_whole(split, voted, state):
        return _keep_or_write(name, state, partial(_copy, split))
    rows = partial(_not_voted_rows, split, voted, calibration, model)
    return _keep_or_write(name, state, partial(_write_rows, rows))


def _keep_or_write(name: str, state: StateFolder, write: Callable[[str], int]) -> Written:
    """A file of the posterior: the one that an interrupted run has written, or a new one.

    write: writes a URL and returns its rows.
    """
    kept = state.read_written(name)
    if kept is not None and not differing(state.output, {name: kept.file}):
        return kept
    rows = write(storage.join(state.output, name))
    written = Written(name, rows, describe_files(state.output, [name])[name])
    state.write_written(written)
    return written


def _write_rows(rows: Callable[[], Iterator[pa.Table]], url: str) -> int:
    return storage.write_tables(url, schemas.POSTERIOR, rows())


def _copy(split: Split, url: str) -> int:
    storage.copy(split.url, url)
    return split.rows


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
