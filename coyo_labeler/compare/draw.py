"""The images that differ most, drawn twice: with the objects of a, and with those of b."""

import base64
import io
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from hotcoco import mask as rle
from PIL import Image, ImageDraw, ImageFont

from coyo_labeler import storage
from coyo_labeler.compare.batch import Job, Task
from coyo_labeler.compare.image_pair import Columns, Objects, compare_image, read_objects
from coyo_labeler.compare.masks import canvas_of, rectangle
from coyo_labeler.compare.records import Annotation, Canvas, RunLengths
from coyo_labeler.formats.faults import ImageError
from coyo_labeler.formats.pictures import open_picture, to_rgb

#: Longest side of a picture, in pixels: about twice its size on the page.
SIDE = 720
_GRAY = (112, 116, 122)
#: Matched in the same class; matched in another class; in this set only.
COLOURS = {"same": (72, 149, 239), "changed": (246, 189, 22), "only": (239, 71, 58)}
_FILL = 70  # of 255

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Example:
    """An image twice, as `data:` URIs, and what differs. has_picture: on the image itself."""

    name: str
    a: str
    b: str
    has_picture: bool
    objects_a: int
    objects_b: int
    only_a: int
    only_b: int
    changed: int


def draw_examples(
    job: Job, tasks: Sequence[Task], images: str | None, classes: Sequence[str]
) -> Iterator[Example]:
    """Each image with the objects of both sets. images: the folder of the pictures."""
    for task in tasks:
        a = read_objects(task.a, job.a, task.canvas_a)
        b = read_objects(task.b, job.b, task.canvas_b)
        found = compare_image(a, b, task.compared, job.min_iou)
        canvas = task.canvas_a
        if not canvas.height:
            canvas = canvas_of([*a.annotations, *b.annotations])
        picture = None if images is None else _read_picture(images, task.name)
        background = picture or Image.new("RGB", (canvas.width, canvas.height), _GRAY)
        yield Example(
            task.name,
            _draw(background, canvas, a, found.a, classes),
            _draw(background, canvas, b, found.b, classes),
            picture is not None,
            len(a.annotations),
            len(b.annotations),
            int((~found.a["matched"]).sum()),
            int((~found.b["matched"]).sum()),
            int(found.a["changed"].sum()),
        )


def _read_picture(folder: str, name: str) -> Image.Image | None:
    """The picture of a file name, with or without its folders; None where there is none.

    A file name may be a stranger's: it never leads out of the folder.
    """
    for path in dict.fromkeys([posixpath.normpath(name), posixpath.basename(name)]):
        if path.startswith(("/", "..")) or path in ("", "."):
            continue
        fs, location = storage.resolve(storage.join(folder, path))
        try:
            with open_picture(fs.cat_file(location)) as image:
                return to_rgb(image)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ImageError):
            continue
    return None


def _draw(
    picture: Image.Image, canvas: Canvas, objects: Objects, columns: Columns, classes: Sequence[str]
) -> str:
    scale = min(1.0, SIDE / max(canvas))
    size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
    drawn = picture.resize(size, Image.Resampling.LANCZOS)
    overlay = ImageDraw.Draw(drawn, "RGBA")
    font = ImageFont.load_default(max(12, round(max(size) / 42)))
    # Large objects first, so that small ones are seen on them.
    order = np.argsort(-objects.masks.areas, kind="stable").tolist()
    for index in order:
        status = "only"
        if columns["matched"][index]:
            status = "changed" if columns["changed"][index] else "same"
        colour = COLOURS[status]
        annotation = objects.annotations[index]
        if isinstance(annotation.segmentation, RunLengths):
            _paint(drawn, objects.masks.runs[index], colour)
            overlay = ImageDraw.Draw(drawn, "RGBA")
        else:
            _outline(overlay, annotation, scale, colour)
    for index in order:
        if not columns["matched"][index] or columns["changed"][index]:
            x, y = (objects.masks.boxes[index, :2] * scale).tolist()
            name = classes[objects.classes[index]]
            at = (min(max(x, 0.0), size[0] - 20.0), min(max(y, 0.0), size[1] - 16.0))
            overlay.text(at, name, (255, 255, 255), font, stroke_width=2, stroke_fill=(0, 0, 0))
    return _as_uri(drawn)


def _outline(
    draw: ImageDraw.ImageDraw, annotation: Annotation, scale: float, colour: Colour
) -> None:
    shape = annotation.segmentation
    assert not isinstance(shape, RunLengths)
    for polygon in shape or [rectangle(annotation.bbox or [0.0, 0.0, 0.0, 0.0])]:
        points = [(x * scale, y * scale) for x, y in zip(polygon[0::2], polygon[1::2], strict=True)]
        draw.polygon(points, fill=(*colour, _FILL))
        draw.line([*points, points[0]], fill=colour, width=2)


def _paint(picture: Image.Image, runs: dict[str, object], colour: Colour) -> None:
    """Lay a mask of run lengths over a picture."""
    pixels = np.asarray(rle.decode(runs), dtype=np.uint8) * _FILL
    cover = Image.fromarray(pixels).resize(picture.size, Image.Resampling.BILINEAR)
    picture.paste(Image.new("RGB", picture.size, colour), mask=cover)


def _as_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
