"""The one planner of Parquet splits: which row groups of which file one task reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.errors import InputError


@dataclass(frozen=True)
class Split:
    """Row groups of a Parquet file that one task reads.

    name: the file's name without `.parquet`, followed by a number where the file has many splits.
    first_row: rows of the file before this split. rows: how many it has.
    values: how many values its longest column has; a list counts with all of its elements.
    schema: the columns to read, and the types to read them as.
    """

    url: str
    name: str
    row_groups: tuple[int, ...]
    first_row: int
    rows: int
    values: int
    schema: pa.Schema


def plan_splits(key: str, url: str, schema: pa.Schema, rows_per_split: int) -> list[Split]:
    """The splits of the Parquet files at a URL, in name order.

    key: the setting that named the URL, for messages. url: a file, folder or glob.
    rows_per_split: a split ends with the first row group that brings it to so many rows.

    Raises: InputError naming a file that is not readable, lacks a column, or has one of a type that
    cannot be cast.
    """
    files = storage.files_of(url)
    if not files:
        raise InputError(f"{key}: no Parquet files at {url}")
    splits: list[Split] = []
    for file_url in sorted(files):
        metadata = storage.read_footer(key, file_url)
        _check_schema(key, file_url, metadata.schema.to_arrow_schema(), schema)
        splits.extend(split_file(file_url, metadata, schema, rows_per_split))
    return splits


def _check_schema(key: str, url: str, present: pa.Schema, wanted: pa.Schema) -> None:
    storage.check_columns(key, url, present.names, wanted.names)
    for column in wanted:
        actual = present.field(column.name).type
        try:
            pa.nulls(0, actual).cast(column.type)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            raise InputError(
                f"{key}: {url}: column '{column.name}' is {actual}, it must be {column.type}"
            ) from None


def split_file(
    url: str, metadata: pq.FileMetaData, schema: pa.Schema, rows_per_split: int
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
            yield Split(url, name, tuple(groups), first_row, rows, values, schema)
            first_row += rows
            groups, rows, values, number = [], 0, 0, number + 1


def read_split(split: Split, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a split in the types of its schema, row group by row group.

    columns: only these.
    """
    names = columns or split.schema.names
    schema = pa.schema([split.schema.field(name) for name in names])
    fs, path = storage.resolve(split.url)
    with fs.open(path, "rb") as file:
        parquet = pq.ParquetFile(file)
        for group in split.row_groups:
            yield parquet.read_row_group(group, columns=names).cast(schema)
