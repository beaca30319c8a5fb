"""The pictures of a few images of a tar, by their keys."""

import posixpath
from collections.abc import Collection, Iterator

from coyo_labeler import storage
from coyo_labeler.errors import one_line
from coyo_labeler.formats import tars
from coyo_labeler.formats.image_shards import text_of_key
from coyo_labeler.formats.tars import IMAGE_ENDINGS, DamagedTarError


def read_pictures(url: str, keys: Collection[str]) -> Iterator[tuple[str, str, bytes]]:
    """(key, ending, bytes) of pictures of a tar, which is read no further than the last of them.

    keys: as `image_shards.read_index` returns them, without folders.

    Raises: DamagedTarError where the tar cannot be read, or breaks off before that.
    """
    left = set(keys)
    fs, path = storage.resolve(url)
    try:
        with fs.open(path, "rb") as file:
            for group in tars.read_groups(file, url, lambda key: _name(key) in left, IMAGE_ENDINGS):
                picture, key = tars.picture(group.parts), _name(group.key)
                if picture is not None and not group.repeated and key in left:
                    left.discard(key)
                    yield key, *picture
                if not left:
                    return
    except OSError as error:
        raise DamagedTarError(url, f"{type(error).__name__}: {one_line(error)}") from None


def _name(key: str) -> str:
    return text_of_key(posixpath.basename(key))
