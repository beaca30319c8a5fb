"""Instead of a checkpoint that is damaged, the one before it is used."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from coyo_labeler.data import Loader
from coyo_labeler.pretrain.checkpoint import Checkpoints, Training
from coyo_labeler.pretrain.distributed import Process
from coyo_labeler.pretrain.meter import Meter

CPU = torch.device("cpu")


class Position:
    """As much of a loader as a checkpoint needs."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"turn": 0}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def training(step: int) -> Training:
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, step)
    optimiser = torch.optim.AdamW(model.parameters())
    return Training(model, optimiser, cast(Loader, Position()), Meter(CPU), step)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Those of steps 1 and 2."""
    written = Checkpoints(str(tmp_path), "f", Process(0, 1, CPU))
    for step in (1, 2):
        written.save(training(step), 2, {})
    return written


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"not json", b'{"step": 2}'])
def test_a_damaged_record_leaves_the_checkpoint_before(
    checkpoints: Checkpoints, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "checkpoints/00000002/done.json").write_bytes(content)
    restored = training(0)
    assert checkpoints.load(restored)
    assert restored.step == 1
    assert restored.model.weight.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.pt", "process-00000.pt"])
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "other"])
def test_a_damaged_file_leaves_the_checkpoint_before(
    checkpoints: Checkpoints, tmp_path: Path, name: str, damage: str
) -> None:
    path = tmp_path / "checkpoints/00000002" / name
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "other": b"x" * 99}[damage])
    restored = training(0)
    assert checkpoints.load(restored)
    assert restored.step == 1
