"""Generated inputs for the calibration: rows of COYO-700M, beliefs, votes, a photograph."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from coyo_labeler.formats import schemas

_CLASSES, _LISTED = 21_841, 50
_ROWS_PER_FILE = 50_000
_WORDS = np.array(["photo", "of", "a", "red", "old", "house", "lamp", "boot", "river", "dogs"])


def write_source(folder: Path, rows: int) -> None:
    """Rows in the layout of COYO-700M; a fifth are twins of others."""
    folder.mkdir(parents=True)
    for start in range(0, rows, _ROWS_PER_FILE):
        n = min(_ROWS_PER_FILE, rows - start)
        random = np.random.default_rng(start)
        ids = np.arange(start, start + n)
        twins = np.where(random.random(n) < 0.2, random.integers(0, rows, n), ids)
        hashes = twins.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        table = {
            "id": ids,
            "url": np.char.mod("https://cdn%d.example.com/wp-content/uploads/", ids % 50_000)
            + np.char.mod("%016x.jpg", hashes[::-1]),
            "text": [" ".join(_WORDS[row]) for row in random.integers(0, 10, (n, 9))],
            "width": 400 + ids % 400,
            "height": 300 + ids % 500,
            "image_phash": np.char.mod("%016x", hashes),
            "watermark_score": random.random(n) / 2,
            "aesthetic_score_laion_v2": 4 + random.random(n),
        }
        pq.write_table(pa.table(table), folder / f"{start:09d}.parquet")


def write_beliefs(folder: Path, rows: int) -> None:
    """Beliefs of 50 classes each, as schemas.BELIEFS."""
    folder.mkdir(parents=True)
    for start in range(0, rows, _ROWS_PER_FILE):
        n = min(_ROWS_PER_FILE, rows - start)
        random = np.random.default_rng(start)
        ids = np.arange(start, start + n)
        first = random.integers(0, _CLASSES, (n, 1))
        steps = np.cumsum(random.integers(1, 400, (n, _LISTED)), axis=1)
        tail = np.exp(-np.cumsum(random.exponential(0.35, (n, _LISTED)), axis=1))
        probabilities = (0.9 * random.random((n, 1)) * tail / tail[:, :1]).astype(np.float16)
        offsets = np.arange(0, (n + 1) * _LISTED, _LISTED, dtype=np.int32)
        columns = [
            ids,
            np.char.mod("https://cdn.example.com/%d.jpg", ids),
            np.char.mod("%016x", ids),
            pa.ListArray.from_arrays(offsets, ((first + steps) % _CLASSES).ravel()),
            pa.ListArray.from_arrays(offsets, probabilities.astype(np.float32).ravel()),
            np.full(n, 640),
            np.full(n, 480),
        ]
        table = pa.table(columns, names=schemas.BELIEFS.names).cast(schemas.BELIEFS)
        pq.write_table(table, folder / f"{start:09d}.parquet", compression="zstd")


def write_votes(path: Path, images: int, votes: int) -> None:
    """Choices of a hundred workers on the images 0 to `images`, one a worker and image."""
    random = np.random.default_rng(0)
    image = random.integers(0, images, votes)
    worker = random.integers(0, 100, votes)
    _, first = np.unique(image * 100 + worker, return_index=True)
    table = {
        "image_id": image[first],
        "worker_id": np.char.mod("w%d", worker[first]),
        "label": random.integers(0, _CLASSES, len(first)).astype(np.int32),
    }
    pq.write_table(pa.table(table), path)


def photograph() -> bytes:
    """A JPEG of 640 × 480 pixels with the detail of a photograph, about 110 kB."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:480, 0:640]
    pixels = np.full((480, 640, 3), 128.0)
    for scale in (400, 150, 60, 25, 10):
        angle, phase = random.random(3) * 6.3, random.random(3) * 6.3
        for channel in range(3):
            along = rows * np.cos(angle[channel]) + columns * np.sin(angle[channel])
            pixels[..., channel] += scale**0.6 * np.sin(along / scale * 6.3 + phase[channel])
    pixels += random.normal(0, 9, pixels.shape)
    data = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(data, "JPEG", quality=85)
    return data.getvalue()
