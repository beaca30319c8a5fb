"""Pictures of classes that a small network tells apart."""

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.tars import write_members


def tinted(kind: int, seed: int) -> bytes:
    """A picture of one of three classes: reddish, greenish or bluish noise."""
    pixels = np.random.default_rng(seed).integers(0, 90, (24, 24, 3), dtype=np.uint8)
    pixels[..., kind] += 150
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_tinted(path: Path, ids: Iterable[int]) -> None:
    """A tar of pictures whose class is their id modulo 3."""
    members = []
    for each in ids:
        members.append((f"{each:09d}.png", tinted(each % 3, each)))
        members.append((f"{each:09d}.json", json.dumps({"id": each}).encode()))
    write_members(path, members)
