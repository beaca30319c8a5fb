"""Votes from Parquet or CSV, piece by piece, every row with its number in its file."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.errors import InputError, one_line
from coyo_labeler.formats import schemas

COLUMNS = tuple(schemas.VOTES.names)
OPTIONAL = tuple(schemas.VOTES_OPTIONAL.names)
SUFFIXES = (".parquet", ".csv")

#: Bytes of CSV that are read at once.
_BLOCK_BYTES = 16 << 20
#: Rows of Parquet that are read at once.
_BATCH_ROWS = 1 << 20
#: A CSV row takes about this many bytes; only to guess how many rows a file holds.
_CSV_ROW_BYTES = 20


@dataclass(frozen=True)
class Piece:
    """What one task reads: a CSV file, or row groups of a Parquet file.

    file: number of the file in name order. first_row: rows of the file before this piece.
    row_groups: of Parquet; None for CSV. rows: how many, guessed for CSV.
    """

    url: str
    file: int
    first_row: int
    rows: int
    row_groups: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.url.rsplit("/", 1)[-1]


def plan(url: str, rows_per_piece: int) -> list[Piece]:
    """The pieces of the votes at a URL, in the order of their rows.

    Raises: InputError where there are no votes files, or one lacks a column or is not readable.
    """
    files = {
        name: info for suffix in SUFFIXES for name, info in storage.files_of(url, suffix).items()
    }
    if not files:
        raise InputError(f"votes: no .parquet or .csv files at {url}")
    pieces: list[Piece] = []
    for number, (name, info) in enumerate(sorted(files.items())):
        if name.endswith(".csv"):
            storage.check_columns("votes", name, _csv_header(name), COLUMNS)
            rows = int(info.get("size") or 0) // _CSV_ROW_BYTES + 1
            pieces.append(Piece(name, number, 0, rows))
        else:
            pieces.extend(_parquet_pieces(name, number, rows_per_piece))
    return pieces


def _parquet_pieces(url: str, number: int, rows_per_piece: int) -> Iterator[Piece]:
    metadata = storage.read_footer("votes", url)
    present = metadata.schema.to_arrow_schema().names
    storage.check_columns("votes", url, present, COLUMNS)
    first, rows, groups = 0, 0, []
    for group in range(metadata.num_row_groups):
        groups.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= rows_per_piece or group == metadata.num_row_groups - 1:
            yield Piece(url, number, first, rows, tuple(groups))
            first, rows, groups = first + rows, 0, []


def _csv_header(url: str) -> list[str]:
    fs, path = storage.resolve(url)
    with fs.open(path, "rb") as file:
        line = file.readline()
    try:
        table = pacsv.read_csv(pa.BufferReader(line))
    except pa.ArrowInvalid:
        raise InputError(f"votes: {url} is empty; its first line must name the columns") from None
    names: list[str] = table.column_names
    return names


def read(piece: Piece) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a piece, table by table, each with the number of rows before it in the file.

    Columns `image_id, worker_id, label` and, where the file has them, `response, timestamp`; those
    of a CSV are strings, those of Parquet as they are.

    Raises: InputError where a row of a CSV has another number of columns than the first line.
    """
    fs, path = storage.resolve(piece.url)
    with fs.open(path, "rb") as file:
        batches = _read_csv(piece, file) if piece.row_groups is None else _read_parquet(piece, file)
        row = piece.first_row
        for table in batches:
            yield row, table
            row += table.num_rows


def _read_parquet(piece: Piece, file: object) -> Iterator[pa.Table]:
    parquet = pq.ParquetFile(file)
    columns = [name for name in (*COLUMNS, *OPTIONAL) if name in parquet.schema_arrow.names]
    for batch in parquet.iter_batches(_BATCH_ROWS, piece.row_groups, columns):
        yield pa.Table.from_batches([batch])


def _read_csv(piece: Piece, file: object) -> Iterator[pa.Table]:
    header = _csv_header(piece.url)
    columns = [name for name in (*COLUMNS, *OPTIONAL) if name in header]
    try:
        yield from _csv_tables(file, header, columns)
    except pa.ArrowInvalid as error:
        reason = one_line(error)
        raise InputError(
            f"votes: {piece.url} is not a readable CSV file ({reason}); give every row the "
            f"{len(header)} columns of its first line, quoted where a value holds a comma"
        ) from None


def _csv_tables(file: object, header: list[str], columns: list[str]) -> Iterator[pa.Table]:
    reader = pacsv.open_csv(
        file,
        read_options=pacsv.ReadOptions(block_size=_BLOCK_BYTES),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.string() for name in header},
            include_columns=columns,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    for batch in reader:
        yield pa.Table.from_batches([batch])
