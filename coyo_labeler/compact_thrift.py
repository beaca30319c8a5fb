"""Structs in Thrift's compact protocol, in which the metadata of Parquet files are written.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Mapping
from typing import Any

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_SIZES = {_TRUE: 0, _FALSE: 0, _BYTE: 1, _DOUBLE: 8}
_MAX_DEPTH = 16


def read_struct(data: bytes, position: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct by their numbers, and the position behind it.

    Fields are whole numbers, structs and lists of them; of all else there is None.

    Raises: ValueError where there is no struct.
    """
    try:
        return _struct(memoryview(data), position, 0)
    except IndexError:
        raise ValueError("its metadata break off") from None


def number_of(fields: Mapping[int, Any], field: int) -> int:
    """A field that must be a whole number. Raises: ValueError where it is none."""
    value = fields.get(field)
    if not isinstance(value, int):
        raise ValueError(f"its metadata lack the number {field}")
    return value


def _struct(data: memoryview, position: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _MAX_DEPTH:
        raise ValueError("its metadata are nested without end")
    fields: dict[int, Any] = {}
    number = 0
    while True:
        head = data[position]
        position += 1
        if head == 0:
            return fields, position
        if head >> 4:
            number += head >> 4
        else:
            coded, position = _varint(data, position)
            number = _signed(coded)
        fields[number], position = _value(data, position, head & 15, depth)


def _value(data: memoryview, position: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        coded, position = _varint(data, position)
        return _signed(coded), position
    if kind in _SIZES:
        return None, position + _SIZES[kind]
    if kind == _BINARY:
        length, position = _varint(data, position)
        return None, position + length
    if kind == _STRUCT:
        return _struct(data, position, depth + 1)
    if kind in (_LIST, _SET):
        return _list(data, position, depth + 1)
    raise ValueError(f"its metadata have a field of the type {kind}")


def _list(data: memoryview, position: int, depth: int) -> tuple[list[Any], int]:
    if depth > _MAX_DEPTH:
        raise ValueError("its metadata are nested without end")
    head = data[position]
    count, kind, position = head >> 4, head & 15, position + 1
    if count == 15:
        count, position = _varint(data, position)
    if kind in (_TRUE, _FALSE):  # in a list they take a byte
        kind = _BYTE
    values = []
    for _ in range(count):
        value, position = _value(data, position, kind, depth)
        if position > len(data):
            raise IndexError
        values.append(value)
    return values, position


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
        if shift > 63:
            raise ValueError("its metadata have a number without end")


def _signed(coded: int) -> int:
    return (coded >> 1) ^ -(coded & 1)
