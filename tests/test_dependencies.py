"""Every import of the package is provided by a dependency, and every dependency is imported."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: Installed distributions by the modules that they provide.
PROVIDERS = packages_distributions()

#: Extras that the package runs with; the others are for its tests.
RUNTIME = ("teacher", "spark", "train", "ask", "compare", "learn", "simulate", "s3", "gcs", "demo")

#: Dependencies that another one imports for us: torch.utils.tensorboard, and fsspec by protocol.
IMPORTED_FOR_US = {"tensorboard", "s3fs", "gcsfs"}

#: Imports that come with a dependency, at versions that it sets.
COMES_WITH = {"py4j": "pyspark", "botocore": "s3fs"}


def distributions(requirements: list[str]) -> set[str]:
    """The names of requirements, but for the package's own extras."""
    names = {re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in requirements}
    return {normal(name) for name in names} - {"coyo-labeler"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extras: tuple[str, ...]) -> set[str]:
    names = distributions(PROJECT["dependencies"])
    for extra in extras:
        names |= distributions(PROJECT["optional-dependencies"][extra])
    return names


def imported_by(folder: str) -> dict[str, str]:
    """The third-party modules that the files of a folder import, each with one such file."""
    ours = {"coyo_labeler", "tests", "benchmarks"}
    found: dict[str, str] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = [str(node.module)]
            else:
                continue
            for module in {target.split(".")[0] for target in targets}:
                if module not in sys.stdlib_module_names and module not in ours:
                    found[module] = str(path.relative_to(ROOT))
    return found


def providers(module: str) -> set[str]:
    """The distributions that a module may come from."""
    return {normal(COMES_WITH.get(module, name)) for name in PROVIDERS.get(module, [])}


def undeclared(folder: str, extras: tuple[str, ...]) -> dict[str, str]:
    names = declared(extras)
    modules = imported_by(folder)
    return {module: where for module, where in modules.items() if not providers(module) & names}


def test_every_import_of_the_package_is_provided_by_a_dependency():
    assert undeclared("coyo_labeler", RUNTIME) == {}


def test_every_import_of_the_tests_is_provided_by_a_dependency():
    assert undeclared("tests", (*RUNTIME, "dev", "formats")) == {}


def test_every_dependency_is_imported():
    provided = {name for module in imported_by("coyo_labeler") for name in providers(module)}
    assert declared(RUNTIME) - provided == IMPORTED_FOR_US


def test_every_dependency_has_its_version_in_the_constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constrained = {normal(line.split("==")[0]) for line in lines}
    extras = tuple(PROJECT["optional-dependencies"])
    assert declared(extras) - constrained == set()
