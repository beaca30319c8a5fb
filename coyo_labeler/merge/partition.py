"""Votes, gold and the beliefs of voted images dealt out by image, once: on Spark, or right here.

Each step is a handful of large tasks, and on Spark one shuffle of Arrow parcels; after that images
never move: an iteration sends the workers' skills out and gets expected counts back, summed per
partition.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.em.calibration import calibration_evidence
from coyo_labeler.em.model import Model
from coyo_labeler.em.segments import I64
from coyo_labeler.em.tallies import Tallies
from coyo_labeler.formats import parquet_splits
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.merge import read as intake
from coyo_labeler.merge.assemble import assemble
from coyo_labeler.merge.cell_shards import sample_cells
from coyo_labeler.merge.executor import SparkTasks, Tasks
from coyo_labeler.merge.read import Parcel, VotedFilter, VotesSummary
from coyo_labeler.merge.state import Store
from coyo_labeler.votes.questions import Duplicates
from coyo_labeler.votes.read import VotesSplit

T = TypeVar("T")

#: Parts of the filter of voted images that are put together on their own.
_SLICES = 64


@dataclass(frozen=True)
class Assembly:
    """What assembling a partition tells the driver. cells: how many; samples: some keys.

    calibration: (2,) as of `calibration_evidence`.
    """

    cells: int
    samples: I64
    evidence: Tallies
    calibration: I64
    duplicates: int
    unbelieved: int


@dataclass(frozen=True)
class Recipe:
    """How partitions are assembled. sample: share of images whose votes show how far workers agree.

    store: where the problems go.
    """

    workers: Sequence[str]
    model: Model
    duplicate_votes: Duplicates
    sample: float
    store: Store


class Dealt(Protocol):
    """Votes, gold and beliefs on their way to their partitions."""

    def summaries(self) -> list[VotesSummary]:
        """What each split of votes held; all votes have been read and checked."""

    def voted_filter(self, gold: Sequence[Split], images: int, exact: Store | None) -> VotedFilter:
        """Which images have a vote or gold; images: how many to expect.

        exact: where the ids themselves are to be kept too.
        """

    def assemble(
        self,
        beliefs: Sequence[Split],
        gold: Sequence[Split],
        voted: VotedFilter,
        recipe: Recipe,
    ) -> list[Assembly]:
        """Bring together what belongs together, and write every partition's problems."""

    def close(self) -> None:
        """Let go of the votes."""


def deal_out(
    tasks: Tasks,
    votes: Sequence[VotesSplit],
    space: LabelSpace,
    partitions: int,
    rejects: str | None,
) -> Dealt:
    """Begin with the votes. rejects: folder for bad votes, or None to stop at the first."""
    take = partial(_take_votes, space=space, partitions=partitions, rejects=rejects)
    numbered = list(enumerate(votes))
    if isinstance(tasks, SparkTasks):
        return _SparkDealt(tasks, numbered, take, space, partitions)
    return _HereDealt(tasks, numbered, take, space, partitions)


class _SparkDealt:
    """Parcels in an RDD, shuffled to their partitions."""

    def __init__(
        self, tasks: SparkTasks, votes: list[Any], take: Any, space: LabelSpace, partitions: int
    ) -> None:
        from pyspark import StorageLevel  # noqa: PLC0415 - not there where merge runs without it

        self._context = tasks.spark.sparkContext
        self._tasks, self._space, self._partitions = tasks, space, partitions
        self._votes = (
            self._context.parallelize(votes, len(votes))
            .flatMap(take)
            .persist(StorageLevel.MEMORY_AND_DISK)
        )

    def summaries(self) -> list[VotesSummary]:
        found: list[Any] = self._votes.filter(_is_summary).values().collect()
        return found

    def voted_filter(self, gold: Sequence[Split], images: int, exact: Store | None) -> VotedFilter:
        note = partial(_note, images=images, exact=exact)
        noted = self._votes.mapPartitionsWithIndex(partial(note, ids_of=_voted_ids, first=0))
        files = noted.getNumPartitions()
        if gold:
            golden = self._context.parallelize(gold, len(gold))
            more = golden.mapPartitionsWithIndex(partial(note, ids_of=_gold_ids, first=files))
            files, noted = files + len(gold), noted.union(more)
        # Slice by slice on the executors: the driver is sent one filter, not one of every task.
        slices = dict(noted.flatMap(_slices).reduceByKey(np.bitwise_or).collect())
        bits = np.concatenate([slices[number] for number in range(_SLICES)])
        return VotedFilter(bits, 0 if exact is None else files)

    def assemble(
        self,
        beliefs: Sequence[Split],
        gold: Sequence[Split],
        voted: VotedFilter,
        recipe: Recipe,
    ) -> list[Assembly]:
        parcels = self._votes.filter(_is_parcel)
        with self._tasks.share(voted) as voted_, self._tasks.share(recipe) as recipe_:
            takes = _takes(voted_, self._space, self._partitions, recipe)
            for splits, take in zip((gold, beliefs), takes, strict=True):
                if splits:
                    dealt = self._context.parallelize(splits, len(splits)).flatMap(take)
                    parcels = parcels.union(dealt)
            together = parcels.partitionBy(self._partitions, _identity)
            work = partial(_assemble_arrived, recipe=recipe_)
            return together.mapPartitionsWithIndex(work).collect()

    def close(self) -> None:
        self._votes.unpersist()


class _HereDealt:
    """Parcels in lists of this process."""

    def __init__(
        self, tasks: Tasks, votes: list[Any], take: Any, space: LabelSpace, partitions: int
    ) -> None:
        self._tasks, self._space, self._partitions = tasks, space, partitions
        self._votes, self._take = votes, take
        self._parcels: list[list[Parcel]] = [[] for _ in range(partitions)]

    def summaries(self) -> list[VotesSummary]:
        found = self._tasks.each(self._votes, partial(_list, self._take))
        items = [item for some in found for item in some]
        self._keep(item for item in items if _is_parcel(item))
        return [item[1] for item in items if _is_summary(item)]

    def voted_filter(self, gold: Sequence[Split], images: int, exact: Store | None) -> VotedFilter:
        parcels = [(number, some) for number, many in enumerate(self._parcels) for some in many]
        noted = [
            *_note(0, parcels, _voted_ids, 0, images, exact),
            *_note(0, gold, _gold_ids, 1, images, exact),
        ]
        return VotedFilter(np.bitwise_or.reduce(noted), 0 if exact is None else len(noted))

    def assemble(
        self,
        beliefs: Sequence[Split],
        gold: Sequence[Split],
        voted: VotedFilter,
        recipe: Recipe,
    ) -> list[Assembly]:
        with self._tasks.share(voted) as voted_:
            takes = _takes(voted_, self._space, self._partitions, recipe)
            for splits, take in zip((gold, beliefs), takes, strict=True):
                for some in self._tasks.each(splits, partial(_list, take)):
                    self._keep(some)
        return self._tasks.each(
            list(enumerate(self._parcels)), lambda item: _assemble(item[0], item[1], recipe)
        )

    def close(self) -> None:
        self._parcels.clear()

    def _keep(self, parcels: Iterable[tuple[int, Any]]) -> None:
        for number, parcel in parcels:
            self._parcels[number].append(parcel)


def _identity(number: int) -> int:
    return number


def _list(take: Callable[[T], Iterable[tuple[int, Any]]], split: T) -> list[tuple[int, Any]]:
    return list(take(split))


def _is_summary(item: tuple[int, Any]) -> bool:
    return isinstance(item[1], VotesSummary)


def _is_parcel(item: tuple[int, Any]) -> bool:
    return isinstance(item[1], Parcel)


def _take_votes(
    numbered: tuple[int, VotesSplit], space: LabelSpace, partitions: int, rejects: str | None
) -> Iterator[tuple[int, VotesSummary | Parcel]]:
    number, split = numbered
    url = None if rejects is None else storage.join(rejects, f"votes-{number:05d}.parquet")
    return intake.take_votes(split, space, partitions, url)


def _voted_ids(items: Iterable[tuple[int, Any]]) -> Iterator[I64]:
    return (item[1].table()["image_id"].to_numpy() for item in items if _is_parcel(item))


def _gold_ids(splits: Iterable[Split]) -> Iterator[I64]:
    for split in splits:
        for table in parquet_splits.read_split(split):
            yield table["image_id"].drop_null().to_numpy()


def _note(
    number: int,
    items: Iterable[Any],
    ids_of: Callable[[Iterable[Any]], Iterator[I64]],
    first: int,
    images: int,
    exact: Store | None,
) -> Iterator[NDArray[np.uint8]]:
    """The bits of a `VotedFilter` of the ids in some items; the ids go to file first + number."""
    voted = VotedFilter.empty(images)
    kept = [np.zeros(0, dtype=np.int64)]
    for some in ids_of(items):
        distinct = np.unique(some)
        voted.add(distinct)
        if exact is not None:
            kept.append(distinct)
    if exact is not None:
        exact.write_array(intake.VOTED_IDS, np.unique(np.concatenate(kept)), first + number)
    yield voted.bits


def _slices(bits: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    return enumerate(np.split(bits, _SLICES))


def _takes(voted: Any, space: LabelSpace, partitions: int, recipe: Recipe) -> tuple[Any, Any]:
    """What turns a split of gold, and one of beliefs, into parcels by partition."""
    model, store = recipe.model, recipe.store
    return (
        partial(intake.take_gold, space=space, partitions=partitions),
        partial(_take_beliefs, voted=voted, partitions=partitions, model=model, store=store),
    )


def _take_beliefs(
    split: Split, voted: Any, partitions: int, model: Model, store: Store
) -> Iterator[tuple[int, Parcel]]:
    if intake.is_left_alone(split, voted.value, store):
        return iter(())
    return intake.take_beliefs(split, voted.value, partitions, model)


def _assemble_arrived(
    partition: int, items: Iterable[tuple[int, Parcel]], recipe: Any
) -> Iterator[Assembly]:
    yield _assemble(partition, [parcel for _, parcel in items], recipe.value)


def _assemble(partition: int, parcels: Sequence[Parcel], recipe: Recipe) -> Assembly:
    store, workers = recipe.store, pa.array(recipe.workers, pa.string())
    made = assemble(parcels, workers, recipe.model, recipe.duplicate_votes, recipe.sample)
    store.write_problems(made.problems, partition)
    storage.write_parquet(store.url("passengers.parquet", partition), made.passengers)
    storage.write_parquet(store.url("bystanders.parquet", partition), made.bystanders)
    if made.duplicates.num_rows:
        name = f"duplicates-{partition:05d}.parquet"
        storage.write_parquet(storage.join(store.output, "rejects", name), made.duplicates)
    return Assembly(
        cells=len(made.problems.cells),
        samples=sample_cells(made.problems.cells),
        evidence=made.evidence,
        calibration=calibration_evidence(made.problems),
        duplicates=made.duplicates.num_rows,
        unbelieved=made.unbelieved,
    )
