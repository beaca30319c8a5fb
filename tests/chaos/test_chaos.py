"""Label and merge, disturbed at random: kills, overwrites, second writers, flipped and lost files.

Whatever happens, a run ends in the tables of an undisturbed one or in an error of one line, and the
same command leads there in the end. CHAOS_SECONDS sets how long it goes on, CHAOS_SEED with what.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coyo_labeler.manifest import read_manifest
from tests.label.conftest import one_thread, small_spec, small_teacher  # noqa: F401 - fixtures
from tests.label.jobs import FILES
from tests.label.tars import write_tar
from tests.merge.tables import assert_same_tables
from tests.merge.test_invariance import GIVEN, write
from tests.merge.test_stage import labels_file

SECONDS = float(os.environ.get("CHAOS_SECONDS", "40"))
SEED = int(os.environ.get("CHAOS_SEED", "17"))

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(int(SECONDS * 4) + 600)]

#: Runs of one output after which it must be finished, once nothing disturbs it any more.
TRIES = 4


class Stage:
    """A command, how its tables are compared, and its output beside that of an undisturbed run."""

    def __init__(self, words: list[str], output: Path, same: Callable[[Path, Path], None]) -> None:
        self.words, self.output, self.same = words, output, same
        self.whole = output.with_name(output.name + "-whole")
        assert self.finish(self.start(output=self.whole)) == 0

    def start(self, *more: str, output: Path | None = None) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "coyo_labeler.cli", *self.words, *more]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*command, f"output={output or self.output}"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def finish(self, process: "subprocess.Popen[str]") -> int:
        """The status of a command; no traceback, whatever it met."""
        errors = process.communicate()[1]
        assert "Traceback" not in errors, errors
        return process.returncode

    def check(self, disturbances: list[str]) -> None:
        """Wherever there is a manifest, the tables are those of the undisturbed run."""
        if read_manifest(str(self.output)) is not None:
            try:
                self.same(self.output, self.whole)
            except AssertionError as error:
                raise AssertionError(f"after {disturbances}") from error

    def end(self, disturbances: list[str]) -> None:
        """Undisturbed, the same command gets there; what is left to remove it has named."""
        for _ in range(TRIES):
            if self.finish(self.start()) == 0:
                self.check(disturbances)
                return
        raise AssertionError(f"no end after {disturbances}")


def kill(stage: Stage, dice: random.Random) -> None:
    process = stage.start()
    time.sleep(dice.uniform(0.5, 6.0))
    process.send_signal(signal.SIGKILL)
    process.communicate()


def double(stage: Stage, dice: random.Random) -> None:
    first = stage.start()
    time.sleep(dice.uniform(0.0, 3.0))
    second = stage.start()
    statuses = {stage.finish(first), stage.finish(second)}
    assert 0 in statuses


def overwrite(stage: Stage, dice: random.Random) -> None:
    """Other settings take the output, and are killed on the way or not; then these come back."""
    other = "top_k=2" if stage.words[0] == "label" else "prior_strength=3"
    process = stage.start(other, "overwrite=true")
    time.sleep(dice.uniform(0.5, 6.0))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert stage.finish(stage.start("overwrite=true")) == 0


def lose(stage: Stage, dice: random.Random) -> None:
    """A file of an unfinished output is gone."""
    _unfinish(stage)
    _any_table(stage, dice, lambda path: path.unlink())


def flip(stage: Stage, dice: random.Random) -> None:
    """The last bytes of a file of an unfinished output are others."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[dice.randrange(max(0, len(data) - 16_384), len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)

    _unfinish(stage)
    _any_table(stage, dice, damage)


def _unfinish(stage: Stage) -> None:
    (stage.output / "_manifest.json").unlink(missing_ok=True)


def _any_table(stage: Stage, dice: random.Random, change: Callable[[Path], None]) -> None:
    tables = sorted(path for path in stage.output.rglob("*.parquet") if path.is_file())
    if tables:
        change(dice.choice(tables))


DISTURBANCES = [kill, kill, double, overwrite, lose, flip]


def same_files(one: Path, other: Path) -> None:
    tables = [
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.parquet")}
        for folder in (one, other)
    ]
    assert tables[0] == tables[1]


def label_stage(folder: Path, spec: dict[str, object]) -> Stage:
    for shard in range(6):
        write_tar(folder / "images", shard, [*FILES[: 2 + shard % 4], b"poison"])
    words = [f"{key}={value}" for key, value in spec.items()]
    words = ["label", "engine=local", "device=cpu", f"images={folder / 'images'}", *words]
    return Stage(words, folder / "beliefs", same_files)


def merge_stage(folder: Path) -> Stage:
    given = {**GIVEN, **write(folder / "in", 0, 2), "label_space": labels_file(folder)}
    words = [f"{key}={value}" for key, value in given.items()]
    words = ["merge", "engine=local", "worker_model=confusion", *words]
    return Stage(words, folder / "merged", assert_same_tables)


@pytest.mark.parametrize("name", ["label", "merge"])
def test_nothing_is_lost_or_doubled_whatever_happens(name, tmp_path, request):
    if name == "label":
        stage = label_stage(tmp_path, request.getfixturevalue("small_spec"))
    else:
        stage = merge_stage(tmp_path)
    dice = random.Random(SEED)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        shutil.rmtree(stage.output, ignore_errors=True)
        chosen = dice.choices(DISTURBANCES, k=dice.randint(1, 3))
        done = []
        for disturbance in chosen:
            done.append(disturbance.__name__)
            disturbance(stage, dice)
            stage.check(done)
        stage.end(done)
