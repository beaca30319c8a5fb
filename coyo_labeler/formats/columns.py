"""The one way in which a column of a file gets the type of its schema, or an error that helps."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler import storage
from coyo_labeler.errors import InputError, one_line

Column: TypeAlias = pa.Array | pa.ChunkedArray

#: What a cast raises: a value that does not fit, or a type that has no cast.
_CAST_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError)

#: Characters of a bad value in a message.
_SHOWN = 60

#: Where a UUID's text has hyphens, and where the 32 digits go between them.
_HYPHENS = [8, 13, 18, 23]
_DIGITS = np.setdiff1d(np.arange(36), _HYPHENS)
_HEXADECIMAL = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


def check_types(
    key: str,
    url: str,
    present: pa.Schema,
    wanted: Iterable[pa.Field],
    remedy: str | None = None,
) -> None:
    """See that a file has each column, once, in a type that `cast_column` may cast.

    key: the setting that named the file. present: the file's schema. remedy: for a missing column.

    Raises: InputError naming the column.
    """
    fields = list(wanted)
    storage.check_columns(key, url, present.names, (field.name for field in fields), remedy)
    for field in fields:
        if present.names.count(field.name) > 1:
            raise InputError(f"{key}: {url} has two columns '{field.name}'; rename or drop one")
        actual = present.field(field.name).type
        if not _is_castable(actual, field.type):
            raise InputError(
                f"{key}: {url}: column '{field.name}' is {actual}, it must be {field.type}; write "
                "it as that"
            )


def _is_castable(actual: pa.DataType, wanted: pa.DataType) -> bool:
    if isinstance(actual, pa.UuidType):
        return bool(pa.types.is_string(wanted))
    try:
        pa.nulls(0, actual).cast(wanted)
    except _CAST_ERRORS:
        return False
    return True


def cast_table(
    table: pa.Table, schema: pa.Schema, source: str, first_row: int | None = None
) -> pa.Table:
    """The columns of `schema`, in its types. source: setting and file. See `cast_column`."""
    columns = [
        cast_column(table[field.name], field.type, f"{source}: column '{field.name}'", first_row)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def cast_column(
    column: Column, kind: pa.DataType, where: str, first_row: int | None = None
) -> Column:
    """A column in another type that holds all of its values. UUIDs become their text.

    where: setting, file and column, for messages. first_row: rows of the file before this column,
    where that is known.

    Raises: InputError naming the first value that the type cannot hold, its row (counted from 1)
    where it is known, and the remedy.
    """
    if column.type == kind:
        return column
    if isinstance(column.type, pa.UuidType):
        column = _uuid_text(column)
    try:
        return column.cast(kind)
    except _CAST_ERRORS:
        pass  # which value it was is found below
    # A cast of a slice of lists looks at the values outside the slice too.
    column = column.take(pa.array(np.arange(len(column))))
    row = _first_bad(column, kind)
    if row is None:
        return column.cast(kind)
    bad = column.slice(row, 1)
    if _is_list(bad.type):
        elements = pc.list_flatten(bad)
        position = _first_bad(elements, kind.value_type)
        bad, kind = elements.slice(position or 0, 1), kind.value_type
    text = one_line(repr(bad.to_pylist()[0]), _SHOWN)
    in_row = "" if first_row is None else f" in row {first_row + row + 1}"
    raise InputError(
        f"{where} has {text}{in_row}, which is not {_in_words(kind)}; write the column as {kind}, "
        "or drop that row"
    )


def _first_bad(column: Column, kind: pa.DataType) -> int | None:
    """The position of the first value that cannot be cast; None where all can."""
    if _can_cast(column, kind):
        return None
    start, stop = 0, len(column)
    while stop - start > 1:
        middle = (start + stop) // 2
        if _can_cast(column.slice(start, middle - start), kind):
            start = middle
        else:
            stop = middle
    return start


def _can_cast(column: Column, kind: pa.DataType) -> bool:
    if _is_list(column.type):
        column, kind = pc.list_flatten(column), kind.value_type
    try:
        column.cast(kind)
    except _CAST_ERRORS:
        return False
    return True


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _in_words(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return f"a whole number of {kind.bit_width} bits with sign"
    if pa.types.is_floating(kind):
        return "a number"
    if pa.types.is_string(kind):
        return "text in UTF-8"
    return f"of type {kind}"


def _uuid_text(column: Column) -> Column:
    """UUIDs as text of 36 characters."""
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([_uuid_text(chunk) for chunk in column.chunks], pa.string())
    stored = column.storage.take(pa.array(np.arange(len(column))))
    filled = pc.fill_null(stored, bytes(16))
    octets = np.frombuffer(b"".join(filled.to_pylist()), dtype=np.uint8).reshape(-1, 16)
    digits = np.stack([octets >> 4, octets & 15], axis=2).reshape(-1, 32)
    text = np.full((len(octets), 36), ord("-"), dtype=np.uint8)
    text[:, _DIGITS] = _HEXADECIMAL[digits]
    offsets = pa.array(np.arange(0, 36 * len(octets) + 1, 36), pa.int32())
    whole = pa.StringArray.from_buffers(len(octets), offsets.buffers()[1], pa.py_buffer(text))
    return pc.if_else(stored.is_valid(), whole, None)
