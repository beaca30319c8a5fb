"""COCO instance files: found, put together, and their annotations sorted by image.

Files are mapped and decoded no further than into undecoded records, so that memory holds one small
object per annotation and not its polygons.
"""

import gzip
import mmap
import posixpath
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from coyo_labeler import storage
from coyo_labeler.compare.image_pair import Entry
from coyo_labeler.compare.records import (
    NOT_NUMBERS,
    BrokenRecordError,
    Canvas,
    Category,
    Id,
    Image,
    Reason,
    read_category,
    read_image,
    read_keys,
)
from coyo_labeler.compare.rejects import Named, Rejects
from coyo_labeler.errors import InputError, one_line

ENDINGS = (".json", ".json.gz")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: Text in quotes, or a number that JSON does not have.
_NO_JSON_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b')

Raws = list[msgspec.Raw]


class _Document(msgspec.Struct):
    """The lists of a file; None: it has no such key."""

    images: Raws | None = None
    annotations: Raws | None = None
    categories: Raws | None = None


@dataclass
class AnnotatedImage:
    """An image of a set with its annotations, in the order of the files."""

    canvas: Canvas
    entries: list[Entry] = field(default_factory=list)


@dataclass
class InstanceSet:
    """One of the two sets. files: names. images: by file name, sorted. categories: per file, the
    name of each category id; classes: all names, in the order of the files. counts: records in the
    files by table. rejects: those left out while they were sorted.
    """

    files: list[str]
    images: dict[str, AnnotatedImage]
    categories: list[dict[Id, str]]
    classes: list[str]
    counts: dict[str, int]
    rejects: Rejects


def files_of(key: str, url: str) -> list[str]:
    """The JSON files at a path, a folder or a glob, sorted.

    Raises: InputError where there are none.
    """
    files = [name for name in storage.files_of(url, suffix="") if name.endswith(ENDINGS)]
    if not files:
        raise InputError(
            f"compare: {key}: {url} has no {' or '.join(ENDINGS)}; give a file of COCO instances, "
            "or a folder or glob of its shards"
        )
    return files


def read_instances(
    key: str, url: str, advance: Callable[[int], None] = lambda _: None
) -> InstanceSet:
    """Read all files of a set. key: a or b, for messages. advance: gets the records read so far.

    An annotation belongs to the image of its own file that has its image_id; where the file has no
    such image, to that of another file. Images of one file_name are one image. An id occurs once
    per file, and once per image in all files.

    Raises: InputError where a file cannot be read or is no COCO file.
    """
    files = files_of(key, url)
    documents = [_read_document(key, file) for file in files]
    for table in ("images", "annotations", "categories"):
        if all(getattr(document, table) is None for document in documents):
            raise InputError(
                f"compare: {key}: {url} has no list '{table}'; give COCO instance JSON, an object "
                "with images, annotations and categories"
            )
    names = [file.rpartition("/")[2] for file in files]
    sorting = _Sorting(names)
    for number, document in enumerate(documents):
        sorting.add_images(number, document.images or [])
        sorting.add_categories(number, document.categories or [])
    sorting.share_ids()
    done = 0
    for number, document in enumerate(documents):
        for count in sorting.add_annotations(number, document.annotations or []):
            advance(done + count)
        done += len(document.annotations or [])
    images = dict(sorted(sorting.images.items()))
    tables = ("images", "categories", "annotations")
    counts = {table: sum(len(getattr(d, table) or []) for d in documents) for table in tables}
    classes = list(dict.fromkeys(name for names in sorting.categories for name in names.values()))
    return InstanceSet(names, images, sorting.categories, classes, counts, sorting.rejects)


class _Sorting:
    """The records of the files while they are sorted."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self.images: dict[str, AnnotatedImage] = {}
        self.categories: list[dict[Id, str]] = [{} for _ in files]
        self.rejects = Rejects()
        self._names: list[dict[Id, str]] = [{} for _ in files]
        self._elsewhere: dict[Id, str] = {}
        self._ids: set[tuple[str, Id]] = set()

    def add_images(self, file: int, raws: Raws) -> None:
        """Note the images of a file."""
        for number, raw in enumerate(raws):
            try:
                image = read_image(raw)
                self._add_image(file, image)
            except BrokenRecordError as error:
                self._leave_out("images", file, number, error)

    def _add_image(self, file: int, image: Image) -> None:
        if image.id in self._names[file]:
            raise BrokenRecordError(
                Reason.DUPLICATE_ID, f"id {image.id} is that of an earlier image of the file"
            )
        canvas = Canvas(image.height or 0, image.width or 0)
        if 0 in canvas:
            canvas = Canvas(0, 0)
        known = self.images.setdefault(image.file_name, AnnotatedImage(canvas))
        if known.canvas.height and canvas.height and known.canvas != canvas:
            raise BrokenRecordError(
                Reason.IMAGE_SIZE,
                f"{image.file_name} is {canvas.width} × {canvas.height}, and "
                f"{known.canvas.width} × {known.canvas.height} in an earlier entry",
            )
        if not known.canvas.height:
            known.canvas = canvas
        self._names[file][image.id] = image.file_name

    def add_categories(self, file: int, raws: Raws) -> None:
        """Note the categories of a file."""
        for number, raw in enumerate(raws):
            try:
                category: Category = read_category(raw)
                if category.id in self.categories[file]:
                    raise BrokenRecordError(
                        Reason.DUPLICATE_ID, f"id {category.id} is that of an earlier category"
                    )
                self.categories[file][category.id] = category.name
            except BrokenRecordError as error:
                self._leave_out("categories", file, number, error)

    def share_ids(self) -> None:
        """Let files without an image or a category use that of other files, if they agree on it."""
        self._elsewhere = _agreed(self._names)
        shared = _agreed(self.categories)
        self.categories = [{**shared, **own} for own in self.categories]

    def add_annotations(self, file: int, raws: Raws) -> Iterator[int]:
        """Sort the annotations of a file by image; yields how many are done, now and then."""
        names = self._names[file]
        seen: set[Id] = set()
        for number, raw in enumerate(raws):
            try:
                keys = read_keys(raw)
                name = names.get(keys.image_id) or self._elsewhere.get(keys.image_id)
                if name is None:
                    raise BrokenRecordError(
                        Reason.UNKNOWN_IMAGE, f"image_id {keys.image_id} is none of the images"
                    )
                if keys.id is not None:
                    self._add_id(keys.id, name, seen)
                # The record stays in the mapped file until it is decoded.
                self.images[name].entries.append(Entry(file, raw))
            except BrokenRecordError as error:
                self._leave_out("annotations", file, number, error)
            if number % 50_000 == 0:
                yield number
        yield len(raws)

    def _add_id(self, annotation: Id, image: str, seen: set[Id]) -> None:
        """Note the id of an annotation. seen: those of its file."""
        if annotation in seen or (len(self.files) > 1 and (image, annotation) in self._ids):
            raise BrokenRecordError(
                Reason.DUPLICATE_ID, f"id {annotation} is that of an earlier annotation"
            )
        seen.add(annotation)
        if len(self.files) > 1:
            self._ids.add((image, annotation))

    def _leave_out(self, table: str, file: int, number: int, error: BrokenRecordError) -> None:
        self.rejects.add(table, error, Named(self.files[file], error.what, number))


def _agreed(by_file: Sequence[dict[Id, str]]) -> dict[Id, str]:
    """The names of ids that mean the same in every file that has them."""
    agreed: dict[Id, str] = {}
    for names in by_file:
        agreed |= names
    return {
        key: name for key, name in agreed.items() if all(n.get(key, name) == name for n in by_file)
    }


def _read_document(key: str, url: str) -> _Document:
    """Raises: InputError where the file is empty, damaged or no COCO file."""
    data = _read_bytes(key, url)
    if not bytes(data[:1_000]).strip(b" \t\r\n\0" + _BYTE_ORDER_MARK):
        raise InputError(f"compare: {key}: {url} is empty; give COCO instance JSON")
    try:
        return msgspec.json.decode(data, type=_Document)
    except msgspec.ValidationError as error:
        raise InputError(f"compare: {key}: {url} {_what_it_is(data, error)}") from None
    except RecursionError:
        raise InputError(
            f"compare: {key}: {url} is no COCO instance JSON: it nests lists thousands deep"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as first:
        repaired = _NO_JSON_NUMBER.sub(_quoted, bytes(data))
        try:
            return msgspec.json.decode(repaired, type=_Document)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InputError(
                f"compare: {key}: {url} is no JSON ({one_line(first)}); it may be cut off: write "
                "or copy it again"
            ) from None


def _quoted(token: re.Match[bytes]) -> bytes:
    """A number that JSON does not have in quotes, so that its record alone is broken."""
    text = token[0]
    return b'"' + text + b'"' if text.decode(errors="replace") in NOT_NUMBERS else text


def _what_it_is(data: bytes | mmap.mmap, error: msgspec.ValidationError) -> str:
    start = bytes(data[:1_000]).lstrip(b" \t\r\n" + _BYTE_ORDER_MARK)
    if start.startswith(b"["):
        return (
            "is a list, such as detection results are; give COCO instance JSON, an object with "
            "images, annotations and categories"
        )
    return f"is no COCO instance JSON: {one_line(error)}"


def _read_bytes(key: str, url: str) -> bytes | mmap.mmap:
    """The content of a file, unpacked; a plain file of this machine is mapped."""
    fs, path = storage.resolve(url)
    try:
        if url.endswith(".gz"):
            with fs.open(path, "rb") as file:
                return _without_mark(gzip.decompress(file.read()))
        if not storage.is_local(fs):
            return _without_mark(fs.cat_file(path))
        if not Path(path).stat().st_size:
            return b""
        with Path(path).open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(
            f"compare: {key}: {url} is no complete gzip file ({one_line(error)}); write or copy it "
            "again"
        ) from None
    return _without_mark(data[:]) if data[:3] == _BYTE_ORDER_MARK else data


def _without_mark(data: bytes) -> bytes:
    return data.removeprefix(_BYTE_ORDER_MARK)


def base_names(names: Sequence[str]) -> dict[str, str] | None:
    """Each file name without folders, to its name; None where two have the same."""
    short = {posixpath.basename(name): name for name in names}
    return short if len(short) == len(names) else None
