"""True classes of some images: few enough to be held in memory, and to be kept out of training."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.data.targets import F32, I64
from coyo_labeler.data.tars import Shard
from coyo_labeler.errors import InputError
from coyo_labeler.formats import pairs, schemas
from coyo_labeler.formats.label_spaces import SIZES, LabelSpace
from coyo_labeler.formats.pairs import plan_gold
from coyo_labeler.hashing import splitmix64


@dataclass(frozen=True)
class Gold:
    """Labels of one class an image, of whichever tars. ids: ascending, without repeats."""

    ids: I64
    classes: I64

    def open(self, shard: Shard) -> "Gold":
        """The labels of one shard's images: these."""
        return self

    def find(self, image_id: int) -> tuple[I64, F32] | None:
        """The class of an image at probability 1, or None."""
        place = int(np.searchsorted(self.ids, image_id))
        if place == len(self.ids) or self.ids[place] != image_id:
            return None
        return self.classes[place : place + 1], np.ones(1, np.float32)

    def finish(self) -> None:
        """Gold is of other tars too: none is left over."""

    def count(self, shards: Sequence[Shard], exclude: frozenset[int] = frozenset()) -> int:
        """How many images have a class, were they all in the tars."""
        return len(set(self.ids.tolist()) - exclude)

    def split(self, held_out: float) -> "tuple[Gold, Gold]":
        """(held out, the rest): by a hash of the id alone, so whatever else gold holds."""
        held = _uniform(self.ids) < held_out
        return (
            Gold(self.ids[held], self.classes[held]),
            Gold(self.ids[~held], self.classes[~held]),
        )


def read_gold(url: str, num_classes: int) -> Gold:
    """`image_id, label` from a Parquet file, a folder or a glob.

    A label is the number of a class or, where `num_classes` are those of ImageNet, its name or its
    synset.

    Raises: InputError naming the column, or the image with a label out of range or two of them.
    """
    if not storage.files_of(url):
        raise InputError(f"gold: no Parquet files at {url}; give a table of image_id, label")
    space = _space_of(num_classes)
    tables = [schemas.GOLD.empty_table()]
    for split in plan_gold("gold", url, sys.maxsize):
        tables.extend(pairs.read_gold(split, space))
    table = pa.concat_tables(tables).drop_null()
    ids = table["image_id"].to_numpy()
    classes = table["label"].to_numpy().astype(np.int64)
    outside = (classes < 0) | (classes >= num_classes)
    if outside.any():
        wrong = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"gold: {url}: image {ids[wrong]} has the label {classes[wrong]}, outside "
            f"0..{num_classes - 1}; give the num_classes of its label space, or drop the row"
        )
    ids, first, times = np.unique(ids, return_index=True, return_counts=True)
    if (times > 1).any():
        raise InputError(
            f"gold: {url}: image {ids[times > 1][0]} is there {times.max()} times; keep one row "
            "an image"
        )
    return Gold(ids, classes[first])


def _space_of(num_classes: int) -> LabelSpace:
    """The label space of so many classes: ImageNet's, or one whose classes have no names."""
    known = [name for name, size in SIZES.items() if size == num_classes]
    return LabelSpace(known[0] if known else "the label space", num_classes)


def _uniform(ids: I64) -> F32:
    """A number in [0, 1) from each id, as if at random."""
    return (splitmix64(ids) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
