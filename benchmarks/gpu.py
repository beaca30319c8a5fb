"""The teacher on a GPU, in under nine minutes, without Spark, Java or a network.

    make bench-gpu                       # on this machine
    python -m benchmarks.gpu --tiny      # a tiny model on the CPU: only to see that it works
    make gpu-kit                         # build/gpu-kit: all that a bare machine needs

XL at 384 and 512 px and B0 at 224 px (`benchmarks.label`, a process per case): end to end against
the bare compiled forward pass, the share of the GPU's arithmetic limit and its idle share; but for
512 px, whose compiling takes most of its time, also against the loop that people write by hand with
a DataLoader, and the gain of each technique. Then cuDNN's kernels chosen by rule, as `label` has
them, against by stopwatch, and JPEG decoding by nvJPEG against the CPU cores. A case that outlives
its share of the time is stopped, and said to be.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torchvision

from benchmarks.photographs import jpegs
from coyo_labeler.formats.pictures import decode
from coyo_labeler.label.model import Teacher
from coyo_labeler.label.spec import TeacherSpec
from coyo_labeler.machine import cores_of_machine

SECONDS = 530.0


@dataclass(frozen=True)
class Case:
    """A teacher at one size. share: of the time. extras: also techniques and the loop by hand."""

    model: str
    size: int
    batch: int
    images: int
    share: float
    extras: bool = True


CASES = (
    Case("tf_efficientnetv2_xl", 384, 256, 4_096, 0.41),
    Case("tf_efficientnetv2_xl", 512, 128, 2_048, 0.32, extras=False),
    Case("tf_efficientnetv2_b0", 224, 512, 16_384, 0.22),
)
TINY = (Case("test_efficientnet", 64, 8, 24, 0.5),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time for all of it")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        raise SystemExit(
            "bench-gpu: PyTorch finds no GPU here; --tiny runs a tiny model on the CPU"
        )
    device = torch.device("cpu" if arguments.tiny else "cuda:0")
    name = platform.processor() if arguments.tiny else torch.cuda.get_device_name()
    print(f"{name}, {cores_of_machine()} cores; torch {torch.__version__}", flush=True)
    began = time.monotonic()
    jpeg_decoding(device, 24 if arguments.tiny else 512)
    for case in TINY if arguments.tiny else CASES:
        left = arguments.seconds - (time.monotonic() - began)
        run_case(case, device, min(left, case.share * arguments.seconds))
    left = arguments.seconds - (time.monotonic() - began)
    if left > 30:
        kernels(TINY[0] if arguments.tiny else CASES[0], device)
    else:
        print("cuDNN by rule and by stopwatch: no time was left")
    print(f"{time.monotonic() - began:.0f} s in all")


def run_case(case: Case, device: torch.device, seconds: float) -> None:
    """`benchmarks.label` on one case, for so many seconds at most."""
    precision = "float32" if device.type == "cpu" else "float16"
    command = [
        sys.executable, "-m", "benchmarks.label", "--model", case.model,
        "--sizes", str(case.size), "--batch", str(case.batch), "--images", str(case.images),
        "--shards", str(min(cores_of_machine(), case.images)),
        "--precision", precision, "--device", str(device),
        "--rounds", "1" if device.type == "cpu" else "2",
        "--no-peers", "--no-precisions", "--no-decoders",
        *(["--techniques"] if case.extras else ["--no-loop"]),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, timeout=max(seconds, 1.0), env=dict(os.environ))
    except subprocess.TimeoutExpired:
        print(f"{case.model} at {case.size} px: stopped after {seconds:.0f} s", flush=True)


def kernels(case: Case, device: torch.device) -> None:
    """Print images/s with cuDNN's kernels chosen by rule and by stopwatch.

    By stopwatch the choice may differ from run to run, and with it the last digits of the answers.
    """
    precision = "float32" if device.type == "cpu" else "float16"
    spec = TeacherSpec(
        case.model,
        pretrained=False,
        preprocess=f"automl_{case.size}",
        label_space="imagenet1k",
        batch_size=case.batch,
        precision=precision,
        compile=False,
    )
    teacher = Teacher(spec, device)
    images = torch.randn(teacher.batch, 3, case.size, case.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    print(f"cuDNN's kernels, {case.model} at {case.size} px, not compiled:")
    for label, by_stopwatch in (("by rule", False), ("by stopwatch", True)):
        torch.backends.cudnn.benchmark = by_stopwatch
        torch.backends.cudnn.deterministic = not by_stopwatch

        def forward() -> None:
            with torch.inference_mode():
                teacher.forward(images)

        rate = teacher.batch / per_call(forward, device)
        print(f"  {label:<14} {rate:9.1f} images/s", flush=True)


def jpeg_decoding(device: torch.device, count: int) -> None:
    """Print images/s of decoding on the CPU cores, and by nvJPEG where there is a GPU."""
    files = jpegs(None, crops=20, quality=92)
    files = (files * -(-count // len(files)))[:count]
    cores = cores_of_machine()
    print(f"decoding {count} JPEGs:")
    with ThreadPoolExecutor(cores) as pool:
        seconds = per_call(lambda: list(pool.map(decode, files)), device)
    print(f"  {cores} cores       {count / seconds:9.1f} images/s", flush=True)
    if device.type == "cuda":
        encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
        try:
            seconds = per_call(lambda: torchvision.io.decode_jpeg(encoded, device=device), device)
        except RuntimeError as error:  # a torchvision that was built without nvJPEG
            print(f"  nvJPEG: {str(error).splitlines()[0]}", flush=True)
            return
        print(f"  nvJPEG         {count / seconds:9.1f} images/s", flush=True)


def per_call(work: Callable[[], object], device: torch.device, seconds: float = 3.0) -> float:
    """Mean seconds of a call, after two that load and choose kernels."""
    for _ in range(2):
        work()
    synchronize(device)
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < seconds:
        work()
        synchronize(device)
        calls += 1
    return (time.perf_counter() - began) / calls


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
