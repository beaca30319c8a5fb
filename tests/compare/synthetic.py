"""A small set of instances that a reader can check by eye, and ways to alter it."""

import copy
import json
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 200, 160
CLASSES = ("person", "dog", "kite", "bench")


def ring(x: float, y: float, width: float, height: float) -> list[float]:
    """A hexagon in a box, so that it is no rectangle."""
    dx = width / 4
    return [
        *(x + dx, y), *(x + width - dx, y), *(x + width, y + height / 2),
        *(x + width - dx, y + height), *(x + dx, y + height), *(x, y + height / 2),
    ]  # fmt: skip


def thing(
    number: int, image: int, category: int, box: tuple[float, float, float, float], **more: Any
) -> dict[str, Any]:
    x, y, width, height = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x, y, width, height],
        "area": width * height * 0.75,
        "segmentation": [ring(x, y, width, height)],
        "iscrowd": 0,
        **more,
    }


def crowd(number: int, image: int, category: int, columns: tuple[int, int]) -> dict[str, Any]:
    """All pixels of some columns, as run lengths."""
    first, last = columns
    runs = [first * HEIGHT, (last - first) * HEIGHT, (WIDTH - last) * HEIGHT]
    return thing(
        number,
        image,
        category,
        (first, 0, last - first, HEIGHT),
        segmentation={"counts": runs, "size": [HEIGHT, WIDTH]},
        area=(last - first) * HEIGHT,
        iscrowd=1,
    )


def base() -> dict[str, Any]:
    """Five images, the last without objects; 13 objects, one of them a crowd of persons."""
    objects = [
        thing(1, 1, 1, (10, 10, 40, 60)),
        thing(2, 1, 1, (60, 10, 40, 60)),
        thing(3, 1, 2, (120, 80, 60, 60)),
        thing(4, 2, 3, (10, 10, 100, 120)),  # large
        thing(5, 2, 4, (150, 10, 12, 8)),  # 72 px: very small
        thing(6, 2, 4, (150, 60, 16, 10)),  # 120 px: small
        thing(7, 3, 2, (20, 20, 80, 60)),
        crowd(8, 3, 1, (110, 190)),
        thing(
            9, 3, 3, (5, 100, 90, 40), segmentation=[ring(5, 100, 40, 40), ring(55, 100, 40, 40)]
        ),
        thing(10, 4, 1, (10, 10, 60, 60)),
        thing(11, 4, 2, (100, 10, 60, 60)),
        thing(12, 4, 3, (10, 90, 60, 60)),
        thing(13, 4, 4, (100, 90, 60, 60)),
    ]
    images = [
        {"id": n, "file_name": f"{n:04d}.jpg", "width": WIDTH, "height": HEIGHT}
        for n in range(1, 6)
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": objects, "categories": categories}


def of(document: dict[str, Any], number: int) -> dict[str, Any]:
    """The annotation of an id."""
    return next(a for a in document["annotations"] if a["id"] == number)


def renumbered(document: dict[str, Any]) -> dict[str, Any]:
    """The same annotations with other ids, and every list the other way round."""
    other = copy.deepcopy(document)
    for image in other["images"]:
        image["id"] = f"image-{image['id']}"
    for category in other["categories"]:
        category["id"] += 70
    for annotation in other["annotations"]:
        annotation["id"] += 5_000
        annotation["image_id"] = f"image-{annotation['image_id']}"
        annotation["category_id"] += 70
    for table in other.values():
        table.reverse()
    return other


def write(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)
