"""The whole way from a file to labels again: slow, plain, in float64, with none of our code.

Every wrong way that is easy to take has a switch.
"""

import io
from pathlib import Path

import numpy as np
import timm
import timm.data
import torch
from PIL import Image
from safetensors.torch import load_file


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bilinear at half-pixel centres, no antialias: output i samples (i + 0.5)·n/size − 0.5."""
    height, width = pixels.shape[:2]
    rows, columns = np.empty((size, width, 3)), np.empty((size, size, 3))
    for i in range(size):
        low, high, share = _between((i + 0.5) * height / size - 0.5, height)
        rows[i] = (1 - share) * pixels[low] + share * pixels[high]
    for j in range(size):
        low, high, share = _between((j + 0.5) * width / size - 0.5, width)
        columns[:, j] = (1 - share) * rows[:, low] + share * rows[:, high]
    return columns


def _between(position: float, n: int) -> tuple[int, int, float]:
    position = min(max(position, 0.0), n - 1.0)
    low = int(np.floor(position))
    return low, min(low + 1, n - 1), position - low


def central_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """size / (size + 32) of the short side, as google/automl cuts it."""
    height, width = pixels.shape[:2]
    side = int(size / (size + 32) * min(height, width))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return pixels[top : top + side, left : left + side]


def prepare(data: bytes, size: int, wrong: str = "") -> np.ndarray:
    """(3, size, size) float64."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.float64)
    if size < 320 and wrong != "no crop":
        pixels = central_square(pixels, size)
    if wrong in {"bicubic", "antialias"}:
        method = Image.Resampling.BICUBIC if wrong == "bicubic" else Image.Resampling.BILINEAR
        planes = [Image.fromarray(plane.astype(np.float32)) for plane in pixels.transpose(2, 0, 1)]
        small = np.stack([plane.resize((size, size), method) for plane in planes], axis=2)
    else:
        small = resize(pixels, size)
    middle = 127.5 if wrong == "127.5" else 128.0
    return ((small - middle) / middle).transpose(2, 0, 1)


def answer(
    files: list[bytes], model: str, checkpoint: Path, size: int, k: int, wrong: str = ""
) -> list[dict[int, float]]:
    """The k most probable classes of imagenet21k for each file, best first."""
    state = load_file(checkpoint)
    network = timm.create_model(model, num_classes=len(state["classifier.bias"])).eval()
    network.load_state_dict(state)
    folder = Path(timm.data.__file__).parent / "_info"
    ours = (folder / "imagenet22k_synsets.txt").read_text().split()
    theirs = (folder / "imagenet21k_goog_synsets.txt").read_text().split()
    output_of = {synset: output for output, synset in enumerate(theirs)}
    answers = []
    for data in files:
        image = torch.from_numpy(prepare(data, size, wrong).astype(np.float32))
        with torch.no_grad():
            logits = network(image[None])[0].double().numpy()
        if wrong == "softmax":
            probs = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        else:
            probs = 1 / (1 + np.exp(-logits))
        if wrong != "class order":
            probs = np.array([probs[output_of[synset]] for synset in ours])
        best = sorted(range(len(probs)), key=lambda label: (-probs[label], label))[:k]
        answers.append({label: float(probs[label]) for label in best})
    return answers
