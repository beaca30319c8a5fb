"""The jobs of `merge` on Spark around EM: deal and assemble before, write after (`passes.py`).

Each is a handful of large tasks. Votes and the beliefs of voted images are dealt out by image once
(one shuffle of Arrow parcels); after that images never move: an iteration sends the workers' skills
out and gets expected counts back, summed per partition.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import StorageLevel
from pyspark.sql import SparkSession

from coyo_labeler import schemas, storage
from coyo_labeler.label_spaces import LabelSpace
from coyo_labeler.merge import intake
from coyo_labeler.merge.arrays import I64
from coyo_labeler.merge.assemble import assemble
from coyo_labeler.merge.evidence import Evidence
from coyo_labeler.merge.fit import State
from coyo_labeler.merge.intake import BeliefPiece, Parcel, VotedFilter, VotesSummary
from coyo_labeler.merge.local import final_posterior
from coyo_labeler.merge.model import Calibration, Model, Parameters
from coyo_labeler.merge.passes import SparkPasses, each
from coyo_labeler.merge.posterior import believed_rows, voted_rows
from coyo_labeler.merge.shards import sample_cells
from coyo_labeler.merge.store import Store
from coyo_labeler.votes.questions import Duplicates
from coyo_labeler.votes.read import Piece


@dataclass(frozen=True)
class Assembly:
    """What assembling a partition tells the driver. cells: how many; samples: some keys."""

    cells: int
    samples: I64
    evidence: Evidence
    duplicates: int
    unbelieved: int


class Dealt:
    """Votes, gold and beliefs on their way to their partitions."""

    def __init__(
        self,
        spark: SparkSession,
        votes: Sequence[Piece],
        space: LabelSpace,
        partitions: int,
        rejects: str | None,
    ) -> None:
        """rejects: folder for bad votes, or None to stop at the first."""
        self._context = spark.sparkContext
        self._partitions = partitions
        self._space = space
        numbered = list(enumerate(votes))
        self._votes = (
            self._context.parallelize(numbered, len(numbered))
            .mapPartitions(
                partial(_take_votes, space=space, partitions=partitions, rejects=rejects)
            )
            .persist(StorageLevel.MEMORY_AND_DISK)
        )

    def summaries(self) -> list[VotesSummary]:
        """Read and check all votes."""
        found: list[Any] = self._votes.filter(_is_summary).values().collect()
        return found

    def voted_filter(self, gold: Sequence[BeliefPiece], votes: int) -> VotedFilter:
        """Which images have a vote or gold."""
        noted = self._votes.mapPartitions(partial(_note_votes, votes=votes))
        if gold:
            more = self._context.parallelize(gold, len(gold)).mapPartitions(
                partial(_note_gold, votes=votes)
            )
            noted = noted.union(more)
        return VotedFilter(noted.treeReduce(np.bitwise_or))

    def assemble(
        self,
        beliefs: Sequence[BeliefPiece],
        gold: Sequence[BeliefPiece],
        voted: VotedFilter,
        workers: Sequence[str],
        model: Model,
        duplicate_votes: Duplicates,
        sample: float,
        store: Store,
    ) -> list[Assembly]:
        """Bring together what belongs together, and write every partition's problems."""
        parcels = self._votes.filter(_is_parcel)
        if gold:
            dealt = self._context.parallelize(gold, len(gold)).flatMap(
                partial(intake.take_gold, space=self._space, partitions=self._partitions)
            )
            parcels = parcels.union(dealt)
        if beliefs:
            shared = self._context.broadcast(voted)
            dealt = self._context.parallelize(beliefs, len(beliefs)).flatMap(
                partial(_take_beliefs, voted=shared, partitions=self._partitions)
            )
            parcels = parcels.union(dealt)
        names = self._context.broadcast(list(workers))
        work = partial(
            _assemble,
            names=names,
            model=model,
            duplicate_votes=duplicate_votes,
            sample=sample,
            store=store,
        )
        together = parcels.partitionBy(self._partitions, _identity)
        return together.mapPartitionsWithIndex(work).collect()

    def close(self) -> None:
        """Let go of the votes."""
        self._votes.unpersist()


def _identity(number: int) -> int:
    return number


def _is_summary(item: tuple[int, Any]) -> bool:
    return isinstance(item[1], VotesSummary)


def _is_parcel(item: tuple[int, Any]) -> bool:
    return isinstance(item[1], Parcel)


def _take_votes(
    pieces: Iterable[tuple[int, Piece]], space: LabelSpace, partitions: int, rejects: str | None
) -> Iterator[tuple[int, VotesSummary | Parcel]]:
    for number, piece in pieces:
        url = None if rejects is None else storage.join(rejects, f"votes-{number:05d}.parquet")
        yield from intake.take_votes(piece, space, partitions, url)


def _note_votes(items: Iterable[tuple[int, Any]], votes: int) -> Iterator[NDArray[np.uint8]]:
    voted = VotedFilter.empty(votes)
    for item in items:
        if _is_parcel(item):
            voted.add(np.unique(item[1].table()["image_id"].to_numpy()))
    yield voted.bits


def _note_gold(pieces: Iterable[BeliefPiece], votes: int) -> Iterator[NDArray[np.uint8]]:
    voted = VotedFilter.empty(votes)
    for piece in pieces:
        for table in intake.read_piece(piece, schemas.GOLD):
            voted.add(table["image_id"].drop_null().to_numpy())
    yield voted.bits


def _take_beliefs(piece: BeliefPiece, voted: Any, partitions: int) -> Iterator[tuple[int, Parcel]]:
    return intake.take_beliefs(piece, voted.value, partitions)


def _assemble(
    partition: int,
    items: Iterable[tuple[int, Parcel]],
    names: Any,
    model: Model,
    duplicate_votes: Duplicates,
    sample: float,
    store: Store,
) -> Iterator[Assembly]:
    parcels = [parcel for _, parcel in items]
    workers = pa.array(names.value, pa.string())
    made = assemble(parcels, workers, model, duplicate_votes, sample)
    store.write_problems(made.problems, partition)
    storage.write_parquet(store.url("passengers.parquet", partition), made.passengers)
    storage.write_parquet(store.url("bystanders.parquet", partition), made.bystanders)
    if made.duplicates.num_rows:
        name = f"duplicates-{partition:05d}.parquet"
        storage.write_parquet(storage.join(store.output, "rejects", name), made.duplicates)
    yield Assembly(
        cells=len(made.problems.cells),
        samples=sample_cells(made.problems.cells),
        evidence=made.evidence,
        duplicates=made.duplicates.num_rows,
        unbelieved=made.unbelieved,
    )


def write_posterior(
    spark: SparkSession,
    store: Store,
    passes: SparkPasses,
    state: State,
    beliefs: Sequence[BeliefPiece],
    voted: VotedFilter,
    model: Model,
) -> int:
    """Write every image's posterior, and return how many there are. What is there is kept."""
    work = partial(_write_voted, store=store, model=model)
    rows = sum(passes.with_skills(state, work))
    if beliefs:
        shared = spark.sparkContext.broadcast((state.calibration, voted))
        rows += sum(
            each(spark, beliefs, partial(_pass_on, shared=shared, store=store, model=model))
        )
        shared.destroy()
    return rows


def _write_voted(partition: int, parameters: Parameters, store: Store, model: Model) -> int:
    url = storage.join(store.output, "posterior", f"voted-{partition:05d}.parquet")
    return _keep_or_write(url, partial(_voted_rows, partition, parameters, store, model))


def _pass_on(piece: BeliefPiece, shared: Any, store: Store, model: Model) -> int:
    calibration, voted = shared.value
    url = storage.join(store.output, "posterior", f"{piece.name}.parquet")
    return _keep_or_write(url, partial(_believed_rows, piece, voted, calibration, model))


def _keep_or_write(url: str, rows: Callable[[], Iterator[pa.Table]]) -> int:
    if storage.exists(url):  # written whole by a run with the same settings
        return int(storage.read_footer("output", url).num_rows)
    return storage.write_tables(url, schemas.POSTERIOR, rows())


def _voted_rows(
    partition: int, parameters: Parameters, store: Store, model: Model
) -> Iterator[pa.Table]:
    problems = store.map_problems(partition)
    posterior = final_posterior(problems, parameters, model)
    yield voted_rows(problems, posterior, store.read_table("passengers.parquet", partition), model)
    bystanders = store.read_table("bystanders.parquet", partition)
    yield believed_rows(bystanders, parameters.calibration, model)


def _believed_rows(
    piece: BeliefPiece, voted: VotedFilter, calibration: Calibration, model: Model
) -> Iterator[pa.Table]:
    for table in intake.read_piece(piece, schemas.BELIEFS):
        passed = ~voted.holds(intake.image_ids(table, piece))
        yield believed_rows(table.filter(pa.array(passed)), calibration, model)
