"""Finished outputs that lost, gained or changed a file afterwards, as inputs and when run again."""

import json
import shutil
from pathlib import Path
from typing import ClassVar

import pytest

from coyo_labeler import storage
from coyo_labeler.config.base import StageSettings
from coyo_labeler.errors import InputError
from coyo_labeler.inputs import fingerprint_input
from coyo_labeler.manifest import Counts, Outcome, Run, read_manifest
from coyo_labeler.table_files import FILES


class Example(StageSettings):
    inputs: ClassVar[tuple[str, ...]] = ("source",)

    source: str


DONE = Outcome(Counts(5, 5))
TABLES = (
    "_rejects/r.parquet",
    "00000.tar",
    "00000.parquet",
    "00001.parquet",
    "posterior/a.parquet",
    "x/deep/b.parquet",
)


@pytest.fixture
def first(tmp_path: Path) -> Example:
    storage.write_bytes(str(tmp_path / "source" / "a.parquet"), b"rows")
    return Example(output=str(tmp_path / "out"), source=str(tmp_path / "source"))


@pytest.fixture
def output(first: Example) -> Path:
    """A finished output."""
    run = Run.begin("ingest", first)
    for name in (*TABLES, "_receipts/00000.parquet", "history.json", "README.md"):
        storage.write_bytes(storage.join(first.output, name), name.encode())
    run.finish(DONE)
    return Path(first.output)


def begin(output: Path, folder: str = "") -> Run:
    """The next stage, which reads the output or a folder below it."""
    settings = Example(output=str(output.parent / "next"), source=str(output / folder))
    return Run.begin("label", settings)


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def double(path: Path) -> None:
    shutil.copy(path, path.with_name("copy-" + path.name))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("change", "why"), [(lose, "is missing"), (cut, "were written"), (double, "was added")]
)
def test_the_next_stage_names_the_file_that_a_finished_output_lost_or_gained(
    output, name, change, why
):
    begin(output)
    change(output / name)
    with pytest.raises(
        InputError, match=rf"label: source: .*/(copy-)?{Path(name).name} .*"
    ) as error:
        begin(output)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_several_are_counted_and_the_missing_one_is_named(output):
    for name in ("00001.parquet", "00000.tar"):
        lose(output / name)
    double(output / "00000.parquet")
    with pytest.raises(InputError, match=r"out/00000\.tar is missing \(and 2 more differ\)"):
        begin(output)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"\0" * 99, b'{"posterior/a.parquet": "x"}'])
def test_without_the_list_of_files_the_folder_is_named(output, content):
    (output / FILES).unlink()
    if content is not None:
        (output / FILES).write_bytes(content)
    lose(output / "posterior/a.parquet")
    with pytest.raises(InputError, match="posterior holds 0 files of 0 bytes, and 1 of 19 were"):
        begin(output)


def test_a_folder_of_the_output_is_checked_alone(output):
    lose(output / "00000.tar")
    begin(output, "posterior")
    lose(output / "posterior/a.parquet")
    (output / "posterior/b.parquet").write_bytes(b"planted")
    with pytest.raises(InputError, match=r"posterior/a\.parquet is missing"):
        begin(output, "posterior")


def test_a_folder_of_an_unfinished_output_is_no_input(output):
    (output / "_manifest.json").unlink()
    with pytest.raises(InputError, match=r"ingest has not finished in .*out; run it again first"):
        begin(output, "posterior/")


def test_what_is_no_part_of_a_table_may_come_and_go(output):
    (output / "history.json").unlink()
    (output / "notes.txt").write_text("")
    (output / "_SUCCESS").write_text("")
    (output / ".DS_Store").write_text("")
    (output / "figures").mkdir()
    (output / "figures/a.png").write_bytes(b"")
    begin(output)


def test_a_part_of_the_files_is_used_from_a_folder_without_the_manifest(output, tmp_path):
    (tmp_path / "part").mkdir()
    shutil.copy(output / "00001.parquet", tmp_path / "part")
    begin(tmp_path / "part")


@pytest.mark.parametrize(
    "recorded",
    [
        None,
        {},
        [],
        "x",
        {"": 7},
        {"": [1, 2, 3]},
        {"": ["1", 2]},
        {"../x": [1, 2]},
        {"/etc": [1, 2]},
        {"a\0": [1, 2]},
        {"x" * 9999: [1, 2]},
    ],
)
def test_outputs_of_earlier_versions_have_no_record_and_are_accepted(output, recorded):
    path = output / "_manifest.json"
    document = json.loads(path.read_text())
    if recorded is None:
        del document["files"]
    else:
        document["files"] = recorded
    path.write_text(json.dumps(document))
    lose(output / "00000.tar")
    begin(output)


@pytest.mark.parametrize("change", [lose, cut, double])
def test_the_same_command_goes_on_where_a_finished_output_has_changed(
    first, output, change, caplog
):
    assert Run.begin("ingest", first).done is not None
    change(output / "00001.parquet")
    run = Run.begin("ingest", first)
    assert run.resumed
    assert run.done is None
    assert "00001.parquet" in caplog.text
    assert read_manifest(first.output) is None
    (output / "00001.parquet").write_bytes(b"00001.parquet")
    (output / "copy-00001.parquet").unlink(missing_ok=True)
    run.finish(DONE)
    begin(output)


def test_files_that_a_listing_does_not_show_yet_are_known_from_receipts(first):
    run = Run.begin("ingest", first)
    run.finish(Outcome(Counts(5, 5), files={"catalog/late.parquet": 4}))
    with pytest.raises(InputError, match=r"catalog/late\.parquet is missing"):
        begin(Path(first.output))
    storage.write_bytes(storage.join(first.output, "catalog/late.parquet"), b"late")
    begin(Path(first.output))


def test_one_listing_of_each_folder_and_only_the_manifest_is_read(output, monkeypatch):
    fs, _ = storage.resolve(str(output))
    opened, open_file = [], type(fs).open
    monkeypatch.setattr(
        type(fs),
        "open",
        lambda self, path, *more: opened.append(path) or open_file(self, path, *more),
    )
    fingerprint_input("label", "source", str(output))
    assert [Path(path).name for path in opened] == ["_manifest.json"]


@pytest.mark.parametrize("name", ["index.html", "model.safetensors"])
def test_a_result_that_is_no_table_is_written_again_too(first, name):
    run = Run.begin("report", first)
    for path in (name, f"checkpoints/1/{name}"):
        storage.write_bytes(storage.join(first.output, path), b"result")
    run.finish(DONE)
    (Path(first.output) / "checkpoints/1" / name).unlink()
    assert Run.begin("report", first).done is not None
    (Path(first.output) / name).unlink()
    assert Run.begin("report", first).done is None
