"""The one planner of Parquet splits: which row groups of which file one task reads."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats.columns import cast_table, check_types, is_text
from coyo_labeler.parquet_pages import read_tables

#: Footers read at a time; object stores take some 50 ms to answer.
_THREADS = 16
#: Footers that are held at most: each takes some kilobytes.
_FOOTERS_AT_ONCE = 256


@dataclass(frozen=True)
class Split:
    """Row groups of a Parquet file that one task reads.

    key: the setting that named the file, for messages.
    name: unique among the splits of a plan: the file's name without `.parquet`, then a number
    where the file has many splits; preceded by one where files of several folders share a name.
    first_row: rows of the file before this split. rows: how many it has.
    values: how many values its longest column has; a list counts with all of its elements.
    schema: the columns to read, and the types to read them as.
    """

    key: str
    url: str
    name: str
    row_groups: tuple[int, ...]
    first_row: int
    rows: int
    values: int
    schema: pa.Schema


def plan_splits(
    key: str,
    url: str,
    schema: pa.Schema,
    rows_per_split: int,
    texts: Collection[str] = (),
    optional: Collection[str] = (),
) -> list[Split]:
    """The splits of the Parquet files at a URL, in name order.

    key: the setting that named the URL, for messages. url: a file, folder or glob.
    rows_per_split: a split ends with the first row group that brings it to so many rows.
    texts: columns that are read as text where the file has them so. optional: of
    `schemas.CARRIED`, those that a file may lack; they are read as null.

    Raises: InputError naming a file that is not readable, lacks a column, or has one of a type that
    cannot be cast.
    """
    files = parquet_files(key, url)
    splits: list[Split] = []
    schemas: dict[pa.Schema, pa.Schema] = {}  # a hundred thousand files have few
    for file_url, metadata in zip(files, read_footers(key, files), strict=True):
        present = metadata.schema.to_arrow_schema()
        check_types(key, file_url, present, schema, optional=optional)
        types = [
            pa.string() if f.name in texts and is_text(present.field(f.name).type) else f.type
            for f in schema
        ]
        own = pa.schema([f.with_type(kind) for f, kind in zip(schema, types, strict=True)])
        own = schemas.setdefault(own, own)
        splits.extend(split_file(key, file_url, metadata, own, rows_per_split))
    if len({split.name for split in splits}) < len(splits):
        return [replace(split, name=f"{n:05d}-{split.name}") for n, split in enumerate(splits)]
    return splits


def parquet_files(
    key: str, url: str, remedy: str = "give Parquet, in files named .parquet"
) -> list[str]:
    """The Parquet files at a URL, sorted by name: see `storage.files_of`.

    key: the setting that named the URL, for messages. remedy: for a URL without such files.

    Raises: InputError where there is none.
    """
    files = list(storage.files_of(url))
    if not files:
        raise InputError(f"{key}: no Parquet files at {url}; {remedy}")
    return files


def read_footers(key: str, urls: Iterable[str]) -> Iterator[pq.FileMetaData]:
    """The footers of Parquet files, in the order of the files.

    Raises: InputError naming a file that is not readable.
    """
    left = iter(urls)
    with ThreadPoolExecutor(_THREADS) as pool:
        while group := list(islice(left, _FOOTERS_AT_ONCE)):
            yield from pool.map(partial(storage.read_footer, key), group)


def split_file(
    key: str, url: str, metadata: pq.FileMetaData, schema: pa.Schema, rows_per_split: int
) -> Iterator[Split]:
    """The splits of one file, by its footer. See `plan_splits`."""
    stem = url.rsplit("/", 1)[-1].removesuffix(".parquet")
    groups: list[int] = []
    first_row = rows = values = number = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        row_group = metadata.row_group(group)
        rows += row_group.num_rows
        columns = map(row_group.column, range(row_group.num_columns))
        values += max(column.num_values for column in columns)
        last = group == metadata.num_row_groups - 1
        if rows >= rows_per_split or last:
            name = stem if last and number == 0 else f"{stem}-{number:03d}"
            yield Split(key, url, name, tuple(groups), first_row, rows, values, schema)
            first_row += rows
            groups, rows, values, number = [], 0, 0, number + 1


def read_split(
    split: Split, columns: Sequence[str] | None = None, batch_rows: int | None = None
) -> Iterator[pa.Table]:
    """The rows of a split in the types of its schema.

    columns: only these. batch_rows: at most so many rows at a time; None: row group by row group.

    Raises: InputError naming a value that cannot be cast.
    """
    names = list(columns or split.schema.names)
    schema = pa.schema([split.schema.field(name) for name in names])
    row = split.first_row
    with storage.open_parquet(split.key, split.url) as parquet:
        for table in _tables(split.key, split.url, parquet, split.row_groups, names, batch_rows):
            yield cast_table(table, schema, f"{split.key}: {split.url}", row)
            row += table.num_rows


def _tables(
    key: str,
    url: str,
    parquet: pq.ParquetFile,
    groups: Sequence[int],
    columns: list[str],
    batch_rows: int | None,
) -> Iterator[pa.Table]:
    tables = read_tables(parquet, columns, groups, batch_rows)
    while True:
        with storage.parsing_parquet(key, url):
            table = next(tables, None)
        if table is None:
            return
        yield table


def read_rows(
    key: str, url: str, start: int, stop: int, schema: pa.Schema, batch_rows: int
) -> Iterator[pa.Table]:
    """Rows `start` to `stop`, excluded, of a file: the part of its row groups that holds them.

    schema: the columns to read, and the types to read them as. batch_rows: at most so many rows at
    a time.

    Raises: InputError naming a value that cannot be cast.
    """
    with storage.open_parquet(key, url) as parquet:
        groups, row = _groups_of_rows(parquet.metadata, start, stop)
        for table in _tables(key, url, parquet, groups, schema.names, batch_rows):
            first = max(start - row, 0)
            part = table.slice(first, min(stop - row, table.num_rows) - first)
            if part.num_rows:
                yield cast_table(part, schema, f"{key}: {url}", row + first)
            row += table.num_rows


def _groups_of_rows(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows `start` to `stop`, and the number of rows before them."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    ends = np.cumsum(sizes, dtype=np.int64)
    groups = np.flatnonzero((ends > start) & (ends - sizes < stop)).tolist()
    return groups, int(ends[groups[0]] - sizes[groups[0]]) if groups else 0


@dataclass(frozen=True)
class RowGroup:
    """A row group by its number in the file. lowest, highest: bounds of one column, inclusive."""

    number: int
    lowest: int
    highest: int
    rows: int


def bound_row_groups(metadata: pq.FileMetaData, column: str) -> list[RowGroup]:
    """What the footer says of an integer column in each row group that has rows.

    Where it does not say, or the column has another type, the bounds are those of int64.
    """
    bounds = np.iinfo(np.int64)
    whole = pa.types.is_integer(metadata.schema.to_arrow_schema().field(column).type)
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    groups = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        statistics = group.column(names.index(column)).statistics
        lowest, highest = int(bounds.min), int(bounds.max)
        if whole and statistics is not None and statistics.has_min_max:
            lowest, highest = min(statistics.min, highest), min(statistics.max, highest)
        if group.num_rows:
            groups.append(RowGroup(number, lowest, highest, group.num_rows))
    return groups
