"""Tables as Spark DataFrames: read with a check of their schema, written completely or not."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from coyo_labeler import storage
from coyo_labeler.formats.columns import common_schema
from coyo_labeler.formats.parquet_splits import parquet_files, read_footers, read_split, split_file
from coyo_labeler.session import spark_path

#: What Hadoop takes for a pattern in a path that is read; a backslash makes it a plain character.
_PATTERN = re.compile(r"[\\{}\[\]*?]")
Part = TypeVar("Part")

#: Rows that one task reads of a table that Spark does not read itself.
_ROWS_PER_SPLIT = 500_000


def spark_schema(schema: pa.Schema) -> StructType:
    """The Spark schema of an Arrow schema. Times without a zone stay so, on every Spark."""
    return from_arrow_schema(schema, prefer_timestamp_ntz=True)


def paths_to_read(url: str, suffix: str = ".parquet") -> list[str]:
    """Paths by which Spark reads the files at a URL, so that it sees no patterns of its own.

    A glob becomes the files that fsspec finds: Hadoop's patterns mean other things.
    """
    urls = list(storage.files_of(url, suffix)) if storage.is_glob(url) else [url]
    return [_PATTERN.sub(r"\\\g<0>", spark_path(name)) for name in urls]


def read_table(
    spark: SparkSession, key: str, url: str, schema: pa.Schema, optional: pa.Schema | None = None
) -> DataFrame:
    """The columns of `schema`, and of `optional` where present, cast to its types.

    key: the setting that named the URL, for messages. url: a file, folder or glob of Parquet.

    Raises: InputError naming a missing file or column, or a type that cannot be cast; Spark's
    error, of an InputError that names a value that cannot be cast, when the rows are asked for.
    """
    files = parquet_files(key, url)
    kinds: dict[pa.Schema, pa.Schema] = {}  # a hundred thousand files have few
    present = {}
    for name, footer in zip(files, read_footers(key, files), strict=True):
        own = footer.schema.to_arrow_schema().remove_metadata()
        present[name] = kinds.setdefault(own, own)
    wanted = common_schema(key, present, schema, optional or ())
    if not _is_for_spark(list(kinds), wanted):
        # Spark's casts do not name the column and value that they fail on.
        return _read_by_arrow(spark, key, files, wanted)
    # Tars and JSON may be beside the table.
    reader = spark.read.option("pathGlobFilter", "*.parquet")
    frame = reader.parquet(*paths_to_read(url))
    types = spark_schema(wanted)
    return frame.select(*(F.col(field.name).cast(field.dataType) for field in types))


def _is_for_spark(present: Sequence[pa.Schema], wanted: pa.Schema) -> bool:
    """Whether Spark reads the wanted columns of all files, and no value can fail to be cast.

    It takes the types of all files from one of them, and does not tell `url` from `URL`.
    """
    for schema in present:
        names = [name.lower() for name in schema.names]
        if any(names.count(field.name.lower()) > 1 for field in wanted):
            return False
        kinds = [schema.field(field.name).type for field in wanted]
        if kinds != [present[0].field(field.name).type for field in wanted]:
            return False
        if not all(map(_is_wider, kinds, wanted.types)):
            return False
    return True


def _is_wider(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether Spark reads a type, and all of its values fit into the wanted one."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(wanted):
        return _is_list(kind) and _is_wider(kind.value_type, wanted.value_type)
    if pa.types.is_integer(wanted) and pa.types.is_integer(kind):
        sign_bit = pa.types.is_unsigned_integer(kind)
        return bool(kind.bit_width + sign_bit <= wanted.bit_width)
    if pa.types.is_floating(wanted):
        return kind in (pa.float32(), pa.float64())
    if pa.types.is_string(wanted):
        return kind in (pa.string(), pa.large_string(), pa.string_view())
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(kind):
        return bool(kind.unit != "ns")
    return bool(kind == wanted)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _read_by_arrow(
    spark: SparkSession, key: str, files: Sequence[str], schema: pa.Schema
) -> DataFrame:
    splits = [
        split
        for url, footer in zip(files, read_footers(key, files), strict=True)
        for split in split_file(key, url, footer, schema, _ROWS_PER_SPLIT)
    ]
    return read_parts(spark, splits, read_split, schema)


def read_parts(
    spark: SparkSession,
    parts: Sequence[Part],
    read: Callable[[Part], Iterable[pa.Table]],
    schema: pa.Schema,
) -> DataFrame:
    """The tables that `read` yields of each part, in a task of its own."""

    def rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column("id").to_pylist():
                for table in read(parts[number]):
                    yield from table.to_batches()

    numbers = spark.range(0, len(parts), 1, max(len(parts), 1))
    # Spark crashes on a null in a column that is declared to have none; the stages look for nulls.
    nullable = pa.schema([field.with_nullable(True) for field in schema])
    return numbers.mapInArrow(rows, spark_schema(nullable))


def write_table(frame: DataFrame, url: str, schema: pa.Schema) -> None:
    """Write `url/*.parquet`: the columns of `schema` with its types, then all other columns.

    Spark's committer makes the files visible together when the job has succeeded.
    """
    types = spark_schema(schema)
    extras = [name for name in frame.columns if name not in schema.names]
    columns = [F.col(field.name).cast(field.dataType) for field in types]
    frame.select(*columns, *extras).write.mode("overwrite").parquet(spark_path(url))
