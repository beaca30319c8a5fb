"""The gain from each technique of `label`, for the bare network and for making inputs."""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import timm
import torch

from coyo_labeler.formats.pictures import decode
from coyo_labeler.label.model import DTYPES
from coyo_labeler.label.preprocess import automl_preset, prepare
from coyo_labeler.label.resize import prepare_in_a_row
from coyo_labeler.machine import cores_of_machine


def techniques(arguments: argparse.Namespace, size: int) -> None:
    """Print images/s of the bare network with one technique after another."""
    device = torch.device(arguments.device)
    print("  technique by technique, bare forward pass:")
    # Without the compiler, which takes minutes for each shape: its gain is that of "bare, as label
    # runs it" over "+ float16".
    steps = [
        ("float32, NCHW", False, "float32", arguments.batch),
        ("+ channels_last", True, "float32", arguments.batch),
        ("or bfloat16", True, "bfloat16", arguments.batch),
        ("+ float16", True, "float16", arguments.batch),
        ("batch × 2", True, "float16", arguments.batch * 2),
        ("batch / 2", True, "float16", arguments.batch // 2),
    ]
    name = arguments.model.partition(".")[0]
    if device.type == "cpu":  # no half precision can be counted on
        steps = [step for step in steps if step[2] == "float32"]
    model = timm.create_model(name, num_classes=arguments.classes).eval().to(device)
    for label, channels_last, precision, count in steps:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = model.to(memory_format=layout)
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
                    model(batch)
                if device.type == "cuda":
                    torch.cuda.synchronize()
        rate = repeats * count / (time.perf_counter() - start)
        print(f"    {label:<20} batch {count:<5} {precision:<9} {rate:8.1f} images/s", flush=True)


def resizing(arguments: argparse.Namespace, files: list[bytes], size: int) -> None:
    """Print images/s for making inputs on the device, with resizing there or on the host."""
    device = torch.device(arguments.device)
    preset = automl_preset(f"automl_{size}")
    pictures = [torch.from_numpy(decode(data)) for data in files]
    pictures = (pictures * -(-arguments.batch // len(pictures)))[: arguments.batch]
    cores = cores_of_machine()
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        functions: dict[str, Callable[[], torch.Tensor]] = {
            f"resize on host, {cores} cores": lambda: torch.stack(
                list(pool.map(lambda picture: prepare(picture, preset), pictures))
            ).to(device),
            "resize on device, one by one": lambda: torch.stack(
                [prepare(picture.to(device), preset) for picture in pictures]
            ),
            "resize on device, all at once": lambda: prepare_in_a_row(
                torch.cat([picture.view(-1) for picture in pictures]).to(device),
                [0, *accumulate(picture.numel() for picture in pictures[:-1])],
                [(picture.shape[0], picture.shape[1]) for picture in pictures],
                preset,
            ),
        }
        for label, function in functions.items():
            for _ in range(2):  # the first turn loads kernels
                start = time.perf_counter()
                function()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                rate = len(pictures) / (time.perf_counter() - start)
            print(f"    {label:<36} inputs only     {rate:8.1f} images/s", flush=True)
