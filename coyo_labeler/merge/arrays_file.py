"""Dataclasses of flat arrays in Arrow IPC files, which can be mapped into memory."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler.merge.checksums import ChecksumError

Record = TypeVar("Record")


def write_arrays(record: Any, sink: pa.NativeFile) -> None:
    """Write a dataclass of flat arrays, or of such dataclasses, as an Arrow IPC file.

    It has one row, each array in it one list, so that reading copies nothing.
    """
    arrays = _arrays_of(record)
    kinds = json.dumps({name: array.dtype.str for name, array in arrays.items()}).encode()
    sums = [zlib.crc32(kinds), *(zlib.crc32(_plain(array).data) for array in arrays.values())]
    columns = [
        pa.LargeListArray.from_arrays(
            pa.array([0, len(array)], pa.int64()), pa.array(_plain(array))
        )
        for array in arrays.values()
    ]
    schema = pa.schema(
        [pa.field(name, column.type) for name, column in zip(arrays, columns, strict=True)],
        metadata={b"kinds": kinds, b"sums": json.dumps(sums).encode()},
    )
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))


def read_arrays(kind: type[Record], source: pa.NativeFile) -> Record:
    """The reverse of `write_arrays`; the arrays are views of `source` where it is mapped.

    They are read once, to compare their checksums. Raises: ChecksumError.
    """
    with pa.ipc.open_file(source) as reader:
        kinds, sums = (reader.schema.metadata[name] for name in (b"kinds", b"sums"))
        batch = reader.get_batch(0)
    arrays = [
        batch.column(name).values.to_numpy(zero_copy_only=True) for name in batch.schema.names
    ]
    if [zlib.crc32(data) for data in (kinds, *arrays)] != json.loads(sums):
        raise ChecksumError
    kind_of = json.loads(kinds)
    named = zip(batch.schema.names, arrays, strict=True)
    return _record_of(kind, {name: array.view(kind_of[name]) for name, array in named})


def _arrays_of(record: Any, prefix: str = "") -> dict[str, NDArray[np.generic]]:
    """The arrays by name; those of a dataclass within have its name and a dot before theirs."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for field in fields(record):
        value, name = getattr(record, field.name), prefix + field.name
        arrays |= _arrays_of(value, f"{name}.") if is_dataclass(value) else {name: value}
    return arrays


def _record_of(kind: type[Record], arrays: Mapping[str, Any], prefix: str = "") -> Record:
    values = {
        name: _record_of(inner, arrays, f"{prefix}{name}.")
        if isinstance(inner, type) and is_dataclass(inner)
        else arrays[prefix + name]
        for name, inner in get_type_hints(kind).items()
    }
    return kind(**values)


def _plain(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Booleans as bytes: Arrow packs bits, which cannot be viewed."""
    return array.view(np.uint8) if array.dtype == bool else array
