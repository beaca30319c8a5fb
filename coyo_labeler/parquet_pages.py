"""What the pages of a Parquet file may unfold to: looked at before Arrow allocates it.

A file of some kilobytes can unfold to gigabytes, and neither its size nor its footer need say so. A
page states its own unpacked size. A list may be one value repeated a billion times. A dictionary
gives a text of a megabyte to each of a million rows. So the headers of the pages are read
(Parquet's `PageHeader`, in Thrift's compact protocol) as their column chunks come from the file,
and rows are decoded `BATCH_ROWS` at a time, for which the bounds below leave some 2 GiB at most.
"""

import io
import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coyo_labeler.compact_thrift import number_of, read_struct

#: Rows that are decoded at a time, and bytes of decoded rows that are held at most.
BATCH_ROWS = 1024
MAX_TABLE_BYTES = 2**28

#: Bytes of a page, unpacked. (Writers make pages of 1 MB; some make one of a whole row group.)
MAX_PAGE_BYTES = 2**29
#: Bytes per value in a page of texts that is larger than MAX_TEXTS, and of a text in a dictionary.
MAX_TEXT_BYTES = 2**18
MAX_TEXTS = 2**26
#: Values of the lists in one row group, unless there is one byte of the file to 16 of them.
MAX_LIST_VALUES = 2**26
_VALUES_PER_BYTE = 16
#: Bytes of a page whose texts are written as additions to the text before.
_MAX_DELTA_BYTES = 2**21

#: Numbers of Parquet's enumerations.
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_DELTA_BYTE_ARRAY = 7
#: The numbers of Parquet's physical types, codecs and encodings that there are.
_TYPES = ["BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE"]
_TYPES += ["BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"]
_CODECS, _ENCODINGS = range(8), (0, *range(2, 10))
#: The length before a text of a dictionary.
_LENGTH = struct.Struct("<I")
#: Bytes at a file's end that are read first, and those behind the footer: its length, and a name.
_TAIL_BYTES, _END_BYTES = 2**16, 8


class UnfoldedError(ValueError):
    """A column that would take far more memory than it should; says which, and the remedy."""


@dataclass(frozen=True)
class Chunk:
    """A column of one row group: where its bytes are, and what its footer says of it."""

    name: str
    group: int
    length: int
    values: int
    is_text: bool
    is_list: bool


def chunks_of(metadata: pq.FileMetaData, footer: Mapping[int, Any]) -> dict[int, Chunk]:
    """The column chunks of a file by the position of their first byte.

    footer: the same metadata as `read_footer` reads it. PyArrow aborts the process when it is asked
    for a column chunk whose type, codec or encoding is none, so they are looked at here.

    Raises: UnfoldedError where a column has values of a fixed size that is too large; ValueError
    where the footer states what there is not.
    """
    columns = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    chunks = {}
    for group, row_group in enumerate(footer.get(4) or ()):
        for column, chunk in zip(columns, row_group.get(1) or (), strict=True):
            fields = chunk.get(3)
            if not isinstance(fields, dict):
                raise ValueError(f"column '{column.path}' has no metadata")
            kind = column.physical_type
            if kind == "FIXED_LEN_BYTE_ARRAY" and column.length > MAX_TEXT_BYTES:
                raise UnfoldedError(f"column '{column.path}' has values of {column.length:,} bytes")
            encodings = fields.get(2)
            known = (
                number_of(fields, 1) in range(len(_TYPES))
                and _TYPES[number_of(fields, 1)] == kind
                and number_of(fields, 4) in _CODECS
                and isinstance(encodings, list)
                and all(encoding in _ENCODINGS for encoding in encodings)
            )
            if not known:
                raise ValueError(f"column '{column.path}' has an unknown type, codec or encoding")
            start, dictionary = number_of(fields, 9), fields.get(11)
            if isinstance(dictionary, int) and 0 < dictionary < start:
                start = dictionary
            chunks[start] = Chunk(
                column.path,
                group,
                number_of(fields, 7),
                number_of(fields, 5),
                kind == "BYTE_ARRAY",
                column.max_repetition_level > 0,
            )
    return chunks


class Readable(Protocol):
    """What is read of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to so many bytes."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position."""
        ...

    def tell(self) -> int:
        """The position."""
        ...


def read_footer(file: Readable) -> dict[int, Any]:
    """The metadata of a Parquet file, fields by number (`FileMetaData` in parquet.thrift)."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - _TAIL_BYTES, 0))
    tail = file.read(_TAIL_BYTES)
    length = int.from_bytes(tail[-_END_BYTES:-4], "little") + _END_BYTES
    if length > len(tail):
        file.seek(max(size - length, 0))
        tail = file.read(length)
    return read_struct(tail, len(tail) - length)[0]


class GuardedFile(io.RawIOBase):
    """A Parquet file whose column chunks are looked through as they are read.

    Arrow reads column chunks whole, one or several neighbours at once. `watch` must be called when
    the footer is known.

    repeats_texts: whether rows will hold the texts of dictionaries, not their numbers.
    """

    def __init__(self, file: Readable, repeats_texts: bool = True) -> None:
        super().__init__()
        self._repeats_texts = repeats_texts
        self._file = file
        self._chunks: dict[int, Chunk] = {}
        self._starts: list[int] = []

    def watch(self, metadata: pq.FileMetaData) -> None:
        """Look at the pages of this footer's columns from now on. See `chunks_of`."""
        self._chunks = chunks_of(metadata, read_footer(self._file))
        self._starts = sorted(self._chunks)

    def read(self, size: int = -1) -> bytes:
        """Raises: UnfoldedError where the bytes hold a column chunk that unfolds to too much."""
        start = self._file.tell()
        data = self._file.read(size)
        end = start + len(data)
        first = bisect_left(self._starts, start)
        for position in self._starts[first : bisect_left(self._starts, end)]:
            chunk = self._chunks[position]
            if position + chunk.length <= end:
                pages = data[position - start : position - start + chunk.length]
            else:  # for a row group without rows, Arrow reads a part of another's chunk
                self._file.seek(position)
                pages = self._file.read(chunk.length)
                self._file.seek(end)
            check_pages(chunk, pages, self._repeats_texts)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a file's."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()

    def readable(self) -> bool:
        """As a file's."""
        return True

    def seekable(self) -> bool:
        """As a file's."""
        return True


def open_guarded(file: Readable) -> pq.ParquetFile:
    """A Parquet file to read, by `read_tables`; checksums of pages are compared where there are.

    Raises: Arrow's errors, OSError, and ValueError as `chunks_of`, where it is no Parquet file.
    """
    guarded = GuardedFile(file)
    parquet = pq.ParquetFile(guarded, page_checksum_verification=True)
    _ = parquet.schema_arrow
    guarded.watch(parquet.metadata)
    return parquet


def check_pages(chunk: Chunk, data: bytes, repeats_texts: bool = True) -> None:
    """See that the pages of a column chunk keep the bounds. data: its bytes.

    repeats_texts: see `GuardedFile`.

    Raises: UnfoldedError where one does not, ValueError where one has no readable header.
    """
    position = seen = 0
    limit = max(MAX_LIST_VALUES, _VALUES_PER_BYTE * len(data))
    while position < len(data) and seen < chunk.values:
        header, body = read_struct(data, position)
        size, packed = number_of(header, 2), number_of(header, 3)
        if size < 0 or packed < 0:
            raise ValueError(f"a page of column '{chunk.name}' has a negative size")
        if size > MAX_PAGE_BYTES:
            _refuse(chunk, f"a page of {size:,} bytes unpacked; at most {MAX_PAGE_BYTES:,} are")
        kind = header.get(1)
        if kind == _DICTIONARY_PAGE:
            if chunk.is_text and repeats_texts and size > MAX_TEXT_BYTES:
                _check_dictionary(chunk, data[body : body + packed], size)
        elif kind in (_DATA_PAGE, _DATA_PAGE_V2):
            page = header.get(5 if kind == _DATA_PAGE else 8)
            if not isinstance(page, dict):
                raise ValueError(f"a page of column '{chunk.name}' has no header of its kind")
            values = number_of(page, 1)
            seen += values
            if chunk.is_list and seen > limit:
                _refuse(chunk, f"lists of {seen:,} values or more; at most {limit:,} are")
            if chunk.is_text:
                _check_texts(chunk, size, values, page.get(2 if kind == _DATA_PAGE else 4))
        position = body + packed


def _check_texts(chunk: Chunk, size: int, values: int, encoding: Any) -> None:
    if encoding == _DELTA_BYTE_ARRAY and size > _MAX_DELTA_BYTES:
        _refuse(
            chunk,
            f"pages of {size:,} bytes with texts that repeat the one before (DELTA_BYTE_ARRAY); at "
            f"most {_MAX_DELTA_BYTES:,} are",
        )
    if size > max(MAX_TEXTS, values * MAX_TEXT_BYTES):
        _refuse(chunk, f"{values:,} texts of {size:,} bytes together; at most {MAX_TEXTS:,} are")


def _check_dictionary(chunk: Chunk, packed: bytes, size: int) -> None:
    """See that no text of a dictionary is long: each can be in every row."""
    data, position = _unpack(chunk, packed, size), 0
    while position + 4 <= len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        if length > MAX_TEXT_BYTES:
            _refuse(chunk, f"a text of {length:,} bytes; at most {MAX_TEXT_BYTES:,} are")
        step = 4 + length
        if position == 0 and len(data) % step == 0:
            # Texts of one length, as hashes are: all at once.
            lengths = np.frombuffer(data, np.uint8).reshape(-1, step)[:, :4]
            if (lengths == lengths[0]).all():
                return
        position += step


def _unpack(chunk: Chunk, packed: bytes, size: int) -> bytes:
    """A page as it was before compression.

    PyArrow aborts the process when it is asked for a codec that the footer makes up, so the codec
    is told by the bytes.
    """
    if len(packed) == size:
        return packed
    candidates = [(codec, packed) for codec in ("snappy", "lz4_raw", "brotli")]
    candidates.append(("lz4_raw", packed[8:]))  # as Hadoop wrote it: two sizes go before
    magic = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}
    for start, codec in magic.items():
        if packed.startswith(start):
            candidates.insert(0, (codec, packed))
    for codec, data in candidates:
        with suppress(pa.ArrowException, OSError):
            unpacked: bytes = pa.Codec(codec).decompress(data, size, asbytes=True)
            if len(unpacked) == size:
                return unpacked
    raise ValueError(f"the dictionary of column '{chunk.name}' cannot be unpacked")


def _refuse(chunk: Chunk, what: str) -> None:
    raise UnfoldedError(f"row group {chunk.group}, column '{chunk.name}' has {what} read")


def read_tables(
    parquet: pq.ParquetFile,
    columns: Sequence[str],
    groups: Sequence[int] | None = None,
    rows: int | None = None,
) -> Iterator[pa.Table]:
    """The rows of a file, in order: at most `rows`, or a row group, at a time.

    columns, groups: only these. A table of more than MAX_TABLE_BYTES is given in several.
    """
    for group in range(parquet.num_row_groups) if groups is None else groups:
        batches: list[pa.RecordBatch] = []
        held = number = 0
        limit = parquet.metadata.row_group(group).num_rows if rows is None else rows
        for batch in parquet.iter_batches(
            min(BATCH_ROWS, limit) or 1, [group], list(columns), use_threads=False
        ):
            if batches and (number + batch.num_rows > limit or held > MAX_TABLE_BYTES):
                yield _table(batches)
                batches, held, number = [], 0, 0
            batches.append(batch)
            held += unfolded_bytes(batch)
            number += batch.num_rows
        if batches:
            yield _table(batches)


def _table(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    table = pa.Table.from_batches(batches)
    return table if len(batches) == 1 else table.combine_chunks()


def unfolded_bytes(batch: pa.RecordBatch) -> int:
    """The bytes that a batch takes at most when its dictionaries are written out in its rows."""
    size: int = batch.nbytes
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            values = column.dictionary
            if pa.types.is_primitive(values.type):
                longest = values.type.bit_width // 8
            else:
                longest = pc.max(pc.binary_length(values)).as_py() or 0
            size += longest * batch.num_rows
    return size
