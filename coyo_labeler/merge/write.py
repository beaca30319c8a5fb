"""The posterior of every image, written by as many tasks as there are partitions and splits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.em.e_step import posterior_of
from coyo_labeler.em.loop import State
from coyo_labeler.em.model import Calibration, Model, Parameters
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import Bool
from coyo_labeler.executor import Executor
from coyo_labeler.formats import parquet_splits, schemas
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.merge.assemble import CARRIED, FALSE_POSITIVES
from coyo_labeler.merge.implied import hierarchy_of
from coyo_labeler.merge.iterate import StageEStep
from coyo_labeler.merge.posterior import believed_rows, voted_rows
from coyo_labeler.merge.prepare import Prepared
from coyo_labeler.merge.read import image_ids, is_copied_whole
from coyo_labeler.merge.settings import Plan
from coyo_labeler.merge.state import StateFolder, Written
from coyo_labeler.merge.voted_filter import VotedFilter
from coyo_labeler.written import check_written, describe_files, differing, refuse_strangers

#: The folder of the table.
POSTERIOR = "posterior"

#: Rows whose numbers are computed at a time: with 50 entries each, arrays stay in a core's cache.
_BLOCK_ROWS = 2048


def write_posterior(
    executor: Executor,
    state: StateFolder,
    e_step: StageEStep,
    fitted: State,
    prepared: Prepared,
    plan: Plan,
) -> int:
    """Write the posterior of every image; returns how many rows it has.

    fitted: of EM, at its end. Files that a killed run has written are kept, if they are as it wrote
    them.

    Raises: WorkError where another file lies among them, or one of them has changed.
    """
    kind = _Kind(prepared.model, plan.tree)
    with executor.watch("merge: writing posterior"):
        written = e_step.map(partial(_write_voted, state=state, kind=kind), fitted)
        with executor.share((fitted.calibration, prepared.voted)) as shared:
            write = partial(_write_not_voted, shared=shared, state=state, kind=kind)
            written += executor.map(plan.beliefs, write)
    files = {each.name: each.file for each in written}
    check_written("merge", state.output, files)
    refuse_strangers("merge", state.output, [POSTERIOR], files)
    return sum(each.rows for each in written)


@dataclass(frozen=True)
class _Kind:
    """What the posterior is of. tree: the classes whose tree counts, or None."""

    model: Model
    tree: LabelSpace | None

    def believed_rows(
        self, beliefs: pa.Table, calibration: Calibration, kept: Bool | None = None
    ) -> pa.Table:
        """See `posterior.believed_rows`."""
        hierarchy = hierarchy_of(self.tree, self.model.truth)
        return believed_rows(beliefs, calibration, self.model, hierarchy, kept)


def _write_voted(
    partition: int, problems: Problems, parameters: Parameters, state: StateFolder, kind: _Kind
) -> Written:
    name = f"{POSTERIOR}/voted-{partition:05d}.parquet"
    rows = partial(_voted_rows, partition, problems, parameters, state, kind)
    return _keep_or_write(name, state, partial(_write_rows, rows))


def _write_not_voted(split: Split, shared: Any, state: StateFolder, kind: _Kind) -> Written:
    """The images of a split of beliefs that have no vote and no gold."""
    calibration, voted = shared.value
    name = f"{POSTERIOR}/{split.name}.parquet"
    if is_copied_whole(split, voted, state):
        return _keep_or_write(name, state, partial(_copy, split))
    rows = partial(_not_voted_rows, split, voted, calibration, kind)
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
    partition: int, problems: Problems, parameters: Parameters, state: StateFolder, kind: _Kind
) -> Iterator[pa.Table]:
    posterior = posterior_of(problems, parameters, kind.model)
    yield voted_rows(problems, posterior, state.read_table(CARRIED, partition), kind.model)
    false_positives = state.read_table(FALSE_POSITIVES, partition)
    yield kind.believed_rows(false_positives, parameters.calibration)


def _not_voted_rows(
    split: Split, voted: VotedFilter, calibration: Calibration, kind: _Kind
) -> Iterator[pa.Table]:
    for table in parquet_splits.read_split(split):
        kept = ~voted.may_have(image_ids(table, split))
        starts = range(0, max(table.num_rows, 1), _BLOCK_ROWS)
        blocks = [(table.slice(n, _BLOCK_ROWS), kept[n : n + _BLOCK_ROWS]) for n in starts]
        yield pa.concat_tables(
            [kind.believed_rows(rows, calibration, kept_rows) for rows, kept_rows in blocks]
        )
