"""Engines on which teachers usually run, with the same images and the same network.

Each peer is one process for the whole benchmark: it loads its model once, and its first round is
not timed. Decoding, preprocessing and top k are the functions of `label`, so that only the engines
differ. predict_batch_udf and Ray Data run on the CPU cores.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from coyo_labeler.formats.image_shards import Sample, read_samples
from coyo_labeler.formats.pictures import decode
from coyo_labeler.label.model import Teacher
from coyo_labeler.label.preprocess import Preset, prepare
from coyo_labeler.label.shards import find_shards
from coyo_labeler.label.spec import TeacherSpec
from coyo_labeler.machine import cores_of_machine


class Model:
    """The teacher on one core: from the bytes of images to labels and probabilities."""

    def __init__(self, spec: TeacherSpec) -> None:
        torch.set_num_threads(1)
        self.teacher = Teacher(spec, torch.device("cpu"))

    def __call__(self, files: np.ndarray) -> dict[str, np.ndarray]:
        pictures = [decode(bytes(data)) for data in files]
        batch = torch.stack([prepare(pixels, self.teacher.preset) for pixels in pictures])
        labels, probs, _ = self.teacher.answer(batch)
        return {"labels": labels.numpy(), "probs": probs.numpy()}


class Images(IterableDataset[tuple[int, torch.Tensor]]):
    """Ids and prepared images out of tars, each read by one worker of a DataLoader."""

    def __init__(self, folder: Path, preset: Preset) -> None:
        self._folder, self._preset = folder, preset

    def __iter__(self) -> Iterator[tuple[int, torch.Tensor]]:
        worker = get_worker_info()
        torch.set_num_threads(1)
        shards = find_shards(str(self._folder / "images"))
        for shard in shards[worker.id :: worker.num_workers] if worker else shards:
            for sample in read_samples(shard):
                if isinstance(sample, Sample):
                    yield sample.id, prepare(decode(sample.image), self._preset)


def loop_rounds(folder: Path, spec: TeacherSpec, device: str) -> Callable[[], int]:
    """The loop that people write by hand: a DataLoader over the tars, and PyTorch as it comes."""
    teacher = Teacher(replace(spec, compile=False), torch.device(device))
    images = Images(folder, teacher.preset)
    loader = DataLoader(
        images,
        teacher.batch,
        num_workers=cores_of_machine(),
        pin_memory=teacher.device.type == "cuda",
        persistent_workers=True,
    )

    def run() -> int:
        tables = []
        for ids, batch in loader:
            labels, probs, _ = teacher.answer(batch.to(teacher.device, non_blocking=True))
            answers = {"labels": labels.cpu().numpy(), "probs": probs.float().cpu().numpy()}
            lists = {name: pa.array(list(values)) for name, values in answers.items()}
            tables.append(pa.table({"id": ids.numpy(), **lists}))
        pq.write_table(pa.concat_tables(tables), folder / "loop.parquet")
        return pq.read_metadata(folder / "loop.parquet").num_rows

    return run


def spark_rounds(folder: Path, spec: TeacherSpec, device: str) -> Callable[[], int]:
    """Spark's predict_batch_udf over rows of bytes in Parquet, written before the clock starts."""
    from pyspark.ml.functions import predict_batch_udf  # noqa: PLC0415
    from pyspark.sql.types import StructType  # noqa: PLC0415

    from coyo_labeler.config.base import SparkSettings  # noqa: PLC0415
    from coyo_labeler.session import open_session  # noqa: PLC0415

    cores = cores_of_machine()
    spark = open_session(SparkSettings(master=f"local[{cores}]"), "peer")
    source = str(folder / "rows")
    rows = [
        (sample.id, bytearray(sample.image))
        for shard in find_shards(str(folder / "images"))
        for sample in read_samples(shard)
        if isinstance(sample, Sample)
    ]
    frame = spark.createDataFrame(rows, "id long, image binary").repartition(cores)
    frame.write.parquet(source)

    def make() -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        return Model(spec)

    # One function for all rounds: Spark keeps the model of a function in its Python workers.
    answer = StructType.fromDDL("labels array<int>, probs array<float>")
    predict = predict_batch_udf(make, return_type=answer, batch_size=spec.batch_size)

    def run() -> int:
        beliefs = spark.read.parquet(source).select("id", predict("image").alias("answer"))
        output = str(folder / "spark")
        beliefs.select("id", "answer.*").write.mode("overwrite").parquet(output)
        return spark.read.parquet(output).count()

    return run


def ray_rounds(folder: Path, spec: TeacherSpec, device: str) -> Callable[[], int]:
    """Ray Data: read_webdataset, then one actor per core, which keeps its model."""
    import logging  # noqa: PLC0415

    import ray  # noqa: PLC0415

    cores = cores_of_machine()
    ray.init(
        num_cpus=cores,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        logging_level=logging.ERROR,
        object_store_memory=2**30,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    tars = [shard.url for shard in find_shards(str(folder / "images"))]

    class Actor(Model):
        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            answers = super().__call__(batch["jpg"])
            ids = [json.loads(document)["id"] for document in batch["json"]]
            return {"id": np.array(ids), **answers}

    def run() -> int:
        output = folder / "ray"
        shutil.rmtree(output, ignore_errors=True)
        data = ray.data.read_webdataset(tars, decoder=None, override_num_blocks=len(tars))
        data = data.map_batches(
            Actor,
            fn_constructor_args=(spec,),
            batch_size=spec.batch_size,
            num_cpus=(cores - 1) / cores,  # nominal; the rest lets Ray read and write
            concurrency=cores,
        )
        data.write_parquet(str(output))
        return sum(pq.read_metadata(file).num_rows for file in output.glob("*.parquet"))

    return run


PEERS = {"DataLoader": loop_rounds, "predict_batch_udf": spark_rounds, "Ray Data": ray_rounds}


def serve(name: str, folder: str, spec: str, device: str) -> None:
    """Run a round for each line of standard input, and print its images and seconds."""
    answers, sys.stdout = sys.stdout, sys.stderr
    run = PEERS[name](Path(folder), TeacherSpec(**json.loads(spec)), device)
    for _ in sys.stdin:
        start = time.perf_counter()
        images = run()
        print(json.dumps([images, time.perf_counter() - start]), file=answers, flush=True)


class Peer:
    """A peer in its process. python: the interpreter whose packages it needs."""

    def __init__(
        self, name: str, python: str, folder: Path, spec: TeacherSpec, device: str = "cpu"
    ) -> None:
        command = [python, "-m", "benchmarks.label_peers", name, str(folder)]
        self._process = subprocess.Popen(
            [*command, json.dumps(asdict(spec)), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "peer.log").open("w"),
            text=True,
        )
        self._log = folder / "peer.log"

    def rate(self, images: int) -> float:
        """images/s of one round."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a peer failed: {self._log.read_text()[-2000:]}")
        done, seconds = json.loads(answer)
        assert done == images, (done, images)
        return images / seconds

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def ray_python(folder: Path) -> tuple[str, str]:
    """(interpreter, version of Ray) of an environment that also sees the packages of this one."""
    python = folder / "bin" / "python"
    if not python.exists():
        print("installing Ray in an environment of its own, under out/bench/ …", flush=True)
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, "ray>=2.40"], check=True)
        packages = next(Path(sys.prefix, "lib").glob("python*/site-packages"))
        own = next(folder.glob("lib/python*/site-packages"))
        (own / "parent.pth").write_text(f"{packages}\n")
    printed = subprocess.run(
        [python, "-c", "import ray; print(ray.__version__)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return str(python), printed.stdout.strip()


if __name__ == "__main__":
    serve(*sys.argv[1:])
