"""Thumbnails of single images from image shards, as data URIs."""

import base64
import io
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence

from PIL import Image
from pyspark.sql import SparkSession

from coyo_labeler.formats.faults import ImageError
from coyo_labeler.formats.image_shards import Shard, read_index
from coyo_labeler.formats.pictures import open_picture, to_rgb
from coyo_labeler.formats.single_pictures import read_pictures
from coyo_labeler.formats.tars import DamagedTarError

logger = logging.getLogger(__name__)

#: Longest side of a thumbnail, in pixels: twice its size on the page, for dense screens.
SIDE = 176

#: Shards that one task searches.
_SHARDS_PER_TASK = 64


def locate(
    spark: SparkSession, shards: Sequence[Shard], ids: Collection[int]
) -> dict[int, tuple[str, str]]:
    """The locations of a few images: {id: (URL of the tar, key in it)}.

    An image of a shard that cannot be read has no location.
    """
    wanted = frozenset(ids)

    def search(shard: Shard) -> Iterator[tuple[int, tuple[str, str]]]:
        try:
            index = read_index(shard)
        except DamagedTarError:
            return  # the page lacks its pictures; stages that need the tar report it
        for key, image_id in index:
            if image_id in wanted:
                yield image_id, (shard.url, key)

    tasks = max(1, len(shards) // _SHARDS_PER_TASK, min(len(shards), 4))
    return dict(spark.sparkContext.parallelize(list(shards), tasks).flatMap(search).collect())


def thumbnails(locations: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """Small JPEGs as `data:` URIs, by id.

    locations: {id: (URL of a tar, key in it)}. An image that does not decode has no thumbnail, nor
    has one behind the damage of a tar, which the log names.
    """
    by_tar: dict[str, dict[str, int]] = {}
    for image_id, (tar, key) in locations.items():
        by_tar.setdefault(tar, {})[key] = image_id
    uris: dict[int, str] = {}
    for url, ids in sorted(by_tar.items()):
        try:
            for key, _, data in read_pictures(url, ids.keys()):
                uri = _shrink(data)
                if uri is not None:
                    uris[ids[key]] = uri
        except DamagedTarError as error:
            logger.warning(
                "report: images: %s is damaged (%s): examples lack its pictures; fetch it again",
                error.url,
                error.why,
            )
    return uris


def _shrink(data: bytes) -> str | None:
    try:
        with open_picture(data) as image:
            image.draft("RGB", (SIDE, SIDE))
            small = to_rgb(image)
    except ImageError:
        return None  # the report shows the caption without a picture
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
