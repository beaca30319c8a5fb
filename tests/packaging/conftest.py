"""The wheel, installed into environments of its own as strangers do; only by test-packaging."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))

#: Seconds for one command of a persona on a busy machine.
PATIENCE = 600


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel and its extras. folder: of the environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    def run(
        self, *words: object, java: bool = False, cwd: Path | None = None, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment, and nothing of the checkout, with or without Java."""
        kept = ("HOME", "TMPDIR", "LANG", *(("JAVA_HOME", "PATH") if java else ()))
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        path = [str(self.folder / "bin"), *([environment["PATH"]] if java else [])]
        environment |= {"PATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", **variables}
        program, *arguments = map(str, words)
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def refuse(self, *words: object, **options: object) -> str:
        """The one line of a command that ends with status 2."""
        done = self.run("coyo-labeler", *words, **options)
        assert done.returncode == 2, done.stderr
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 or options.get("java"), done.stderr  # Spark may warn before
        assert lines[-1].startswith("error: "), done.stderr
        return lines[-1]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([UV, "build", "-q", "--wheel", "-o", folder, ROOT], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """install(extras): an environment with the wheel, at the versions of constraints.txt."""
    made: dict[str, Environment] = {}

    def make(extras: str = "") -> Environment:
        if extras not in made:
            folder = tmp_path_factory.mktemp(extras.replace(",", "-") or "base") / "env"
            environment = Environment(folder)
            package = f"coyo-labeler[{extras}]" if extras else "coyo-labeler"
            install = [UV, "pip", "install", "-q", "--python", environment.python]
            install += ["-c", ROOT / "constraints.txt", f"{package} @ {wheel.as_uri()}"]
            subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True)
            subprocess.run(install, check=True)
            made[extras] = environment
        return made[extras]

    return make
