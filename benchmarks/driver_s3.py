"""The driver on an object store: seconds, CPU and requests of what it does beside the work.

    python -m benchmarks.driver_s3 shards=2000

Shards of a few bytes as those of `benchmarks.driver`, on a server of moto's in a process of its
own. The requests and the driver's CPU are what carries over to a real store; moto's seconds are
those of a Python program that answers one request at a time.
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
from coyo_labeler.inputs import fingerprint_input
from coyo_labeler.label.commit import ShardDetails, remove_unfinished
from coyo_labeler.label.shards import find_shards
from coyo_labeler.receipts import Receipts, files_of
from coyo_labeler.table_files import list_tables
from coyo_labeler.written import check_written

BUCKET = "bench"


class Server:
    """A server of moto's, and what its log says it was asked."""

    def __init__(self, log: Path) -> None:
        self.log, self._read = log, 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with log.open("wb") as file:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
            self.process = subprocess.Popen(command, stderr=file, stdout=file)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        retries = Config(retries={"max_attempts": 10, "mode": "standard"})
        boto3.client("s3", config=retries).create_bucket(Bucket=BUCKET)

    def counts(self) -> Counter[str]:
        """The requests since the last call, by kind."""
        data = self.log.read_bytes()
        new, self._read = data[self._read :].decode(errors="replace"), len(data)
        counts: Counter[str] = Counter()
        for method, path in re.findall(r"(GET|HEAD|PUT|POST|DELETE) (\S+)", new):
            is_list = method == "GET" and ("list-type" in path or "uploads" in path)
            counts["LIST" if is_list else method] += 1
        return counts


def add_etags(output: Path) -> None:
    """Describe the files in receipts as on an object store, by the ETags that they will have."""
    for path in (output / "_receipts").iterdir():
        receipt = json.loads(path.read_text())
        for name, file in receipt["files"].items():
            file.append(f'"{hashlib.md5((output / name).read_bytes()).hexdigest()}"')
        path.write_text(json.dumps(receipt))


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    shards = int(given.get("shards", 2000))
    driver.FOLDER = driver.FOLDER.with_name("driver_s3")
    shutil.rmtree(driver.FOLDER, ignore_errors=True)
    driver.label_case(shards)
    add_etags(driver.FOLDER / "labelled")
    server = Server(driver.FOLDER / "moto.log")
    tars, output = f"s3://{BUCKET}/tars", f"s3://{BUCKET}/labelled"
    fs, _ = storage.resolve(output)
    for name, url in (("tars", tars), ("labelled", output)):
        fs.put(str(driver.FOLDER / name) + "/", url + "/", recursive=True)
    claim = json.loads((driver.FOLDER / "labelled" / "_run.json").read_text())
    print(f"{shards:,} shards, {len(fs.find(BUCKET)):,} objects", flush=True)

    def step(name: str, work: Callable[[], Any]) -> Any:
        fs.invalidate_cache()
        server.counts()
        of_server = driver.cpu_seconds(server.process.pid)
        wall, cpu = time.monotonic(), time.process_time()
        result = work()
        used = [time.monotonic() - wall, time.process_time() - cpu]
        used.append(driver.cpu_seconds(server.process.pid) - of_server)
        counted = ", ".join(f"{n} {kind}" for kind, n in sorted(server.counts().items()))
        seconds = "{:7.2f} s; CPU {:6.2f} s, moto {:6.2f} s".format(*used)
        print(f"{name:<26}{seconds}  {counted}", flush=True)
        return result

    receipts = Receipts(output, claim["fingerprint"], details=ShardDetails)
    step("fingerprint of the tars", lambda: fingerprint_input("label", "images", tars))
    step("temporary files", lambda: storage.remove_temporaries(output))
    step("find_shards", lambda: find_shards(tars))
    finished = step("receipts", receipts.read)
    files = files_of(finished.values())
    step("files against receipts", lambda: check_written("label", output, files))
    step("files without a receipt", lambda: remove_unfinished(output, finished))
    step("one look for progress", receipts.shards)
    step("list_tables", lambda: list_tables(output))
    server.process.terminate()
    server.process.wait()
    shutil.rmtree(driver.FOLDER)


if __name__ == "__main__":
    main()
