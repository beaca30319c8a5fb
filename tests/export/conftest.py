from pathlib import Path
from typing import Any

import pytest

from tests.export.builders import write_labels


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "names.txt").write_text("cat\ndog\nboot\n")
    return {
        "labels": write_labels(tmp_path / "labels", range(12)),
        "label_space": str(tmp_path / "names.txt"),
        "output": str(tmp_path / "out"),
        "threshold": 0.3,
    }
