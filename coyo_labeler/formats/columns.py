"""The one way in which a column of a file gets the type of its schema, or an error that helps."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.errors import InputError, one_line
from coyo_labeler.formats import schemas

Column: TypeAlias = pa.Array | pa.ChunkedArray

#: What a cast raises: a value that does not fit, or a type that has no cast.
_CAST_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError)

#: Below these, every whole number has a float of its own. (Halves never reach theirs.)
_EXACT_FLOATS = {pa.float32(): 2.0**24, pa.float64(): 2.0**53}

_INTEGER = r"^\s*[+-]?[0-9]+\s*$"
#: The greatest int64, and the size of the least, as digits.
_MOST, _LEAST = "9223372036854775807", "9223372036854775808"

#: Characters of a bad value in a message.
_SHOWN = 60

#: What to do about a missing column.
RENAME = "rename its columns, or give another file"

#: Where a UUID's text has hyphens, and where the 32 digits go between them.
_HYPHENS = [8, 13, 18, 23]
_DIGITS = np.setdiff1d(np.arange(36), _HYPHENS)
_HEXADECIMAL = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


def check_columns(
    key: str, url: str, present: Sequence[str], wanted: Iterable[str], remedy: str = RENAME
) -> None:
    """Check that a file has columns. Raises: InputError naming those that it lacks."""
    if missing := [f"'{name}'" for name in wanted if name not in present]:
        names = " or ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        raise InputError(
            f"{key}: {url} has no column {names} (its columns: {', '.join(present)}); {remedy}"
        )


def check_types(
    key: str,
    url: str,
    present: pa.Schema,
    wanted: Iterable[pa.Field],
    remedy: str = RENAME,
    optional: Collection[str] = (),
) -> None:
    """See that a file has each column, once, in a type that `cast_column` may cast.

    key: the setting that named the file. present: the file's schema. remedy: for a missing column.
    optional: columns that may be missing.

    Raises: InputError naming the column.
    """
    fields = [f for f in wanted if f.name in present.names or f.name not in optional]
    check_columns(key, url, present.names, (field.name for field in fields), remedy)
    for field in fields:
        if present.names.count(field.name) > 1:
            raise InputError(f"{key}: {url} has two columns '{field.name}'; rename or drop one")
        actual = present.field(field.name).type
        if not _is_castable(actual, field.type):
            raise InputError(
                f"{key}: {url}: column '{field.name}' is {actual}, it must be {field.type}; write "
                "it as that"
            )


def common_schema(
    key: str,
    files: Mapping[str, pa.Schema],
    schema: pa.Schema,
    optional: Iterable[pa.Field] = (),
    remedy: str | None = None,
) -> pa.Schema:
    """`schema`, and those of the optional columns that the files of a table have.

    key: the setting that named the files. files: the schema of each, by URL. remedy: for a missing
    column.

    Raises: InputError naming the file and column: see `check_types`; and where some files have an
    optional column that others lack.
    """
    for url, present in files.items():
        check_types(key, url, present, schema, remedy or RENAME)
    shared = []
    for field in optional:
        having = [url for url, present in files.items() if field.name in present.names]
        if not having:
            continue
        for url, present in files.items():
            if field.name not in present.names:
                raise InputError(
                    f"{key}: {url} has no column '{field.name}', but {having[0]} has; "
                    f"{remedy or 'give files that are alike'}"
                )
            check_types(key, url, present, [field])
        shared.append(field)
    return pa.schema([*schema, *shared])


def _is_castable(actual: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of a type may mean the wanted one. Arrow would make numbers of times, too."""
    if pa.types.is_dictionary(actual):
        actual = actual.value_type
    if actual == wanted or pa.types.is_null(actual):
        return True
    if _is_list(wanted) or _is_list(actual):
        both = _is_list(wanted) and _is_list(actual)
        return both and _is_castable(actual.value_type, wanted.value_type)
    if pa.types.is_integer(wanted) or pa.types.is_floating(wanted):
        return _is_number(actual) or is_text(actual)
    if isinstance(actual, pa.UuidType):
        return bool(pa.types.is_string(wanted))
    try:
        pa.nulls(0, actual).cast(wanted)
    except _CAST_ERRORS:
        return False
    return True


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts: strings of any layout, bytes, or categories of them."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def cast_table(
    table: pa.Table, schema: pa.Schema, source: str, first_row: int | None = None
) -> pa.Table:
    """The columns of `schema`, in its types. source: setting and file. See `cast_column`.

    `schemas.CARRIED` columns that the table lacks are null.
    """
    columns = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        if name in schemas.CARRIED and name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, kind))
        else:
            where = f"{source}: column '{name}'"
            columns.append(cast_column(table[name], kind, where, first_row))
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
    column = without_views(column)
    try:
        return _cast(column, kind)
    except _CAST_ERRORS:
        pass  # which value it was is found below
    # A cast of a slice of lists looks at the values outside the slice too.
    column = column.take(pa.array(np.arange(len(column))))
    row = _first_bad(column, kind)
    if row is None:
        return _cast(column, kind)
    bad = column.slice(row, 1)
    if _is_list(bad.type) and _is_list(kind):
        elements = pc.list_flatten(bad)
        position = _first_bad(elements, kind.value_type)
        bad, kind = elements.slice(position or 0, 1), kind.value_type
    value = bad.to_pylist()[0]
    text = one_line(value if isinstance(value, Decimal) else repr(value), _SHOWN)
    in_row = "" if first_row is None else f" in row {first_row + row + 1}"
    inexact = "" if not _is_inexact(bad, kind) else " (a float of this size is not exact)"
    raise InputError(
        f"{where} has {text}{in_row}, which is not {_in_words(kind)}{inexact}; write "
        f"the column as {kind}, or drop that row"
    )


def whole_or_null(column: Column) -> pa.Array:
    """The values as int64; null where they are missing, or no whole numbers of 64 bits.

    A text may be such a number, with a sign and blanks around it. A float may, where it is exact.
    """
    column = without_views(column)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        return column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        value = column.cast(pa.float64())
        exact_below = _EXACT_FLOATS.get(column.type, math.inf)
        whole = pc.and_(pc.equal(pc.floor(value), value), pc.less(pc.abs(value), exact_below))
        return pc.if_else(pc.fill_null(whole, False), value, None).cast(pa.int64())
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    if pa.types.is_decimal(column.type):
        text = pc.replace_substring_regex(text, r"\.0*$", "")
    matches = pc.fill_null(pc.match_substring_regex(text, _INTEGER), False)
    negative = pc.starts_with(text, "-")
    digits = pc.utf8_ltrim(pc.utf8_ltrim(text, "+-"), "0")
    length = pc.utf8_length(digits)
    # Texts of one length sort as their numbers do.
    short = pc.less_equal(digits, pc.if_else(negative, _LEAST, _MOST))
    fits = pc.or_(pc.less(length, len(_MOST)), pc.and_(pc.equal(length, len(_MOST)), short))
    number = pc.utf8_ltrim(text, "+")
    return pc.if_else(pc.and_(matches, fits), number, None).cast(pa.int64())


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
    if _is_list(column.type) and _is_list(kind):
        return _can_cast(pc.list_flatten(column), kind.value_type)
    try:
        _cast(column, kind)
    except _CAST_ERRORS:
        return False
    return True


def _cast(column: Column, kind: pa.DataType) -> Column:
    """Arrow's cast; a float that other whole numbers round to as well is no whole number."""
    if _is_inexact(column, kind):
        raise pa.ArrowInvalid("a float that is not exact")
    return column.cast(kind)


def _is_inexact(column: Column, kind: pa.DataType) -> bool:
    """Whether floats are to become whole numbers, and one is too large to tell it from others."""
    exact_below = _EXACT_FLOATS.get(column.type)
    if exact_below is None or not pa.types.is_integer(kind):
        return False
    largest = pc.max(pc.abs(column)).as_py()
    return largest is not None and exact_below <= largest < math.inf


def _is_list(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_list,
            pa.types.is_large_list,
            pa.types.is_fixed_size_list,
            pa.types.is_list_view,
            pa.types.is_large_list_view,
        )
    )


def _in_words(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return f"a whole number of {kind.bit_width} bits with sign"
    if pa.types.is_floating(kind):
        return "a number"
    if pa.types.is_string(kind):
        return "text in UTF-8"
    return f"of type {kind}"


def without_views(column: Column) -> Column:
    """The same values in a type that Arrow can filter and cast: views laid out, UUIDs as text."""
    if isinstance(column, pa.ChunkedArray):
        chunks = [without_views(chunk) for chunk in column.chunks]
        kind = without_views(pa.nulls(0, column.type)).type
        return pa.chunked_array(chunks, kind)
    kind, plain = column.type, column
    if isinstance(kind, pa.UuidType):
        plain = _uuid_text(column)
    elif pa.types.is_dictionary(kind):
        plain = _plain_categories(column)
    elif pa.types.is_string_view(kind):
        plain = column.cast(pa.large_string())
    elif pa.types.is_binary_view(kind):
        plain = column.cast(pa.large_binary())
    elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        plain = _laid_out(column)
    return plain


def _plain_categories(column: pa.DictionaryArray) -> pa.DictionaryArray:
    values = without_views(column.dictionary)
    if values.type == column.type.value_type:
        return column
    return pa.DictionaryArray.from_arrays(column.indices, values)


def _laid_out(lists: pa.Array) -> pa.Array:
    """A view of lists as lists. (Arrow's own cast of one makes an invalid array.)"""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.append(0, np.cumsum(lengths, dtype=np.int64)), pa.int64())
    elements = without_views(pc.list_flatten(lists))
    return pa.LargeListArray.from_arrays(offsets, elements, mask=lists.is_null())


def _uuid_text(column: pa.ExtensionArray) -> pa.Array:
    """UUIDs as text of 36 characters."""
    stored = column.storage.take(pa.array(np.arange(len(column))))
    filled = pc.fill_null(stored, bytes(16))
    octets = np.frombuffer(b"".join(filled.to_pylist()), dtype=np.uint8).reshape(-1, 16)
    digits = np.stack([octets >> 4, octets & 15], axis=2).reshape(-1, 32)
    text = np.full((len(octets), 36), ord("-"), dtype=np.uint8)
    text[:, _DIGITS] = _HEXADECIMAL[digits]
    offsets = pa.array(np.arange(0, 36 * len(octets) + 1, 36), pa.int32())
    whole = pa.StringArray.from_buffers(len(octets), offsets.buffers()[1], pa.py_buffer(text))
    return pc.if_else(stored.is_valid(), whole, None)
