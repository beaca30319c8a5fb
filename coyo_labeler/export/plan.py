"""Plans which rows of which labels files each exported Parquet file holds, from footers alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import common_schema
from coyo_labeler.formats.parquet_splits import parquet_files, read_footers, read_rows

#: The setting that names the labels, for messages.
_KEY = "export: labels"

#: Rows read at a time: a row group of what is written.
BATCH_ROWS = 65_536

#: Prefixes of the key-value metadata of labels files that the copy keeps.
_METADATA_PREFIXES = ("teacher.", "coyo_labeler.")

_OPTIONAL = tuple(field for field in schemas.POSTERIOR if field.name not in schemas.BELIEFS.names)


@dataclass(frozen=True)
class Labels:
    """A labels folder.

    rows: how many rows each file has, by URL. schema: the columns that are copied.
    metadata: what the first file says about the teacher.
    """

    rows: Mapping[str, int]
    schema: pa.Schema
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class RowRange:
    """The rows from `start` up to, but not including, `stop` of one file."""

    url: str
    start: int
    stop: int


@dataclass(frozen=True)
class Shard:
    """The rows of one exported file, in order."""

    number: int
    parts: tuple[RowRange, ...]


def find_labels(labels: str) -> Labels:
    """The labels in a Parquet file, a folder, a glob or `posterior/` of a merge output.

    Raises: InputError where there are none, or a file lacks a column.
    """
    url = storage.locate(labels, "posterior")
    files = parquet_files(_KEY, url, "give what label or merge wrote")
    rows: dict[str, int] = {}
    kinds: dict[pa.Schema, pa.Schema] = {}  # a hundred thousand files have few
    present: dict[str, pa.Schema] = {}
    for file, footer in zip(files, read_footers(_KEY, files), strict=True):
        rows[file] = footer.num_rows
        own = footer.schema.to_arrow_schema()
        present[file] = kinds.setdefault(own, own)
    remedy = "give beliefs or a posterior, all files alike"
    schema = common_schema(_KEY, present, schemas.BELIEFS, _OPTIONAL, remedy)
    first = present[files[0]].metadata or {}
    written = {key.decode(errors="replace"): value for key, value in first.items()}
    metadata = {
        k: v.decode(errors="replace")
        for k, v in written.items()
        if k.startswith(_METADATA_PREFIXES)
    }
    return Labels(rows, schema, metadata)


def plan_shards(rows: Mapping[str, int], rows_per_shard: int) -> list[Shard]:
    """All rows in the order of the files, cut into shards of `rows_per_shard`; the last is shorter.

    Without any rows there is one empty shard.
    """
    shards: list[list[RowRange]] = [[]]
    room = rows_per_shard
    for url, count in rows.items():
        start = 0
        while start < count:
            if not room:
                shards.append([])
                room = rows_per_shard
            stop = min(count, start + room)
            shards[-1].append(RowRange(url, start, stop))
            room -= stop - start
            start = stop
    return [Shard(number, tuple(parts)) for number, parts in enumerate(shards)]


def read_shard(shard: Shard, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a shard, some `BATCH_ROWS` at a time, in the types of `schema`.

    Raises: InputError naming a value that cannot be cast.
    """
    for part in shard.parts:
        yield from read_rows(_KEY, part.url, part.start, part.stop, schema, BATCH_ROWS)
