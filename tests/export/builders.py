"""Labels and image tars small enough to be checked by eye, and a run of the stage."""

import io
import json
from pathlib import Path

import pyarrow as pa
from PIL import Image
from pyspark.sql import SparkSession

from coyo_labeler import storage
from coyo_labeler.config.export import ExportSettings
from coyo_labeler.formats import schemas
from coyo_labeler.manifest import Manifest
from coyo_labeler.stages import STAGES, run_stage
from tests.tars import write_members

PER_TAR, TARS = 4, 3
ENDINGS = ("jpg", "png", "webp")


def labels_of(image: int) -> tuple[list[int], list[float]]:
    """Image 3 has a weak label alone; all others two, by falling probability."""
    if image == 3:
        return [2], [0.125]
    return [image % 3, (image + 1) % 3], [0.75, 0.25 + (image % 12) / 64]


def write_labels(folder: Path, images: range) -> str:
    lists = [labels_of(image) for image in images]
    columns = {
        "id": [(1 << 33) + image for image in images],
        "url": [f"http://127.0.0.1/{image}" for image in images],
        "imagehash": ["daf5a50aae4aa54a"] * len(images),
        "labels": [labels for labels, _ in lists],
        "label_probs": [probs for _, probs in lists],
        "width": [240] * len(images),
        "height": [320] * len(images),
        "n_votes": [image % 2 for image in images],
        "risk": [0.25] * len(images),
        "entropy": [0.5] * len(images),
    }
    table = pa.table(columns, schema=schemas.POSTERIOR)
    half = len(images) // 2
    storage.write_parquet(str(folder / "a.parquet"), table[:half], {"teacher.model": "b0"})
    storage.write_parquet(str(folder / "b.parquet"), table[half:], {"teacher.model": "b0"})
    return str(folder)


def picture(image: int) -> bytes:
    buffer = io.BytesIO()
    kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[ENDINGS[image % 3]]
    Image.new("RGB", (8 + image, 6), (10 * image, 90, 30)).save(buffer, kind)
    return buffer.getvalue()


def write_images(folder: Path, tables: bool = True) -> str:
    """Three tars of four images; in each the first has no labels where `write_labels` skips it."""
    for shard in range(TARS):
        keys = [f"{shard:05d}{index:04d}" for index in range(PER_TAR)]
        members = []
        for index, key in enumerate(keys):
            image = shard * PER_TAR + index
            document = {"key": key, "id": (1 << 33) + image, "sha256": "x"}
            members.append((f"{key}.{ENDINGS[image % 3]}", picture(image)))
            members.append((f"{key}.json", json.dumps(document).encode()))
        write_members(folder / f"{shard:05d}.tar", members)
        if tables:
            first = shard * PER_TAR
            columns = {f.name: pa.nulls(PER_TAR + 1, f.type) for f in schemas.IMAGES}
            columns |= {
                "key": pa.array([*keys, f"{shard:05d}0009"]),
                "id": pa.array([(1 << 33) + first + i for i in range(PER_TAR)] + [7 + shard]),
                "status": pa.array(["success"] * PER_TAR + ["timeout"]),
            }
            table = pa.table(columns, schema=schemas.IMAGES)
            storage.write_parquet(str(folder / f"{shard:05d}.parquet"), table)
    return str(folder)


def run(spark: SparkSession, **settings: object) -> Manifest:
    return run_stage(STAGES["export"], ExportSettings.model_validate(settings), spark)[0]


def expected(images: range, threshold: float = 0.3) -> list[tuple[int, list[int]]]:
    rows = []
    for image in images:
        labels = [c for c, p in zip(*labels_of(image), strict=True) if p >= threshold]
        if labels:
            rows.append(((1 << 33) + image, labels))
    return rows


def snapshot(folder: str) -> dict[str, tuple[int, bytes]]:
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}
