"""Dataclasses of flat arrays in Arrow IPC files, which can be mapped into memory."""

import json
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Record = TypeVar("Record")


def write_arrays(record: Any, sink: pa.NativeFile) -> None:
    """Write a dataclass of flat arrays as an Arrow IPC file.

    It has one row, each array in it one list, so that reading copies nothing.
    """
    arrays = {field.name: getattr(record, field.name) for field in fields(record)}
    kinds = {name: array.dtype.str for name, array in arrays.items()}
    columns = [
        pa.LargeListArray.from_arrays(
            pa.array([0, len(array)], pa.int64()), pa.array(_plain(array))
        )
        for array in arrays.values()
    ]
    schema = pa.schema(
        [pa.field(name, column.type) for name, column in zip(arrays, columns, strict=True)],
        metadata={b"kinds": json.dumps(kinds).encode()},
    )
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))


def read_arrays(kind: type[Record], source: pa.NativeFile) -> Record:
    """The reverse of `write_arrays`; the arrays are views of `source` where it is mapped."""
    with pa.ipc.open_file(source) as reader:
        kinds = json.loads(reader.schema.metadata[b"kinds"])
        batch = reader.get_batch(0)
    return kind(
        **{
            name: batch.column(name).values.to_numpy(zero_copy_only=True).view(kinds[name])
            for name in batch.schema.names
        }
    )


def _plain(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Booleans as bytes: Arrow packs bits, which cannot be viewed."""
    return array.view(np.uint8) if array.dtype == bool else array
