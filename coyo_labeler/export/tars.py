"""The image tars of an export, with their numbers, and the images in each."""

from dataclasses import dataclass

import pyarrow as pa

from coyo_labeler.formats import schemas
from coyo_labeler.formats.image_ids import IdRule, Ids
from coyo_labeler.formats.image_shards import Shard, find_shards, read_index


@dataclass(frozen=True)
class Tar:
    """One tar, with its number among all. ids: where the ids of its images come from."""

    number: int
    url: str
    ids: IdRule = IdRule.NUMBER

    @property
    def name(self) -> str:
        """Its file name without `.tar`."""
        return self.url.rpartition("/")[2].removesuffix(".tar")

    @property
    def shard(self) -> Shard:
        """The tar as an image shard."""
        return Shard(self.name, self.url, ids=self.ids)


def find_tars(images: str, ids: Ids = "auto") -> list[Tar]:
    """The tars of a file, folder or glob, sorted by name.

    Raises: InputError where there are none, or two of one name.
    """
    shards = find_shards(images, ids, "export: images")
    return [Tar(number, shard.url, shard.ids) for number, shard in enumerate(shards)]


def index_tar(tar: Tar) -> pa.Table:
    """Key and id of every image of a tar (schemas.IMAGE_INDEX).

    Raises: DamagedTarError where the tar, or the table beside it, cannot be read.
    """
    images = read_index(tar.shard)
    keys, ids = [key for key, _ in images], [image_id for _, image_id in images]
    return pa.table([[tar.number] * len(images), keys, ids], schema=schemas.IMAGE_INDEX)
