"""A stage that is disturbed: run here, or in a process of its own that can be killed."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from pyspark.sql import SparkSession

from coyo_labeler import cli
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.manifest import read_manifest
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from coyo_labeler.storage_errors import DamagedFileError

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.chaos.preload"])

#: Runs of one output after which it must be finished, once nothing disturbs it any more.
TRIES = 4


@dataclass
class Stage:
    """A command, how its tables are compared, and its output beside that of an undisturbed run.

    other: a word that makes it another run. reads: an input whose files can be damaged. same:
    raises AssertionError where the tables of two outputs differ. repair: what a user does about
    files that only the next stage finds damaged. flipped: whether there may be such files.
    """

    name: str
    words: list[str]
    output: Path
    other: str
    reads: Path
    same: Callable[[Path, Path], None]
    spark: SparkSession | None = None
    repair: Callable[[Path], None] | None = None
    flipped: bool = False
    log: list[str] = field(default_factory=list)

    @property
    def whole(self) -> Path:
        """The output of the undisturbed run."""
        return self.output.with_name(self.output.name + "-whole")

    @property
    def files(self) -> int:
        """How many files an undisturbed run leaves."""
        return len(names(self.whole))

    def run(self, *more: str, output: Path | None = None) -> str | None:
        """Run it in this process; returns its error of one line, None without one."""
        words = [*self.words, f"output={output or self.output}", *more]
        try:
            run_stage(STAGES[self.name], read_stage_settings(STAGES[self.name], words), self.spark)
        except Exception as error:
            explained = cli._explain(error)
            if explained is None:
                raise
            assert isinstance(explained, InputError | WorkError)
            text = str(explained)
            assert "\n" not in text, text
            self.log.append(text)
            return text
        return None

    def start(self, *more: str) -> BaseProcess:
        """Run it in a process of its own, perhaps on another number of cores."""
        words = [self.name, *self.words, f"output={self.output}", *more]
        if self.spark is not None:
            words += [
                "spark.conf.spark.sql.shuffle.partitions=2",
                "spark.conf.spark.ui.enabled=false",
                "spark.conf.spark.python.daemon.module=tests.python_daemon",
            ]
        process = _CONTEXT.Process(target=_work, args=(words, str(self._errors)))
        process.start()
        return process

    def wait(self, process: BaseProcess, files: int, seconds: float = 60.0) -> None:
        """Until the process has made so many files, or has ended."""
        before = names(self.output)
        made: set[str] = set()
        until = time.monotonic() + seconds
        while process.is_alive() and len(made) < files and time.monotonic() < until:
            made |= names(self.output) - before
            time.sleep(0.002)
        self.log.append(f"{len(made)} files of {files}")

    def finish(self, process: BaseProcess) -> int | None:
        """The status of a process; no traceback, whatever it met."""
        process.join()
        errors = self._errors.read_text(errors="replace")
        assert "Traceback" not in errors, errors[-3000:]
        return process.exitcode

    def kill(self, process: BaseProcess) -> None:
        """As the system does that is out of memory."""
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()

    def check(self, done: list[str]) -> None:
        """Wherever there is a manifest, the tables are those of the undisturbed run."""
        if self.flipped and self.repair is not None:
            return
        if self.is_finished():
            try:
                self.same(self.output, self.whole)
            except AssertionError as error:
                raise AssertionError(f"{self.name} after {done}: {self.log[-3:]}") from error

    def is_finished(self) -> bool:
        """Whether a reader takes the output for finished."""
        try:
            return read_manifest(str(self.output)) is not None
        except DamagedFileError:
            return False

    def end(self, done: list[str]) -> None:
        """Undisturbed, the same command gets there."""
        errors = []
        for _ in range(TRIES):
            error = self.run()
            if error is None and self.flipped and self.repair is not None:
                self.repair(self.output)
                self.flipped = False
                error = self.run()
            if error is None:
                self.check(done)
                return
            errors.append(error)
        raise AssertionError(f"{self.name}: no end after {done}: {errors}")

    @property
    def _errors(self) -> Path:
        return self.output.with_name(self.output.name + "-errors.txt")


def names(folder: Path) -> set[str]:
    """All files below a folder, from which others may be removed meanwhile."""
    return {f"{root}/{name}" for root, _, files in os.walk(folder) for name in files}


def _work(words: list[str], errors: str) -> None:
    descriptor = os.open(errors, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.exit(cli.main(words))
