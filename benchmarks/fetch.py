"""Fetch against img2dataset on the same URLs, cores and server.

    python -m benchmarks.fetch                    # generated photographs
    python -m benchmarks.fetch --photos FOLDER    # JPEG files of your own

Photographs (`--photos FOLDER`, or generated ones) stand behind an HTTP server on 127.0.0.1 that has
a core of its own and answers after a small random time. Both tools get the other cores and 64
connections per core, keep the original bytes, and record a SHA-256. Rates are images over the time
from the start of the first shard to the end of the last, by each tool's own per-shard records.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from coyo_labeler import storage
from coyo_labeler.config.fetch import FetchSettings
from coyo_labeler.fetch.generation import RECEIPT_NAME
from coyo_labeler.fetch.shard import CatalogRow
from coyo_labeler.fetch.stage import fetch_partition
from coyo_labeler.fetch.verify import verify
from coyo_labeler.formats import schemas
from coyo_labeler.receipts import Receipts

LATENCY_SECONDS = (0.005, 0.03)
CONNECTIONS = 64
MAX_PIXELS = 64_000_000
RIVAL = "img2dataset==1.47.0"
RIVAL_NAME = "img2dataset, decoding"
#: Whether a run of ours hashes, by its name.
LIMITS = {"ours, decoding": False, "ours, decoding and pHash": True}

RIVAL_SCRIPT = """
import json, sys
from img2dataset import download
if __name__ == "__main__":
    download(**json.loads(sys.argv[1]))
"""


def photographs(folder: Path | None, made: Path) -> list[Path]:
    """The photographs of a folder, or 200 generated ones of COYO's mean size, 622 × 541."""
    if folder is not None:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    made.mkdir(parents=True, exist_ok=True)
    for number in range(200):
        path = made / f"{number:03d}.jpg"
        if not path.exists():
            random_ = np.random.default_rng(number)
            coarse = Image.fromarray(random_.integers(0, 256, (20, 23, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((622, 541), Image.Resampling.BICUBIC), np.int16)
            grain = random_.normal(0, 12, smooth.shape).astype(np.int16)
            pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path, quality=85)
    return sorted(made.glob("*.jpg"))


def serve(photos: list[Path], core: int, ready: Connection) -> None:
    """Answer `/{n}/…` with photograph n; runs in a process of its own, on one core."""
    os.sched_setaffinity(0, {core})
    kind = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: "
    answers = [
        kind + str(len(data)).encode() + b"\r\n\r\n" + data
        for data in (path.read_bytes() for path in photos)
    ]
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                name = head.split(b" ", 2)[1].split(b"/")[1]
                await asyncio.sleep(random.uniform(*LATENCY_SECONDS))
                writer.write(answers[int(name)] if name.isdigit() else missing)
                await writer.drain()
                if b"connection: close" in head.lower():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def work() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(work())


@contextmanager
def server_of(photos: list[Path], core: int) -> Iterator[int]:
    """The port of a running server."""
    context = get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=serve, args=(photos, core, its), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def write_catalog(folder: Path, photos: list[Path], port: int, images: int, per_shard: int) -> None:
    """The catalog and, beside it, the list of URLs for img2dataset."""
    hashes = [verify(path.read_bytes(), MAX_PIXELS).imagehash for path in photos]
    ids = list(range(images))
    urls = [f"http://127.0.0.1:{port}/{n % len(photos)}/{n:08d}.jpg" for n in ids]
    columns = {
        "id": ids,
        "url": urls,
        "imagehash": [hashes[n % len(photos)] for n in ids],
        "width": [0] * images,
        "height": [0] * images,
        "shard": [n // per_shard for n in ids],
    }
    table = pa.table(columns, schema=schemas.CATALOG)
    storage.write_parquet(str(folder / "catalog" / "part-0.parquet"), table)
    storage.write_parquet(str(folder / "urls.parquet"), table.select(["url"]))


@dataclass
class Record:
    """CPU seconds of a command and all that it started, by wall-clock time."""

    times: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def of(self, images: int, begin: float, end: float) -> dict[str, float]:
        """The figures of a run that fetched from `begin` to `end`."""
        begun, ended = np.interp([begin, end], self.times, self.cpu_seconds)
        return {
            "images": images,
            "images_per_second": images / (end - begin),
            "cpu_ms_per_image": 1000 * (ended - begun) / images,
            "start_and_end_cpu_seconds": self.cpu_seconds[-1] - (ended - begun),
        }


def run_on(cores: list[int], command: list[str], **environment: str) -> Record:
    """Run a command on these cores, and record the CPU seconds of all its processes."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cores)), *command],
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        record, spent = Record(), dict[int, float]()
        while process.poll() is None:
            spent |= cpu_seconds(process.pid)
            record.times.append(time.time())
            record.cpu_seconds.append(sum(spent.values()))
            time.sleep(0.1)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{command[:4]} failed:\n{output.read()[-4000:]}")
    return record


def cpu_seconds(session: int) -> dict[int, float]:
    """CPU seconds so far of every running process of a session, by process id.

    Spark's Python workers begin sessions of their own; their parents show where they belong.
    """
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        stats[int(path.parent.name)] = fields
    mine = {pid for pid, fields in stats.items() if int(fields[3]) == session}
    while more := {pid for pid, fields in stats.items() if int(fields[1]) in mine} - mine:
        mine |= more
    tick = os.sysconf("SC_CLK_TCK")
    return {pid: (int(stats[pid][11]) + int(stats[pid][12])) / tick for pid in mine}


def ours(folder: Path, cores: list[int], check_phash: bool) -> dict[str, float]:
    """Images per second of `coyo-labeler fetch`."""
    output = folder / "ours"
    shutil.rmtree(output, ignore_errors=True)
    words = [
        f"catalog={folder / 'catalog'}",
        f"output={output}",
        "allow_private=true",
        f"host_connections={CONNECTIONS}",
        f"connections={CONNECTIONS}",
        f"check_phash={str(check_phash).lower()}",
    ]
    command = [sys.executable, "-m", "coyo_labeler.cli", "fetch", *words]
    record = run_on(cores, command, MASTER=f"local[{len(cores)}]")
    receipts = [json.loads(path.read_text()) for path in output.glob("*_stats.json")]
    begin = min(receipt["finished"] - receipt["seconds"] for receipt in receipts)
    end = max(receipt["finished"] for receipt in receipts)
    return record.of(sum(receipt["rows"]["out"] for receipt in receipts), begin, end)


def theirs(
    folder: Path, python: Path, cores: list[int], per_shard: int, decode: bool
) -> dict[str, float]:
    """Images per second of img2dataset, which decodes its images or keeps their bytes unread."""
    output = folder / "theirs"
    shutil.rmtree(output, ignore_errors=True)
    arguments = {
        "url_list": str(folder / "urls.parquet"),
        "input_format": "parquet",
        "url_col": "url",
        "output_folder": str(output),
        "output_format": "webdataset",
        "resize_mode": "no",
        "skip_reencode": True,
        "disable_all_reencoding": not decode,
        "extract_exif": False,
        "processes_count": len(cores),
        "thread_count": CONNECTIONS,
        "number_sample_per_shard": per_shard,
        "timeout": 30,
        "retries": 2,
    }
    command = [str(python), str(folder / "rival.py"), json.dumps(arguments)]
    record = run_on(cores, command, NO_ALBUMENTATIONS_UPDATE="1")
    shards = [json.loads(path.read_text()) for path in output.glob("*_stats.json")]
    begin = min(shard["start_time"] for shard in shards)
    end = max(shard["end_time"] for shard in shards)
    return record.of(sum(shard["successes"] for shard in shards), begin, end)


def rival_python(bench: Path, folder: Path) -> Path:
    """The Python of an environment of its own for img2dataset."""
    python = bench / "img2dataset" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(bench / "img2dataset")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", RIVAL], check=True)
    (folder / "rival.py").write_text(RIVAL_SCRIPT)
    return python


def limit(photos: list[Path], core: int, with_phash: bool) -> float:
    """Images per second of decoding and hashing alone, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    bodies = [path.read_bytes() for path in photos]
    verify(bodies[0], MAX_PIXELS, with_phash)
    rounds, start = 0, time.perf_counter()
    while time.perf_counter() - start < 3:
        for body in bodies:
            verify(body, MAX_PIXELS, with_phash)
        rounds += 1
    rate = rounds * len(bodies) / (time.perf_counter() - start)
    os.sched_setaffinity(0, before)
    return rate


def profile(
    folder: Path, photos: list[Path], port: int, core: int, images: int
) -> dict[str, float]:
    """CPU milliseconds per image of one task on one core, by purpose."""
    output = folder / "profile"
    shutil.rmtree(output, ignore_errors=True)
    spent = {"verify": 0.0}

    def timed_verify(*arguments: object) -> object:
        start = time.thread_time()
        result = verify(*arguments)  # type: ignore[arg-type]
        spent["verify"] += time.thread_time() - start
        return result

    from coyo_labeler.fetch import shard  # noqa: PLC0415 - to put the clock in

    hashes = [verify(path.read_bytes(), MAX_PIXELS).imagehash for path in photos]
    rows = [
        CatalogRow(n, f"http://127.0.0.1:{port}/{n % len(photos)}/{n}", hashes[n % len(photos)])
        for n in range(images)
    ]
    settings = FetchSettings(
        catalog="-",
        output=str(output),
        allow_private=True,
        connections=CONNECTIONS,
        host_connections=CONNECTIONS,
    )
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    shard.verify = timed_verify  # type: ignore[assignment]
    start, cpu, loop_cpu = time.perf_counter(), time.process_time(), time.thread_time()
    receipts = Receipts(str(output), "bench", RECEIPT_NAME)
    asyncio.run(fetch_partition(iter([(0, 1, rows)]), settings, receipts, 1))
    seconds = time.perf_counter() - start
    spent["network, parsing, scheduling (event loop)"] = time.thread_time() - loop_cpu
    spent["spool, tar, rows, names"] = time.process_time() - cpu - sum(spent.values())
    spent["idle"] = seconds - (time.process_time() - cpu)
    shard.verify = verify
    os.sched_setaffinity(0, before)
    return {name: 1000 * value / images for name, value in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of JPEG files; left out: generated")
    parser.add_argument("--images", type=int, default=18000)
    parser.add_argument("--per-shard", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    folder = arguments.output.absolute() / "fetch"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        measure(arguments, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Run all tools in turns, and print the results."""
    python = rival_python(arguments.output.absolute(), folder)
    photos = photographs(arguments.photos, folder / "photos")
    server_core, *cores = sorted(os.sched_getaffinity(0))
    size = sum(path.stat().st_size for path in photos) / len(photos)
    print(f"{len(photos)} photographs of {size / 1000:.0f} kB, {arguments.images} URLs")
    print(f"{RIVAL}; PySpark {version('pyspark')}, aiohttp {version('aiohttp')}")
    print(f"{len(cores)} cores per tool, one for the server", flush=True)
    runs: dict[str, list[dict[str, float]]] = {}
    per_shard = arguments.per_shard
    with server_of(photos, server_core) as port:
        write_catalog(folder, photos, port, arguments.images, per_shard)
        tools = {
            RIVAL_NAME: lambda: theirs(folder, python, cores, per_shard, decode=True),
            "ours, decoding": lambda: ours(folder, cores, check_phash=False),
            "ours, decoding and pHash": lambda: ours(folder, cores, check_phash=True),
            "img2dataset, bytes unread": lambda: theirs(
                folder, python, cores, per_shard, decode=False
            ),
        }
        for _ in range(arguments.repeats):
            for name, run_tool in tools.items():
                run = run_tool()
                assert run["images"] == arguments.images, (name, run)
                runs.setdefault(name, []).append(run)
                figures = ", ".join(f"{key} {value:.2f}" for key, value in run.items())
                print(f"  {name}: {figures}", flush=True)
        spent = profile(folder, photos, port, cores[0], min(arguments.images, 2000))
    limits = {name: limit(photos, cores[0], flag) for name, flag in LIMITS.items()}
    print_results(runs, limits, spent, len(cores))


def print_results(
    runs: dict[str, list[dict[str, float]]],
    limits: dict[str, float],
    spent: dict[str, float],
    cores: int,
) -> None:
    """Print medians, ratios to img2dataset, the limit, and where the time goes."""
    rates, cpu = (
        {name: statistics.median(run[key] for run in all_) for name, all_ in runs.items()}
        for key in ("images_per_second", "cpu_ms_per_image")
    )
    print(f"{'':<27}{'img/s':>7}{'ratio':>7}{'CPU ms per image':>17}{'ratio':>7}")
    for name, rate in rates.items():
        print(
            f"{name:<27}{rate:>7.0f}{rate / rates[RIVAL_NAME]:>7.2f}"
            f"{cpu[name]:>17.2f}{cpu[RIVAL_NAME] / cpu[name]:>7.2f}"
        )
    for name, alone in limits.items():
        share = rates[name] / (alone * cores)
        print(f"{name}: {alone:.0f} img/s per core alone, {share:.0%} of that on {cores} cores")
    print("one task, CPU ms per image: " + "; ".join(f"{k} {v:.2f}" for k, v in spent.items()))


if __name__ == "__main__":
    main()
