"""Rows of labels from Parquet files on any filesystem."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.data.targets import F32, I64
from coyo_labeler.formats import label_lists, schemas
from coyo_labeler.formats.columns import check_types
from coyo_labeler.formats.label_lists import check_label_lists, read_label_lists
from coyo_labeler.parquet_pages import read_tables

#: The columns that are read from a file of labels.
COLUMNS = pa.schema([schemas.BELIEFS.field(name) for name in ("id", "labels", "label_probs")])

#: What to do about a file that lacks one of them.
REMEDY = "give beliefs or a posterior"

#: Rows decoded at a time.
ROWS = 1024

#: Files opened at a time; object stores take some 50 ms to answer.
THREADS = 16


@contextmanager
def open_rows(url: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file of labels on any filesystem, with its columns checked."""
    with storage.open_parquet("labels", url, "write it again") as parquet:
        check_types("labels", url, parquet.schema_arrow, COLUMNS, REMEDY)
        yield parquet


def read_ids(url: str) -> I64:
    """The ids of a file of labels, in its order."""
    with open_rows(url) as file:
        ids = [ids_of(url, table["id"]) for table in read_tables(file, ["id"])]
    return np.concatenate([np.zeros(0, dtype=np.int64), *ids])


def ids_of(url: str, column: pa.Array) -> I64:
    """A column of ids. url: for messages. Raises: InputError where some are missing."""
    return label_lists.read_ids(column, f"labels: {url}")


def read_rows(url: str) -> Iterator[tuple[I64, F32]]:
    """(labels, probabilities) of each row of a file, in its order, without holding them all."""
    with open_rows(url) as file:
        for batch in file.iter_batches(ROWS, columns=COLUMNS.names, use_threads=False):
            yield from split_rows(url, batch)


def split_rows(url: str, batch: pa.RecordBatch) -> list[tuple[I64, F32]]:
    """(labels, probabilities) of each row; a null list is an empty one.

    Raises: InputError naming an image whose lists cannot be trained on.
    """
    source = f"labels: {url}"
    lists = read_label_lists(batch, source)
    # Labels outside the label space are for `Checked`, which may leave them out.
    check_label_lists(lists, source, distinct=True)
    classes, weights = lists.label.astype(np.int64), lists.probability.astype(np.float32)
    bounds = lists.offsets.tolist()
    return [
        (classes[start:stop].copy(), weights[start:stop].copy()) for start, stop in pairwise(bounds)
    ]
