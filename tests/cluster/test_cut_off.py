"""A worker is cut off from the network in the middle of a stage, and comes back: the same tables.

Master and driver, and each of two workers, have a network namespace of their own. A minute per
stage is too long for every run of the tests: CUT_OFF=fetch,label,merge names the stages to try
(`make test-cut-off`).
"""

import io
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import imagehash
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import pytest
from PIL import Image

from coyo_labeler.demo.cluster import Daemon, _spark_class, _start
from coyo_labeler.formats import schemas
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.cluster.conftest import JOBS
from tests.cluster.namespaces import Machine, network
from tests.cluster.tables import content, leftovers
from tests.cluster.test_merge_killed import inputs, iterations  # noqa: F401 - a fixture
from tests.label.tars import crops, jpeg, write_tar
from tests.label.teachers import MODEL, save_teacher

CHOSEN = os.environ.get("CUT_OFF", "").split(",")
STAGES_TRIED = [
    pytest.param(
        stage, marks=pytest.mark.skipif(stage not in CHOSEN, reason=f"CUT_OFF={stage} tries it")
    )
    for stage in ("fetch", "label", "merge")
]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SHARDS, IMAGES_PER_SHARD = 24, 3
ITERATIONS = 30

#: Seconds until a machine that says nothing counts as lost, and until a wait has failed.
LOST_SECONDS, STEP_SECONDS = 8, 120

CONF = {
    "spark.executor.memory": "512m",
    "spark.executor.heartbeatInterval": "1s",
    "spark.network.timeout": f"{LOST_SECONDS}s",
    "spark.network.timeoutInterval": "1s",
    "spark.storage.blockManagerHeartbeatTimeoutMs": f"{LOST_SECONDS}s",
    "spark.rpc.askTimeout": f"{LOST_SECONDS}s",
    "spark.rpc.lookupTimeout": f"{LOST_SECONDS}s",
    "spark.shuffle.io.connectionTimeout": f"{LOST_SECONDS}s",
    "spark.shuffle.io.maxRetries": "1",
    "spark.shuffle.io.retryWait": "1s",
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.scheduler.maxRegisteredResourcesWaitingTime": "60s",
    "spark.ui.enabled": "false",
}


def wait_until(condition, what, alive=None):
    deadline = time.monotonic() + STEP_SECONDS
    while not condition():
        assert alive is None or alive.poll() is None, f"it ended before: {what}"
        assert time.monotonic() < deadline, f"not within {STEP_SECONDS} s: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Cluster:
    """A master and two workers, each on a machine of its own; the driver is with the master."""

    url: str
    machines: list[Machine]
    master: Daemon
    folder: Path
    address: str

    def submit(self, stage, words, log):
        driver = self.machines[0]
        conf = {**CONF, "spark.driver.host": driver.address, "spark.driver.bindAddress": "0.0.0.0"}
        flags = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
        submit = str(Path(pyspark.__file__).parent / "bin" / "spark-submit")
        command = [*driver.inside, submit, "--master", self.url, *flags]
        with log.open("w") as file:
            return subprocess.Popen(
                [*command, str(JOBS / f"{stage}.py"), *words],
                env=environment_of(driver),
                stdout=file,
                stderr=subprocess.STDOUT,
            )


def environment_of(machine):
    return {
        **os.environ,
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "SPARK_LOCAL_IP": machine.address,
        "SPARK_NO_DAEMONIZE": "1",
        "SPARK_MASTER_OPTS": f"-Dspark.worker.timeout={LOST_SECONDS}",
        "SPARK_WORKER_OPTS": f"-Dspark.worker.timeout={LOST_SECONDS}",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("namespaces")
    with ExitStack() as stack:
        net = stack.enter_context(network(3))

        def start(machine, name, *arguments):
            environment = environment_of(machine)
            log = folder / f"{machine.namespace}.log"
            command = [*machine.inside, *_spark_class(environment, name), *arguments]
            daemon = _start([*command, "--webui-port", "0"], environment, log)
            stack.callback(daemon.stop)
            return daemon

        head, *workers = net.machines
        master = start(head, "master.Master", "--host", head.address, "--port", "7077")
        pattern = r"Starting Spark master at (spark://\S+)"
        wait_until(lambda: re.search(pattern, master.log.read_text()), "a master", master.tether)
        url = re.search(pattern, master.log.read_text())[1]
        for machine in workers:
            each = ["--cores", "1", "--memory", "1g", "--work-dir", f"{folder}/{machine.namespace}"]
            start(machine, "worker.Worker", "--host", machine.address, *each, url)
        registered = "Registering worker"
        wait_until(lambda: master.log.read_text().count(registered) == 2, "two workers")
        yield Cluster(url, net.machines, master, folder, net.address)


class Gate(BaseHTTPRequestHandler):
    """Serves pictures by number. No more than `left` are answered until `opened`."""

    protocol_version = "HTTP/1.1"
    pictures: list[bytes]
    left = SHARDS * IMAGES_PER_SHARD // 2
    lock, opened = threading.Lock(), threading.Event()

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        if name.isdigit():
            with Gate.lock:
                Gate.left -= 1
                waits = Gate.left < 0
            if waits:
                Gate.opened.wait(STEP_SECONDS)
        data = Gate.pictures[int(name)] if name.isdigit() else b""
        self.send_response(200 if data else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


def fetch_words(cluster, folder, stack):
    Gate.pictures = [jpeg(each) for each in crops(SHARDS * IMAGES_PER_SHARD, 3, 60, 120)]
    server = ThreadingHTTPServer((cluster.address, 0), Gate)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    url = f"http://{cluster.address}:{server.server_address[1]}"
    rows = [
        {
            "id": number,
            "url": f"{url}/{number}",
            "imagehash": str(imagehash.phash(Image.open(io.BytesIO(data)))),
            "shard": number // IMAGES_PER_SHARD,
        }
        for number, data in enumerate(Gate.pictures)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schemas.CATALOG), folder / "catalog.parquet")
    patient = [f"{key}={STEP_SECONDS}" for key in ("timeout_seconds", "connect_seconds")]
    words = [f"catalog={folder}/catalog.parquet", "allow_private=true", "connections=4", *patient]
    return words, words, "*_stats.json", Gate.opened.set


def label_words(cluster, folder, stack):
    pictures = [jpeg(each) for each in crops(SHARDS * IMAGES_PER_SHARD, 3, 60, 120)]
    for shard in range(SHARDS):
        write_tar(folder / "images", shard, pictures[shard * IMAGES_PER_SHARD :][:IMAGES_PER_SHARD])
    save_teacher(folder / "model.safetensors", 10, 64)
    (folder / "labels.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    words = [
        f"images={folder}/images", f"model={MODEL}", f"checkpoint={folder}/model.safetensors",
        f"label_space={folder}/labels.txt", "activation=sigmoid", "preprocess=automl_64",
        "precision=float32", "batch_size=1", "device=cpu",
    ]  # fmt: skip
    return [*words, "engine=spark"], [*words, "engine=local"], "_receipts/*.json", lambda: None


@pytest.mark.parametrize("stage", STAGES_TRIED)
def test_a_worker_that_is_cut_off_and_comes_back_changes_no_table(
    stage, cluster, spark, request, tmp_path
):
    output = tmp_path / "out"
    with ExitStack() as stack:
        if stage == "merge":
            inputs = request.getfixturevalue("inputs")
            words = [*inputs, "engine=spark", "max_broadcast_mb=0"]
            plain, done, go_on = [*inputs, "engine=local"], lambda: iterations(output), None
        else:
            make = {"fetch": fetch_words, "label": label_words}[stage]
            words, plain, receipts, go_on = make(cluster, tmp_path, stack)
            done = lambda: list(output.glob(receipts))  # noqa: E731
        log = tmp_path / "job.log"
        job = cluster.submit(stage, [*words, f"output={output}"], log)
        stack.callback(job.wait, STEP_SECONDS)
        stack.callback(job.kill)
        wait_until(lambda: len(done()) >= 2, "some of the work", job)
        registered = cluster.master.log.read_text().count("Registering worker")
        lost = cluster.machines[1]
        lost.cut_off()
        stack.callback(lost.reconnect)
        at_the_cut = len(done())
        if go_on:
            go_on()
        wait_until(lambda: "Removing worker" in new_of(cluster, registered), "the master's notice")
        lost.reconnect()
        came_back = lambda: cluster.master.log.read_text().count("Registering worker") > registered  # noqa: E731
        wait_until(came_back, "the worker to come back")
        assert job.wait(STEP_SECONDS) == 0, log.read_text()[-5000:]
        assert re.search(rf"Lost executor \d+ on {lost.address}", log.read_text())
        assert at_the_cut < (ITERATIONS if stage == "merge" else SHARDS)
        settings = read_stage_settings(STAGES[stage], [*plain, f"output={tmp_path / 'sound'}"])
        run_stage(STAGES[stage], settings, spark if stage == "fetch" else None)
    assert content(str(output)) == content(str(tmp_path / "sound"))
    assert leftovers(str(output)) == []


def new_of(cluster, registered):
    """What the master's log says since so many workers had registered."""
    return cluster.master.log.read_text().split("Registering worker")[registered]
