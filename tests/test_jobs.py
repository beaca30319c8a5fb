"""Scripts for spark-submit: a folder that holds select.py must not hide the standard library's."""

import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[1] / "coyo_labeler" / "jobs"


@pytest.mark.parametrize("name", ["select", "merge"])
def test_a_script_runs_beside_select(name):
    done = subprocess.run(
        [sys.executable, str(JOBS / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: coyo-labeler {name}" in done.stdout


def test_the_standard_library_gets_its_own_select():
    """As on a cluster, where the script lies in the working folder of the executors too."""
    code = "import select, selectors, subprocess; print(hasattr(select, 'select'), select.__spec__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=JOBS, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("True")
    assert "jobs" not in done.stdout
