"""How near `label` comes to the bare model, and where the rest goes.

    python benchmarks/label.py                          # tf_efficientnetv2_b0 at 224 px
    python benchmarks/label.py --photos FOLDER          # on JPEG files of your own
    python benchmarks/label.py --model tf_efficientnetv2_xl.in21k --sizes 384 512   # on a GPU
    python benchmarks/label.py --peer                   # Spark's predict_batch_udf beside it

End to end is tars to committed Parquet with the model loaded. Bare is the model's forward pass on
random tensors of the same shape, batch and precision: as `label` runs it, and as plain PyTorch does
(one batch on all threads). They are timed in turns; medians are reported.
"""

import argparse
import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from coyo_labeler.label import decode
from coyo_labeler.label.commit import Job, Seat, label_and_commit
from coyo_labeler.label.model import DTYPES, Teacher, TeacherSpec, top_k
from coyo_labeler.label.predict import cores_of_machine
from coyo_labeler.label.preprocess import prepare
from coyo_labeler.label.read import find_shards, read_samples


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(arguments.photos)
        per_shard = max(1, arguments.images // arguments.shards)
        write_tars(Path(folder, "images"), files, arguments.shards, per_shard)
        megapixels = np.mean([np.prod(decode.decode(data).shape[:2]) for data in files]) / 1e6
        print(
            f"{arguments.shards} tars of {per_shard} JPEGs, mean {megapixels:.2f} megapixels, "
            f"{np.mean([len(data) for data in files]) / 1024:.0f} KiB; {cores_of_machine()} cores, "
            f"{arguments.device}; torch {torch.__version__}"
        )
        decoders(files)
        for size in arguments.sizes:
            compare(arguments, folder, size)
            if arguments.techniques:
                techniques(arguments, size)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of JPEG files; else crops of two photographs")
    parser.add_argument("--model", default="tf_efficientnetv2_b0")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224])
    parser.add_argument("--classes", type=int, default=21_843, help="outputs of the head")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=DTYPES, default="float32")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peer", action="store_true", help="also run Spark's predict_batch_udf")
    parser.add_argument("--techniques", action="store_true", help="what each technique gives")
    return parser.parse_args()


def jpegs(folder: str | None) -> list[bytes]:
    """Files of a folder, or pieces of scikit-learn's two photographs of a web image's size."""
    if folder:
        return [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    from sklearn.datasets import load_sample_images  # noqa: PLC0415

    random, found = np.random.default_rng(0), []
    for photo in load_sample_images().images * 20:
        height, width = random.integers(300, 427), random.integers(350, 640)
        top, left = random.integers(0, 427 - height + 1), random.integers(0, 640 - width + 1)
        file = io.BytesIO()
        piece = photo[top : top + height, left : left + width]
        Image.fromarray(piece).save(file, "JPEG", quality=92)
        found.append(file.getvalue())
    return found


def write_tars(folder: Path, files: list[bytes], shards: int, per_shard: int) -> None:
    folder.mkdir()
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for index in range(per_shard):
                key = f"{shard:05d}{index:04d}"
                image = files[(shard * per_shard + index) % len(files)]
                document = json.dumps({"id": shard * 10_000 + index, "key": key}).encode()
                for name, data in ((f"{key}.jpg", image), (f"{key}.json", document)):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def compare(arguments: argparse.Namespace, folder: str, size: int) -> None:
    """End to end against the bare forward pass, in turns."""
    cores = cores_of_machine()
    checkpoint = str(Path(folder, "model.pth"))
    torch.manual_seed(0)
    model = timm.create_model(arguments.model.partition(".")[0], num_classes=arguments.classes)
    torch.save(model.state_dict(), checkpoint)
    spec = TeacherSpec(
        arguments.model.partition(".")[0],
        checkpoint=checkpoint,
        preprocess=f"automl_{size}",
        batch_size=arguments.batch,
        precision=arguments.precision,
    )
    begin = time.perf_counter()
    teacher = Teacher(spec, torch.device(arguments.device))
    print(f"\n{spec.model} at {size} px, batch {teacher.batch}, {spec.precision}")
    print(f"  model loaded in {time.perf_counter() - begin:.1f} s")
    seat = Seat(arguments.device, cores, "bench")
    shards = find_shards(str(Path(folder, "images")))
    images = arguments.shards * max(1, arguments.images // arguments.shards)

    def end_to_end() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as output:
            start = time.perf_counter()
            list(label_and_commit(Job(spec, output, "bench"), teacher, seat, shards))
            return images / (time.perf_counter() - start)

    ways: dict[str, Callable[[], float]] = {
        "end to end": end_to_end,
        "bare, as label runs it": lambda: bare(teacher, size, images, cores),
    }
    if teacher.device.type == "cpu":
        ways["bare, one batch on all threads"] = lambda: bare_threads(teacher, size, images, cores)
    if arguments.peer:
        ways["predict_batch_udf"] = lambda: predict_batch_udf(folder, spec, images)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # caches, compilation, page faults
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            rates[name].append(way())
    ours = statistics.median(rates["end to end"])
    for name, values in rates.items():
        middle = statistics.median(values)
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"  {name:<32} {middle:8.1f} images/s ({spread}); end to end is {ours / middle:.2f}")
    pairs = zip(rates["end to end"], rates["bare, as label runs it"], strict=True)
    print("  ratio to bare, round by round:", ", ".join(f"{a / b:.3f}" for a, b in pairs))
    profile(teacher, folder, size)
    if teacher.device.type == "cuda":
        limit(teacher, size, ours)


def bare(teacher: Teacher, size: int, images: int, cores: int) -> float:
    """images/s of the network alone: on a CPU one batch a core, on a GPU batch after batch."""
    batch = torch.randn(teacher.batch, 3, size, size, device=teacher.device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    count = -(-images // teacher.batch)

    def forward(_: int) -> None:
        with torch.inference_mode():
            teacher._piece_of(batch)

    if teacher.device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        for index in range(count):
            forward(index)
        torch.cuda.synchronize()
        return count * teacher.batch / (time.perf_counter() - start)
    before = torch.get_num_threads()
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        start = time.perf_counter()
        list(pool.map(forward, range(count)))
        seconds = time.perf_counter() - start
    torch.set_num_threads(before)
    return count * teacher.batch / seconds


def bare_threads(teacher: Teacher, size: int, images: int, cores: int) -> float:
    """images/s of plain PyTorch: one batch at a time on all threads."""
    batch = torch.randn(teacher.batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    count = -(-images // teacher.batch)
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    with torch.inference_mode():
        start = time.perf_counter()
        for _ in range(count):
            teacher._piece_of(batch)
        seconds = time.perf_counter() - start
    torch.set_num_threads(before)
    return count * teacher.batch / seconds


def profile(teacher: Teacher, folder: str, size: int) -> None:
    """Milliseconds of one core that each step takes of an image."""
    shard = find_shards(str(Path(folder, "images")))[0]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    samples = list(read_samples(shard))[:200]
    pictures = [decode.decode(sample.image or b"") for sample in samples]
    inputs = torch.randn(teacher.batch, 3, size, size, device=teacher.device)
    logits = torch.randn(teacher.batch, teacher.space.size, device=teacher.device)
    dtype = DTYPES[teacher.spec.label_probs_dtype]
    steps: dict[str, tuple[int, Callable[[], object]]] = {
        "read the tar": (len(list(read_samples(shard))), lambda: list(read_samples(shard))),
        "decode": (len(samples), lambda: [decode.decode(s.image or b"") for s in samples]),
        "crop, resize, scale": (
            len(samples),
            lambda: [prepare(pixels, teacher.preset) for pixels in pictures],
        ),
        "forward pass": (len(inputs), lambda: teacher._piece_of(inputs)),
        "activation, round, top k": (
            len(logits),
            lambda: top_k(logits, teacher.k, teacher.activation, dtype),
        ),
    }
    print("  of one image, on one core:")
    with torch.inference_mode():
        for name, (count, step) in steps.items():
            step()
            synchronize(teacher)
            start = time.perf_counter()
            step()
            synchronize(teacher)
            print(f"    {name:<28} {(time.perf_counter() - start) / count * 1e3:8.3f} ms")
    torch.set_num_threads(before)


def synchronize(teacher: Teacher) -> None:
    if teacher.device.type == "cuda":
        torch.cuda.synchronize()


def limit(teacher: Teacher, size: int, rate: float) -> None:
    """Percent of what the GPU's matrix units could do at their measured rate."""
    side = 8192
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    flops = 20 * 2 * side**3 / (time.perf_counter() - start)
    name = teacher.spec.model
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=teacher.space.size).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, size, size))
    needed = counter.get_total_flops()
    print(
        f"  bf16 matmul {flops / 1e12:.0f} TFLOP/s, the model needs {needed / 1e9:.1f} GFLOP an "
        f"image: at most {flops / needed:.0f} images/s, end to end is {rate * needed / flops:.1%}"
    )


def decoders(files: list[bytes]) -> None:
    """Images/s of each decoder on one core, and whether its pixels are Pillow's."""
    import cv2  # noqa: PLC0415
    import torchvision  # noqa: PLC0415

    cv2.setNumThreads(1)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    rgb = torchvision.io.ImageReadMode.RGB

    def with_torchvision(data: bytes) -> np.ndarray:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return torchvision.io.decode_jpeg(encoded, mode=rgb).permute(1, 2, 0).numpy()

    ways = {
        "Pillow": decode.decode_with_pillow,
        "OpenCV": lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), flags),
        "torchvision": with_torchvision,
        "decode()": decode.decode,
    }
    print("decoders, one core:")
    for name, way in ways.items():
        equal = sum(np.array_equal(way(data), decode.decode_with_pillow(data)) for data in files)
        rates = []
        for _ in range(3):
            start = time.perf_counter()
            for data in files:
                way(data)
            rates.append(len(files) / (time.perf_counter() - start))
        print(f"  {name:<12} {max(rates):7.0f} images/s, {equal}/{len(files)} equal to Pillow's")


def techniques(arguments: argparse.Namespace, size: int) -> None:
    """images/s of the bare network with one technique after another."""
    device = torch.device(arguments.device)
    print("  technique by technique, bare forward pass:")
    steps = [
        ("float32, NCHW", False, "float32", False, arguments.batch),
        ("+ channels_last", True, "float32", False, arguments.batch),
        ("+ float16", True, "float16", False, arguments.batch),
        ("or bfloat16", True, "bfloat16", False, arguments.batch),
        ("+ compile", True, arguments.precision, True, arguments.batch),
        ("batch × 2", True, arguments.precision, True, arguments.batch * 2),
        ("batch / 2", True, arguments.precision, True, arguments.batch // 2),
    ]
    name = arguments.model.partition(".")[0]
    for label, channels_last, precision, compiled, count in steps:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = timm.create_model(name, num_classes=arguments.classes).eval()
        model = model.to(device, memory_format=layout)
        network = torch.compile(model, dynamic=False) if compiled else model
        batch = torch.randn(count, 3, size, size, device=device).contiguous(memory_format=layout)
        half = precision != "float32"
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=DTYPES[precision], enabled=half),
        ):
            repeats = max(3, 200 // count)
            for turn in range(2):
                if device.type == "cuda":
                    torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(repeats if turn else 3):
                    network(batch)
                if device.type == "cuda":
                    torch.cuda.synchronize()
        rate = repeats * count / (time.perf_counter() - start)
        print(f"    {label:<20} batch {count:<5} {precision:<9} {rate:8.1f} images/s", flush=True)


def predict_batch_udf(folder: str, spec: TeacherSpec, images: int) -> float:
    """The plain Spark way: rows of bytes through predict_batch_udf on local[*], to Parquet."""
    from pyspark.ml.functions import predict_batch_udf as udf  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    from coyo_labeler.config.base import SparkSettings  # noqa: PLC0415
    from coyo_labeler.session import open_session  # noqa: PLC0415

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    spark: SparkSession = open_session(SparkSettings(), "peer")
    source = Path(folder, "rows")
    if not source.exists():
        rows = [
            (sample.id, bytearray(sample.image or b""))
            for shard in find_shards(str(Path(folder, "images")))
            for sample in read_samples(shard)
        ]
        frame = spark.createDataFrame(rows, "id long, image binary").repartition(4)
        frame.write.parquet(str(source))

    def make() -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        teacher = Teacher(spec, torch.device("cpu"))
        torch.set_num_threads(1)

        def predict(files: np.ndarray) -> dict[str, np.ndarray]:
            pictures = [decode.decode_with_pillow(bytes(data)) for data in files]
            batch = torch.stack([prepare(pixels, teacher.preset) for pixels in pictures])
            labels, probs, _ = teacher.answer(batch)
            return {"labels": labels.numpy(), "probs": probs.numpy()}

        return predict

    run = udf(
        make,
        return_type="struct<labels: array<int>, probs: array<float>>",
        batch_size=spec.batch_size,
    )
    start = time.perf_counter()
    frame = spark.read.parquet(str(source))
    assert frame.count() == images
    beliefs = frame.select("id", run("image").alias("answer")).select("id", "answer.*")
    beliefs.write.mode("overwrite").parquet(str(Path(folder, "peer")))
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
