"""No import circle in the package, and stages that meet on disk only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "coyo_labeler"

#: Packages of the stages, and of the training reader.
STAGE_PACKAGES = (
    "ingest",
    "fetch",
    "label",
    "merge",
    "select",
    "learn",
    "simulate",
    "report",
    "export",
    "send",
    "collect",
    "compare",
    "pretrain",
    "data",
)
#: Imports between them that are meant: pretraining reads images and labels as any training job.
#: A simulation runs the kernels of learn.
MEANT = {("pretrain", "data"), ("simulate", "learn")}


def module_names() -> dict[str, Path]:
    """All modules of the package by name; a package is the module of its `__init__.py`."""
    names = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = module_names()


def imports_of(tree: ast.AST, in_functions: bool) -> Iterator[str]:
    """What is imported when a module is: not for type checkers, and in functions only if asked."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if in_functions:
                yield from imports_of(node, in_functions)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports_of(node, in_functions)


def modules_imported(name: str, in_functions: bool = False) -> set[str]:
    """The package's modules that a module imports, packages above them included.

    To import a.b.c from elsewhere runs a/b/__init__.py too. A module of a.b itself does not count
    as importing a.b: while it is imported, that has begun already.
    """
    found = set()
    for target in imports_of(ast.parse(MODULES[name].read_text()), in_functions):
        parts = target.split(".")
        if parts[0] == PACKAGE:
            found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return {
        target
        for target in found & MODULES.keys()
        if target != name and not name.startswith(f"{target}.")
    }


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of two nodes or more."""
    reached = {node: reachable(graph, node) for node in graph}
    components = {
        frozenset(other for other in reached[node] if node in reached[other]) for node in graph
    }
    return [set(component) for component in components if len(component) > 1]


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """What can be reached from a node by an edge or more."""
    seen: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        node = ahead.pop()
        if node not in seen:
            seen.add(node)
            ahead += graph[node]
    return seen


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert circles(graph) == [{"b", "c"}]


@pytest.mark.parametrize(
    ("source", "at_import", "at_last"),
    [
        ("import a.b", ["a.b"], ["a.b"]),
        ("from a import b, c", ["a.b", "a.c"], ["a.b", "a.c"]),
        ("def f():\n    import a", [], ["a"]),
        ("class C:\n    import a", ["a"], ["a"]),
        ("if TYPE_CHECKING:\n    import a", [], []),
        ("try:\n    import a\nexcept ImportError:\n    import b", ["a", "b"], ["a", "b"]),
    ],
)
def test_imports_are_found(source, at_import, at_last):
    assert list(imports_of(ast.parse(source), in_functions=False)) == at_import
    assert list(imports_of(ast.parse(source), in_functions=True)) == at_last


def test_no_modules_import_one_another():
    graph = {name: modules_imported(name) for name in MODULES}
    assert circles(graph) == []


def test_no_packages_import_one_another():
    """Here imports in functions count too: an import that is put off is still a dependency.

    Nodes are the packages and modules right under coyo_labeler. Its own `__init__.py` is left out:
    it looks up `DawidSkene` when somebody asks for it.
    """
    graph: dict[str, set[str]] = {}
    for name in MODULES:
        if name == PACKAGE:
            continue
        unit = name.split(".")[1]
        used = {
            part[1] for target in modules_imported(name, True) if len(part := target.split(".")) > 1
        }
        graph.setdefault(unit, set()).update(used - {unit})
    assert circles(graph) == []


def test_stages_do_not_import_one_another():
    between = {
        (name.split(".")[1], target.split(".")[1])
        for name in MODULES
        for target in modules_imported(name, in_functions=True)
        if {*name.split(".")[1:2], *target.split(".")[1:2]} <= {*STAGE_PACKAGES}
        and len({*name.split(".")[1:2], *target.split(".")[1:2]}) == 2
    }
    assert between == MEANT


def test_settings_look_at_nothing_but_themselves():
    """config/ reads one YAML file, in `read`; all else is decided from values alone."""
    settings = {name for name in MODULES if name.startswith(f"{PACKAGE}.config")}
    used = {
        target
        for name in settings
        for target in modules_imported(name, in_functions=True)
        if (name, target) != (f"{PACKAGE}.config.read", f"{PACKAGE}.storage")
    }
    # The rule for ids and its choices stand in one place; that module reads nothing.
    ids = f"{PACKAGE}.formats.image_ids"
    texts = {f"{PACKAGE}.errors", f"{PACKAGE}.redact"}
    allowed = settings | {PACKAGE, f"{PACKAGE}.formats", ids} | texts
    assert used <= allowed
    for name in (ids, f"{PACKAGE}.formats", *texts):
        assert modules_imported(name, in_functions=True) <= {PACKAGE} | texts
