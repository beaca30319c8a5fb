"""A partition of the index in memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.em.segments import I64
from coyo_labeler.select.hashes import U64


@dataclass(frozen=True)
class Rows:
    """The columns of a partition, (images,) each, see `index.INDEX`."""

    ids: I64
    key: U64
    kind: NDArray[np.int8]
    n_votes: NDArray[np.int32]
    top: NDArray[np.int32]
    pair: I64
    split: NDArray[np.int32]
    row: NDArray[np.int32]


def index_url(state: str, partition: int) -> str:
    """The file of a partition of the index."""
    return storage.join(state, "index", f"{partition:05d}.parquet")


def read_rows(state: str, partition: int) -> Rows:
    """A partition of the index."""
    with storage.open_parquet("select", index_url(state, partition)) as parquet:
        table = parquet.read(use_threads=False)
    return Rows(*(column.to_numpy() for column in table.itercolumns()))
