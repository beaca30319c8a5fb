"""Which rows of which labels files make up each exported Parquet file, by their footers alone."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.errors import InputError, one_line
from coyo_labeler.formats import schemas

#: Footers read at a time; object stores take some 50 ms to answer.
_THREADS = 16

#: Rows read at a time: a row group of what is written.
BATCH_ROWS = 65_536

#: Key-value metadata of labels files that go on into the copy.
_KEPT_METADATA = ("teacher.", "coyo_labeler.")

_OPTIONAL = tuple(field for field in schemas.POSTERIOR if field.name not in schemas.BELIEFS.names)


@dataclass(frozen=True)
class Labels:
    """A labels folder. rows: of each file, by URL. schema: the columns that are copied.

    metadata: what its first file tells of the teacher.
    """

    rows: Mapping[str, int]
    schema: pa.Schema
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop`, excluded, of one file."""

    url: str
    start: int
    stop: int


@dataclass(frozen=True)
class Shard:
    """Rows that make up one exported file, in their order."""

    number: int
    pieces: tuple[Piece, ...]


def find_labels(labels: str) -> Labels:
    """The labels in a Parquet file, a folder or a glob; `posterior/` of merge's output is found.

    Raises: InputError where there are none, or a file lacks a column.
    """
    url = storage.locate(labels, "posterior")
    files = list(storage.files_of(url))
    if not files:
        raise InputError(
            f"export: labels: no Parquet files at {url}; give what label or merge wrote"
        )
    with ThreadPoolExecutor(_THREADS) as pool:
        read = partial(storage.read_footer, "export: labels")
        footers = dict(zip(files, pool.map(read, files), strict=True))
    first = footers[files[0]].schema.to_arrow_schema()
    optional = [field for field in _OPTIONAL if field.name in first.names]
    schema = pa.schema([*schemas.BELIEFS, *optional])
    for file, footer in footers.items():
        names = footer.schema.to_arrow_schema().names
        remedy = "give beliefs or a posterior, all files alike"
        storage.check_columns("export: labels", file, names, schema.names, remedy)
    found = {key.decode(): value.decode() for key, value in (first.metadata or {}).items()}
    metadata = {k: v for k, v in found.items() if k.startswith(_KEPT_METADATA)}
    return Labels({file: footer.num_rows for file, footer in footers.items()}, schema, metadata)


def plan_shards(rows: Mapping[str, int], rows_per_shard: int) -> list[Shard]:
    """All rows in the order of the files, cut into shards of `rows_per_shard`; the last is shorter.

    No rows at all make one empty shard.
    """
    shards: list[list[Piece]] = [[]]
    room = rows_per_shard
    for url, count in rows.items():
        start = 0
        while start < count:
            if not room:
                shards.append([])
                room = rows_per_shard
            stop = min(count, start + room)
            shards[-1].append(Piece(url, start, stop))
            room -= stop - start
            start = stop
    return [Shard(number, tuple(pieces)) for number, pieces in enumerate(shards)]


def read_shard(shard: Shard, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a shard, some `BATCH_ROWS` at a time, in the types of `schema`.

    Raises: InputError where a column cannot be cast.
    """
    for piece in shard.pieces:
        fs, path = storage.resolve(piece.url)
        with fs.open(path, "rb") as file:
            for table in _read(pq.ParquetFile(file), piece, schema):
                yield cast(piece.url, table, schema)


def _read(file: pq.ParquetFile, piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
    """The row groups that the piece touches, less what of them lies outside it."""
    at, groups, begin = 0, [], None
    for group in range(file.metadata.num_row_groups):
        end = at + file.metadata.row_group(group).num_rows
        if at < piece.stop and end > piece.start:
            groups.append(group)
            begin = at if begin is None else begin
        at = end
    at = begin or 0
    for batch in file.iter_batches(BATCH_ROWS, groups, schema.names, use_threads=False):
        start, stop = max(piece.start - at, 0), min(piece.stop - at, batch.num_rows)
        at += batch.num_rows
        if start < stop:
            yield pa.Table.from_batches([batch.slice(start, stop - start)])


def cast(url: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table in the columns and types of `schema`.

    Raises: InputError where a column cannot be cast.
    """
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        told = one_line(error)
        raise InputError(
            f"export: labels: {url}: the columns do not fit those of beliefs ({told}); write it "
            "again"
        ) from None
