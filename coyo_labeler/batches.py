"""Which partition a row belongs to, by the hash of its image id; rows packed into batches.

Rows travel between tasks as Arrow IPC bytes: one batch per table that was read and partition.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from coyo_labeler.hashing import splitmix64

#: Kinds of batches.
VOTES, GOLD, BELIEFS = "votes", "gold", "beliefs"


@dataclass(frozen=True)
class Batch:
    """Rows of one kind for one partition, as Arrow IPC bytes."""

    kind: str
    data: bytes

    @classmethod
    def of(cls, kind: str, table: pa.Table) -> "Batch":
        """The rows of a table."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return cls(kind, sink.getvalue().to_pybytes())

    def table(self) -> pa.Table:
        """The rows."""
        return pa.ipc.open_stream(self.data).read_all()


def partition_rows(
    table: pa.Table, column: str, kind: str, partitions: int
) -> Iterator[tuple[int, Batch]]:
    """The rows as (partition, batch), by the hash of the image id in `column`."""
    if table.num_rows == 0:
        return
    partition = (splitmix64(table[column].to_numpy()) % np.uint64(partitions)).astype(np.int64)
    order = np.argsort(partition, kind="stable")
    ordered = table.take(pa.array(order))
    ends = np.cumsum(np.bincount(partition, minlength=partitions))
    for number, end in enumerate(ends):
        start = ends[number - 1] if number else 0
        if end > start:
            yield number, Batch.of(kind, ordered.slice(start, end - start))


def concat_batches(batches: Sequence[Batch], kind: str, schema: pa.Schema) -> pa.Table:
    """The rows of all batches of one kind; schema: what they have, for when there is none."""
    tables = [batch.table() for batch in batches if batch.kind == kind]
    return pa.concat_tables(tables or [schema.empty_table()]).combine_chunks()
