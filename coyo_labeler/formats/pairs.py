"""Tables of two columns, an image and what is known of it: gold and slices."""

from collections.abc import Iterator

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.class_names import CLASSES, in_schema
from coyo_labeler.formats.columns import check_types
from coyo_labeler.formats.csv_files import read_columns, read_header
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import Split, plan_splits, read_split


def plan_pairs(key: str, url: str, schema: pa.Schema, rows_per_split: int) -> list[Split | str]:
    """What to read: splits of Parquet files or, where there are none, the URLs of CSV files.

    key: the setting that named the URL, for messages. schema: the two columns.

    Raises: InputError where there is neither, or a file lacks a column or has one of a wrong type.
    """
    if storage.files_of(url):
        return [*plan_gold(key, url, rows_per_split, schema)]
    files = sorted(storage.files_of(url, ".csv"))
    if not files:
        raise InputError(f"{key}: no Parquet or CSV files at {url}")
    for file in files:
        texts = pa.schema([pa.field(name, pa.string()) for name in read_header(key, file)])
        check_types(key, file, texts, schema)
    return [*files]


def plan_gold(
    key: str, url: str, rows_per_split: int, schema: pa.Schema = schemas.GOLD
) -> list[Split]:
    """The splits of gold, whose labels may be numbers or names of classes. See `plan_splits`."""
    return plan_splits(key, url, schema, rows_per_split, texts=CLASSES)


def read_pairs(
    key: str, part: Split | str, schema: pa.Schema, space: LabelSpace
) -> Iterator[pa.Table]:
    """The rows of a part that was planned, in the types of `schema`; nulls stay.

    Raises: InputError naming a value that cannot be cast, or that is no class of the label space.
    """
    if isinstance(part, Split):
        source, row, tables = f"{key}: {part.url}", part.first_row, read_split(part)
    else:
        source, row, tables = f"{key}: {part}", 0, read_columns(key, part, schema.names)
    yield from in_schema(tables, schema, source, row, space)


def read_gold(split: Split, space: LabelSpace) -> Iterator[pa.Table]:
    """The rows of a split of gold (schemas.GOLD). See `read_pairs`."""
    return read_pairs(split.key, split, schemas.GOLD, space)
