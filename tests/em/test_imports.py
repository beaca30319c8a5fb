"""`em` is pure: NumPy, compiled loops, and of this package only itself, errors and hashing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import coyo_labeler.em

MODULES = sorted(Path(coyo_labeler.em.__file__).parent.glob("*.py"))
ALLOWED = (
    "numpy",
    "coyo_labeler.compiled",
    "coyo_labeler.em",
    "coyo_labeler.errors",
    "coyo_labeler.hashing",
)


def imports_of(path):
    """The names of all modules that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            # `from coyo_labeler import storage` imports a module of the package.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_allowed(name):
    if name.split(".")[0] in sys.stdlib_module_names:
        return True
    return any(name == module or name.startswith(module + ".") for module in ALLOWED)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_em_imports_numpy_and_itself_alone(path):
    assert [name for name in imports_of(path) if not is_allowed(name)] == []


def test_no_other_library_is_loaded_with_em():
    """Nor by what it imports: in a process of its own, for tests load everything."""
    script = (
        "import importlib, sys\n"
        f"for name in {[path.stem for path in MODULES]}:\n"
        "    importlib.import_module('coyo_labeler.em.' + name if name != '__init__' else "
        "'coyo_labeler.em')\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert {"numpy", "coyo_labeler"} <= loaded
    assert loaded.isdisjoint({"pyarrow", "pandas", "pyspark", "fsspec", "pydantic", "torch"})


def test_the_check_sees_every_kind_of_import(tmp_path):
    """Were it blind, the test above would pass whatever `em` imports."""
    path = tmp_path / "module.py"
    path.write_text(
        "import numpy as np, pyarrow.compute\n"
        "from coyo_labeler import storage\n"
        "from coyo_labeler.emulate import x\n"
        "def f():\n    from coyo_labeler.config.merge import MergeSettings\n"
    )
    forbidden = [name for name in imports_of(path) if not is_allowed(name)]
    assert forbidden == [
        "pyarrow.compute",
        "coyo_labeler.storage",
        "coyo_labeler.emulate.x",
        "coyo_labeler.config.merge.MergeSettings",
    ]
