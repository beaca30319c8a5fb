"""Which images of the index are asked about, and with what probability each one was.

Three groups are asked about, and nothing is drawn twice:

- gold: drawn by chance among images whose class is known, those with fewest votes first;
- top: the first of all others in the order of the strategy;
- audit: drawn by chance among the images without votes that are not in the top.

Sizes are fixed before anything is drawn, so that every probability is known (docs/select.md).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64, I64, Bool, find
from coyo_labeler.select import hashes
from coyo_labeler.select.cut import NOTHING, Bin
from coyo_labeler.select.hashes import U64
from coyo_labeler.select.rows import Rows


@dataclass(frozen=True)
class Sizes:
    """How many questions there are: of gold, at the top and by chance outside the top.

    audited_share: of the images without votes that the audit draws, outside the top and in it.
    all_fresh: whether all images without votes are asked about; then top counts only those with
    votes.
    """

    gold: int
    top: int
    audit: int
    audited_share: float
    all_fresh: bool = False


def plan_sizes(
    questions: int,
    kinds: I64,
    audit: float,
    gold_share: float,
    allowed: I64 | None = None,
) -> Sizes:
    """Divide a number of questions among the groups.

    kinds: (3,) how many images there are without votes, with votes, of gold. allowed: the same for
    those that may be in the top, if that is limited.

    The audit is to draw a share p = audit · questions / fresh of all images without votes. Those of
    them that are in the top are asked about anyway. So p (images - questions) / (1 - p), about, are
    left to draw outside: then audited and top together make up the questions.
    """
    fresh, repeat, gold = kinds.tolist()
    may_top = fresh + repeat if allowed is None else int(allowed[:2].sum())
    of_gold = min(gold, round(gold_share * questions))
    left, images, wanted = questions - of_gold, fresh + repeat, audit * questions
    if fresh == 0 or wanted == 0 or left == 0:
        return Sizes(of_gold, min(left, may_top), 0, 0.0)
    if left >= images and may_top == images:
        return Sizes(of_gold, images, 0, min(1.0, wanted / fresh))
    outside = wanted * max(0, images - left) / max(images - wanted, 1.0)
    if left - outside > may_top:
        outside = min(left - may_top, wanted * (images - may_top) / images)
    drawn = min(left, max(1, round(outside)))
    if drawn >= fresh:  # there are fewer images without votes than the audit wants
        repeated = repeat if allowed is None else int(allowed[1])
        return Sizes(of_gold, min(repeated, max(0, left - fresh)), 0, 1.0, all_fresh=True)
    return Sizes(of_gold, min(left - drawn, may_top), drawn, 0.0)


@dataclass(frozen=True)
class ClassCuts:
    """Where the most wanted images of each class end, for classes that have too many, (classes,).

    label: rising. key: the last order key that is in. share: of the images of that key, those that
    are in: their number in the stream CLASS_TIES is at most `number`.
    """

    label: I64
    key: U64
    share: F64
    number: U64

    @classmethod
    def none(cls) -> "ClassCuts":
        """No class has too many."""
        nothing = np.zeros(0, dtype=np.uint64)
        return cls(nothing.astype(np.int64), nothing, np.zeros(0), nothing)


@dataclass(frozen=True)
class Cuts:
    """All that tells whether an image of the index is asked about.

    top: the bin of the last order key. top_taken: how many images of that key are in: those whose
    number in the stream TIES is at most `ties.high`. fresh_outside: images without votes outside
    the top. audit: the bin of the last number in the stream AUDIT. gold_votes, gold_taken: among
    gold with so many votes, so many of `gold_equal` are asked about, by the stream GOLD.
    classes, pairs: where classes, and pairs of classes, end that have too many.
    """

    sizes: Sizes
    top: Bin = NOTHING
    top_taken: int = 0
    ties: Bin = NOTHING
    fresh_outside: int = 0
    audit: Bin = NOTHING
    gold_votes: int = -1
    gold_taken: int = 0
    gold_equal: int = 0
    gold: Bin = NOTHING
    classes: ClassCuts = field(default_factory=ClassCuts.none)
    pairs: ClassCuts = field(default_factory=ClassCuts.none)


def _upto(numbers: U64, high: int) -> Bool:
    """(n,) which numbers are at most `high`, which may be -1."""
    return numbers <= np.uint64(high) if high >= 0 else np.zeros(len(numbers), dtype=bool)


def pass_class_cuts(key: U64, group: I64, numbers: U64, cuts: ClassCuts) -> tuple[Bool, F64]:
    """(n,) whether images are among the first of their class, and with what probability.

    key: order keys. group: classes, or pairs of them. numbers: of the stream that decides ties.
    """
    if len(cuts.label) == 0:
        return np.ones(len(key), dtype=bool), np.ones(len(key))
    index, is_cut = find(cuts.label, group)
    before, equal = key < cuts.key[index], key == cuts.key[index]
    passes = ~is_cut | before | (equal & (numbers <= cuts.number[index]))
    share = np.where(before, 1.0, np.where(equal, cuts.share[index], 0.0))
    return passes, np.where(is_cut, share, 1.0)


def pass_caps(rows: Rows, cuts: Cuts, salts: dict[str, int]) -> tuple[Bool, F64]:
    """(images,) whether the caps of pairs and classes let an image to the top; its probability.

    Classes are cut among the images that the pairs let pass. Which these are is not drawn, so that
    the seed does not change how many of a class there are.
    """
    of_pairs = hashes.draw(rows.ids, salts[hashes.PAIR_TIES])
    passes, _ = pass_class_cuts(rows.key, rows.pair, of_pairs, cuts.pairs)
    numbers = hashes.draw(rows.ids, salts[hashes.CLASS_TIES])
    by_class, share_of_class = pass_class_cuts(
        rows.key, rows.top.astype(np.int64), numbers, cuts.classes
    )
    return passes & by_class, passes * share_of_class


def in_top(key: U64, passes: Bool, numbers: U64, cuts: Cuts) -> tuple[Bool, F64]:
    """(n,) whether images that pass the cuts of their classes are in the top; its probability.

    numbers: of the stream TIES. The probability is that of images that pass.
    """
    low, high = cuts.top.low, cuts.top.high
    equal = _upto(key, high)
    before = equal & (key < np.uint64(low))
    equal &= ~before
    share = cuts.top_taken / cuts.top.inside if cuts.top.inside else 0.0
    taken = _upto(numbers, cuts.ties.high)
    if cuts.top_taken == cuts.top.inside:
        taken = np.ones(len(key), dtype=bool)
    probability = np.where(before, 1.0, np.where(equal, share, 0.0))
    return passes & (before | (equal & taken)), probability


@dataclass(frozen=True)
class Chosen:
    """Images of the index, (images,) each.

    is_chosen: whether each is asked about. purpose: index into `PURPOSES`, of those that are.
    probability: that it is asked about in the round, be it now or with another seed.
    """

    is_chosen: Bool
    purpose: NDArray[np.int8]
    probability: F64


PURPOSES = ("uncertain", "repeat", "gold", "audit")
_UNCERTAIN, _REPEAT, _GOLD, _AUDIT = range(4)


def choose(rows: Rows, cuts: Cuts, salts: dict[str, int]) -> Chosen:
    """Whether images of the index are chosen, why, and with what probability.

    The probability of an image without votes is q + (1 - q) a / f: that it is in the top, or else
    among the a that are drawn of the f outside. q is 1 or 0 but for images that share the last
    place: then it is the share of these that are in.
    """
    fresh, repeat, gold = rows.kind == 0, rows.kind == 1, rows.kind == 2
    at_top, q = top_of(rows, cuts, salts)
    if cuts.sizes.all_fresh:
        at_top, q = at_top | fresh, np.where(fresh, 1.0, q)
    limit = cuts.audit.high
    if cuts.sizes.audited_share:  # all without votes are in the top: the audit is a part of it
        limit = hashes.share_below(cuts.sizes.audited_share)
    audited = fresh & _upto(hashes.draw(rows.ids, salts[hashes.AUDIT]), limit)
    p = cuts.sizes.audit / cuts.fresh_outside if cuts.fresh_outside else 0.0
    of_gold, share = _in_gold(rows.ids, rows.n_votes, cuts, salts)
    probability = np.where(fresh, q + (1.0 - q) * p, np.where(repeat, q, share))
    purpose = np.full(len(rows.ids), _UNCERTAIN, dtype=np.int8)
    purpose[repeat], purpose[gold], purpose[audited] = _REPEAT, _GOLD, _AUDIT
    return Chosen(np.where(gold, of_gold, at_top | audited), purpose, probability)


def top_of(rows: Rows, cuts: Cuts, salts: dict[str, int]) -> tuple[Bool, F64]:
    """(images,) whether each is in the top, and with what probability. See `choose`."""
    candidate = rows.kind == 1 if cuts.sizes.all_fresh else rows.kind != 2
    passes, share = pass_caps(rows, cuts, salts)
    at_top, q = in_top(rows.key, passes, hashes.draw(rows.ids, salts[hashes.TIES]), cuts)
    return at_top & candidate, np.where(candidate, q * share, 0.0)


def _in_gold(
    ids: I64, n_votes: NDArray[np.int32], cuts: Cuts, salts: dict[str, int]
) -> tuple[Bool, F64]:
    equal, before = n_votes == cuts.gold_votes, n_votes < cuts.gold_votes
    share = cuts.gold_taken / cuts.gold_equal if cuts.gold_equal else 0.0
    drawn = _upto(hashes.draw(ids, salts[hashes.GOLD]), cuts.gold.high)
    return before | (equal & drawn), np.where(before, 1.0, np.where(equal, share, 0.0))
