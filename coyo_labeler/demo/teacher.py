"""The demo's stand-in teacher: a small EfficientNetV2, trained from scratch on 300 digits.

It replaces a network trained on ImageNet-21k, whose weights would have to be downloaded. It is
trained like those: one sigmoid per class, binary cross-entropy.
"""

from pathlib import Path

import timm
import torch
from pyarrow import csv
from safetensors.torch import save
from torch.nn import functional

from coyo_labeler import storage
from coyo_labeler.formats.pictures import decode
from coyo_labeler.label.preprocess import automl_preset, prepare
from coyo_labeler.progress import Progress

MODEL = "tf_efficientnetv2_b0"
PREPROCESS = "automl_64"
CLASSES = 10
EPOCHS = 20
BATCH = 32
LEARNING_RATE = 3e-3
#: Maximal shift of a training picture in pixels, in each direction.
SHIFT = 2
#: Floating-point sums depend on the number of threads. One thread gives the same weights on any
#: number of cores, and never waits for others on a busy machine.
THREADS = 1


def train(source: str, folder: str) -> None:
    """Train on the scans of `source/teacher-scans.csv`; write `folder/model.safetensors`."""
    images, labels = _read_scans(Path(source))
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = _fit(images, labels)
    finally:
        torch.set_num_threads(threads)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    storage.write_bytes(storage.join(folder, "model.safetensors"), save(state))


def _read_scans(source: Path) -> tuple[torch.Tensor, torch.Tensor]:
    scans = csv.read_csv(source / "teacher-scans.csv")
    how = automl_preset(PREPROCESS)
    images = [
        prepare(decode((source / "images" / name).read_bytes()), how)
        for name in scans["name"].to_pylist()
    ]
    return torch.stack(images), torch.tensor(scans["label"].to_pylist())


def _fit(images: torch.Tensor, labels: torch.Tensor) -> torch.nn.Module:
    """images: (n, 3, size, size) float32; labels: (n,) int64."""
    model: torch.nn.Module = timm.create_model(MODEL, num_classes=CLASSES, drop_rate=0.1)
    torch.nn.init.constant_(model.get_parameter("classifier.bias"), -2.0)
    targets = functional.one_hot(labels, CLASSES).float()
    batches = len(images) // BATCH
    steps = EPOCHS * batches
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    model.train()
    with Progress("stand-in teacher", steps, "steps") as progress:
        for step in range(steps):
            if step % batches == 0:
                order = torch.randperm(len(images))
            chosen = order[step % batches * BATCH :][:BATCH]
            shift = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
            shifted = torch.roll(images[chosen], shift, dims=(2, 3))
            loss = functional.binary_cross_entropy_with_logits(
                model(shifted), targets[chosen], reduction="none"
            )
            optimiser.zero_grad()
            loss.sum(dim=1).mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            progress.update(step + 1)
    return model.eval()
