"""The shards that `label` works on: their numbers name the files that are written of them."""

import re

from coyo_labeler.errors import InputError
from coyo_labeler.formats import image_shards
from coyo_labeler.formats.image_ids import Ids
from coyo_labeler.formats.image_shards import Shard


def find_shards(images: str, ids: Ids = "auto") -> list[Shard]:
    """The tars of a file, folder or glob, by number.

    Raises: InputError where there are none, or their names are not `{number}.tar`.
    """
    shards: dict[int, Shard] = {}
    for shard in image_shards.find_shards(images, ids):
        if not re.fullmatch(r"[0-9]{1,18}", shard.name):
            raise InputError(
                f"images: {shard.url}: the name of a tar must be its shard's number, as 00000.tar; "
                "rename it"
            )
        if shard.number in shards:
            raise InputError(
                f"images: {shards[shard.number].url} and {shard.url} have the same number; rename "
                "one of them"
            )
        shards[shard.number] = shard
    return [shards[number] for number in sorted(shards)]
