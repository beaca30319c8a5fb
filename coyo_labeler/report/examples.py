"""Thumbnails of single images out of webdataset tars, as data URIs."""

import base64
import io
import posixpath
import tarfile
from collections.abc import Collection, Mapping

from PIL import Image

from coyo_labeler import storage

#: Longest side of a thumbnail, in pixels: twice its size on the page, for dense screens.
SIDE = 176

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def thumbnails(places: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """Small JPEGs as `data:` URIs, by id.

    places: {id: (URL of a tar, key in it)}. An image that does not decode has none.
    """
    by_tar: dict[str, dict[str, int]] = {}
    for image_id, (tar, key) in places.items():
        by_tar.setdefault(tar, {})[key] = image_id
    found: dict[int, str] = {}
    for tar, ids in sorted(by_tar.items()):
        for key, data in _members(tar, ids.keys()).items():
            uri = _shrink(data)
            if uri is not None:
                found[ids[key]] = uri
    return found


def _members(url: str, keys: Collection[str]) -> dict[str, bytes]:
    """The pictures of some keys of a tar; reads no further than the last of them."""
    found: dict[str, bytes] = {}
    fs, path = storage.resolve(url)
    with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            key, extension = posixpath.splitext(posixpath.basename(member.name))
            if key in keys and extension.lower() in _PICTURES:
                content = tar.extractfile(member)
                if content is not None:
                    found[key] = content.read()
                if len(found) == len(keys):
                    break
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
