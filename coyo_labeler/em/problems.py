"""The voted images as flat arrays: what EM iterates over, built once and never moved again."""

import json
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64, I32, I64, Bool

#: The label of the state that lumps all classes outside the support, and of "false".
OUTSIDE = -1

Record = TypeVar("Record")


@dataclass(frozen=True)
class Problems:
    """Problems (voted images; in `truth: multi` questions image × class) and their votes.

    Problem i has the entries (states) [offsets[i], offsets[i + 1]), by class, `OUTSIDE` last.

    image: (n,) id of the image. n_votes: (n,). others: (n,) classes lumped in OUTSIDE.
    belief_size: (n,) classes of the belief; 0: none. gold: (n,) whether the truth is given.
    label: (nnz,) class of the entry. belief: (nnz,) logit (sigmoid) or log (categorical) of the
    machine's probability, NaN where the belief does not have the class. start: (nnz,) the votes'
    shares, NaN where there is a belief or nothing was named. allowed: (nnz,) false where gold
    rules the entry out.
    pair_entry, pair_cell: (pairs,) for each vote and each entry of its problem, that entry and the
    cell that says how probable the vote is in that state. cells: (cells,) the keys (`cells.py`)
    that occur here, sorted.
    """

    image: I64
    n_votes: I32
    others: I64
    belief_size: I32
    gold: Bool
    offsets: I64
    label: I32
    belief: F64
    start: F64
    allowed: Bool
    pair_entry: I32
    pair_cell: I32
    cells: I64

    def __len__(self) -> int:
        return len(self.image)


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
