"""The loss of fidelity and the gain in speed of each precision.

The teacher here has batch-norm statistics of photographs and a head whose 21,843 outputs have a
standard deviation of 2.5 around −5, so its answers depend on the picture. Those of a freshly
initialised model hardly do, and would make every precision look exact.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from coyo_labeler.formats.pictures import decode
from coyo_labeler.label.model import DTYPES, Teacher
from coyo_labeler.label.preprocess import prepare
from coyo_labeler.label.spec import TeacherSpec
from coyo_labeler.machine import cores_of_machine
from tests.label.teachers import save_teacher

CALIBRATION = 24
K = 50


def compare(folder: Path, files: list[bytes], model: str, size: int, device: torch.device) -> None:
    """Print how far the probabilities of each precision are from float32's, and its images/s."""
    pictures = [decode(data) for data in files]
    checkpoint = folder / "spread.safetensors"
    save_teacher(checkpoint, 21_843, size, pictures[:CALIBRATION], model)
    probs, rates = {}, {}
    for precision in DTYPES:
        spec = TeacherSpec(
            model,
            checkpoint=str(checkpoint),
            preprocess=f"automl_{size}",
            precision=precision,
            batch_size=16,
        )
        print(f"  {precision} …", end="\r", flush=True)
        probs[precision], rates[precision] = answers(Teacher(spec, device), pictures)
    exact = probs["float32"]
    best = np.argsort(-exact, axis=1, kind="stable")[:, :K]
    print(f"precision: {model} at {size} px, {len(files)} pictures, against float32:")
    print("  |difference| of the top 50 probabilities: median / 99 % / largest; top-1 agreement;")
    print("  share of the top 50 in common; images/s")
    for precision, rounded in probs.items():
        error = np.abs(np.take_along_axis(rounded - exact, best, 1))
        order = np.argsort(-rounded, axis=1, kind="stable")[:, :K]
        common = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(order, best, strict=True)])
        top1 = np.mean(order[:, 0] == best[:, 0])
        print(
            f"  {precision:<9} {np.median(error):.5f} / {np.quantile(error, 0.99):.4f} / "
            f"{error.max():.4f}; {top1:7.2%}; {common:.3f}; {rates[precision]:8.1f}"
        )


def answers(teacher: Teacher, pictures: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """Sigmoid probabilities (pictures, classes) float64, and images/s of the forward pass."""
    images = torch.stack([prepare(pixels, teacher.preset) for pixels in pictures])
    batches = [batch.to(teacher.device) for batch in images.split(teacher.batch)]

    def forward(batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return teacher.forward(batch)[0].double().sigmoid().cpu()

    threads = cores_of_machine() if teacher.device.type == "cpu" else 1
    before = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        forward(batches[0])
        start = time.perf_counter()
        probs = torch.cat(list(pool.map(forward, batches)))
        seconds = time.perf_counter() - start
    torch.set_num_threads(before)
    return probs.numpy(), len(pictures) / seconds
