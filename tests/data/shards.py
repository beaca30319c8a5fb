"""Tars and labels of a few tiny pictures, written as fetch, label and merge write them."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from coyo_labeler.data import LabelledImages
from coyo_labeler.formats import schemas
from tests.tars import write_members

#: ids beyond 32 bits, as COYO's are.
FIRST_ID = 1 << 33

Row = tuple[list[int], list[float]]

#: The fixture `folders`.
Folders = Callable[..., tuple[str, str]]


def picture(seed: int, size: int = 8, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form)
    return content.getvalue()


def write_tar(path: Path, ids: Sequence[int], table: bool = False) -> None:
    """table: with the images table beside it, which also tells of one image that failed."""
    shard = path.stem
    members = []
    for index, image_id in enumerate(ids):
        key = f"{shard}{index:04d}"
        members.append((f"{key}.json", json.dumps({"id": image_id, "key": key}).encode()))
        members.append((f"{key}.png", picture(image_id)))
        members.append((f"{key}.txt", b"a caption"))
    write_members(path, members)
    if table:
        rows = {
            "key": [f"{shard}{index:04d}" for index in range(len(ids) + 1)],
            "id": [*ids, 7],
            "status": ["success"] * len(ids) + ["failed"],
        }
        pq.write_table(pa.table(rows), path.with_suffix(".parquet"))


def write_labels(path: Path, rows: Mapping[int, Row | None], **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "id": list(rows),
            "url": ["http://127.0.0.1/"] * len(rows),
            "imagehash": ["8000000000000000"] * len(rows),
            "labels": [row and row[0] for row in rows.values()],
            "label_probs": [row and row[1] for row in rows.values()],
            "width": [8] * len(rows),
            "height": [8] * len(rows),
        },
        schema=schemas.BELIEFS,
    )
    pq.write_table(table, path, **options)


def row_of(image_id: int) -> Row:
    """A row that tells whose it is: its top label is the id modulo 100."""
    return [image_id % 100, 200, 300], [0.75, 0.25, 0.0625]


def to_tensor(image: Any) -> torch.Tensor:
    """The picture with noise, so that randomness would show."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float()
    return pixels + torch.rand(())


def ids_of(dataset: LabelledImages) -> list[int]:
    return [sample.id for sample in dataset]
