"""Which images have a vote or gold: a Bloom filter, small enough to go to every task.

With it a task that reads beliefs sends only those of voted images to their partitions; the few
others that pass the filter (its false positives) cost their way there and no more.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.segments import I64, Bool
from coyo_labeler.executor import Executor, Round
from coyo_labeler.formats import parquet_splits
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.hashing import splitmix64
from coyo_labeler.merge.state import StateFolder

#: Bits of the filter per image: about one image in a thousand is a false positive. The filter has
#: 128 MiB at most: beside 200 million voted images one in ten is a false positive then.
_BITS_PER_IMAGE = 16
_LOG2_MOST_BITS = 30
_HASHES = 4
#: Step 1 of the hash partitions rows; were it used here too, the images of a partition would share
#: their bits.
_FIRST_STEP = 2
#: Parts of the filter that are put together by a task each.
_SLICES = 64


class VotedFilter:
    """Which images may have a vote or gold. It never misses one that has.

    bits: packed, eight to a byte. id_files: how many files of the state hold the ids themselves
    (`StateFolder.map_voted_ids`), each sorted and distinct; 0 where they are not kept.
    """

    def __init__(self, bits: NDArray[np.uint8], id_files: int = 0) -> None:
        self.bits = bits
        self.id_files = id_files

    @classmethod
    def empty(cls, images: int) -> "VotedFilter":
        """An empty filter of the size for about so many images."""
        wanted = np.ceil(np.log2(_BITS_PER_IMAGE * images + 1))
        size = 1 << int(np.clip(wanted, 16, _LOG2_MOST_BITS))
        return cls(np.zeros(size // 8, dtype=np.uint8))

    def _bit_numbers(self, images: I64) -> Iterator[NDArray[np.uint64]]:
        mask = np.uint64(len(self.bits) * 8 - 1)
        for step in range(_HASHES):
            yield splitmix64(images, _FIRST_STEP + step) & mask

    def add(self, images: I64) -> None:
        """Add images (n,)."""
        for number in self._bit_numbers(images):
            bit = np.left_shift(np.uint8(1), (number & np.uint64(7)).astype(np.uint8))
            np.bitwise_or.at(self.bits, (number >> np.uint64(3)).astype(np.int64), bit)

    def may_have(self, images: I64) -> Bool:
        """Whether each image (n,) may have been added."""
        all_set = np.ones(len(images), dtype=bool)
        for number in self._bit_numbers(images):
            byte = self.bits[(number >> np.uint64(3)).astype(np.int64)]
            all_set &= (byte >> (number & np.uint64(7)).astype(np.uint8)) & 1 == 1
        return all_set


def filter_voted(
    executor: Executor,
    state: StateFolder,
    partitions: int,
    gold: Sequence[Split],
    images: int,
    keep_ids: bool,
) -> VotedFilter:
    """The filter of all images in the votes that partitions hold and in gold.

    images: how many to expect. keep_ids: also write the ids themselves to the state.

    Each task makes a filter of its own; they are put together slice by slice by tasks, so that the
    driver receives one filter and not one per task.
    """
    tasks = min(executor.cores, partitions)
    sources: list[range | Split] = [range(first, partitions, tasks) for first in range(tasks)]
    sources.extend(gold)
    send = partial(_send_slices, state=state, images=images, keep_ids=keep_ids)
    slices = executor.exchange(list(enumerate(sources)), send, Round(_SLICES, _combine))
    return VotedFilter(np.concatenate(slices), len(sources) if keep_ids else 0)


def _send_slices(
    numbered: tuple[int, range | Split], state: StateFolder, images: int, keep_ids: bool
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    number, source = numbered
    voted = VotedFilter.empty(images)
    kept = [np.zeros(0, dtype=np.int64)]
    for ids in _gold_ids(source) if isinstance(source, Split) else _voted_ids(source, state):
        distinct = np.unique(ids)
        voted.add(distinct)
        if keep_ids:
            kept.append(distinct)
    if keep_ids:
        state.write_voted_ids(np.unique(np.concatenate(kept)), number)
    yield from enumerate(np.split(voted.bits, _SLICES))


def _voted_ids(partitions: Iterable[int], state: StateFolder) -> Iterator[I64]:
    for partition in partitions:
        yield state.read_votes(partition)["image_id"].to_numpy()


def _gold_ids(split: Split) -> Iterator[I64]:
    for table in parquet_splits.read_split(split):
        yield table["image_id"].drop_null().to_numpy()


def _combine(_: int, arrived: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    yield np.bitwise_or.reduce(arrived)
