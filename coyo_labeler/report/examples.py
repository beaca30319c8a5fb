"""Thumbnails of single images out of webdataset tars, as data URIs."""

import base64
import io
import posixpath
from collections.abc import Collection, Mapping

from PIL import Image

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import tars

#: Longest side of a thumbnail, in pixels: twice its size on the page, for dense screens.
SIDE = 176


def thumbnails(places: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """Small JPEGs as `data:` URIs, by id.

    places: {id: (URL of a tar, key in it)}. An image that does not decode has none.

    Raises: InputError naming a tar that breaks off before the images.
    """
    by_tar: dict[str, dict[str, int]] = {}
    for image_id, (tar, key) in places.items():
        by_tar.setdefault(tar, {})[key] = image_id
    found: dict[int, str] = {}
    for url, ids in sorted(by_tar.items()):
        for key, data in _pictures(url, ids.keys()).items():
            uri = _shrink(data)
            if uri is not None:
                found[ids[key]] = uri
    return found


def _pictures(url: str, keys: Collection[str]) -> dict[str, bytes]:
    """The pictures of some keys of a tar; reads no further than the last of them."""
    found: dict[str, bytes] = {}
    fs, path = storage.resolve(url)
    try:
        with fs.open(path, "rb") as file:
            for key, parts in tars.groups(file, url, lambda key: posixpath.basename(key) in keys):
                picture = tars.picture(parts)
                if picture is not None:
                    found[posixpath.basename(key)] = picture[1]
                if len(found) == len(keys):
                    break
    except tars.DamagedTarError as error:
        raise InputError(
            f"report: images: {error.url} is damaged ({error.why}); fetch it again"
        ) from None
    return found


def _shrink(data: bytes) -> str | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (SIDE, SIDE))
            small = image.convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None  # the report shows the caption without a picture
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
