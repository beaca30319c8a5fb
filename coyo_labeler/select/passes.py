"""Passes over the index that find where the chosen images end. Only counts reach the driver."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from coyo_labeler.em.segments import I64, Bool
from coyo_labeler.executor import Executor, Round
from coyo_labeler.select import hashes
from coyo_labeler.select.choose import (
    ClassCuts,
    Cuts,
    Sizes,
    pass_caps,
    plan_sizes,
    top_of,
)
from coyo_labeler.select.class_cuts import Leaders, concat, cut_classes
from coyo_labeler.select.cut import HASH_DIGITS, SCORE_DIGITS, Bin, Digit, count_digit, find_bin
from coyo_labeler.select.hashes import U64
from coyo_labeler.select.index import Counted, Kind
from coyo_labeler.select.plan import Plan
from coyo_labeler.select.rows import Rows, read_rows

#: Partitions whose counts the driver adds up itself.
_FEW = 32
#: Parts of a histogram that are added up by a task each.
_SLICES = 8


@dataclass(frozen=True)
class Passes:
    """Passes over all partitions of the index. salts: of the streams of numbers."""

    executor: Executor
    state: str
    partitions: int
    salts: dict[str, int]

    def add_up(self, count: Callable[[Rows], I64]) -> I64:
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
        self, keys: Callable[[Rows], U64], nth: int, widths: Sequence[int], exact: bool = False
    ) -> Bin:
        """The bin of the nth smallest of all keys. See `cut.find_bin`."""
        return find_bin(
            lambda digit: self.add_up(partial(_count, keys=keys, digit=digit)), nth, widths, exact
        )


def _count_in(partition: int, state: str, count: Callable[[Rows], I64]) -> I64:
    return count(read_rows(state, partition))


def _send_counts(
    partition: int, state: str, count: Callable[[Rows], I64]
) -> Iterator[tuple[int, I64]]:
    yield from enumerate(np.array_split(_count_in(partition, state, count), _SLICES))


def _add(_: int, arrived: list[I64]) -> Iterator[I64]:
    yield np.sum(arrived, axis=0)


def _count(rows: Rows, keys: Callable[[Rows], U64], digit: Digit) -> I64:
    return count_digit(keys(rows), digit)


def find_cuts(passes: Passes, plan: Plan, counted: Counted, questions: int) -> Cuts:
    """Where the chosen images end. questions: how many there may be."""
    caps = Cuts(Sizes(0, 0, 0, 0.0))
    if plan.max_per_pair is not None:
        caps = replace(caps, pairs=_class_cuts(passes, plan.max_per_pair, caps, of_pairs=True))
    if plan.max_per_class is not None:
        caps = replace(caps, classes=_class_cuts(passes, plan.max_per_class, caps))
    allowed: I64 | None = None
    if plan.max_per_class is not None or plan.max_per_pair is not None:
        allowed = passes.add_up(partial(_count_allowed, cuts=caps, salts=passes.salts))
    sizes = plan_sizes(questions, counted.kinds, plan.audit, plan.gold_share, allowed)
    cuts = _cut_gold(passes, replace(caps, sizes=sizes), counted)
    return _cut_audit(passes, _cut_top(passes, cuts))


def _may_top(rows: Rows, cuts: Cuts, salts: dict[str, int]) -> Bool:
    """(images,) which may be in the top."""
    kind = rows.kind
    candidate = kind == Kind.REPEAT if cuts.sizes.all_fresh else kind != Kind.GOLD
    return np.asarray(candidate & pass_caps(rows, cuts, salts)[0])


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


def _top_keys(rows: Rows, cuts: Cuts, salts: dict[str, int]) -> U64:
    """The order keys of images that may be in the top."""
    return rows.key[_may_top(rows, cuts, salts)]


def _tie_numbers(rows: Rows, cuts: Cuts, salts: dict[str, int]) -> U64:
    """The numbers of those among them that share the last place."""
    last = _may_top(rows, cuts, salts) & (rows.key == np.uint64(cuts.top.low))
    return hashes.draw(rows.ids[last], salts[hashes.TIES])


def _cut_audit(passes: Passes, cuts: Cuts) -> Cuts:
    if cuts.sizes.audit == 0:
        return cuts
    numbers = partial(_audit_numbers, cuts=cuts, salts=passes.salts)
    audit = passes.find(numbers, cuts.sizes.audit, HASH_DIGITS)
    return replace(cuts, fresh_outside=audit.total, audit=audit)


def _outside(rows: Rows, cuts: Cuts, salts: dict[str, int]) -> Bool:
    """(images,) those without votes that are not in the top."""
    at_top, _ = top_of(rows, cuts, salts)
    return np.asarray((rows.kind == Kind.FRESH) & ~at_top)


def _audit_numbers(rows: Rows, cuts: Cuts, salts: dict[str, int]) -> U64:
    return hashes.draw(rows.ids[_outside(rows, cuts, salts)], salts[hashes.AUDIT])


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


def _gold_numbers(rows: Rows, votes: int, salts: dict[str, int]) -> U64:
    equal = (rows.kind == Kind.GOLD) & (rows.n_votes == votes)
    return hashes.draw(rows.ids[equal], salts[hashes.GOLD])


def _count_allowed(rows: Rows, cuts: Cuts, salts: dict[str, int]) -> I64:
    """(3,) images of each kind that the caps let to the top."""
    allowed, _ = pass_caps(rows, cuts, salts)
    return np.bincount(rows.kind[allowed], minlength=len(Kind)).astype(np.int64)


def _class_cuts(passes: Passes, most: int, cuts: Cuts, of_pairs: bool = False) -> ClassCuts:
    """The cut of each class, or pair, that has enough images: one row of each reaches the driver.

    cuts: the caps so far; what they do not let pass does not count.
    """
    parts = min(passes.partitions, _SLICES)
    send = partial(
        _send_leaders,
        state=passes.state,
        salts=passes.salts,
        most=most,
        parts=parts,
        cuts=cuts,
        of_pairs=of_pairs,
    )
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
    partition: int,
    state: str,
    salts: dict[str, int],
    most: int,
    parts: int,
    cuts: Cuts,
    of_pairs: bool,
) -> Iterator[tuple[int, Leaders]]:
    rows = read_rows(state, partition)
    group = rows.pair if of_pairs else rows.top.astype(np.int64)
    stream = hashes.PAIR_TIES if of_pairs else hashes.CLASS_TIES
    counted = (rows.kind != Kind.GOLD) & (group >= 0) & pass_caps(rows, cuts, salts)[0]
    numbers = hashes.draw(rows.ids[counted], salts[stream])
    leaders = Leaders.of(group[counted], rows.key[counted], numbers, most)
    yield from enumerate(leaders.split(parts))


def _cut_classes(_: int, arrived: list[Leaders], most: int) -> Iterator[ClassCuts]:
    yield cut_classes(concat(arrived), most)
