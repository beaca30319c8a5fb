"""A small world to send through a real cluster: images behind URLs, a teacher's weights, votes."""

import io
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from coyo_labeler.demo import digits
from coyo_labeler.demo.cluster import Cluster, start_cluster
from coyo_labeler.demo.server import Handler, serve
from coyo_labeler.formats import schemas
from tests.label.teachers import save_teacher

JOBS = Path(__file__).parents[2] / "jobs"
IMAGES, PER_SHARD = 60, 5
SHARDS = IMAGES // PER_SHARD
#: Answers after which some shards are fetched and some cannot be: of 60 images, 20 are held back;
#: of the 40 that came, at most 4 tasks × 2 shards × 4 images belong to shards that lack some.
ANSWERS = 40

#: Seconds that a busy machine of two cores may take for a job, and for what a job does.
JOB_SECONDS, STEP_SECONDS = 1500, 600


class Gate:
    """Lets all requests pass, or so many and no more until it is opened again."""

    def __init__(self):
        self._condition, self._left = threading.Condition(), None

    def close_after(self, requests):
        with self._condition:
            self._left = requests

    def open(self):
        with self._condition:
            self._left = None
            self._condition.notify_all()

    def wait(self):
        with self._condition:
            self._condition.wait_for(lambda: self._left != 0, timeout=JOB_SECONDS)
            if self._left:
                self._left -= 1


class GatedHandler(Handler):
    """Answers for an image once the gate lets it, so that there is a middle to be killed in."""

    gate: Gate

    def do_GET(self):
        if self.path.startswith("/image/"):
            self.gate.wait()
        super().do_GET()


@dataclass(frozen=True)
class World:
    folder: Path
    gate: Gate

    def __getattr__(self, name):
        return str(self.folder / name)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """source, labels.txt, model.safetensors, votes and gold, with the images being served."""
    folder = tmp_path_factory.mktemp("world")
    images = folder / "files"
    images.mkdir()
    server = serve(images, 0)
    gate = Gate()
    server.RequestHandlerClass = type(
        "Gated", (GatedHandler,), {"folder": images, "refused_once": set(), "gate": gate}
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/image"
    ink, labels = digits.load()
    rows = []
    for number in range(IMAGES):
        name = f"{number:04d}.jpg"
        data = digits.jpeg(digits.photograph(ink[number], number))
        (images / name).write_bytes(data)
        image = Image.open(io.BytesIO(data))
        rows.append(
            {
                "id": 5_000_000_000 + number,
                "url": f"{url}/{name}" if number % 17 else f"{url}/gone-{name}",
                "image_phash": str(imagehash.phash(image)),
                "width": image.width,
                "height": image.height,
            }
        )
    (folder / "source").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "source" / "a.parquet")
    (folder / "labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
    photos = [np.array(digits.photograph(ink[number], number)) for number in range(24)]
    save_teacher(folder / "model.safetensors", 10, 160, photos)
    votes = [
        {"image_id": row["id"], "worker_id": f"w{(number + j) % 7}", "label": int(labels[number])}
        for number, row in enumerate(rows)
        for j in range(2)
    ]
    (folder / "votes").mkdir()
    pq.write_table(
        pa.Table.from_pylist(votes, schema=schemas.VOTES), folder / "votes" / "a.parquet"
    )
    yield World(folder, gate)
    gate.open()
    server.shutdown()
    server.server_close()


def words_of(world, stage, output, source):
    """The words of a job in this world: `source` is the folder of the stage before."""
    label_space = f"label_space={world.folder}/labels.txt"
    return {
        "ingest": [f"source={world.source}", f"output={output}", f"rows_per_shard={PER_SHARD}"],
        "fetch": [
            f"catalog={source}",
            f"output={output}",
            "allow_private=true",
            "connections=4",
            f"timeout_seconds={STEP_SECONDS}",
            f"connect_seconds={STEP_SECONDS}",
        ],
        "label": [
            f"images={source}",
            f"output={output}",
            "model=tf_efficientnetv2_b0",
            f"checkpoint={world.folder}/model.safetensors",
            label_space,
            "activation=sigmoid",
            "preprocess=automl_160",
            "precision=float32",
            "batch_size=5",
            "device=cpu",
            "engine=spark",
        ],
        "merge": [
            f"beliefs={source}",
            f"votes={world.votes}",
            f"output={output}",
            label_space,
            "tolerance=1e-12",
            "max_iterations=12",
        ],
    }[stage]


@dataclass(frozen=True)
class Job:
    """A submitted job that runs in the background."""

    process: subprocess.Popen

    def wait(self):
        out, err = self.process.communicate(timeout=JOB_SECONDS)
        return self.process.returncode, out + err


@pytest.fixture
def submit(request):
    """submit(cluster, stage, words): the job as a running process, ended with the test.

    script: another than the job of the stage.
    """
    started = []

    def start(cluster: Cluster, stage: str, words, conf=None, script=None) -> Job:
        process = subprocess.Popen(
            cluster.spark_submit(script or JOBS / f"{stage}.py", words, conf),
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return Job(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def fake_gpu(folder: Path, address: int) -> dict[str, str]:
    """Properties of a worker that says it has one GPU, at `address`."""
    script = folder / f"gpu-{address}.sh"
    script.write_text(f'#!/bin/sh\necho \'{{"name": "gpu", "addresses": ["{address}"]}}\'\n')
    script.chmod(0o755)
    resource = "spark.worker.resource.gpu"
    return {f"{resource}.amount": "1", f"{resource}.discoveryScript": str(script)}


@pytest.fixture(scope="session")
def standing_cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    gpus = [fake_gpu(folder, 0), fake_gpu(folder, 1)]
    with start_cluster(folder, cores=2, memory="1g", worker_properties=gpus) as running:
        yield running


@pytest.fixture
def cluster(standing_cluster):
    """Two workers of two cores and one fake GPU each; one that a test killed is replaced."""
    workers = standing_cluster.workers
    for address, worker in enumerate(list(workers)):
        if worker.tether.poll() is not None:
            properties = fake_gpu(standing_cluster.folder, address)
            standing_cluster.add_worker(2, "1g", properties)
            workers[address] = workers.pop()
            standing_cluster.wait_for_worker(workers[address])
    return standing_cluster


def wait_until(condition, job):
    """Wait until the job has done something; fails when it ends before or takes STEP_SECONDS."""
    deadline = time.monotonic() + STEP_SECONDS
    while True:
        has_ended = job.process.poll() is not None
        if condition():
            return
        assert not has_ended, job.wait()
        assert time.monotonic() < deadline, f"not within {STEP_SECONDS} s"
        time.sleep(0.02)
