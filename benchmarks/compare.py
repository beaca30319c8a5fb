"""Two annotations of Sama-COCO's size: `python -m benchmarks.compare`, and its masks alone.

120,000 generated images with about 8 objects each, polygons of COCO's number of vertices, in a and,
altered, in b. The stage runs in its own process, as a user would start it. `--masks` instead times
the libraries that draw and overlap masks, as far as they are installed.
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT, CLASSES = 640, 480, 80
LIBRARIES = ("pycocotools.mask", "faster_coco_eval.core.mask", "hotcoco.mask")


def objects(images: int, seed: int) -> Iterator[dict[str, Any]]:
    """Objects of a, image by image: 1 to 15 of them, log-normal sizes, about 27 vertices."""
    random = np.random.default_rng(seed)
    number = 0
    for image in range(images):
        for _ in range(int(random.integers(1, 16))):
            number += 1
            radius = float(np.clip(np.exp(random.normal(3.4, 0.9)), 3, 200))
            points = int(np.clip(random.poisson(27), 4, 90))
            angle = np.sort(random.random(points)) * 2 * np.pi
            reach = radius * random.uniform(0.7, 1.0, points)
            x = np.clip(random.uniform(0, WIDTH) + reach * np.cos(angle), 0, WIDTH)
            y = np.clip(random.uniform(0, HEIGHT) + reach * np.sin(angle), 0, HEIGHT)
            yield annotation(number, image, int(random.integers(CLASSES)), x, y)


def annotation(number: int, image: int, category: int, x: Any, y: Any) -> dict[str, Any]:
    """An object with one polygon; its area by the shoelace formula."""
    area = abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
    low_x, low_y = float(x.min()), float(y.min())
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": 0,
        "area": round(area, 2),
        "bbox": [round(v, 2) for v in (low_x, low_y, float(np.ptp(x)), float(np.ptp(y)))],
        "segmentation": [np.round(np.stack([x, y], axis=1), 2).ravel().tolist()],
    }


def altered(objects_of_a: Iterator[dict[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    """Objects of b: 3 % are missing, 2 % have another class, all are drawn anew."""
    random = np.random.default_rng(seed)
    for one in objects_of_a:
        if random.random() < 0.03:
            continue
        ring = np.array(one["segmentation"][0]).reshape(-1, 2)
        ring = np.clip(ring + random.normal(0, 1.5, ring.shape), 0, (WIDTH, HEIGHT))
        category = one["category_id"]
        if random.random() < 0.02:
            category = int(random.integers(CLASSES))
        yield annotation(one["id"], one["image_id"], category, ring[:, 0], ring[:, 1])


def write(path: Path, images: int, annotations: Iterator[dict[str, Any]]) -> int:
    """Write a COCO file as a stream; returns its objects."""
    listed = [
        {"id": n, "file_name": f"{n:012d}.jpg", "width": WIDTH, "height": HEIGHT}
        for n in range(images)
    ]
    categories = [{"id": n, "name": f"class {n}"} for n in range(CLASSES)]
    count = 0
    with path.open("w") as file:
        file.write(f'{{"images": {json.dumps(listed)}, "categories": {json.dumps(categories)}, ')
        file.write('"annotations": [')
        for count, one in enumerate(annotations, 1):
            file.write((", " if count > 1 else "") + json.dumps(one))
        file.write("]}")
    return count


def time_masks(images: int) -> None:
    """Microseconds per object to draw all masks and overlap those of a with those of b."""
    by_image: dict[int, list[list[list[float]]]] = {}
    for one in objects(images, 0):
        by_image.setdefault(one["image_id"], []).append(one["segmentation"])
    count = sum(map(len, by_image.values()))
    for name in LIBRARIES:
        try:
            library = importlib.import_module(name)
        except ImportError:
            print(f"{name}: not installed")
            continue
        start = time.process_time()
        for rings in by_image.values():
            runs = [library.frPyObjects(ring, HEIGHT, WIDTH)[0] for ring in rings]
            library.iou(runs, runs, [0] * len(runs))
        print(f"{name}: {(time.process_time() - start) / count * 1e6:.1f} µs of CPU per object")


def main() -> None:
    """Generate, compare, and print seconds and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=120_000)
    parser.add_argument("--folder", type=Path, default=Path("out/bench/compare"))
    parser.add_argument("--masks", action="store_true")
    arguments = parser.parse_args()
    if arguments.masks:
        time_masks(2_000)
        return
    folder, images = arguments.folder, arguments.images
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "a.json", folder / "b.json"]
    counts = [
        write(paths[0], images, objects(images, 0)),
        write(paths[1], images, altered(objects(images, 0), 1)),
    ]
    size = sum(path.stat().st_size for path in paths) / 1e9
    print(f"{images:,} images, {counts[0]:,} and {counts[1]:,} objects, {size:.2f} GB of JSON")
    command = [sys.executable, "-m", "coyo_labeler", "compare", f"a={paths[0]}", f"b={paths[1]}"]
    start = time.monotonic()
    subprocess.run([*command, f"output={folder / 'out'}", "overwrite=true"], check=True)
    seconds = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of CPU on {os.cpu_count()} cores, "
        f"{used.ru_maxrss / 1e6:.2f} GB in the largest process"
    )


if __name__ == "__main__":
    main()
