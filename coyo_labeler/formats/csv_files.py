"""Columns of CSV files as text, block by block: how votes, gold and slices read them."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.csv as pacsv

from coyo_labeler import storage
from coyo_labeler.errors import InputError, one_line

#: Bytes of CSV that are read at once.
_BLOCK_BYTES = 16 << 20
#: Bytes of a first line, at most.
_MAX_HEADER_BYTES = 1 << 20


def read_header(key: str, url: str, delimiter: str = ",") -> list[str]:
    """The names of a CSV file's columns, from its first line.

    key: the setting that named the file, for messages. delimiter: what stands between two values.

    Raises: InputError where the file is empty, not encoded as UTF-8, or its first line is endless
    or divided in another way.
    """
    fs, path = storage.resolve(url)
    with fs.open(path, "rb") as file:
        head = file.read(_MAX_HEADER_BYTES)
    # What is read ahead of the first line's end is looked at later, with its rows.
    text = io.TextIOWrapper(io.BytesIO(head), "utf-8-sig", errors="surrogateescape", newline="")
    try:
        names = next(
            csv.reader(text, delimiter=delimiter), []
        )  # a quoted name may hold a line break
        is_cut = len(head) == _MAX_HEADER_BYTES and not text.read(1)
    except csv.Error:  # a name has more characters than a name can have
        is_cut = True
    if is_cut:
        raise InputError(
            f"{key}: {url}: the first line has more than {_MAX_HEADER_BYTES:,} bytes or a name of "
            "many; it must name the columns, and each row must stand on a line of its own"
        )
    if not all(map(_is_utf8, names)):
        raise _other_encoding(key, url)
    if not names:
        raise InputError(f"{key}: {url} is empty; its first line must name the columns")
    if len(names) == 1 and (between := next((c for c in ";\t|" if c in names[0]), None)):
        word = "tabs" if between == "\t" else f"'{between}'"
        raise InputError(
            f"{key}: {url} has {word} between its values; save it again with commas (its first "
            f"line: {names[0][:200]})"
        )
    return names


def read_columns(
    key: str, url: str, columns: Sequence[str], delimiter: str = ","
) -> Iterator[pa.Table]:
    """Columns of a CSV file as strings, block by block; an empty value is null.

    Raises: InputError where a row has another number of columns than the first line, or a text is
    not UTF-8.
    """
    header = read_header(key, url, delimiter)
    fs, path = storage.resolve(url)
    try:
        with fs.open(path, "rb") as file:
            counted = _CountedQuotes(file)
            yield from _tables(counted, header, columns, delimiter)
        if counted.quotes % 2:
            _check_end(key, url, header, delimiter)
    except pa.ArrowInvalid as error:
        reason = one_line(error)
        if "Empty CSV file" in reason and not any("\n" in name for name in header):
            return  # the first line alone, without a line break behind it
        if "UTF8" in reason:
            raise _other_encoding(key, url, f" ({reason})") from None
        if "straddling" in reason:
            raise InputError(
                f"{key}: {url} has a row of more than {_BLOCK_BYTES:,} bytes; shorten its values, "
                "or close the quote that is left open"
            ) from None
        raise InputError(
            f"{key}: {url} is not a readable CSV file ({reason}); give every row the "
            f"{len(header)} columns of its first line, quoted where a value holds a comma"
        ) from None


class _CountedQuotes(io.RawIOBase):
    """A file that counts the double quotes that are read. In pairs, they leave no value open."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.quotes = 0

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        data = self._file.read(size)
        self.quotes += data.count(b'"')
        return data

    def readable(self) -> bool:
        """As a file's."""
        return True


def _check_end(key: str, url: str, header: list[str], delimiter: str) -> None:
    """See that the last row is no quoted value that was never closed: it holds all that follows it.

    Raises: InputError where a value of the last row has a line break.
    """
    fs, path = storage.resolve(url)
    last: dict[str, list[str | None]] = {}
    with fs.open(path, "rb") as file:
        for table in _tables(file, header, header, delimiter):
            last = table.slice(max(table.num_rows - 1, 0)).to_pydict()
    for name, values in last.items():
        if any("\n" in (value or "") for value in values):
            raise InputError(
                f"{key}: {url}: column '{name}' of the last row has a quote that is left open, and "
                "holds the rows behind it; close the quote"
            )


def _other_encoding(key: str, url: str, reason: str = "") -> InputError:
    return InputError(f"{key}: {url} is not encoded as UTF-8{reason}; save it again as UTF-8")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that surrogates stand in for
        return False
    return "\0" not in name  # UTF-16 without its mark


def _tables(
    file: object, header: list[str], columns: Sequence[str], delimiter: str
) -> Iterator[pa.Table]:
    reader = pacsv.open_csv(
        file,
        read_options=pacsv.ReadOptions(block_size=_BLOCK_BYTES),
        # Without this a block that ends within a quoted value would be an error.
        parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.string() for name in header},
            include_columns=list(columns),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    for batch in reader:
        yield pa.Table.from_batches([batch])
