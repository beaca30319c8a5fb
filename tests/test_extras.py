"""What is said where a package of an extra is missing."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import coyo_labeler
from coyo_labeler import cli, extras, storage
from coyo_labeler.errors import InputError
from coyo_labeler.extras import MissingPackageError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: Modules that fsspec and PyTorch import for us.
IMPORTED_FOR_US = {"adlfs", "gcsfs", "s3fs", "tensorboard"}


def distributions(requirements: list[str]) -> set[str]:
    """The names of requirements, those of the package's own extras included."""
    names = set()
    for requirement in requirements:
        if own := re.fullmatch(r"coyo-labeler\[([\w,]+)\]", requirement):
            for extra in own[1].split(","):
                names |= distributions(PROJECT["optional-dependencies"][extra])
        else:
            names.add(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return names


def imported() -> set[str]:
    """The modules from elsewhere that the package imports anywhere."""
    found = set()
    for path in (ROOT / "coyo_labeler").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).partition(".")[0])
    return found - sys.stdlib_module_names - {"coyo_labeler"}


def test_every_optional_import_is_in_the_table():
    base = distributions(PROJECT["dependencies"])
    names = {"pythonjsonlogger": "python-json-logger", "yaml": "pyyaml"}
    optional = {module for module in imported() if names.get(module, module) not in base}
    assert optional | IMPORTED_FOR_US == extras.EXTRAS_OF.keys()


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_the_extra_that_is_asked_for_is_advised_wherever_it_installs_the_module(extra):
    declared = distributions(PROJECT["optional-dependencies"][extra])
    for module in extras.EXTRAS_OF:
        advised = f"coyo-labeler[{extra}]" in extras.remedy(module, extra)
        if extra in extras.EXTRAS_OF[module] or extra in ("demo", "train"):
            assert advised == (extras.distribution_of(module) in declared), module


@pytest.mark.parametrize("module", extras.EXTRAS_OF)
def test_the_extras_of_a_module_install_it(module):
    for extra in extras.EXTRAS_OF[module]:
        declared = distributions(PROJECT["optional-dependencies"][extra])
        assert extras.distribution_of(module) in declared, extra


@pytest.fixture
def bare(monkeypatch):
    """Nothing optional is installed."""
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)


@pytest.mark.usefixtures("bare")
def test_all_that_is_missing_is_named_at_once():
    with pytest.raises(MissingPackageError) as error:
        extras.require("demo", "sklearn", "PIL", "torch", extra="demo")
    assert str(error.value) == (
        "demo: scikit-learn and pillow and torch are not installed: "
        "pip install 'coyo-labeler[demo]'"
    )


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            ModuleNotFoundError("No module named 'timm.data'", name="timm.data"),
            "pretrain_vit: timm is not installed: pip install 'coyo-labeler[train]'",
        ),
        (
            ModuleNotFoundError("No module named 'scipy'", name="scipy"),
            "pretrain_vit: scipy is not installed: pip install 'coyo-labeler[em]'",
        ),
        (  # what a declared package needs itself
            ModuleNotFoundError("No module named 'sympy'", name="sympy"),
            "pretrain_vit: sympy is not installed: pip install 'coyo-labeler[train]'",
        ),
        (
            ImportError("libGL.so.1: cannot open shared object file"),
            "pretrain_vit: a package cannot be imported (libGL.so.1: cannot open shared object "
            "file); install what it lacks, or another version: pip install --upgrade "
            "'coyo-labeler[train]'",
        ),
        (
            ImportError("cannot import name 'x' from 'torch'", name="torch"),
            "pretrain_vit: torch cannot be imported (cannot import name 'x' from 'torch'); install "
            "what it lacks, or another version: pip install --upgrade 'coyo-labeler[train]'",
        ),
    ],
)
def test_an_import_that_fails_says_what_to_install(error, says):
    with (
        pytest.raises(MissingPackageError, match=f"^{re.escape(says)}$"),
        extras.needed("pretrain_vit", "train"),
    ):
        raise error


def test_a_wrong_import_of_our_own_stays_a_fault():
    error = ImportError("cannot import name 'x'", name="coyo_labeler.label")
    with pytest.raises(ImportError) as raised, extras.needed("label", "teacher"):
        raise error
    assert raised.value is error


@pytest.mark.usefixtures("bare")
def test_the_estimator_says_what_it_needs_when_it_is_made():
    assert hasattr(coyo_labeler, "DawidSkene")
    with pytest.raises(InputError, match=r"DawidSkene: pandas and scipy .*'coyo-labeler\[em\]'"):
        coyo_labeler.DawidSkene()


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def without(modules: set[str], code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=modules) + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_and_its_estimator_import_without_extras():
    without(
        set(extras.EXTRAS_OF),
        "import coyo_labeler\nfrom coyo_labeler import *\nassert DawidSkene\n"
        "assert coyo_labeler.__version__",
    )


def test_a_driver_of_label_imports_no_torch():
    without(
        {"torch", "timm", "cv2"}, "import coyo_labeler.label.stage, coyo_labeler.label.on_spark"
    )


def test_the_reader_says_which_extra_it_needs():
    code = "try:\n    import coyo_labeler.data\nexcept ImportError as error:\n    print(error)"
    says = without({"torch"}, code).strip()
    assert says == "coyo_labeler.data: torch is not installed: pip install 'coyo-labeler[train]'"


def test_a_store_says_which_extra_it_needs():
    code = (
        "from coyo_labeler import storage\n"
        "for url in ('s3://b/x', 'gs://b/x', 'abfs://b/x'):\n"
        "    try:\n        storage.resolve(url)\n"
        "    except ImportError as error:\n        print(error)"
    )
    says = without({"s3fs", "gcsfs", "adlfs"}, code).splitlines()
    assert [line.rpartition(" ")[2] for line in says] == [
        f"'coyo-labeler[{extra}]'" for extra in ("s3", "gcs", "azure")
    ]


def test_hdfs_without_its_libraries_is_one_line(monkeypatch):
    def fail(url):
        raise OSError("Unable to load libjvm:\n/usr/lib/libjvm.so: no such file")

    monkeypatch.setattr(storage, "url_to_fs", fail)
    with pytest.raises(InputError, match=r"^hdfs://n/x: libjvm.*JAVA_HOME.*$"):
        storage.resolve("hdfs://n/x")


def test_the_command_line_says_its_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"coyo-labeler {coyo_labeler.__version__}\n"


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "coyo_labeler", "merge", "belief=x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "did you mean beliefs?" in done.stderr


def test_a_process_without_pandas_still_makes_tables_of_it_when_asked():
    code = (
        "import sys, pyarrow as pa\n"
        "from coyo_labeler.extras import do_without_pandas\n"
        "do_without_pandas()\n"
        "table = pa.table({'a': pa.array([1, 2])})\n"
        "assert table['a'].to_numpy().tolist() == [1, 2]\n"
        "assert 'pandas' not in sys.modules\n"
        "assert table.to_pandas()['a'].tolist() == [1, 2]\n"
        "assert pa.array(table.to_pandas()['a']).to_pylist() == [1, 2]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
