"""Votes with what collect knows of each answer: its question, how likely that was, its seconds."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.class_names import in_schema
from coyo_labeler.formats.columns import check_types, is_text
from coyo_labeler.formats.csv_files import read_columns, read_header
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import Split, read_footers, read_split, split_file

#: The columns that are read. Those after `label` may be missing.
COLUMNS = pa.schema([field for field in schemas.COLLECTED_VOTES if field.name != "source"])
#: Times that cannot be read as such, and lists of classes, have no place in a CSV file.
_NOT_IN_CSV = ("candidates", "timestamp")


@dataclass(frozen=True)
class CsvFile:
    """A CSV file of votes, and which of COLUMNS it has."""

    key: str
    url: str
    columns: tuple[str, ...]


def plan_collected(key: str, url: str, rows_per_split: int) -> list[Split | CsvFile]:
    """What to read: the votes of collect's folder, or other Parquet or CSV files of votes.

    key: the setting that named the URL, for messages.

    Raises: InputError where there are no such files, or one lacks a column or has a wrong type.
    """
    folder = storage.locate(url, "votes")
    plan: list[Split | CsvFile] = []
    files = sorted(storage.files_of(folder))
    # Files of several rounds, and of before the loop, need not have the same columns.
    for file, metadata in zip(files, read_footers(key, files), strict=True):
        present = metadata.schema.to_arrow_schema()
        wanted = [f for f in COLUMNS if f.name in present.names or f.name in schemas.VOTES.names]
        check_types(key, file, present, wanted)
        names = is_text(present.field("label").type)
        types = [pa.string() if names and f.name == "label" else f.type for f in wanted]
        schema = pa.schema([f.with_type(t) for f, t in zip(wanted, types, strict=True)])
        plan += split_file(key, file, metadata, schema, rows_per_split)
    for file in sorted(storage.files_of(folder, ".csv")):
        header = read_header(key, file)
        names_read = [f.name for f in COLUMNS if f.name in header and f.name not in _NOT_IN_CSV]
        texts = pa.schema([pa.field(name, pa.string()) for name in header])
        check_types(key, file, texts, schemas.VOTES)
        plan.append(CsvFile(key, file, tuple(names_read)))
    if not plan:
        raise InputError(f"{key}: no Parquet or CSV files at {url}; give the output of collect")
    return plan


def read_collected(part: Split | CsvFile, space: LabelSpace) -> Iterator[pa.Table]:
    """The rows of a part that was planned, with all of COLUMNS; null where the file has none.

    Raises: InputError naming a value that cannot be cast, or that is no class of the label space.
    """
    row = part.first_row if isinstance(part, Split) else 0
    where = f"{part.key}: {part.url}"
    if isinstance(part, Split):
        tables = read_split(part)
    else:
        tables = read_columns(part.key, part.url, part.columns)
    yield from in_schema(tables, COLUMNS, where, row, space)
