"""True classes of some images: few enough to be held in memory, and to be kept out of training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coyo_labeler import storage
from coyo_labeler.data.targets import F32, I64
from coyo_labeler.data.tars import Shard
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import cast_table, check_types
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

    Raises: InputError naming the column, or the image with a label out of range or two of them.
    """
    files = list(storage.files_of(url))
    if not files:
        raise InputError(f"gold: no Parquet files at {url}; give a table of image_id, label")
    parts = [_read(file) for file in files]
    ids = np.concatenate([ids for ids, _ in parts])
    classes = np.concatenate([classes for _, classes in parts])
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


def _read(url: str) -> tuple[I64, I64]:
    names = schemas.GOLD.names
    with storage.open_parquet("gold", url) as file:
        check_types("gold", url, file.schema_arrow, schemas.GOLD, f"give {', '.join(names)}")
        table = cast_table(file.read(columns=names), schemas.GOLD, f"gold: {url}", 0).drop_null()
    ids, labels = (table[name].to_numpy() for name in names)
    return ids, labels.astype(np.int64)


def _uniform(ids: I64) -> F32:
    """A number in [0, 1) from each id, as if at random."""
    return (splitmix64(ids) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
