"""The speed of `label` against the bare model and other engines, and the time of each step.

    make bench-label                                        # tf_efficientnetv2_b0 at 224 px
    python -m benchmarks.label --ray                        # also Ray Data, which it installs
    python -m benchmarks.label --photos FOLDER              # with JPEG files of your own
    python -m benchmarks.label --model tf_efficientnetv2_xl.in21k --sizes 384 512 --batch 256 \\
        --precision float16 --images 20000 --techniques     # on a GPU

"End to end" is from tars to committed Parquet, with the model already loaded. "Bare" is the
model's forward pass on random tensors of the same shape, batch and precision: as `label` runs it,
and as plain PyTorch does (one batch on all threads). All take turns. Rates are medians over the
rounds, and ratios are medians of each round's ratio.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import label_techniques
from benchmarks.label_peers import Peer, ray_python
from benchmarks.photographs import jpegs
from coyo_labeler.formats import tars
from coyo_labeler.formats.image_shards import Sample, read_samples
from coyo_labeler.formats.pictures import decode, decode_with_pillow
from coyo_labeler.label.commit import Job, Slot, label_and_commit
from coyo_labeler.label.model import DTYPES, Teacher, top_k
from coyo_labeler.label.preprocess import prepare
from coyo_labeler.label.shards import find_shards
from coyo_labeler.label.spec import TeacherSpec
from coyo_labeler.machine import cores_of_machine

BENCH = Path(__file__).parents[1] / "out" / "bench"


def main() -> None:
    arguments = parse()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    BENCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BENCH, prefix="label-") as folder:
        files = jpegs(arguments.photos, crops=60, quality=92)
        per_shard = max(1, arguments.images // arguments.shards)
        write_tars(Path(folder, "images"), files, arguments.shards, per_shard)
        megapixels = np.mean([np.prod(decode(data).shape[:2]) for data in files]) / 1e6
        print(
            f"{arguments.shards} tars of {per_shard} JPEGs, mean {megapixels:.2f} megapixels, "
            f"{np.mean([len(data) for data in files]) / 1024:.0f} KiB; {cores_of_machine()} cores, "
            f"{arguments.device}; torch {torch.__version__}, timm {timm.__version__}",
            flush=True,
        )
        if arguments.decoders:
            decoders(files)
        for size in arguments.sizes:
            compare(arguments, Path(folder), size)
            if arguments.techniques:
                label_techniques.techniques(arguments, size)
                label_techniques.resizing(arguments, files, size)
            if arguments.precisions:
                from benchmarks import label_precision  # noqa: PLC0415

                name = arguments.model.partition(".")[0]
                device = torch.device(arguments.device)
                label_precision.compare(Path(folder), files, name, size, device)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="folder of JPEG files; else crops of two photographs")
    parser.add_argument("--model", default="tf_efficientnetv2_b0")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224])
    parser.add_argument("--classes", type=int, default=21_843, help="outputs of the head")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=DTYPES, default="float32")
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    yes_or_no = argparse.BooleanOptionalAction
    parser.add_argument("--loop", action=yes_or_no, default=True, help="also a DataLoader's loop")
    parser.add_argument("--peers", action=yes_or_no, default=not torch.cuda.is_available())
    parser.add_argument(
        "--ray", action=yes_or_no, default=False, help="also Ray Data (opens ports)"
    )
    parser.add_argument("--decoders", action=yes_or_no, default=True)
    parser.add_argument("--precisions", action=yes_or_no, default=True)
    parser.add_argument("--techniques", action=yes_or_no, default=False)
    return parser.parse_args()


def write_tars(folder: Path, files: list[bytes], shards: int, per_shard: int) -> None:
    folder.mkdir()
    for shard in range(shards):
        samples = []
        for index in range(per_shard):
            key = f"{shard:05d}{index:04d}"
            image = files[(shard * per_shard + index) % len(files)]
            document = json.dumps({"id": shard * 10_000 + index, "key": key}).encode()
            samples.append((key, {"jpg": image, "json": document}))
        with (folder / f"{shard:05d}.tar").open("wb") as file:
            tars.write(file, samples)


def compare(arguments: argparse.Namespace, folder: Path, size: int) -> None:
    """End to end against the bare forward pass and the peers, in turns."""
    cores = cores_of_machine()
    checkpoint = str(folder / "model.pth")
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
    print(f"  model loaded in {time.perf_counter() - begin:.1f} s", flush=True)
    slot = Slot(arguments.device, cores, "bench")
    shards = find_shards(str(folder / "images"))
    images = arguments.shards * max(1, arguments.images // arguments.shards)
    idle: list[float] = []

    def end_to_end() -> float:
        output = folder / "beliefs"
        shutil.rmtree(output, ignore_errors=True)
        start = time.perf_counter()
        list(label_and_commit(Job(spec, str(output), "bench"), teacher, slot, shards))
        seconds = time.perf_counter() - start
        receipts = [json.loads(file.read_text()) for file in output.glob("_receipts/*.json")]
        idle.append(1 - sum(receipt["busy_seconds"] for receipt in receipts) / seconds)
        return images / seconds

    contenders: dict[str, Callable[[], float]] = {
        "end to end": end_to_end,
        "bare, as label runs it": lambda: bare(teacher, size, images, cores),
    }
    if teacher.device.type == "cpu":
        contenders["bare, one batch on all threads"] = lambda: bare_threads(
            teacher, size, images, cores
        )
    peers = open_peers(arguments, folder, spec)
    for name, peer in peers.items():
        contenders[name] = lambda peer=peer: peer.rate(images)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(arguments.rounds + 1):
        for name, measure in contenders.items():
            rate = measure()
            if turn:  # the first round fills caches and compiles
                rates[name].append(rate)
            print(f"  round {turn}: {name:<32} {rate:8.1f} images/s", flush=True)
    for peer in peers.values():
        peer.close()
    ours = rates["end to end"]
    print("  medians:")
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(ours, values, strict=True))
        print(
            f"    {name:<32} {statistics.median(values):8.1f} images/s "
            f"({min(values):.1f} to {max(values):.1f}); end to end is {ratio:.2f} of it"
        )
    print(f"    device idle end to end: {statistics.median(idle[1:]):.1%}")
    profile(teacher, folder, size)
    if teacher.device.type == "cuda":
        limit(teacher, size, statistics.median(ours))


def open_peers(arguments: argparse.Namespace, folder: Path, spec: TeacherSpec) -> dict[str, Peer]:
    """Start the peers; returns them by name and version."""
    peers = {}
    if arguments.loop:
        python, device = sys.executable, arguments.device
        peers["DataLoader, not compiled"] = Peer("DataLoader", python, folder, spec, device)
    if arguments.peers:
        name = "predict_batch_udf"
        peers[f"{name}, Spark {version('pyspark')}"] = Peer(name, sys.executable, folder, spec)
    if arguments.ray:
        python, number = ray_python(BENCH / "ray")
        peers[f"Ray Data {number}"] = Peer("Ray Data", python, folder, spec)
    return peers


def bare(teacher: Teacher, size: int, images: int, cores: int) -> float:
    """images/s of the network alone: on a CPU one batch per core, on a GPU one at a time."""
    batch = torch.randn(teacher.batch, 3, size, size, device=teacher.device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    count = -(-images // teacher.batch)

    def forward(_: int) -> None:
        with torch.inference_mode():
            teacher.forward(batch)

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
            teacher.forward(batch)
        seconds = time.perf_counter() - start
    torch.set_num_threads(before)
    return count * teacher.batch / seconds


def profile(teacher: Teacher, folder: Path, size: int) -> None:
    """Print the time that each step takes per image, in milliseconds of one core."""
    shard = find_shards(str(folder / "images"))[0]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    samples = [sample for sample in read_samples(shard) if isinstance(sample, Sample)][:200]
    pictures = [decode(sample.image) for sample in samples]
    inputs = torch.randn(teacher.batch, 3, size, size, device=teacher.device)
    logits = torch.randn(teacher.batch, teacher.space.size, device=teacher.device)
    dtype = DTYPES[teacher.spec.label_probs_dtype]
    steps: dict[str, tuple[int, Callable[[], object]]] = {
        "read the tar": (len(list(read_samples(shard))), lambda: list(read_samples(shard))),
        "decode": (len(samples), lambda: [decode(s.image) for s in samples]),
        "crop, resize, scale": (
            len(samples),
            lambda: [prepare(pixels, teacher.preset) for pixels in pictures],
        ),
        "forward pass": (len(inputs), lambda: teacher.forward(inputs)),
        "activation, round, top k": (
            len(logits),
            lambda: top_k(logits, teacher.k, teacher.activation, dtype),
        ),
    }
    print("  per image, on one core:")
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
    """Print the measured rate of the GPU's matrix units, and the share of it that is used."""
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
        f"  bf16 matmul {flops / 1e12:.0f} TFLOP/s, the model needs {needed / 1e9:.1f} GFLOP per "
        f"image: at most {flops / needed:.0f} images/s, end to end is {rate * needed / flops:.1%}"
    )


def decoders(files: list[bytes]) -> None:
    """Print images/s of each decoder on one core, and how often its pixels equal Pillow's."""
    import cv2  # noqa: PLC0415
    import torchvision  # noqa: PLC0415

    cv2.setNumThreads(1)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    rgb = torchvision.io.ImageReadMode.RGB

    def with_torchvision(data: bytes) -> np.ndarray:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return torchvision.io.decode_jpeg(encoded, mode=rgb).permute(1, 2, 0).numpy()

    functions = {
        "Pillow": decode_with_pillow,
        "OpenCV": lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), flags),
        "torchvision": with_torchvision,
        "decode()": decode,
    }
    print("decoders, one core:")
    for name, function in functions.items():
        equal = sum(np.array_equal(function(data), decode_with_pillow(data)) for data in files)
        rates = []
        for _ in range(3):
            start = time.perf_counter()
            for data in files:
                function(data)
            rates.append(len(files) / (time.perf_counter() - start))
        print(f"  {name:<12} {max(rates):7.0f} images/s, {equal}/{len(files)} equal to Pillow's")


if __name__ == "__main__":
    main()
