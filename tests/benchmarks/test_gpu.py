"""The GPU benchmark, with a tiny model on the CPU."""

import subprocess
import sys


def test_the_gpu_benchmark_runs_to_its_end():
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--seconds", "3600"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    for figure in (
        "end to end", "bare, as label runs it", "+ channels_last", "by rule",
        "by stopwatch", "decode", "s in all",
    ):  # fmt: skip
        assert figure in ran.stdout, figure
    assert "stopped after" not in ran.stdout
