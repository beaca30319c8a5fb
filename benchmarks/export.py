"""Every format of export: `python -m benchmarks.export --rows 1000000 --images 20000`.

Parquet and Hugging Face copies are of generated rows with 50 labels each; webdataset and TFRecord
of generated tars whose pictures are random bytes, 110 kB each as web images are. Each export runs
in a process of its own, as a user would start it, so its time includes the start of Spark.
"""

import argparse
import json
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.report import CLASSES, LISTED, generate, measure
from coyo_labeler import storage
from coyo_labeler.formats import schemas, tars

PER_TAR, IMAGE_BYTES = 2_500, 110_000


def generate_images(folder: Path, images: int) -> None:
    """Tars with their tables, and beliefs for every image."""
    (folder / "images").mkdir(parents=True)
    for shard in range(-(-images // PER_TAR)):
        random = np.random.default_rng(shard)
        n = min(PER_TAR, images - shard * PER_TAR)
        ids = [shard * PER_TAR + index for index in range(n)]
        keys = [f"{shard:05d}{index:04d}" for index in range(n)]
        samples = (
            (
                key,
                {
                    "jpg": b"\xff\xd8\xff" + random.bytes(IMAGE_BYTES),
                    "json": json.dumps({"key": key, "id": image_id}).encode(),
                },
            )
            for key, image_id in zip(keys, ids, strict=True)
        )
        with (folder / "images" / f"{shard:05d}.tar").open("wb") as file:
            tars.write(file, samples)
        columns = {field.name: pa.nulls(n, field.type) for field in schemas.IMAGES}
        columns |= {"key": pa.array(keys), "id": pa.array(ids), "status": pa.array(["success"] * n)}
        table = pa.table(columns, schema=schemas.IMAGES)
        storage.write_parquet(str(folder / "images" / f"{shard:05d}.parquet"), table)
        labels = random.integers(0, CLASSES, n * LISTED).astype(np.int32)
        probs = -np.sort(-(random.random((n, LISTED)) ** 8).astype(np.float32), axis=1)
        offsets = np.arange(0, (n + 1) * LISTED, LISTED, dtype=np.int32)
        columns = {field.name: pa.nulls(n, field.type) for field in schemas.BELIEFS}
        columns["id"] = pa.array(ids)
        columns["labels"] = pa.ListArray.from_arrays(offsets, labels)
        columns["label_probs"] = pa.ListArray.from_arrays(offsets, probs.ravel())
        table = pa.table(columns).cast(schemas.BELIEFS)
        storage.write_parquet(str(folder / "image_beliefs" / f"{shard:05d}.parquet"), table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=20_000)
    arguments = parser.parse_args()
    scratch = Path("out/bench/export")
    shutil.rmtree(scratch, ignore_errors=True)
    print(f"generating {arguments.rows:,} rows and {arguments.images:,} images", file=sys.stderr)
    generate(scratch, arguments.rows)
    generate_images(scratch, arguments.images)
    rows = [f"labels={scratch}/merged/posterior", f"rows_per_shard={-(-arguments.rows // 8)}"]
    tars = [f"labels={scratch}/image_beliefs", f"images={scratch}/images"]
    cases = {
        "parquet": (rows, arguments.rows),
        "huggingface": (rows, arguments.rows),
        "webdataset": (tars, arguments.images),
        "tfrecord": (tars, arguments.images),
    }
    job = [sys.executable, str(Path(__file__).parents[1] / "jobs" / "export.py")]
    print(
        f"{os.cpu_count()} cores; PySpark {version('pyspark')}; including Spark's start\n"
        f"{'format':<14} {'rows':>10} {'seconds':>9} {'rows/s':>9} {'driver Python':>14}"
    )
    for kind, (words, count) in cases.items():
        output = scratch / kind
        cost = measure(*job, *words, f"format={kind}", "threshold=0.1", f"output={output}")
        rate = count / cost.seconds
        print(f"{kind:<14} {count:>10,} {cost.seconds:>9.1f} {rate:>9,.0f} {cost.python:>11.0f} MB",
              flush=True)  # fmt: skip
        shutil.rmtree(output)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
