"""The pages for people: lines that can be read, links that lead somewhere, modules that exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LONGEST = 119

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MODULE = re.compile(r"`((?:[a-z_]+/)?[a-z_]+\.py)`")


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines outside fenced blocks."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def links(page: Path) -> list[str]:
    """Targets of links within the repository; a link may be broken over two lines."""
    text = "\n".join(line for _, line in prose(page))
    return [target for target in LINK.findall(text) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = [line.lstrip("# ") for _, line in prose(page) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_lines_are_short(page: Path) -> None:
    long = [
        f"{page.name}:{number}: {len(line)} characters"
        for number, line in prose(page)
        if len(line) > LONGEST
        and not line.startswith("|")  # a row of a table cannot be broken
        and max(map(len, line.split())) <= LONGEST  # nor can a link
    ]
    assert long == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [
            (page.parent / target.partition("#")[0]).resolve()
            for target in links(page)
            if not target.startswith("#")
        ]
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_pages_name_exist(page: Path) -> None:
    package = ROOT / "coyo_labeler"
    names = [name for _, line in prose(page) for name in MODULE.findall(line)]
    missing = [
        name
        for name in names
        if not (package / name).exists()  # a bare name may be any package's
        and not (ROOT / name).exists()
        and ("/" in name or not list(package.rglob(name)))
    ]
    assert missing == []


def test_the_map_names_every_package_and_no_other() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"```\ncoyo_labeler/\n(.*?)```", text, re.DOTALL)
    assert tree is not None
    named = set(re.findall(r"^  ([a-z_]+)/ ", tree[1], re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "coyo_labeler").glob("*/__init__.py")}
    assert named == packages


@pytest.mark.parametrize(
    "package",
    sorted(path.parent for path in (ROOT / "coyo_labeler").glob("*/__init__.py")),
    ids=lambda package: package.name,
)
def test_the_map_of_a_package_names_its_modules(package: Path) -> None:
    text = (package / "__init__.py").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", ast.get_docstring(ast.parse(text)) or ""))
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert modules - words == set()
