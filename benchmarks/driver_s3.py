"""The driver on an object store: seconds, CPU, memory and requests of what it does beside the work.

    python -m benchmarks.driver_s3                        # 2,000 shards
    python -m benchmarks.driver_s3 shards=70000 only=label,fetch

Shards of a few bytes as those of `benchmarks.driver`, on `benchmarks.s3_server` in a process of its
own. `label` and `fetch` are resumed twice with ten shards missing: first as a run of an earlier
version leaves them, without bundles of receipts, and then with those. `steps` times what `label`'s
driver does, one after another. The requests and the driver's CPU are what carries over to a real
store; the server's seconds are those of a Python program that answers one request at a time.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from benchmarks import driver
from coyo_labeler import storage
from coyo_labeler.formats.image_shards import _stamp
from coyo_labeler.inputs import fingerprint_input
from coyo_labeler.label.commit import ShardDetails, remove_unfinished
from coyo_labeler.label.shards import find_shards
from coyo_labeler.receipts import Receipts, files_of
from coyo_labeler.table_files import list_tables
from coyo_labeler.written import check_written

BUCKET = "bench"


class Server:
    """A server with the files of a folder, and what its log says it was asked."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.log, self._read = log, 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with log.open("wb") as file:
            command = [sys.executable, "-m", "benchmarks.s3_server", str(folder), str(port)]
            self.process = subprocess.Popen(command, stderr=file, stdout=file)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        while not self._listens(port):
            time.sleep(0.5)
        retries = Config(retries={"max_attempts": 10, "mode": "standard"})
        self.client = boto3.client("s3", config=retries)

    def _listens(self, port: int) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(self.log.read_text())
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    def counts(self) -> str:
        """The requests since the last call, by kind."""
        data = self.log.read_bytes()
        new, self._read = data[self._read :].decode(errors="replace"), len(data)
        counts: Counter[str] = Counter()
        for method, path in re.findall(r"(GET|HEAD|PUT|POST|DELETE) (\S+)", new):
            is_list = method == "GET" and ("list-type" in path or "uploads" in path)
            counts["LIST" if is_list else method] += 1
        return ", ".join(f"{n:,} {kind}" for kind, n in sorted(counts.items()))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def adapt_receipts(output: Path, tar: Path) -> None:
    """Describe tars and files in receipts as on an object store, by the ETags that they will have.

    All tars are alike, and so are the files of all shards.
    """

    def etag_of(path: Path) -> str:
        return f'"{hashlib.md5(path.read_bytes()).hexdigest()}"'

    stamp = _stamp({"size": tar.stat().st_size, "ETag": etag_of(tar)})
    etags: dict[str, str] = {}
    for path in (output / "_receipts").iterdir():
        receipt = json.loads(path.read_text())
        receipt["stamp"] = stamp
        for name, file in receipt["files"].items():
            file.append(etags.setdefault(name.partition("/")[0][:3], etag_of(output / name)))
        path.write_text(json.dumps(receipt))


def resume(server: Server, words: list[str], names: list[str], shards: int) -> None:
    """Resume a run, without bundles and with them. names: of the files of a shard."""
    for bundled in ("no bundles", "bundles"):
        server.counts()
        of_server = driver.cpu_seconds(server.process.pid)
        figures = driver.run(words)
        figures["server CPU s"] = driver.cpu_seconds(server.process.pid) - of_server
        told = "  ".join(f"{k} {v:.1f}" for k, v in figures.items())
        print(f"{words[0]}, {bundled}: {told}  {server.counts()}", flush=True)
        for shard in range(shards - driver.MISSING, shards):
            for name in ("_manifest.json", *names):
                server.client.delete_object(Bucket=BUCKET, Key="out/" + name.format(shard=shard))


def label_case(shards: int, folder: Path) -> tuple[list[str], list[str]]:
    words = driver.label_case(shards)
    adapt_receipts(driver.FOLDER / "labelled", driver.FOLDER / "tars" / "00000.tar")
    (driver.FOLDER / "tars").rename(folder / "tars")
    (driver.FOLDER / "labelled").rename(folder / "out")
    urls = {"images": f"s3://{BUCKET}/tars", "output": f"s3://{BUCKET}/out"}
    names = ["_receipts/{shard:05d}.json", "{shard:05d}.parquet", "failures/{shard:05d}.parquet"]
    return moved(words, urls), names


def fetch_case(shards: int, folder: Path) -> tuple[list[str], list[str]]:
    words = driver.fetch_case(shards)
    (driver.FOLDER / "images").rename(folder / "out")
    names = ["{shard:05d}_stats.json", "{shard:05d}.parquet", "{shard:05d}.tar"]
    return moved(words, {"output": f"s3://{BUCKET}/out"}), names


def moved(words: list[str], urls: dict[str, str]) -> list[str]:
    """The words of a command, with other URLs."""
    given = [(word, word.partition("=")[0]) for word in words]
    return [f"{key}={urls[key]}" if key in urls else word for word, key in given]


def steps(server: Server) -> None:
    """What the driver of `label` does, with no bundles but those that `resume` has left."""
    tars, output = f"s3://{BUCKET}/tars", f"s3://{BUCKET}/out"
    fs, _ = storage.resolve(output)

    def step(name: str, work: Callable[[], Any]) -> Any:
        fs.invalidate_cache()
        server.counts()
        of_server = driver.cpu_seconds(server.process.pid)
        wall, cpu = time.monotonic(), time.process_time()
        result = work()
        used = [time.monotonic() - wall, time.process_time() - cpu]
        used.append(driver.cpu_seconds(server.process.pid) - of_server)
        seconds = "{:7.2f} s; CPU {:6.2f} s, server {:6.2f} s".format(*used)
        print(f"{name:<26}{seconds}  {server.counts()}", flush=True)
        return result

    claim = storage.read_json(f"{output}/_run.json") or {}
    receipts = Receipts(output, claim["fingerprint"], details=ShardDetails)
    step("fingerprint of the tars", lambda: fingerprint_input("label", "images", tars))
    step("temporary files", lambda: storage.remove_temporaries(output))
    step("find_shards", lambda: find_shards(tars))
    shards = step("one look for progress", receipts.shards)
    step("receipts one by one", lambda: receipts.get_all(shards))
    finished = step("receipts in bundles", receipts.read)
    files = files_of(finished.values())
    step("files against receipts", lambda: check_written("label", output, files))
    step("files without a receipt", lambda: remove_unfinished(output, finished))
    step("list_tables", lambda: list_tables(output))


CASES = {"label": label_case, "fetch": fetch_case}


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    shards = int(given.get("shards", 2000))
    driver.FOLDER = driver.FOLDER.with_name("driver_s3")
    only = given.get("only", "label,steps,fetch").split(",")
    for case in (case for case in only if case in CASES):
        shutil.rmtree(driver.FOLDER, ignore_errors=True)
        folder = driver.FOLDER / "buckets" / BUCKET
        folder.mkdir(parents=True)
        words, names = CASES[case](shards, folder)
        print(f"{shards:,} shards; the server begins", flush=True)
        server = Server(folder.parent, driver.FOLDER / "server.log")
        try:
            resume(server, words, names, shards)
            if case == "label" and "steps" in only:
                steps(server)
        finally:
            server.stop()
        shutil.rmtree(driver.FOLDER)


if __name__ == "__main__":
    main()
