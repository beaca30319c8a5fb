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
from coyo_labeler.merge import read as intake
from coyo_labeler.merge.broadcast import StagePasses
from coyo_labeler.merge.executor import Tasks
from coyo_labeler.merge.posterior import believed_rows, voted_rows
from coyo_labeler.merge.read import VotedFilter
from coyo_labeler.merge.state import Store


def write_posterior(
    tasks: Tasks,
    store: Store,
    passes: StagePasses,
    state: State,
    beliefs: Sequence[Split],
    voted: VotedFilter,
    model: Model,
) -> int:
    """Write every image's posterior, and return how many there are. What is there is kept."""
    work = partial(_write_voted, store=store, model=model)
    rows = sum(passes.map(work, state))
    with tasks.share((state.calibration, voted)) as shared:
        pass_on = partial(_pass_on, shared=shared, store=store, model=model)
        rows += sum(tasks.each(beliefs, pass_on))
    return rows


def _write_voted(
    partition: int, problems: Problems, parameters: Parameters, store: Store, model: Model
) -> int:
    url = storage.join(store.output, "posterior", f"voted-{partition:05d}.parquet")
    return _keep_or_write(url, partial(_voted_rows, partition, problems, parameters, store, model))


def _pass_on(split: Split, shared: Any, store: Store, model: Model) -> int:
    calibration, voted = shared.value
    url = storage.join(store.output, "posterior", f"{split.name}.parquet")
    if intake.is_left_alone(split, voted, store):
        if not storage.exists(url):
            storage.copy(split.url, url)
        return split.rows
    return _keep_or_write(url, partial(_believed_rows, split, voted, calibration, model))


def _keep_or_write(url: str, rows: Callable[[], Iterator[pa.Table]]) -> int:
    if storage.exists(url):  # written whole by a run with the same settings
        return int(storage.read_footer("output", url).num_rows)
    return storage.write_tables(url, schemas.POSTERIOR, rows())


def _voted_rows(
    partition: int, problems: Problems, parameters: Parameters, store: Store, model: Model
) -> Iterator[pa.Table]:
    posterior = posterior_of(problems, parameters, model)
    yield voted_rows(problems, posterior, store.read_table("passengers.parquet", partition), model)
    bystanders = store.read_table("bystanders.parquet", partition)
    yield believed_rows(bystanders, parameters.calibration, model)


def _believed_rows(
    split: Split, voted: VotedFilter, calibration: Calibration, model: Model
) -> Iterator[pa.Table]:
    for table in parquet_splits.read_split(split):
        passed = ~voted.holds(intake.image_ids(table, split))
        yield believed_rows(table.filter(pa.array(passed)), calibration, model)
