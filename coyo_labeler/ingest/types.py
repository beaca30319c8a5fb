"""The source's column types: as what Spark reads each of them, and which it cannot read."""

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F

#: What Spark reads an unsigned 64-bit integer as.
UNSIGNED_64 = pa.decimal128(20, 0)

#: An instant in microseconds.
INSTANT = pa.timestamp("us", "UTC")

_AS_THEY_ARE = (pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.binary(), pa.date32())
_OTHERS = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): UNSIGNED_64,
    pa.date64(): pa.date32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}
#: The largest id.
MOST = 2**63 - 1


def readable(kind: pa.DataType) -> pa.DataType | None:  # noqa: PLR0911 - a table
    """The type as which Spark reads a column of a Parquet file, or None where it cannot."""
    if isinstance(kind, pa.BaseExtensionType):
        return readable(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return readable(kind.value_type)
    if pa.types.is_nested(kind):
        return _readable_nested(kind)
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_signed_integer(kind) or kind in _AS_THEY_ARE:
        return kind
    if pa.types.is_decimal128(kind) or pa.types.is_timestamp(kind):
        return kind
    return _OTHERS.get(kind)


def _readable_nested(kind: pa.DataType) -> pa.DataType | None:
    fields = []
    for number in range(kind.num_fields):
        part = kind.field(number)
        inner = readable(part.type)
        if inner is None or is_nanoseconds(inner):
            return None
        fields.append(part.with_type(inner))
    if pa.types.is_struct(kind):
        return pa.struct(fields)
    if pa.types.is_map(kind):
        return pa.map_(fields[0].type.field(0).type, fields[0].type.field(1).type)
    return pa.list_(fields[0])


def widens(kind: pa.DataType, wide: pa.DataType) -> bool:
    """Whether every number of one type is a number of a wider one."""
    if pa.types.is_integer(kind):
        return bool(pa.types.is_integer(wide) or wide == UNSIGNED_64 or kind.bit_width < 64)
    return bool(pa.types.is_floating(kind) and pa.types.is_floating(wide))


def holds_map(kind: pa.DataType) -> bool:
    """Whether a type is a map or has one inside: Spark puts these in no order."""
    parts = (kind.field(number).type for number in range(kind.num_fields))
    return pa.types.is_map(kind) or any(holds_map(part) for part in parts)


def is_nanoseconds(kind: pa.DataType) -> bool:
    """Whether a column holds timestamps in nanoseconds, which Spark reads as whole numbers."""
    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")


def as_read(kind: pa.DataType) -> pa.DataType:
    """The type to ask Spark's reader for, for a type of `readable`."""
    return pa.int64() if is_nanoseconds(kind) else kind


def from_nanoseconds(value: Column, kind: pa.DataType) -> Column:
    """A timestamp in microseconds, from nanoseconds since 1970."""
    # Division would go through a double, which does not hold so many digits.
    whole = value - F.pmod(value, F.lit(1000))
    instant = F.timestamp_micros(F.call_function("div", whole, F.lit(1000)))
    return instant if kind.tz is not None else instant.cast("timestamp_ntz")


def to_bigint(value: Column, kind: pa.DataType, clamp: bool) -> Column:
    """A whole number as bigint. clamp: beyond it the nearest one, else null."""
    if kind != UNSIGNED_64:
        return value.cast("bigint")
    if clamp:
        return F.least(value, F.lit(MOST)).cast("bigint")
    return F.when(value <= F.lit(MOST), value).cast("bigint")
