"""The example of docs/training.md runs as it stands."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coyo_labeler.data import LabelledImages, Loader

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_example_trains(
    folders: Callable[..., tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders(3, 2)
    (tmp_path / "beliefs").rename(tmp_path / "merged")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    exec(compile(example, str(DOCUMENT), "exec"), {})
    assert "'drawn': 10, 'used': 10" in capsys.readouterr().out
    state = torch.load("checkpoint.pt")["loader"]
    resumed = Loader(LabelledImages("images", "merged"), 64, num_workers=2)
    resumed.load_state_dict(state)
    assert resumed.counts["used"] == 10
