"""What a task does with a piece of votes, gold or beliefs: check it, and deal it out by image.

Rows travel between tasks as Arrow IPC bytes, one parcel per piece and partition.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.em.inputs import check_beliefs
from coyo_labeler.em.model import Model
from coyo_labeler.em.segments import I64, Bool, find
from coyo_labeler.em.worker_model import ChoiceSummary
from coyo_labeler.errors import InputError
from coyo_labeler.formats import parquet_splits, schemas
from coyo_labeler.formats.label_lists import check_unique_images
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.hashing import splitmix64
from coyo_labeler.merge.belief_table import to_beliefs
from coyo_labeler.merge.state import Store
from coyo_labeler.votes import checks, read

#: Kinds of parcels.
VOTES, GOLD, BELIEFS = "votes", "gold", "beliefs"

#: Where increments keep which images have a vote or gold.
VOTED_IDS = "voted-ids.npy"

#: Bits of the filter per image: about one in a thousand is taken for voted that is not. At most
#: 128 MiB: beside 200 M voted images one in ten is, which costs its way to a partition and no more.
_BITS_PER_IMAGE = 16
_LOG2_MOST_BITS = 30
_HASHES = 4
#: Step 1 deals rows out; were it used here too, a partition's images would share their bits.
_FIRST_STEP = 2


@dataclass(frozen=True)
class VotesSummary:
    """What a piece of votes held. rejected: by reason. complaint: the first bad row, in words.

    crowd: of the votes used.
    """

    file: int
    rows: int
    used: int
    workers: tuple[str, ...]
    crowd: ChoiceSummary
    rejected: dict[str, int] = field(default_factory=dict)
    complaint: str | None = None


@dataclass(frozen=True)
class Parcel:
    """Rows of one kind for one partition, as Arrow IPC bytes."""

    kind: str
    data: bytes

    def table(self) -> pa.Table:
        """The rows."""
        return pa.ipc.open_stream(self.data).read_all()


def deal(table: pa.Table, column: str, kind: str, partitions: int) -> Iterator[tuple[int, Parcel]]:
    """The rows as (partition, parcel), by the hash of the image id in `column`."""
    if table.num_rows == 0:
        return
    part = (splitmix64(table[column].to_numpy()) % np.uint64(partitions)).astype(np.int64)
    order = np.argsort(part, kind="stable")
    dealt = table.take(pa.array(order))
    ends = np.cumsum(np.bincount(part, minlength=partitions))
    for number, end in enumerate(ends):
        start = ends[number - 1] if number else 0
        if end > start:
            yield number, _pack(kind, dealt.slice(start, end - start))


def _pack(kind: str, table: pa.Table) -> Parcel:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Parcel(kind, sink.getvalue().to_pybytes())


def take_votes(
    piece: read.Piece, space: LabelSpace, partitions: int, rejects: str | None
) -> Iterator[tuple[int, VotesSummary | Parcel]]:
    """Check a piece of votes; its summary under −1, and parcels by partition.

    rejects: where bad votes are written, or None: the first one ends the piece, as a complaint.
    """
    used = rows = 0
    workers: set[str] = set()
    crowd = ChoiceSummary()
    rejected: list[pa.Table] = []
    complaint = None
    for first_row, table in read.read(piece):
        checked = checks.check(table, piece.file, first_row, space)
        rows += table.num_rows
        used += checked.votes.num_rows
        workers.update(checked.votes["worker_id"].unique().to_pylist())
        crowd += ChoiceSummary.of(
            *(checked.votes[name].to_numpy() for name in ("image_id", "label", "response"))
        )
        if checked.rejects.num_rows:
            if rejects is None:
                complaint = _complaint(piece, checked.rejects.slice(0, 1).to_pylist()[0])
                break
            rejected.append(checked.rejects)
        yield from deal(checked.votes, "image_id", VOTES, partitions)
    by_reason: dict[str, int] = {}
    if rejected and rejects is not None:
        together = pa.concat_tables(rejected)
        storage.write_parquet(rejects, together)
        by_reason = {
            entry["values"]: entry["counts"]
            for entry in pc.value_counts(together["reason"]).to_pylist()
        }
    names = tuple(sorted(workers))
    yield -1, VotesSummary(piece.file, rows, used, names, crowd, by_reason, complaint)


def _complaint(piece: read.Piece, reject: dict[str, str]) -> str:
    return (
        f"votes: row {reject['row']} of {piece.name}: {reject['detail']}; "
        f"{checks.remedy(reject['reason'])}"
    )


class VotedFilter:
    """Which images may have a vote or gold: a Bloom filter. It never misses one that has.

    id_files: so many files of the store hold the ids themselves, each sorted and distinct.
    """

    def __init__(self, bits: NDArray[np.uint8], id_files: int = 0) -> None:
        self.bits = bits  # packed, eight to a byte
        self.id_files = id_files

    @classmethod
    def empty(cls, images: int) -> "VotedFilter":
        """For about so many images."""
        wanted = np.ceil(np.log2(_BITS_PER_IMAGE * images + 1))
        size = 1 << int(np.clip(wanted, 16, _LOG2_MOST_BITS))
        return cls(np.zeros(size // 8, dtype=np.uint8))

    def _places(self, images: I64) -> Iterator[NDArray[np.uint64]]:
        mask = np.uint64(len(self.bits) * 8 - 1)
        for each in range(_HASHES):
            yield splitmix64(images, _FIRST_STEP + each) & mask

    def add(self, images: I64) -> None:
        """Take note of images."""
        for place in self._places(images):
            bit = np.left_shift(np.uint8(1), (place & np.uint64(7)).astype(np.uint8))
            np.bitwise_or.at(self.bits, (place >> np.uint64(3)).astype(np.int64), bit)

    def holds(self, images: I64) -> Bool:
        """Whether each image may have been noted."""
        held = np.ones(len(images), dtype=bool)
        for place in self._places(images):
            byte = self.bits[(place >> np.uint64(3)).astype(np.int64)]
            held &= (byte >> (place & np.uint64(7)).astype(np.uint8)) & 1 == 1
        return held


def take_beliefs(
    split: Split, voted: VotedFilter, partitions: int, model: Model
) -> Iterator[tuple[int, Parcel]]:
    """The beliefs of images that may be voted on, as parcels by partition.

    All of the split are checked, so that none is found wrong only when EM is done.

    Raises: InputError naming an image whose belief cannot be used.
    """
    seen = [np.zeros(0, dtype=np.int64)]
    for table in parquet_splits.read_split(split):
        image = image_ids(table, split)
        check_beliefs(to_beliefs(table), model)
        seen.append(image)
        yield from deal(table.filter(pa.array(voted.holds(image))), "id", BELIEFS, partitions)
    check_unique_images(np.sort(np.concatenate(seen)), "beliefs")


def is_left_alone(split: Split, voted: VotedFilter, store: Store) -> bool:
    """Whether it is of an earlier posterior, and no image of it has a vote; only ids are read.

    Of many images some pass the filter that have none, so those that do are looked up.
    """
    if split.schema != schemas.POSTERIOR:
        return False
    for table in parquet_splits.read_split(split, ["id"]):
        image = image_ids(table, split)
        maybe = image[voted.holds(image)]
        for number in range(voted.id_files):
            if find(store.map_array(VOTED_IDS, number), maybe)[1].any():
                return False
    return True


def image_ids(table: pa.Table, split: Split) -> I64:
    """The ids of a table of beliefs. Raises: InputError where one is missing."""
    if table["id"].null_count:
        raise InputError(f"beliefs: {split.url} has a row without an id; drop it")
    ids: I64 = table["id"].to_numpy()
    return ids


def take_gold(split: Split, space: LabelSpace, partitions: int) -> Iterator[tuple[int, Parcel]]:
    """Gold rows as parcels by partition. Raises: InputError where one is not usable."""
    for table in parquet_splits.read_split(split):
        if table["image_id"].null_count or table["label"].null_count:
            raise InputError(f"gold: {split.url} has a row without image_id or label; drop it")
        label = table["label"].to_numpy()
        outside = (label < 0) | (label >= space.size)
        if outside.any():
            raise InputError(
                f"gold: {split.url}: label {label[outside][0]} is outside {space.describe()}; "
                "drop the row or set label_space"
            )
        yield from deal(table, "image_id", GOLD, partitions)
