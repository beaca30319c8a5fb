"""Tables as Spark DataFrames: read with a check of their schema, written completely or not."""

import re

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.session import spark_path

#: What Hadoop takes for a pattern in a path that is read; a backslash makes it a plain character.
_PATTERN = re.compile(r"[\\{}\[\]*?]")


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

    Raises: InputError naming a missing file or column, or a type that cannot be cast.
    """
    files = storage.files_of(url)
    if not files:
        raise InputError(f"{key}: no Parquet files at {url}")
    with storage.open_parquet(key, min(files)) as file:
        present = file.schema_arrow
    wanted = [*schema, *(field for field in optional or () if field.name in present.names)]
    storage.check_columns(key, url, present.names, (field.name for field in wanted))
    for field in wanted:
        _check_type(key, url, present.field(field.name), field)
    # Tars and JSON may be beside the table.
    reader = spark.read.option("pathGlobFilter", "*.parquet")
    frame = reader.parquet(*paths_to_read(url))
    types = spark_schema(pa.schema(wanted))
    return frame.select(*(F.col(field.name).cast(field.dataType) for field in types))


def _check_type(key: str, url: str, present: pa.Field, wanted: pa.Field) -> None:
    if _kind(present.type) != _kind(wanted.type):
        raise InputError(
            f"{key}: {url}: column '{present.name}' is {present.type}, it must be {wanted.type}"
        )


def _kind(type_: pa.DataType) -> str:
    """Types of one kind hold the same values, possibly in another width."""
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_floating(type_):
        return "float"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "string"
    if pa.types.is_timestamp(type_):
        return "timestamp"
    is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_)
    if is_list or pa.types.is_fixed_size_list(type_):
        return f"list of {_kind(type_.value_type)}"
    return str(type_)


def write_table(frame: DataFrame, url: str, schema: pa.Schema) -> None:
    """Write `url/*.parquet`: the columns of `schema` with its types, then all other columns.

    Spark's committer makes the files visible together when the job has succeeded.
    """
    types = spark_schema(schema)
    extras = [name for name in frame.columns if name not in schema.names]
    columns = [F.col(field.name).cast(field.dataType) for field in types]
    frame.select(*columns, *extras).write.mode("overwrite").parquet(spark_path(url))
