"""Tars and pictures of the tests."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from tests.tars import write_members


def jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    return encode(pixels, "JPEG", quality=90, **options)


def encode(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def crops(count: int, seed: int = 0, small: int = 120, large: int = 400) -> list[np.ndarray]:
    """Crops of two photographs, of many sizes and shapes, half of them mirrored."""
    random = np.random.default_rng(seed)
    photos = load_sample_images().images
    cut_out = []
    while len(cut_out) < count:
        photo = photos[len(cut_out) % 2]
        height, width = random.integers(small, large, 2)
        top = random.integers(0, photo.shape[0] - height + 1)
        left = random.integers(0, photo.shape[1] - width + 1)
        crop = photo[top : top + height, left : left + width]
        if crop.std() < 45:  # a patch of sky
            continue
        cut_out.append(np.ascontiguousarray(crop[:, ::-1] if random.random() < 0.5 else crop))
    return cut_out


def write_tar(
    folder: Path, shard: int, images: Iterable[bytes | None], ending: str = "jpg", **facts: Any
) -> Path:
    """`{shard}.tar` as fetch writes it, ids from shard × 100; None: a sample without image."""
    members = []
    for index, image in enumerate(images):
        key = f"{shard:05d}{index:04d}"
        document = {
            "key": key,
            "id": shard * 100 + index,
            "url": f"http://example.org/{key}",
            "imagehash": f"{index:016x}",
            **facts,
        }
        if image is not None:
            members.append((f"{key}.{ending}", image))
        members.append((f"{key}.json", json.dumps(document).encode()))
    return write_members(folder / f"{shard:05d}.tar", members)
