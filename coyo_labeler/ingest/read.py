"""Source files: their footers, their damage, and their rows with only the needed columns."""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import IO, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import storage
from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.errors import InputError, WorkError, one_line
from coyo_labeler.formats.spark_tables import spark_schema
from coyo_labeler.ingest.columns import inside, outside, quoted
from coyo_labeler.session import spark_path

#: Name of the hash column in COYO-700M and in COYO-Labeled-300M.
HASH_COLUMNS = ("image_phash", "imagehash")

#: Footers are small and far away: reading them is nothing but waiting.
_FOOTER_THREADS = 32


@dataclass(frozen=True)
class Source:
    """The readable files of a source.

    files: number of rows by URL. schema: the needed columns, each in the widest type that any file
    has. names: the source's name of each column by its name inside the stage. corrupt: the fault
    of each file that is set aside, by URL.
    """

    files: dict[str, int]
    schema: pa.Schema
    names: dict[str, str]
    corrupt: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return sum(self.files.values())

    def without(self, faults: Mapping[str, str]) -> "Source":
        """The source with more files set aside, by URL."""
        files = {file: rows for file, rows in self.files.items() if file not in faults}
        new = {file: fault for file, fault in faults.items() if file in self.files}
        return replace(self, files=files, corrupt={**self.corrupt, **new})


def inspect(settings: IngestSettings) -> Source:
    """Read the footer of every source file.

    Raises: InputError naming a missing or unsuitable column, or an unreadable file unless
    `on_corrupt` is skip.
    """
    files = list(storage.files_of(settings.source))
    if not files:
        raise InputError(f"source: no Parquet files at {settings.source}")
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        footers = list(pool.map(_footer, files))
    faults = {
        file: fault for file, fault in zip(files, footers, strict=True) if isinstance(fault, str)
    }
    if faults and settings.on_corrupt == "stop":
        raise InputError(corrupt_message(*next(iter(faults.items()))))
    readable = {
        file: footer
        for file, footer in zip(files, footers, strict=True)
        if isinstance(footer, pq.FileMetaData)
    }
    if not readable:
        raise InputError(f"source: none of the {len(files)} files at {settings.source} is readable")
    names = _column_names(settings, next(iter(readable.values())).schema.to_arrow_schema())
    schema = _widest(settings, readable, list(dict.fromkeys(names.values())))
    _check_types(settings, names, schema)
    return Source(
        files={file: footer.num_rows for file, footer in readable.items()},
        schema=schema,
        names=names,
        corrupt=faults,
    )


def file_at_fault(source: Source, error: Exception) -> tuple[str, str] | None:
    """URL and fault of the source file on which Spark failed; None where its content is sound.

    A file whose footer is whole may hold damaged pages, which fail when they are read. A store that
    cannot be reached fails there too, so the file that Spark names is read once more.

    Raises: WorkError where the store fails again.
    """
    named = re.search(r"while reading file (.+?)\.\s+SQLSTATE", str(error))
    if named is None:
        return None
    for url in source.files:
        if unquote(spark_path(url)) == unquote(named[1]):
            fault = _damage(url, source.schema.names)
            return None if fault is None else (url, fault)
    return None


def without_damaged(spark: SparkSession, source: Source) -> Source:
    """The source without all files with a damaged page; every needed page is read."""
    columns, files = source.schema.names, list(source.files)
    faults = spark.sparkContext.parallelize(files, max(1, len(files))).map(
        lambda url: (url, _damage(url, columns))
    )
    return source.without({url: fault for url, fault in faults.collect() if fault is not None})


def _damage(url: str, columns: Sequence[str]) -> str | None:
    """The fault of the pages of some columns, or None."""

    def read(stream: "_Stream") -> None:
        for _ in pq.ParquetFile(stream).iter_batches(columns=list(columns)):
            pass

    return _fault_of(url, read)


def corrupt_message(file: str, fault: str) -> str:
    """The message about an unreadable source file."""
    return (
        f"source: {file} is not a readable Parquet file ({fault}); replace it, or set it aside "
        "with on_corrupt=skip"
    )


def _footer(url: str) -> pq.FileMetaData | str:
    """The footer, or its fault."""
    footers: list[pq.FileMetaData] = []
    fault = _fault_of(url, lambda stream: footers.append(pq.read_metadata(stream)))
    return footers[0] if fault is None else fault


class _Stream:
    """A file that remembers whether its store failed: Arrow raises OSError for bad content too."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.store_failed = False

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except Exception:
            self.store_failed = True
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _fault_of(url: str, read: Callable[[_Stream], None]) -> str | None:
    """The fault of a file's content where reading it fails, or None.

    Raises: WorkError where the store fails, which says nothing about the file.
    """
    fs, path = storage.resolve(url)
    stream: _Stream | None = None
    try:
        with fs.open(path, "rb") as file:
            stream = _Stream(file)
            read(stream)
    except (pa.ArrowException, OSError) as error:
        message = one_line(error)
        if stream is not None and not stream.store_failed:
            return message
        raise WorkError(
            f"source: {url} cannot be reached ({type(error).__name__}: {message}); what was "
            "finished is kept: run the same command again to go on"
        ) from error
    return None


def _column_names(settings: IngestSettings, present: pa.Schema) -> dict[str, str]:
    columns = settings.columns
    hashes = [columns.imagehash] if columns.imagehash else list(HASH_COLUMNS)
    imagehash = next((name for name in hashes if name in present.names), hashes[0])
    names = {
        "id": columns.id,
        "url": columns.url,
        "imagehash": imagehash,
        "width": columns.width,
        "height": columns.height,
    }
    for name in (*settings.thresholds, *settings.keep_columns):
        names.setdefault(inside(name), name)
    return names


def _widest(
    settings: IngestSettings, footers: dict[str, pq.FileMetaData], wanted: Sequence[str]
) -> pa.Schema:
    schemas = []
    for file, footer in footers.items():
        schema = footer.schema.to_arrow_schema().remove_metadata()
        remedy = "name it with columns.…=NAME, or fix thresholds or keep_columns"
        storage.check_columns("source", file, schema.names, wanted, remedy)
        schemas.append(pa.schema([schema.field(name) for name in wanted]))
    try:
        widest = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        reason = one_line(error)
        raise InputError(f"source: the files of {settings.source} disagree: {reason}") from None
    return widest


def _check_types(settings: IngestSettings, names: dict[str, str], schema: pa.Schema) -> None:
    for alias, name in names.items():
        kind = schema.field(name).type
        whole = pa.types.is_integer(kind)
        if alias in ("id", "width", "height") and not whole:
            _refuse(name, schema, "an integer")
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if alias in ("url", "imagehash") and not text:
            _refuse(name, schema, "a string")
        if outside(alias) in settings.thresholds and not (whole or pa.types.is_floating(kind)):
            _refuse(name, schema, "a number to have a threshold")
        if name in settings.keep_columns and _holds_map(kind):
            _refuse(name, schema, "of a type that can be ordered to be kept")


def _holds_map(kind: pa.DataType) -> bool:
    parts = (kind.field(number).type for number in range(kind.num_fields))
    return pa.types.is_map(kind) or any(_holds_map(part) for part in parts)


def _refuse(name: str, schema: pa.Schema, wanted: str) -> None:
    raise InputError(f"source: column '{name}' is {schema.field(name).type}; it must be {wanted}")


def read_source(spark: SparkSession, source: Source) -> DataFrame:
    """The needed columns of all source rows under their names inside the stage.

    id, width and height are bigint.
    """
    frame = spark.read.schema(spark_schema(source.schema)).parquet(
        *(spark_path(file) for file in source.files)
    )
    columns = [
        F.col(quoted(name)).cast("bigint").alias(alias)
        if alias in ("id", "width", "height")
        else F.col(quoted(name)).alias(alias)
        for alias, name in source.names.items()
    ]
    return frame.select(*columns)
