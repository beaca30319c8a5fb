"""Votes from Parquet or CSV, split by split, every row with its number in its file."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import check_types, is_text
from coyo_labeler.formats.csv_files import read_columns, read_header
from coyo_labeler.formats.parquet_splits import Split, read_footers, read_split, split_file

COLUMNS = tuple(schemas.VOTES.names)
OPTIONAL = (*schemas.VOTES_OPTIONAL.names, *schemas.VOTES_COLLECTED_OPTIONAL.names)
SUFFIXES = (".parquet", ".csv")

#: Rows of Parquet that are read at once.
_BATCH_ROWS = 1 << 20
#: A CSV row takes about this many bytes; only to estimate how many rows a file holds.
_CSV_ROW_BYTES = 20


@dataclass(frozen=True)
class VotesSplit:
    """What one task reads: a CSV file, or row groups of a Parquet file.

    file: number of the file in name order. rows: how many, estimated for CSV.
    parquet: the split of a Parquet file; None for CSV.
    """

    url: str
    file: int
    rows: int
    parquet: Split | None = None

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def first_row(self) -> int:
        """Rows of the file before this split."""
        return 0 if self.parquet is None else self.parquet.first_row


def plan(url: str, rows_per_split: int) -> list[VotesSplit]:
    """The splits of the votes at a URL, or in its folder `votes`, in the order of their rows.

    Raises: InputError where there are no votes files, or one lacks a column or is not readable.
    """
    url = storage.locate(url, "votes")
    files = {
        name: info for suffix in SUFFIXES for name, info in storage.files_of(url, suffix).items()
    }
    if not files:
        raise InputError(
            f"votes: no .parquet or .csv files at {url}; give Parquet or CSV, in files named so"
        )
    footers = read_footers("votes", sorted(name for name in files if name.endswith(".parquet")))
    splits: list[VotesSplit] = []
    for number, (name, info) in enumerate(sorted(files.items())):
        if name.endswith(".csv"):
            texts = pa.schema(
                [pa.field(column, pa.string()) for column in read_header("votes", name)]
            )
            check_types("votes", name, texts, _wanted(texts))
            rows = int(info.get("size") or 0) // _CSV_ROW_BYTES + 1
            splits.append(VotesSplit(name, number, rows))
        else:
            metadata = next(footers)
            schema = _schema_of(name, metadata.schema.to_arrow_schema())
            splits.extend(
                VotesSplit(name, number, split.rows, split)
                for split in split_file("votes", name, metadata, schema, rows_per_split)
            )
    return splits


def _schema_of(url: str, present: pa.Schema) -> pa.Schema:
    """The columns to read of a Parquet file: as they are, but bytes and UUIDs as text."""
    wanted = _wanted(present)
    check_types("votes", url, present, wanted)
    fields = [present.field(field.name) for field in wanted]
    return pa.schema([f.with_type(pa.string()) if _is_opaque(f.type) else f for f in fields])


def _wanted(present: pa.Schema) -> list[pa.Field]:
    """The columns to read of a file."""
    optional = [name for name in OPTIONAL if name in present.names]
    return [
        *schemas.VOTES,
        *(_optional_field(present.field(present.names.index(name))) for name in optional),
    ]


def _optional_field(present: pa.Field) -> pa.Field:
    """What an optional column must be. Text will do: a value that is not usable is set aside."""
    wanted = schemas.VOTES_COLLECTED_OPTIONAL
    if present.name in wanted.names and not is_text(present.type):
        return wanted.field(present.name)
    return pa.field(present.name, pa.string())


def _is_opaque(kind: pa.DataType) -> bool:
    """Whether the checks cannot look into a column before it is text."""
    is_bytes = is_text(kind) and not pa.types.is_string(kind)
    return isinstance(kind, pa.UuidType) or is_bytes or pa.types.is_fixed_size_binary(kind)


def read(split: VotesSplit) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a split, table by table, each with the number of rows before it in the file.

    Columns `image_id, worker_id, label` and, where the file has them, `response, timestamp,
    candidates, inclusion_probability`; those of a CSV are strings, those of Parquet as they are,
    but for UUIDs and bytes, which become text.

    Raises: InputError where a row of a CSV has another number of columns than the first line, or a
    text is not UTF-8.
    """
    row = split.first_row
    parquet = split.parquet
    tables = _read_csv(split) if parquet is None else read_split(parquet, batch_rows=_BATCH_ROWS)
    for table in tables:
        yield row, table
        row += table.num_rows


def _read_csv(split: VotesSplit) -> Iterator[pa.Table]:
    header = read_header("votes", split.url)
    names = [name for name in (*COLUMNS, *OPTIONAL) if name in header]
    yield from read_columns("votes", split.url, names)
