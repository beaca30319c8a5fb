"""Merge of beliefs that nearly all have no vote, against a plain copy of their Parquet files.

    python -m benchmarks.passing                        # 3 million rows of 50 entries, in 8 files
    python -m benchmarks.passing rows=300000 rounds=3

The copy reads each file row group by row group by PyArrow and writes it with the same codec and
checksums, on as many threads as merge has. Both run in this process, in turn; the ratio of the
rates is what counts. CPU seconds are those of all threads.
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.formats import schemas
from coyo_labeler.machine import cores_of_machine
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage

FOLDER = Path(__file__).parents[1] / "out" / "bench" / "passing"
CLASSES, ENTRIES, VOTES, GROUP = 21_841, 50, 1000, 100_000


def write_beliefs(rows: int, files: int) -> None:
    """Beliefs as a teacher writes them: by falling probability (float16), equal ones by class."""
    folder, each = FOLDER / "beliefs", rows // files
    folder.mkdir(parents=True)

    def write(number: int) -> None:
        random = np.random.default_rng(number)
        with pq.ParquetWriter(
            folder / f"{number:05d}.parquet", schemas.BELIEFS, **storage.PARQUET
        ) as writer:
            for start in range(0, each, GROUP):
                count = min(GROUP, each - start)
                steps = random.integers(1, CLASSES // ENTRIES, (count, ENTRIES)).cumsum(axis=1)
                labels = random.permuted(steps, axis=1).astype(np.int32)
                sizes = random.random((count, ENTRIES)) ** 4 * 0.98 + 1e-4
                probs = sizes.astype(np.float16).astype(np.float32)
                order = np.lexsort((labels, -probs), axis=1)
                labels = np.take_along_axis(labels, order, axis=1)
                probs = np.take_along_axis(probs, order, axis=1)
                offsets = pa.array(np.arange(0, (count + 1) * ENTRIES, ENTRIES, dtype=np.int32))
                ids = np.arange(count) + number * each + start
                columns = [
                    pa.array(ids),
                    pa.array([f"https://example.org/{n}.jpg" for n in ids]),
                    pa.array([f"{n:016x}" for n in random.integers(0, 2**62, count)]),
                    pa.ListArray.from_arrays(offsets, pa.array(labels.ravel())),
                    pa.ListArray.from_arrays(offsets, pa.array(probs.ravel())),
                    pa.array(np.full(count, 640, np.int32)),
                    pa.array(np.full(count, 480, np.int32)),
                ]
                writer.write_table(pa.table(columns, schema=schemas.BELIEFS))

    with ThreadPoolExecutor(cores_of_machine()) as pool:
        list(pool.map(write, range(files)))


def copy() -> None:
    """Read and write every file."""
    target = FOLDER / "copy"
    target.mkdir()

    def work(file: Path) -> None:
        source = pq.ParquetFile(file, page_checksum_verification=True)
        with pq.ParquetWriter(target / file.name, source.schema_arrow, **storage.PARQUET) as writer:
            for group in range(source.num_row_groups):
                writer.write_table(source.read_row_group(group, use_threads=False))

    with ThreadPoolExecutor(cores_of_machine()) as pool:
        list(pool.map(work, sorted((FOLDER / "beliefs").iterdir())))


def merge() -> None:
    """Merge with a thousand votes."""
    words = [
        f"beliefs={FOLDER / 'beliefs'}", f"votes={FOLDER / 'votes.parquet'}",
        f"output={FOLDER / 'merged'}", "engine=local", "worker_model=one_coin",
        "label_space=imagenet21k",
    ]  # fmt: skip
    run_stage(STAGES["merge"], read_stage_settings(STAGES["merge"], words))


def timed(work: Callable[[], None], output: str) -> tuple[float, float]:
    """Wall and CPU seconds; the output is removed."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    used = time.monotonic() - wall, time.process_time() - cpu
    shutil.rmtree(FOLDER / output)
    return used


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    rows, rounds = int(given.get("rows", 3_000_000)), int(given.get("rounds", 3))
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_beliefs(rows, int(given.get("files", 8)))
    random = np.random.default_rng(0)
    votes = {
        "image_id": random.integers(0, rows, VOTES),
        "worker_id": [f"w{n % 20}" for n in range(VOTES)],
        "label": random.integers(0, CLASSES, VOTES).astype(np.int32),
    }
    pq.write_table(pa.table(votes), FOLDER / "votes.parquet")
    print(f"{rows:,} rows of {ENTRIES}, {cores_of_machine()} cores, load {os.getloadavg()[0]:.1f}")
    ratios: dict[str, list[float]] = {"wall": [], "CPU": []}
    for _ in range(rounds):
        copied, merged = timed(copy, "copy"), timed(merge, "merged")
        for kind, one, other in zip(ratios, copied, merged, strict=True):
            ratios[kind].append(one / other)
        print(
            f"copy {copied[0]:6.1f} s, {copied[1]:6.1f} s of CPU; "
            f"merge {merged[0]:6.1f} s, {merged[1]:6.1f} s of CPU",
            flush=True,
        )
    print(*(f"rate by {kind}: {statistics.median(each):.2f}" for kind, each in ratios.items()))
    shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
