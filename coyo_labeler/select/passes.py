"""Passes over the index that find where the chosen images end. Only counts reach the driver."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.em.segments import I64, Bool
from coyo_labeler.executor import Executor, Round
from coyo_labeler.select import hashes
from coyo_labeler.select.choose import (
    ClassCuts,
    Cuts,
    Sizes,
    pass_class_cuts,
    plan_sizes,
    top_of,
)
from coyo_labeler.select.class_cuts import Leaders, concat, cut_classes
from coyo_labeler.select.cut import HASH_DIGITS, SCORE_DIGITS, Bin, Digit, count_digit, find_bin
from coyo_labeler.select.hashes import U64
from coyo_labeler.select.index import Counted, Kind, index_url
from coyo_labeler.select.plan import Plan

#: Partitions whose counts the driver adds up itself.
_FEW = 32
#: Parts of a histogram that are added up by a task each.
_SLICES = 8


@dataclass(frozen=True)
class Index:
    """The columns of a partition of the index, (images,) each, see `index.INDEX`."""

    ids: I64
    key: U64
    kind: NDArray[np.int8]
    n_votes: NDArray[np.int32]
    top: NDArray[np.int32]
    split: NDArray[np.int32]
    row: NDArray[np.int32]


def read_index(state: str, partition: int) -> Index:
    """A partition of the index."""
    with storage.open_parquet("select", index_url(state, partition)) as parquet:
        table = parquet.read(use_threads=False)
    return Index(*(column.to_numpy() for column in table.itercolumns()))


@dataclass(frozen=True)
class Passes:
    """Passes over all partitions of the index. salts: of the streams of numbers."""

    executor: Executor
    state: str
    partitions: int
    salts: dict[str, int]

    def add_up(self, count: Callable[[Index], I64]) -> I64:
        """The sum of equally long counts of each partition.

        Those of many partitions are added up by tasks, so that the driver receives one sum.
        """
        if self.partitions <= _FEW:
            counts = self.executor.map(
                range(self.partitions), partial(_count_in, state=self.state, count=count)
            )
            return np.asarray(np.sum(counts, axis=0))
        send = partial(_send_counts, state=self.state, count=count)
        parts = self.executor.exchange(range(self.partitions), send, Round(_SLICES, _add))
        return np.concatenate(parts)

    def find(
        self, keys: Callable[[Index], U64], nth: int, widths: Sequence[int], exact: bool = False
    ) -> Bin:
        """The bin of the nth smallest of all keys. See `cut.find_bin`."""
        return find_bin(
            lambda digit: self.add_up(partial(_count, keys=keys, digit=digit)), nth, widths, exact
        )


def _count_in(partition: int, state: str, count: Callable[[Index], I64]) -> I64:
    return count(read_index(state, partition))


def _send_counts(
    partition: int, state: str, count: Callable[[Index], I64]
) -> Iterator[tuple[int, I64]]:
    yield from enumerate(np.array_split(_count_in(partition, state, count), _SLICES))


def _add(_: int, arrived: list[I64]) -> Iterator[I64]:
    yield np.sum(arrived, axis=0)


def _count(index: Index, keys: Callable[[Index], U64], digit: Digit) -> I64:
    return count_digit(keys(index), digit)


def find_cuts(passes: Passes, plan: Plan, counted: Counted, questions: int) -> Cuts:
    """Where the chosen images end. questions: how many there may be."""
    classes = ClassCuts.none()
    allowed: I64 | None = None
    if plan.max_per_class is not None:
        classes = _class_cuts(passes, plan.max_per_class)
        allowed = passes.add_up(partial(_count_allowed, classes=classes, salts=passes.salts))
    sizes = plan_sizes(questions, counted.kinds, plan.audit, plan.gold_share, allowed)
    cuts = _cut_gold(passes, Cuts(sizes, classes=classes), counted)
    cuts = _cut_top(passes, cuts)
    return _cut_audit(passes, cuts)


def _candidates(index: Index, sizes: Sizes) -> Bool:
    kind = index.kind
    return np.asarray(kind == Kind.REPEAT if sizes.all_fresh else kind != Kind.GOLD)


def _cut_top(passes: Passes, cuts: Cuts) -> Cuts:
    """The last order key; where not all of its images are in, also their last number."""
    keys = partial(_top_keys, cuts=cuts, salts=passes.salts)
    top = passes.find(keys, cuts.sizes.top, SCORE_DIGITS, exact=True)
    taken = cuts.sizes.top - top.below
    cuts = replace(cuts, top=top, top_taken=taken)
    if taken == top.inside:
        return cuts
    numbers = partial(_tie_numbers, cuts=cuts, salts=passes.salts)
    return replace(cuts, ties=passes.find(numbers, taken, HASH_DIGITS))


def _top_keys(index: Index, cuts: Cuts, salts: dict[str, int]) -> U64:
    """The order keys of images that may be in the top."""
    numbers = hashes.draw(index.ids, salts[hashes.CLASS_TIES])
    passes, _ = pass_class_cuts(index.key, index.top, numbers, cuts.classes)
    return index.key[passes & _candidates(index, cuts.sizes)]


def _tie_numbers(index: Index, cuts: Cuts, salts: dict[str, int]) -> U64:
    """The numbers of those among them that share the last place."""
    numbers = hashes.draw(index.ids, salts[hashes.CLASS_TIES])
    passes, _ = pass_class_cuts(index.key, index.top, numbers, cuts.classes)
    passes &= _candidates(index, cuts.sizes) & (index.key == np.uint64(cuts.top.low))
    return hashes.draw(index.ids[passes], salts[hashes.TIES])


def _cut_audit(passes: Passes, cuts: Cuts) -> Cuts:
    if cuts.sizes.audit == 0:
        return cuts
    numbers = partial(_audit_numbers, cuts=cuts, salts=passes.salts)
    audit = passes.find(numbers, cuts.sizes.audit, HASH_DIGITS)
    return replace(cuts, fresh_outside=audit.total, audit=audit)


def _outside(index: Index, cuts: Cuts, salts: dict[str, int]) -> Bool:
    """(images,) those without votes that are not in the top."""
    at_top, _ = top_of(index.ids, index.key, index.kind, index.top, cuts, salts)
    return np.asarray((index.kind == Kind.FRESH) & ~at_top)


def _audit_numbers(index: Index, cuts: Cuts, salts: dict[str, int]) -> U64:
    return hashes.draw(index.ids[_outside(index, cuts, salts)], salts[hashes.AUDIT])


def _cut_gold(passes: Passes, cuts: Cuts, counted: Counted) -> Cuts:
    """Gold with fewest votes first; of those with equally many by chance."""
    left = cuts.sizes.gold
    for votes, images in sorted(counted.gold.items()):
        if left <= images:
            numbers = partial(_gold_numbers, votes=votes, salts=passes.salts)
            last = passes.find(numbers, left, HASH_DIGITS)
            return replace(cuts, gold_votes=votes, gold_taken=left, gold_equal=images, gold=last)
        left -= images
    return cuts


def _gold_numbers(index: Index, votes: int, salts: dict[str, int]) -> U64:
    rows = (index.kind == Kind.GOLD) & (index.n_votes == votes)
    return hashes.draw(index.ids[rows], salts[hashes.GOLD])


def _count_allowed(index: Index, classes: ClassCuts, salts: dict[str, int]) -> I64:
    """(3,) images of each kind that are among the first of their class."""
    numbers = hashes.draw(index.ids, salts[hashes.CLASS_TIES])
    allowed, _ = pass_class_cuts(index.key, index.top, numbers, classes)
    return np.bincount(index.kind[allowed], minlength=len(Kind)).astype(np.int64)


def _class_cuts(passes: Passes, most: int) -> ClassCuts:
    """The cut of each class that has enough images: one row per class reaches the driver."""
    parts = min(passes.partitions, _SLICES)
    send = partial(_send_leaders, state=passes.state, salts=passes.salts, most=most, parts=parts)
    cut = Round(parts, partial(_cut_classes, most=most))
    found = passes.executor.exchange(range(passes.partitions), send, cut)
    label = np.concatenate([each.label for each in found])
    order = np.argsort(label)
    return ClassCuts(
        label[order],
        np.concatenate([each.key for each in found])[order],
        np.concatenate([each.share for each in found])[order],
        np.concatenate([each.number for each in found])[order],
    )


def _send_leaders(
    partition: int, state: str, salts: dict[str, int], most: int, parts: int
) -> Iterator[tuple[int, Leaders]]:
    index = read_index(state, partition)
    rows = (index.kind != Kind.GOLD) & (index.top >= 0)
    numbers = hashes.draw(index.ids[rows], salts[hashes.CLASS_TIES])
    leaders = Leaders.of(index.top[rows], index.key[rows], numbers, most)
    yield from enumerate(leaders.split(parts))


def _cut_classes(_: int, arrived: list[Leaders], most: int) -> Iterator[ClassCuts]:
    yield cut_classes(concat(arrived), most)
