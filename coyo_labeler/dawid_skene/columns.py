"""The columns of tables from notebooks, in types that can be compared, sorted and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.errors import InputError, one_line
from coyo_labeler.formats.columns import cast_column, is_text, without_views

#: The names under which a column is looked up, crowd-kit's first.
TASK, WORKER, LABEL = ("task", "image_id", "id"), ("worker", "worker_id"), ("label",)
OPTIONAL = ("response", "timestamp")

_LISTS = ("labels", "label_probs")
#: The columns of each table.
_COLUMNS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "votes": (TASK, WORKER, LABEL),
    "beliefs": (("id", *TASK), *((name,) for name in _LISTS)),
    "gold": (TASK, LABEL),
}
#: Below this, every whole number has a float of its own.
_EXACT = 2.0**53
_MOST = 2**63 - 1


def is_spark(table: Any) -> bool:
    """Whether a table is a Spark DataFrame, without importing Spark."""
    return type(table).__module__.startswith("pyspark.sql")


def column_name(present: Sequence[Any], names: Sequence[str], what: str) -> str:
    """The first of `names` that is present.

    Raises: InputError where none is, or where two columns have this name.
    """
    matching = [name for name in names if name in present]
    if not matching:
        raise InputError(
            f"{what}: no column '{names[0]}' (its columns: {', '.join(map(str, present))}); rename "
            "its columns"
        )
    if list(present).count(matching[0]) > 1:
        raise InputError(f"{what}: two columns '{matching[0]}'; rename or drop one")
    return matching[0]


def to_arrow(table: Any, what: str) -> pa.Table:
    """The columns of votes, beliefs or gold that are used, as an Arrow table.

    table: a pandas DataFrame, or what Arrow reads as a table (its own, Polars', DuckDB's). what:
    which of the three, for messages too. Categories become their values, views plain texts, halves
    floats; lists stay lists.

    Raises: InputError naming the column at fault, and the value where it is one.
    """
    if isinstance(table, pd.DataFrame):
        present = list(table.columns)
        inside = [name for name in table.index.names if name is not None]
    elif isinstance(table, pa.RecordBatch) or hasattr(table, "__arrow_c_stream__"):
        table = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        table = pa.table(table)
        present, inside = table.column_names, []
    else:
        raise InputError(
            f"DawidSkene: {what}: {type(table).__name__} is no pandas DataFrame, Arrow table or "
            "Spark DataFrame"
        )
    columns = {}
    for names in (*_COLUMNS[what], *((name,) for name in OPTIONAL if what == "votes")):
        if names[0] in OPTIONAL and names[0] not in present:
            continue
        if not set(names) & set(present) and set(names) & set(inside):
            raise InputError(f"{what}: '{names[0]}' is in the index; call reset_index() first")
        name = column_name(present, names, what)
        where = f"{what}: column '{name}'"
        column = table[name]
        if not isinstance(table, pa.Table):
            column = _from_pandas(column, where)
        columns[name] = (_list_column if name in _LISTS else plain_column)(column, where)
    return pa.table(columns)


def _from_pandas(series: pd.Series[Any], where: str) -> pa.Array:
    """Raises: InputError naming the first value that is not of the type of those before it."""
    if isinstance(series.dtype, pd.SparseDtype):
        series = pd.Series(np.asarray(series))
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowException, ValueError, NotImplementedError, OverflowError):
        pass  # which value it was is found below
    first: type | None = None
    for row, value in enumerate(series, start=1):
        try:
            pa.array([value], from_pandas=True)
        except (pa.ArrowException, ValueError, NotImplementedError, OverflowError) as error:
            raise InputError(
                f"{where} has {one_line(repr(value), 60)} in row {row}, which is no number, text, "
                f"date or truth value ({one_line(error, 80)}); convert the column"
            ) from None
        if value is None or value is pd.NA or value != value:  # noqa: PLR0124 - NaN
            continue
        if first is not None and type(value) is not first:
            raise InputError(
                f"{where} has {one_line(repr(value), 60)} in row {row}, of the type "
                f"{type(value).__name__}, but {first.__name__} before; write all as one type"
            )
        first = type(value)
    raise InputError(f"{where} has values that cannot be read together; write all as one type")


def plain_column(column: pa.Array | pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """One value per row, in a type that can be sorted.

    Raises: InputError where there are lists, or bytes that are no text.
    """
    column = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    if pa.types.is_dictionary(column.type):
        column = without_views(column)
        column = column.cast(column.type.value_type)
    kind = column.type
    if isinstance(kind, pa.UuidType):
        return column
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_nested(kind):
        raise InputError(f"{where} is {kind}; give one number, text or date per row")
    column = without_views(column)
    if pa.types.is_float16(column.type):
        return column.cast(pa.float32())
    if is_text(column.type) and not pa.types.is_string(column.type):
        return cast_column(column, pa.string(), where, 0)
    return column


def _list_column(column: pa.Array | pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Lists of plain values. Raises: InputError where there are none, or null elements."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks or [pa.nulls(0, column.type)])
    if pa.types.is_null(column.type):
        column = pa.nulls(len(column), pa.list_(pa.null()))
    kind = column.type
    is_list = (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )
    if not is_list:
        raise InputError(f"{where} is {kind}; it must hold a list in each row")
    if where.endswith("'label_probs'"):
        column = cast_column(column, pa.list_(pa.float64()), where, 0)
    lists = without_views(column)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
    values = plain_column(pc.list_flatten(lists), where)
    if values.null_count:
        row = np.searchsorted(offsets, np.asarray(values.is_null()).argmax(), side="right")
        raise InputError(f"{where} has a list with a null in row {row}; fill or drop it")
    elements = pa.concat_arrays(values.chunks or [pa.nulls(0, values.type)])
    return pa.chunked_array([pa.LargeListArray.from_arrays(pa.array(offsets), elements)])


def alike(columns: Mapping[str, pa.ChunkedArray]) -> list[pa.ChunkedArray]:
    """Columns that name the same things, in one type. columns: by table and name, for messages.

    Numbers are compared as whole numbers where they are such, so that none is rounded.

    Raises: InputError where the types differ otherwise, naming the two columns.
    """
    filled = {name: column for name, column in columns.items() if len(column)}
    kinds = {column.type for column in filled.values()}
    if len(kinds) < 2:
        kind = next(iter(kinds), pa.string())
        empty = pa.chunked_array([], kind)
        return [column if len(column) else empty for column in columns.values()]
    numbers = [kind for kind in kinds if pa.types.is_integer(kind) or pa.types.is_floating(kind)]
    if len(numbers) < len(kinds):
        _refuse_types(filled)
    wanted: pa.DataType = pa.float64()
    if any(pa.types.is_integer(kind) for kind in kinds):
        unsigned = any(
            column.type == pa.uint64() and len(column) and pc.max(column).as_py() > _MOST
            for column in filled.values()
        )
        wanted = pa.uint64() if unsigned else pa.int64()
        for name, column in filled.items():
            if pa.types.is_floating(column.type):
                _check_exact(name, column)
    empty = pa.chunked_array([], wanted)
    return [
        cast_column(column, wanted, name, 0) if len(column) else empty
        for name, column in columns.items()
    ]


def _check_exact(name: str, column: pa.ChunkedArray) -> None:
    values = column.to_numpy()
    inexact = np.flatnonzero(~(np.abs(values) < _EXACT))
    if len(inexact):
        raise InputError(
            f"{name} has {plain(values[inexact[0]])!r} in row {inexact[0] + 1}, a float that is "
            "not exact; write the column as int64"
        )


def _refuse_types(columns: Mapping[str, pa.ChunkedArray]) -> None:
    (first, one), *others = columns.items()
    second, other = next((name, each) for name, each in others if each.type != one.type)
    raise InputError(f"{first} is {one.type}, but {second} is {other.type}; write both as one type")


def plain(value: Any) -> Any:
    """A value as Python has it, for messages: 1, not np.int64(1)."""
    return value.item() if isinstance(value, np.generic) else value


def label_index(labels: Any) -> pd.Index[Any]:
    """The given labels, by position. labels: the number of classes, or a list of their names.

    Raises: InputError where they are no label space: none, one twice, one missing.
    """
    if isinstance(labels, int | np.integer) and not isinstance(labels, bool):
        if labels < 1:
            raise InputError(f"labels: {labels} classes; give their number or their names")
        return pd.RangeIndex(int(labels))
    if isinstance(labels, str | bytes | set | frozenset) or not hasattr(labels, "__iter__"):
        raise InputError(
            f"labels: {one_line(repr(labels), 60)} is neither a number of classes nor a list of "
            "their names"
        )
    is_arrow = isinstance(labels, pa.Array | pa.ChunkedArray)
    names = [plain(name) for name in (labels.to_pylist() if is_arrow else labels)]
    if not names:
        raise InputError("labels: the list is empty; give the names of the classes")
    seen = set()
    for name in names:
        text = one_line(repr(name), 60)
        if isinstance(name, tuple | list | dict | set | np.ndarray):
            raise InputError(f"labels: {text} is no name of a class; give texts or numbers")
        if name is None or name is pd.NA or name != name:  # noqa: PLR0124 - NaN
            raise InputError("labels: a name is missing; give each class a name")
        if name in seen:
            raise InputError(f"labels: {text} is there twice; give each class a name of its own")
        seen.add(name)
    index: pd.Index[Any] = labels if isinstance(labels, pd.Index) else pd.Index(names)
    return index
