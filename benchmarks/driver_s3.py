"""The driver on an object store: seconds and requests of what it does before and after the work.

    python -m benchmarks.driver_s3 shards=500

Shards of a few bytes as those of `benchmarks.driver`, on a server of moto's in this process. The
requests are what carries over to a real store; moto's seconds are those of a Python program.
"""

import json
import logging
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from benchmarks import driver
from coyo_labeler import storage
from coyo_labeler.inputs import fingerprint_input
from coyo_labeler.label.commit import ShardDetails, remove_unfinished
from coyo_labeler.label.shards import find_shards
from coyo_labeler.receipts import Receipts, files_of
from coyo_labeler.table_files import list_tables
from coyo_labeler.written import check_written

BUCKET = "bench"


class Requests(logging.Handler):
    """Counts the requests that the server logs."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count one line."""
        match = re.search(r'"?(GET|HEAD|PUT|POST|DELETE) (\S+)', record.getMessage())
        if match:
            lists = match[1] == "GET" and ("list-type" in match[2] or "uploads" in match[2])
            self.counts["LIST" if lists else match[1]] += 1


def serve() -> Requests:
    """Start the server, and let fsspec find it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=True)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    requests, logger = Requests(), logging.getLogger("werkzeug")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [requests]
    return requests


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    shards = int(given.get("shards", 500))
    shutil.rmtree(driver.FOLDER, ignore_errors=True)
    driver.label_case(shards)
    requests = serve()
    tars, output = f"s3://{BUCKET}/tars", f"s3://{BUCKET}/labelled"
    fs, _ = storage.resolve(output)
    for name, url in (("tars", tars), ("labelled", output)):
        fs.put(str(driver.FOLDER / name) + "/", url + "/", recursive=True)
    claim = json.loads((driver.FOLDER / "labelled" / "_run.json").read_text())
    shutil.rmtree(driver.FOLDER)
    print(f"{shards:,} shards, {len(fs.find(BUCKET)):,} objects", flush=True)

    def step(name: str, work: Callable[[], Any]) -> Any:
        fs.invalidate_cache()
        requests.counts.clear()
        began = time.monotonic()
        result = work()
        counted = ", ".join(f"{n} {kind}" for kind, n in sorted(requests.counts.items()))
        print(f"{name:<28}{time.monotonic() - began:7.2f} s  {counted}", flush=True)
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


if __name__ == "__main__":
    main()
