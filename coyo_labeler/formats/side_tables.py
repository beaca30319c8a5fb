"""`{shard}.parquet` beside `{shard}.tar`: what fetch and img2dataset record about its images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.errors import one_line
from coyo_labeler.formats import schemas
from coyo_labeler.formats.tar_digests import ROWS_DIGEST
from coyo_labeler.formats.tars import DamagedTarError
from coyo_labeler.parquet_pages import BATCH_ROWS, GuardedFile

#: Columns of the pHash; the first that is present counts.
HASHES = ("imagehash", "image_phash", "actual_imagehash")

#: Columns that are read where present.
_COLUMNS = (
    "key",
    "status",
    "id",
    "uid",
    "url",
    *HASHES[:2],
    "original_width",
    "original_height",
)

#: Rows of a table, and uncompressed bytes of its columns according to its footer, at most.
MAX_ROWS = 500_000
MAX_BYTES = 2**28


@dataclass(frozen=True)
class SideTable:
    """The columns of a table by name, with the rows' positions by key.

    digest: of the rows, where fetch wrote it.
    """

    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    positions: Mapping[str, int] = field(default_factory=dict)
    digest: str | None = None

    def row(self, key: str) -> dict[str, Any]:
        """The row of a key; {} if there is none."""
        position = self.positions.get(key)
        if position is None:
            return {}
        return {name: values[position] for name, values in self.columns.items() if name != "key"}

    def in_tar(self) -> Iterator[tuple[str, Any]] | None:
        """(key, `id` or None) of the images in the tar; None if the table has no status."""
        if "status" not in self.columns:
            return None
        keys, statuses = self.columns["key"], self.columns["status"]
        ids = self.columns.get("id", [None] * len(keys))
        rows = zip(keys, statuses, ids, strict=True)
        return ((str(key), image_id) for key, status, image_id in rows if status == schemas.SUCCESS)


def read_side_table(tar: str, columns: Sequence[str] = _COLUMNS) -> SideTable:
    """The table beside a tar; empty if there is none, or if it has no keys.

    Raises: DamagedTarError where it is no Parquet file, larger than the bounds above, or has two
    columns of one name.
    """
    fs, path = storage.resolve(tar.removesuffix(".tar") + ".parquet")
    if not fs.exists(path):
        return SideTable()
    try:
        with fs.open(path, "rb") as file:
            # Texts stay dictionaries, so that a long one that every row repeats is there once.
            guarded = GuardedFile(file, repeats_texts=False)
            footer = pq.read_metadata(guarded)
            guarded.watch(footer)
            present = footer.schema.to_arrow_schema()
            kinds = {field.name: field.type for field in present}
            names = [
                name for name in columns if name in kinds and not pa.types.is_nested(kinds[name])
            ]
            for name in names:
                if present.names.count(name) > 1:
                    raise DamagedTarError(tar, f"the table beside it has two columns '{name}'")
            if "key" not in names:
                return SideTable()
            _check_size(tar, footer, names)
            parquet = pq.ParquetFile(
                guarded,
                metadata=footer,
                page_checksum_verification=True,
                read_dictionary=[name for name in names if pa.types.is_string(kinds[name])],
            )
            lists: dict[str, list[Any]] = {name: [] for name in names}
            texts: dict[str, str] = {}
            for batch in _batches(tar, parquet, names):
                for name in names:
                    lists[name] += _values(batch.column(name), texts)
            metadata = parquet.schema_arrow.metadata or {}
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DamagedTarError(
            tar, f"the table beside it is unreadable ({one_line(error, 200)})"
        ) from None
    rows = reversed(list(enumerate(lists["key"])))  # of equal keys the first counts
    digest = metadata.get(ROWS_DIGEST.encode(), b"").decode(errors="replace")
    return SideTable(lists, {str(key): row for row, key in rows}, digest or None)


def _batches(tar: str, parquet: pq.ParquetFile, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows, as long as they are no larger than the footer may say."""
    size = 0
    for batch in parquet.iter_batches(BATCH_ROWS, columns=list(names), use_threads=False):
        size += batch.nbytes
        if size > 2 * MAX_BYTES:  # Arrow's indices and offsets are wider than Parquet's
            raise DamagedTarError(
                tar, f"the table beside it has more than {MAX_BYTES:,} bytes unpacked"
            )
        yield batch


def _values(column: pa.Array, texts: dict[str, str]) -> list[Any]:
    """The values of a column. texts: those of dictionaries so far; equal ones are one object."""
    if not pa.types.is_dictionary(column.type):
        values: list[Any] = column.to_pylist()
        return values
    known = [texts.setdefault(text, text) for text in column.dictionary.to_pylist()]
    return [None if index is None else known[index] for index in column.indices.to_pylist()]


def _check_size(tar: str, metadata: pq.FileMetaData, names: Sequence[str]) -> None:
    chunks = (
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in names)
    if metadata.num_rows > MAX_ROWS or size > MAX_BYTES:
        raise DamagedTarError(
            tar,
            f"the table beside it has {metadata.num_rows:,} rows and {size:,} bytes unpacked; at "
            f"most {MAX_ROWS:,} and {MAX_BYTES:,} are read",
        )
