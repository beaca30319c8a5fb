"""Rows of labels out of Parquet files on any filesystem."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.data.targets import F32, I64
from coyo_labeler.errors import InputError

COLUMNS = ["id", "labels", "label_probs"]

#: Rows decoded at a time.
ROWS = 1024

#: Files looked into at a time; object stores take some 50 ms to answer.
THREADS = 16


@contextmanager
def open_rows(url: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file of labels on any filesystem, with its columns checked."""
    with storage.open_parquet("labels", url, "write it again") as parquet:
        present = parquet.schema_arrow.names
        remedy = "give beliefs or a posterior"
        storage.check_columns("labels", url, present, COLUMNS, remedy)
        yield parquet


def read_ids(url: str) -> I64:
    """The ids of a file of labels, in its order."""
    with open_rows(url) as file:
        return ids_of(url, file.read(columns=["id"], use_threads=False)["id"])


def ids_of(url: str, column: pa.Array) -> I64:
    """A column of ids. url: for messages. Raises: InputError where some are missing."""
    if column.null_count:
        raise InputError(f"labels: {url} has rows without id; drop them")
    return column.cast(pa.int64()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def read_rows(url: str) -> Iterator[tuple[I64, F32]]:
    """(labels, probabilities) of each row of a file, in its order, without holding them all."""
    with open_rows(url) as file:
        for batch in file.iter_batches(ROWS, columns=COLUMNS, use_threads=False):
            yield from split_rows(url, batch)


def split_rows(url: str, batch: pa.RecordBatch) -> list[tuple[I64, F32]]:
    """(labels, probabilities) of each row; a null list is an empty one."""
    labels, probs = batch.column("labels"), batch.column("label_probs")
    lengths = pc.fill_null(pc.list_value_length(labels), 0).to_numpy()
    same = pc.fill_null(pc.list_value_length(probs), 0).to_numpy()
    if (lengths != same).any():
        row = int(np.flatnonzero(lengths != same)[0])
        raise InputError(
            f"labels: {url}: id {batch.column('id')[row]} has {lengths[row]} labels but "
            f"{same[row]} probabilities; write the file again"
        )
    flat = labels.flatten()
    if flat.null_count:
        raise InputError(f"labels: {url} has a list with a null label; write the file again")
    classes = flat.cast(pa.int64()).to_numpy(zero_copy_only=False)
    weights = probs.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    if not ((weights >= 0) & (weights <= 1)).all():  # NaN is in no range
        wrong = int(np.flatnonzero(~((weights >= 0) & (weights <= 1)))[0])
        row = int(np.searchsorted(np.cumsum(lengths), wrong, side="right"))
        raise InputError(
            f"labels: {url}: id {batch.column('id')[row]} has the probability {weights[wrong]}; "
            "probabilities are between 0 and 1"
        )
    ends = np.cumsum(lengths)
    return [
        (classes[end - n : end].copy(), weights[end - n : end].copy())
        for n, end in zip(lengths.tolist(), ends.tolist(), strict=True)
    ]
