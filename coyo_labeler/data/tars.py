"""Image shards for the training reader: an unreadable shard is an error that names it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from coyo_labeler.errors import InputError
from coyo_labeler.formats import image_shards
from coyo_labeler.formats.image_shards import Failure, Sample, Shard, find_shards
from coyo_labeler.formats.tars import DamagedTarError

__all__ = [
    "DamagedShardError",
    "Failure",
    "Sample",
    "Shard",
    "find_shards",
    "read_ids",
    "read_samples",
]


class DamagedShardError(InputError):
    """The tar of a shard, or the table beside it, cannot be read."""


def read_samples(shard: Shard) -> Iterator[Sample | Failure]:
    """The samples of a tar, in its order.

    Raises: DamagedShardError naming the shard.
    """
    try:
        yield from image_shards.read_samples(shard)
    except DamagedTarError as error:
        raise _damaged(shard, error) from None


def read_ids(shard: Shard) -> npt.NDArray[np.int64]:
    """(images,) int64: the ids of a shard's images, each once.

    Raises: DamagedShardError naming the shard.
    """
    try:
        index = image_shards.read_index(shard)
    except DamagedTarError as error:
        raise _damaged(shard, error) from None
    return np.fromiter((image_id for _, image_id in index), dtype=np.int64)


def _damaged(shard: Shard, error: DamagedTarError) -> DamagedShardError:
    return DamagedShardError(
        f"images: shard {shard.name}: {error.url} is damaged ({error.why}); fetch it again, or "
        "undecodable=skip"
    )
