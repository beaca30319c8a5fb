"""The records of a COCO file (images, categories, annotations), or why one cannot be used.

A file is decoded into undecoded records (`msgspec.Raw`), and each of them on its own, so that a
broken one costs nothing but itself.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from math import isfinite
from typing import Any, NamedTuple, TypeVar

import msgspec

from coyo_labeler.errors import one_line

T = TypeVar("T")

#: Sides of an image up to which run lengths stay within 32 bits.
MAX_SIDE = 2**15
#: A shape may reach beyond its image by this many times the longer side; rounding does by a pixel.
_BEYOND = 2.0


class Reason(StrEnum):
    """Why a record of a file is left out."""

    NOT_AN_OBJECT = "not_an_object"
    MISSING_KEY = "missing_key"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    DUPLICATE_ID = "duplicate_id"
    IMAGE_SIZE = "image_size"
    UNKNOWN_IMAGE = "unknown_image"
    UNKNOWN_CATEGORY = "unknown_category"
    POLYGON = "polygon"
    RLE_SIZE = "rle_size"
    RLE_COUNTS = "rle_counts"
    BOX = "box"
    AREA = "area"
    NO_SHAPE = "no_shape"
    OUTSIDE_IMAGE = "outside_image"


class BrokenRecordError(Exception):
    """A record that cannot be used: the reason, and what is wrong in words."""

    def __init__(self, reason: Reason, what: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what


Id = int | str


class Image(msgspec.Struct):
    """An entry of `images`."""

    id: Id
    file_name: str
    width: int | None = None
    height: int | None = None


class Category(msgspec.Struct):
    """An entry of `categories`."""

    id: Id
    name: str


class Keys(msgspec.Struct):
    """What an annotation is found by."""

    image_id: Id
    id: Id | None = None


class RunLengths(msgspec.Struct):
    """A mask as run lengths in columns, plain or as COCO's compressed text. size: height, width."""

    counts: list[int] | str
    size: list[int]


#: The segmentation of an object: rings of x, y, x, y, …; run lengths; or none.
Shape = list[list[float]] | RunLengths | None


class Annotation(msgspec.Struct):
    """An entry of `annotations`."""

    image_id: Id
    category_id: Id
    id: Id | None = None
    segmentation: Shape = None
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: int = 0


class Canvas(NamedTuple):
    """The size of an image in pixels; 0: not known."""

    height: int
    width: int


_IMAGES = msgspec.json.Decoder(Image)
_CATEGORIES = msgspec.json.Decoder(Category)
_KEYS = msgspec.json.Decoder(Keys)
_ANNOTATIONS = msgspec.json.Decoder(Annotation)

#: Keys of each kind of record: those that it must have, with the types that they may have.
_NEEDED: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "image": {"id": (int, str), "file_name": (str,)},
    "category": {"id": (int, str), "name": (str,)},
    "annotation": {"image_id": (int, str)},
}
_OPTIONAL: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "image": {"width": (int,), "height": (int,)},
    "category": {},
    "annotation": {
        "id": (int, str),
        "category_id": (int, str),
        "segmentation": (list, dict),
        "bbox": (list,),
        "area": (int, float),
        "iscrowd": (int, bool),
    },
}


def read_image(raw: bytes | msgspec.Raw) -> Image:
    """An image. Raises: BrokenRecordError."""
    try:
        image = _IMAGES.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        image = _repair("image", raw, Image)
    for side in (image.width, image.height):
        if side is not None and not 0 < side <= MAX_SIDE:
            raise BrokenRecordError(
                Reason.IMAGE_SIZE, f"a side of {side} pixels, where 1 to {MAX_SIDE:,} are possible"
            )
    return image


def read_category(raw: bytes | msgspec.Raw) -> Category:
    """A category. Raises: BrokenRecordError."""
    try:
        return _CATEGORIES.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _repair("category", raw, Category)


def read_keys(raw: bytes | msgspec.Raw) -> Keys:
    """The image and the id of an annotation. Raises: BrokenRecordError."""
    try:
        return _KEYS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _repair("annotation", raw, Keys)


def read_annotation(raw: bytes | msgspec.Raw, canvas: Canvas) -> Annotation:
    """An annotation whose shape can be drawn on its image. Raises: BrokenRecordError."""
    try:
        annotation = _ANNOTATIONS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        annotation = _repair("annotation", raw, Annotation)
    if isinstance(annotation.segmentation, RunLengths):
        _check_run_lengths(annotation.segmentation, canvas)
    elif annotation.segmentation:
        _check_polygons(annotation.segmentation, canvas)
    if annotation.bbox is not None:
        _check_box(annotation.bbox, canvas)
    elif not annotation.segmentation:
        raise BrokenRecordError(Reason.NO_SHAPE, "neither segmentation nor bbox")
    if annotation.area is not None and annotation.area < 0:
        raise BrokenRecordError(Reason.AREA, f"an area of {annotation.area:g}")
    return annotation


def _check_polygons(polygons: list[list[float]], canvas: Canvas) -> None:
    limit = _limit(canvas)
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise BrokenRecordError(
                Reason.POLYGON,
                f"a polygon of {len(polygon)} numbers, where pairs of three points or more are due",
            )
        if min(polygon) < -limit or max(polygon) > limit:
            raise BrokenRecordError(
                Reason.OUTSIDE_IMAGE,
                f"a polygon that reaches from {min(polygon):g} to {max(polygon):g}, far outside of "
                f"an image of {canvas.width} × {canvas.height}",
            )


def check_within(annotation: Annotation, canvas: Canvas) -> None:
    """Check that a shape without a pixel is only too small. Raises: BrokenRecordError."""
    shape = annotation.segmentation
    if isinstance(shape, RunLengths):
        return
    x, y, width, height = annotation.bbox or (0.0, 0.0, 0.0, 0.0)
    points = [c for polygon in shape for c in polygon] if shape else [x, y, x + width, y + height]
    if (
        min(points[0::2]) >= canvas.width
        or min(points[1::2]) >= canvas.height
        or max(points[0::2]) < 0
        or max(points[1::2]) < 0
    ):
        raise BrokenRecordError(
            Reason.OUTSIDE_IMAGE, f"outside of an image of {canvas.width} × {canvas.height}"
        )


def _check_run_lengths(mask: RunLengths, canvas: Canvas) -> None:
    if len(mask.size) != 2 or not all(0 < side <= MAX_SIDE for side in mask.size):
        raise BrokenRecordError(Reason.RLE_SIZE, f"run lengths of size {mask.size}")
    if canvas.height and tuple(mask.size) != canvas:
        raise BrokenRecordError(
            Reason.RLE_SIZE,
            f"run lengths for an image of {mask.size[1]} × {mask.size[0]}, where it has "
            f"{canvas.width} × {canvas.height}",
        )
    counts = _unpacked(mask.counts) if isinstance(mask.counts, str) else mask.counts
    total, pixels = sum(counts), mask.size[0] * mask.size[1]
    if total != pixels or min(counts, default=0) < 0:
        raise BrokenRecordError(
            Reason.RLE_COUNTS, f"run lengths that sum to {total:,} of {pixels:,} pixels"
        )


def _unpacked(text: str) -> list[int]:
    """The run lengths in COCO's compressed text (rleFrString of cocoapi's maskApi.c).

    Each character holds five bits of a number, the lowest first, and whether more follow; from the
    fourth number on it is the difference to the last but one. Libraries take texts that end early.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def _check_box(box: list[float], canvas: Canvas) -> None:
    if len(box) != 4 or box[2] < 0 or box[3] < 0:
        raise BrokenRecordError(Reason.BOX, f"bbox {box[:6]}, where x, y, width and height are due")
    limit = _limit(canvas)
    if min(box) < -limit or max(box) > limit:
        raise BrokenRecordError(
            Reason.OUTSIDE_IMAGE,
            f"bbox {box}, far outside of an image of {canvas.width} × {canvas.height}",
        )


def _limit(canvas: Canvas) -> float:
    return (1 + _BEYOND) * max(canvas) if canvas.height else float(MAX_SIDE)


def _repair(kind: str, raw: bytes | msgspec.Raw, wanted: type[T]) -> T:
    """A record that is not as it should be, where it can be read all the same.

    Raises: BrokenRecordError that says what is wrong.
    """
    try:
        return msgspec.convert(_repaired(kind, raw), wanted)
    except msgspec.ValidationError as error:  # such as a number beyond 64 bits
        reason = Reason.NOT_FINITE if "out of range" in str(error) else Reason.WRONG_TYPE
        raise BrokenRecordError(reason, str(error)) from None


def _repaired(kind: str, raw: bytes | msgspec.Raw) -> dict[str, Any]:
    """The record after all, where only whole numbers were written as 3.0 or true.

    Raises: BrokenRecordError that says what is wrong.
    """
    try:
        record = json.loads(bytes(raw))
    except (ValueError, RecursionError) as error:  # no UTF-8, thousands of digits, deep nesting
        why = one_line(error, 100)
        if "integer string conversion" in why:  # Python goes on about its own settings
            why = "a number of thousands of digits"
        raise BrokenRecordError(Reason.WRONG_TYPE, why) from None
    if not isinstance(record, dict):
        raise BrokenRecordError(Reason.NOT_AN_OBJECT, f"{_short(record)}, where an object is due")
    for key in _NEEDED[kind]:
        if record.get(key) is None:
            raise BrokenRecordError(_missing(kind, key), f"no {key}")
    if kind == "annotation" and record.get("category_id") is None:
        raise BrokenRecordError(Reason.UNKNOWN_CATEGORY, "no category_id")
    checked: dict[str, Any] = {}
    for key, types in {**_NEEDED[kind], **_OPTIONAL[kind]}.items():
        value = record.get(key)
        if value is None:
            continue
        if int in types and isinstance(value, float) and value.is_integer() and float not in types:
            value = int(value)
        if key in ("bbox", "area", "width", "height"):
            _check_finite(key, value)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise BrokenRecordError(Reason.WRONG_TYPE, f"{key}: {_short(value)}")
        checked[key] = int(value) if isinstance(value, bool) else value
    _check_numbers(checked)
    return checked


def _missing(kind: str, key: str) -> Reason:
    return Reason.UNKNOWN_IMAGE if (kind, key) == ("annotation", "image_id") else Reason.MISSING_KEY


def _check_numbers(record: dict[str, Any]) -> None:
    """That bbox and segmentation hold numbers where they are due."""
    mask = record.get("segmentation")
    if isinstance(mask, dict):
        size, counts = mask.get("size"), mask.get("counts")
        if not _is_list_of(size, int):
            raise BrokenRecordError(Reason.RLE_SIZE, f"segmentation.size: {_short(size)}")
        if not isinstance(counts, str) and not _is_list_of(counts, int):
            raise BrokenRecordError(Reason.RLE_COUNTS, f"segmentation.counts: {_short(counts)}")
    elif mask is not None:
        for polygon in mask:
            _check_finite("segmentation", polygon)
            if not _is_list_of(polygon, int, float):
                raise BrokenRecordError(
                    Reason.POLYGON, f"segmentation: {_short(polygon)}, where a list of x, y is due"
                )
    if not _is_list_of(record.get("bbox", []), int, float):
        raise BrokenRecordError(Reason.BOX, f"bbox: {_short(record['bbox'])}")


def _check_finite(key: str, value: Any) -> None:
    for number in value if isinstance(value, list) else [value]:
        infinite = isinstance(number, float) and not isfinite(number)
        # `coco_files` puts words for the numbers that JSON does not have.
        if infinite or number in NOT_NUMBERS:
            raise BrokenRecordError(Reason.NOT_FINITE, f"{key}: {number}")


#: What Python's json writes for numbers that are none.
NOT_NUMBERS = ("NaN", "Infinity", "-Infinity")


def _is_list_of(value: Any, *types: type) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, types) and not isinstance(item, bool) for item in value
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"
