"""What is done to a stage and its files at random."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.inputs import fingerprint_input
from tests.chaos.commands import TRIES, Stage, names


def kill(stage: Stage, dice: random.Random) -> None:
    """A run dies when it has made some of its files."""
    process = stage.start()
    stage.wait(process, dice.randint(1, stage.files + 2))
    time.sleep(dice.uniform(0.0, 0.05))
    stage.kill(process)


def double(stage: Stage, dice: random.Random) -> None:
    """A second run begins when the first has made some files; they may use different cores."""
    first = stage.start()
    stage.wait(first, dice.randint(1, stage.files))
    stage.run()
    stage.finish(first)


def overwrite(stage: Stage, dice: random.Random) -> None:
    """Another run takes the output, and this one takes it back."""
    stage.run(stage.other, "overwrite=true")
    if dice.random() < 0.5:
        _unfinish(stage)
        _any_table(stage, dice, Path.unlink)
    _take_back(stage)


def killed_overwrite(stage: Stage, dice: random.Random) -> None:
    """The other run dies while it clears a finished output, or soon after that."""
    stage.run()
    claim = stage.output / "_run.json"
    before = claim.read_bytes()
    process = stage.start(stage.other, "overwrite=true")
    while process.is_alive() and claim.exists() and claim.read_bytes() == before:
        time.sleep(0.001)
    time.sleep(dice.choice([0.0, 0.005, 0.3]))
    stage.kill(process)
    _take_back(stage)


def lose(stage: Stage, dice: random.Random) -> None:
    """A file of an unfinished output is gone."""
    _unfinish(stage)
    _any_table(stage, dice, Path.unlink)


def lose_later(stage: Stage, dice: random.Random) -> None:
    """A file of a finished output is gone: the next stage does not take it."""
    if stage.run() is None:
        before = names(stage.output)
        _any_table(stage, dice, Path.unlink)
        lost = [Path(name).relative_to(stage.output) for name in before - names(stage.output)]
        if any(path.suffix in {".parquet", ".tar"} and _is_visible(path) for path in lost):
            with pytest.raises(InputError, match=f"{lost[0]} is missing"):
                fingerprint_input("next", "input", str(stage.output))
        stage.run()


def cut(stage: Stage, dice: random.Random) -> None:
    """A file of an unfinished output ends too early."""

    def shorten(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: dice.randrange(len(data))] if data else b"")

    _unfinish(stage)
    _any_table(stage, dice, shorten)


def flip(stage: Stage, dice: random.Random) -> None:
    """One bit of a file of an unfinished output is another."""
    _unfinish(stage)
    _any_table(stage, dice, lambda path: _flip(path, dice, 0, path.stat().st_size))
    stage.flipped = True


def forget(stage: Stage, dice: random.Random) -> None:
    """A document of the run is empty, cut, or holds something else."""
    documents = sorted(path for path in stage.output.rglob("*.json") if path.name != "_run.json")
    if documents:
        path = dice.choice(documents)
        data = path.read_bytes()
        contents = [b"", data[: len(data) // 2], b"\0" * len(data), b"[]", b"{}", b"null"]
        path.write_bytes(dice.choice(contents))


def plant(stage: Stage, dice: random.Random) -> None:
    """A file of another run lies among those of an unfinished output."""
    _unfinish(stage)
    tables = _tables(stage.output)
    if tables:
        table = dice.choice(tables)
        name = "00099" if table.stem.isdecimal() else f"zz-{table.stem}"
        planted = table.with_name(name + table.suffix)
        shutil.copy(table, planted)
        error = stage.run()
        if error is not None and planted.exists():  # it says which file to remove
            assert str(planted) in error, error
            planted.unlink()


def rot(stage: Stage, dice: random.Random) -> None:
    """One bit of what the stage reads is another: it says so, or makes the same of it."""
    path = dice.choice(_tables(stage.reads))
    times, data = path.stat(), path.read_bytes()
    start, end = (0, len(data)) if path.suffix == ".tar" else _pages(path)
    _flip(path, dice, start, end)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    elsewhere = stage.output.with_name("rotten")
    shutil.rmtree(elsewhere, ignore_errors=True)
    if stage.run(output=elsewhere) is None:
        stage.same(elsewhere, stage.whole)
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


#: With processes that are killed, and without.
PROCESSES = [kill, double, killed_overwrite]
FILES = [overwrite, lose, lose_later, cut, flip, forget, plant, rot]


def _take_back(stage: Stage) -> None:
    """Replace another run. Tasks of a killed one may write a file after its process is gone."""
    errors = [stage.run("overwrite=true")]
    while errors[-1] is not None and len(errors) < TRIES:
        errors.append(stage.run("overwrite=true"))
    assert errors[-1] is None, errors


def _unfinish(stage: Stage) -> None:
    (stage.output / "_manifest.json").unlink(missing_ok=True)


def _tables(folder: Path) -> list[Path]:
    """The files of the tables below a folder, and those that a run keeps for itself."""
    suffixes = {".parquet", ".tar", ".safetensors", ".pt"}
    return sorted(path for path in folder.rglob("*") if path.suffix in suffixes and path.is_file())


def _is_visible(path: Path) -> bool:
    """Whether readers take a file for a part of a table."""
    return not any(part.startswith(("_", ".")) and part != "_rejects" for part in path.parts)


def _any_table(stage: Stage, dice: random.Random, change: Callable[[Path], None]) -> None:
    tables = _tables(stage.output)
    if tables:
        change(dice.choice(tables))


def _flip(path: Path, dice: random.Random, start: int, end: int) -> None:
    data = bytearray(path.read_bytes())
    if end > start:
        data[dice.randrange(start, end)] ^= 1 << dice.randrange(8)
        path.write_bytes(data)


def _pages(path: Path) -> tuple[int, int]:
    """Where the pages of a Parquet file lie: its footer has no checksum."""
    size = path.stat().st_size
    return 4, size - 8 - pq.read_metadata(path).serialized_size
