"""Not too many questions of one class: where the most wanted images of each class end.

A class may be a pair of classes as well: what is here said of classes holds for any groups.
"""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.segments import I64, Bool
from coyo_labeler.select.choose import ClassCuts
from coyo_labeler.select.hashes import U64


@dataclass(frozen=True)
class Leaders:
    """The most wanted images of each class, (n,) each, by class, key and number.

    label: the class. key: the order key. number: of the stream CLASS_TIES, for equal keys.
    more: how many images that are not among them have the class and the key of this one.
    """

    label: I64
    key: U64
    number: U64
    more: I64

    @classmethod
    def of(cls, label: I64, key: U64, number: U64, most: int) -> "Leaders":
        """The first `most` of each class among images (images,)."""
        images = cls(label, key, number, np.zeros(len(key), dtype=np.int64))
        return images.first(most)

    def first(self, most: int) -> "Leaders":
        """The first `most` of each class."""
        ordered = self.take(np.lexsort((self.number, self.key, self.label)))
        first, rank = ordered.ranks()
        kept = rank < most
        # The last one that is kept of a class stands for those after it that have its key.
        last = np.minimum(first + most - 1, len(rank) - 1)
        same = ~kept & (ordered.key == ordered.key[last])
        more = ordered.more.copy()
        np.add.at(more, last[same], 1 + ordered.more[same])
        return Leaders(ordered.label[kept], ordered.key[kept], ordered.number[kept], more[kept])

    def take(self, rows: I64) -> "Leaders":
        """Some of them, in another order."""
        return Leaders(self.label[rows], self.key[rows], self.number[rows], self.more[rows])

    def ranks(self) -> tuple[I64, I64]:
        """(n,) the row at which the class of each begins, and the rank of each in its class."""
        n = len(self.label)
        starts: Bool = np.ones(n, dtype=bool)
        starts[1:] = self.label[1:] != self.label[:-1]
        rows = np.arange(n, dtype=np.int64)
        first = np.maximum.accumulate(np.where(starts, rows, 0)) if n else rows
        return first, rows - first

    def split(self, parts: int) -> list["Leaders"]:
        """All of one class in one part."""
        return [self.take(np.flatnonzero(self.label % parts == part)) for part in range(parts)]


def concat(leaders: list[Leaders]) -> Leaders:
    """All of them, in no order."""
    columns = ("label", "key", "number", "more")
    return Leaders(*(np.concatenate([getattr(each, c) for each in leaders]) for c in columns))


def cut_classes(leaders: Leaders, most: int) -> ClassCuts:
    """The cuts of those classes that have more than `most` images; leaders: of all partitions."""
    kept = leaders.first(most)
    first, rank = kept.ranks()
    last = np.flatnonzero(rank == most - 1)
    same = kept.key == kept.key[np.minimum(first + most - 1, len(rank) - 1)]
    taken = np.zeros(len(rank), dtype=np.int64)
    equal = np.zeros(len(rank), dtype=np.int64)
    np.add.at(taken, first[same], 1)
    np.add.at(equal, first[same], 1 + kept.more[same])
    taken, equal = taken[first[last]], equal[first[last]]
    return ClassCuts(kept.label[last], kept.key[last], taken / equal, kept.number[last])
