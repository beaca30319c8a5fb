"""Source files: their footers, their damage, and their rows with only the needed columns."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import IO
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import storage
from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.errors import InputError, WorkError, one_line
from coyo_labeler.formats.columns import check_columns
from coyo_labeler.formats.parquet_splits import parquet_files
from coyo_labeler.formats.spark_tables import paths_to_read, spark_schema
from coyo_labeler.ingest import types
from coyo_labeler.ingest.columns import inside, outside, quoted
from coyo_labeler.parquet_pages import open_guarded, read_tables
from coyo_labeler.session import spark_path

#: Name of the hash column in COYO-700M and in COYO-Labeled-300M.
HASH_COLUMNS = ("image_phash", "imagehash")

#: Footers are small and far away: reading them is nothing but waiting.
_FOOTER_THREADS = 32


@dataclass(frozen=True)
class Source:
    """The readable files of a source.

    files: number of rows by URL. schema: the needed columns, each in the widest type that any file
    has. narrow: the columns that are of a narrower type in a file, by URL. names: the source's name
    of each column by its name inside the stage. corrupt: the fault of each file that is set aside,
    by URL.
    """

    files: dict[str, int]
    schema: pa.Schema
    narrow: Mapping[str, pa.Schema]
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
    files = parquet_files("source", settings.source)
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
    schemas = _schemas_of(readable, list(dict.fromkeys(names.values())))
    schema = _widest(settings, schemas)
    _check_types(settings, names, schemas, schema)
    _check_ids(readable, names["id"], schema)
    return Source(
        files={file: footer.num_rows for file, footer in readable.items()},
        schema=schema,
        narrow={file: _narrow(own, schema) for file, own in schemas.items()},
        names=names,
        corrupt=faults,
    )


def refuse_mismatch(error: Exception) -> None:
    """Raises: InputError where Spark cannot read a column as the widest type of all files."""
    text = str(error)
    mismatch = re.search(
        r"Parquet column \[(.+?)\].+?Spark type (\S+), actual Parquet type (\w+)", text
    )
    mismatch = mismatch or re.search(
        r"column: \[(.+?)\], physicalType: (\w+), logicalType: (\w+)", text
    )
    if mismatch is not None:
        file = re.search(r"reading (?:Parquet )?file:? (\S+?)\.?\s", text)
        where = f"{unquote(file[1])}: " if file else ""
        raise InputError(
            f"source: {where}column '{mismatch[1]}' is of a type that cannot be read together with "
            f"that of other files ({mismatch[2]}, {mismatch[3]}); convert it, or leave it out"
        )


def file_at_fault(source: Source, error: Exception) -> tuple[str, str] | None:
    """URL and fault of the source file on which Spark failed; None where its content is sound.

    A file whose footer is whole may hold damaged pages, which fail when they are read. A store that
    cannot be reached fails there too, so the file that Spark names is read once more.

    Raises: WorkError where the store fails again.
    """
    named = re.search(r"while reading file (.+?)\.\s+(?:SQLSTATE|Details)", str(error))
    if named is None:
        return None
    for url in source.files:
        if spark_path(url) in (named[1], unquote(named[1])):
            fault = _damage(url, source.schema.names)
            return None if fault is None else (url, fault)
    return None


def unnamed_at_fault(
    spark: SparkSession, source: Source, error: Exception
) -> tuple[str, str] | None:
    """As `file_at_fault`, where Parquet failed and Spark does not name the file.

    Before Spark 4.0 it names none whose page headers are damaged. Every file is read.
    """
    if "while reading file" in str(error) or "org.apache.parquet" not in str(error):
        return None
    corrupt = without_damaged(spark, source).corrupt
    return next((item for item in corrupt.items() if item[0] in source.files), None)


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
        for _ in read_tables(open_guarded(stream), columns):
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
    fault = _fault_of(url, lambda stream: footers.append(open_guarded(stream).metadata))
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

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


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
    except (pa.ArrowException, OSError, ValueError) as error:
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


def _schemas_of(footers: dict[str, pq.FileMetaData], wanted: Sequence[str]) -> dict[str, pa.Schema]:
    """The wanted columns of each file, each in the type as which Spark reads it.

    Raises: InputError naming a column that a file lacks, has twice, or that Spark cannot read.
    """
    remedy = "name it with columns.…=NAME, or fix thresholds or keep_columns"
    schemas = {}
    for file, footer in footers.items():
        schema = footer.schema.to_arrow_schema().remove_metadata()
        check_columns("source", file, schema.names, wanted, remedy)
        for name in wanted:
            if schema.names.count(name) > 1:
                raise InputError(
                    f"source: {file}: column '{name}' is there {schema.names.count(name)} times; "
                    "rename all but one"
                )
        old = _old_timestamps(footer)
        schemas[file] = pa.schema([_readable(file, schema.field(name), old) for name in wanted])
    return schemas


def _widest(settings: IngestSettings, schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    """Each column in the widest type of any file.

    Raises: InputError where the types of a column do not go together.
    """
    try:
        widest = pa.unify_schemas(list(schemas.values()), promote_options="permissive")
    except pa.ArrowException as error:
        reason = one_line(error)
        raise InputError(f"source: the files of {settings.source} disagree: {reason}") from None
    for file, schema in schemas.items():
        for column in widest:
            kind = schema.field(column.name).type
            if types.is_nanoseconds(kind) != types.is_nanoseconds(column.type):
                raise InputError(
                    f"source: {file}: column '{column.name}' is {kind}, in other files "
                    f"{column.type}; convert one of them, or leave the column out"
                )
    return widest


def _narrow(own: pa.Schema, widest: pa.Schema) -> pa.Schema:
    """The columns of a file that can be cast to the type that they have in others."""
    return pa.schema(
        field
        for field, wide in zip(own, widest, strict=True)
        if field.type != wide.type and types.widens(field.type, wide.type)
    )


def _old_timestamps(footer: pq.FileMetaData) -> set[str]:
    """The columns of Parquet's former type of timestamps, which Spark reads as such."""
    columns = (footer.schema.column(number) for number in range(footer.num_columns))
    return {column.path for column in columns if column.physical_type == "INT96"}


def _readable(file: str, field: pa.Field, old_timestamps: Collection[str]) -> pa.Field:
    kind = types.INSTANT if field.name in old_timestamps else types.readable(field.type)
    if kind is None:
        raise InputError(
            f"source: {file}: column '{field.name}' is {field.type}, which cannot be read; "
            "convert it, or leave it out of keep_columns and thresholds"
        )
    return field.with_type(kind).with_nullable(True)


def _check_types(
    settings: IngestSettings, names: dict[str, str], schemas: dict[str, pa.Schema], wide: pa.Schema
) -> None:
    """schemas: of each file. wide: the widest. Raises: InputError naming a file and column."""
    for alias, name in names.items():
        if wrong := _misfit(settings, alias, name, wide.field(name).type):
            kinds = {file: own.field(name).type for file, own in schemas.items()}
            misfits = (f for f, kind in kinds.items() if _misfit(settings, alias, name, kind))
            file = next(misfits, min(kinds))
            raise InputError(
                f"source: {file}: column '{name}' is {kinds[file]}; it must be {wrong}"
            )


def _misfit(settings: IngestSettings, alias: str, name: str, kind: pa.DataType) -> str:
    """What a column must be that is of the wrong type, and the remedy; "" where it is right."""
    whole = pa.types.is_integer(kind) or kind == types.UNSIGNED_64
    another = f"convert it, or name another column with columns.{alias}=NAME"
    if alias in ("id", "width", "height") and not whole:
        return f"an integer: {another}"
    if alias in ("url", "imagehash") and not pa.types.is_string(kind):
        return f"a string: {another}"
    if outside(alias) in settings.thresholds and not (whole or pa.types.is_floating(kind)):
        return "a number to have a threshold: convert it, or leave it out of thresholds"
    if name in settings.keep_columns and types.holds_map(kind):
        return "of a type that can be ordered to be kept: leave it out of keep_columns"
    return ""


def _check_ids(footers: dict[str, pq.FileMetaData], name: str, schema: pa.Schema) -> None:
    """Raises: InputError where a file's statistics show an unsigned id that int64 cannot hold."""
    if schema.field(name).type != types.UNSIGNED_64:
        return
    for file, footer in footers.items():
        for group in range(footer.num_row_groups):
            rows = footer.row_group(group)
            for number in range(rows.num_columns):
                column = rows.column(number)
                statistics = column.statistics
                if column.path_in_schema != name or not statistics or not statistics.has_min_max:
                    continue
                if statistics.max % 2**64 > types.MOST:
                    raise InputError(
                        f"source: {file}: column '{name}' holds {statistics.max % 2**64}, but ids "
                        "end at 2^63 - 1; renumber them"
                    )


def read_source(spark: SparkSession, source: Source) -> DataFrame:
    """The needed columns of all source rows under their names inside the stage.

    id, width and height are bigint.
    """
    groups: dict[pa.Schema, list[str]] = {}
    for file in source.files:
        groups.setdefault(source.narrow[file], []).append(file)
    frame = reduce(
        DataFrame.union,
        (_read_group(spark, source.schema, narrow, files) for narrow, files in groups.items()),
    )
    columns = []
    for alias, name in source.names.items():
        value, kind = F.col(quoted(name)), source.schema.field(name).type
        if alias in ("id", "width", "height"):
            value = types.to_bigint(value, kind, clamp=alias != "id")
        elif types.is_nanoseconds(kind):
            value = types.from_nanoseconds(value, kind)
        columns.append(value.alias(alias))
    return frame.select(*columns)


def _read_group(
    spark: SparkSession, schema: pa.Schema, narrow: pa.Schema, files: Sequence[str]
) -> DataFrame:
    """The rows of files that have the columns of `schema`, those in `narrow` in other types.

    Spark before 4.0 reads no column in a wider type than it has in the file.
    """
    asked = [
        (narrow.field(field.name) if field.name in narrow.names else field) for field in schema
    ]
    asked = [field.with_type(types.as_read(field.type)) for field in asked]
    frame = spark.read.schema(spark_schema(pa.schema(asked))).parquet(
        *(path for file in files for path in paths_to_read(file))
    )
    wide = {field.name: field.dataType for field in spark_schema(schema)}
    return frame.select(
        *(
            F.col(quoted(name)).cast(wide[name]).alias(name)
            if name in narrow.names
            else F.col(quoted(name))
            for name in schema.names
        )
    )
