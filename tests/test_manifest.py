import json
import os
from pathlib import Path
from typing import ClassVar

import pytest

from coyo_labeler import storage
from coyo_labeler.config.base import StageSettings
from coyo_labeler.errors import CountError, InputError, WorkError
from coyo_labeler.manifest import Counts, Outcome, Run, read_manifest


class Example(StageSettings):
    inputs: ClassVar[tuple[str, ...]] = ("source",)
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {"connections"}

    source: str
    min_side: int = 200
    connections: int = 4


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.parquet").write_bytes(b"rows")
    return str(folder)


@pytest.fixture
def settings(tmp_path, source):
    return Example(output=str(tmp_path / "out"), source=source)


DONE = Outcome(Counts(5, 3, {"too_small": 2}))


def test_a_finished_run_is_found_finished(settings):
    manifest = Run.begin("ingest", settings).finish(DONE)
    again = Run.begin("ingest", settings)
    assert again.done == manifest == read_manifest(settings.output)


def test_the_manifest_says_what_the_design_asks_for(settings):
    Run.begin("ingest", settings).finish(DONE)
    document = json.loads(Path(settings.output, "_manifest.json").read_text())
    assert document["rows"] == {"in": 5, "out": 3, "rejected": {"too_small": 2}}
    assert document["config"]["min_side"] == 200
    assert {"version", "inputs", "seconds", "fingerprint"} <= document.keys()


@pytest.mark.parametrize("lost", [Counts(5, 3, {"too_small": 1}), Counts(5, 6)])
def test_a_lost_or_doubled_row_is_caught_and_no_manifest_is_written(settings, lost):
    run = Run.begin("ingest", settings)
    with pytest.raises(CountError, match=r"ingest: 5 rows in, but"):
        run.finish(Outcome(lost))
    with pytest.raises(CountError, match="ingest: votes"):
        run.finish(Outcome(Counts(1, 1), tables={"votes": lost}))
    assert read_manifest(settings.output) is None


def test_an_unfinished_run_goes_on_and_its_temporaries_go(settings):
    Run.begin("ingest", settings)
    left = Path(settings.output, ".a.parquet.123.tmp")
    left.write_bytes(b"half")
    again = Run.begin("ingest", settings)
    assert again.resumed
    assert again.done is None
    assert not left.exists()


def test_what_a_killed_writer_left_goes_before_the_run_is_finished(settings):
    run = Run.begin("ingest", settings)
    left = Path(settings.output, "catalog", ".a.parquet.123.tmp")
    left.parent.mkdir()
    left.write_bytes(b"half")
    run.finish(Outcome(Counts(1, 1)))
    assert not left.exists()


def test_how_the_work_is_done_may_differ_between_runs(settings):
    run = Run.begin("ingest", settings)
    other = settings.model_copy(update={"connections": 64, "log_format": "json"})
    assert Run.begin("ingest", other).fingerprint == run.fingerprint


def test_other_settings_are_refused_by_name_and_replaced_on_request(settings):
    Run.begin("ingest", settings).finish(DONE)
    other = settings.model_copy(update={"min_side": 100})
    with pytest.raises(InputError, match=r"min_side was 200, is 100.*overwrite=true"):
        Run.begin("ingest", other)
    assert Run.begin("ingest", other.model_copy(update={"overwrite": True})).done is None
    assert read_manifest(settings.output) is None


def test_a_run_that_stopped_before_its_first_result_holds_no_folder(settings):
    Run.begin("ingest", settings)
    other = settings.model_copy(update={"min_side": 100})
    assert not Run.begin("ingest", other).resumed
    Path(settings.output, "a.parquet").write_bytes(b"rows")
    with pytest.raises(InputError, match="min_side was 100, is 200"):
        Run.begin("ingest", settings)


def test_a_start_that_failed_holds_no_folder_whatever_empty_folders_it_left(settings):
    Run.begin("ingest", settings)
    Path(settings.output, "sent").mkdir()
    other = settings.model_copy(update={"min_side": 100})
    assert not Run.begin("ingest", other).resumed
    assert not Path(settings.output, "sent").exists()
    Path(settings.output, "sent").mkdir()
    Path(settings.output, "sent", "a.parquet").write_bytes(b"rows")
    with pytest.raises(InputError, match="min_side was 100, is 200"):
        Run.begin("ingest", settings)


def test_what_a_run_did_on_a_server_holds_the_folder(settings):
    Run.begin("ingest", settings).note_effects()
    assert Run.begin("ingest", settings).resumed
    other = settings.model_copy(update={"min_side": 100})
    with pytest.raises(InputError, match="min_side was 200, is 100"):
        Run.begin("ingest", other)
    assert not Run.begin("ingest", other.model_copy(update={"overwrite": True})).resumed
    assert not Run.begin("ingest", settings).resumed


def test_a_changed_input_is_refused(settings, source):
    Run.begin("ingest", settings).finish(DONE)
    Path(source, "a.parquet").write_bytes(b"other rows")
    with pytest.raises(InputError, match="content of source"):
        Run.begin("ingest", settings)


def test_the_same_input_under_another_path_is_the_same(settings, source, tmp_path):
    fingerprint = Run.begin("ingest", settings).fingerprint
    Path(source).rename(tmp_path / "moved")
    moved = settings.model_copy(update={"source": str(tmp_path / "moved")})
    assert Run.begin("ingest", moved).fingerprint == fingerprint


def test_a_folder_of_somebody_else_is_never_touched(settings):
    mine = Path(settings.output, "thesis.tex")
    mine.parent.mkdir()
    mine.write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not written by this stage"):
            Run.begin("ingest", settings.model_copy(update={"overwrite": overwrite}))
    assert mine.read_text() == "years of work"


def test_a_missing_or_empty_input_is_named(settings, tmp_path):
    missing = settings.model_copy(update={"source": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"ingest: source: nothing at .*none; give an existing"):
        Run.begin("ingest", missing)
    (tmp_path / "empty").mkdir()
    empty = settings.model_copy(update={"source": str(tmp_path / "empty")})
    with pytest.raises(InputError, match="holds no files"):
        Run.begin("ingest", empty)


def test_an_unfinished_stage_is_no_input(settings, tmp_path):
    Run.begin("ingest", settings)
    after = Example(output=str(tmp_path / "next"), source=settings.output)
    with pytest.raises(InputError, match="ingest has not finished"):
        Run.begin("fetch", after)
    assert not storage.exists(after.output)


class Known(Example):
    by_content: ClassVar[frozenset[str]] = frozenset({"source", "names"})

    names: str


def test_files_known_by_content_may_be_touched_and_moved_and_not_rewritten(tmp_path):
    """Where the key is an input; of any other key the name is a setting like others."""
    names, source = tmp_path / "names.txt", tmp_path / "a.bin"
    names.write_text("a b")
    source.write_text("weights")
    settings = Known(output=str(tmp_path / "out"), source=str(source), names=str(names))
    Run.begin("ingest", settings).finish(DONE)
    moved = source.rename(tmp_path / "b.bin")
    os.utime(names, (1, 1))
    settings = settings.model_copy(update={"source": str(moved)})
    assert Run.begin("ingest", settings).done is not None
    names.write_text("b a")
    with pytest.raises(InputError, match="changed: content of names"):
        Run.begin("ingest", settings)
    moved.unlink()
    with pytest.raises(InputError, match=r"ingest: source: no file at .*b\.bin"):
        Run.begin("ingest", settings)


@pytest.mark.parametrize("name", ["imagenet1k", "no such file"])
def test_a_name_that_is_no_file_counts_as_a_setting(settings, tmp_path, monkeypatch, name):
    """Even where a file has the name of a known label space."""
    monkeypatch.chdir(tmp_path)
    Path("imagenet1k").write_text("cat\ndog\n")
    Path("a.bin").write_text("weights")
    known = Known(output=settings.output, source="a.bin", names=name)
    assert Run.begin("ingest", known).inputs.keys() == {"source"}


class KilledError(BaseException):
    """The process is gone."""


def deletions_until_killed(monkeypatch, last):
    """Every removal of a file counts; the one behind `last` kills the process."""
    left = [last]

    def counted(remove):
        def wrapper(*arguments, **options):
            if left[0] == 0:
                raise KilledError
            left[0] -= 1
            return remove(*arguments, **options)

        return wrapper

    for name in ("unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


def files_under(folder):
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("last", range(12))
def test_an_output_killed_while_it_is_cleared_is_unfinished_or_whole(
    settings, tmp_path, monkeypatch, last
):
    Run.begin("ingest", settings).finish(DONE)
    for name in ("a.parquet", "b.parquet", "zz/c.parquet", "catalog/d.parquet", "_receipts/0.json"):
        storage.write_bytes(storage.join(settings.output, name), b"rows")
    whole = files_under(settings.output)
    other = settings.model_copy(update={"min_side": 100, "overwrite": True})
    after = Example(output=str(tmp_path / "next"), source=settings.output)
    with monkeypatch.context() as patched:
        deletions_until_killed(patched, last)
        try:
            Run.begin("ingest", other)
            cleared = True
        except KilledError:
            cleared = False
    if read_manifest(settings.output) is not None:
        assert files_under(settings.output) == whole
        return
    with pytest.raises(InputError, match="ingest has not finished"):
        Run.begin("fetch", after)
    if not cleared:
        again = Run.begin("ingest", settings.model_copy(update={"overwrite": True}))
        assert again.done is None
    again = Run.begin("ingest", other)
    assert again.done is None
    assert [Path(name).name for name in files_under(settings.output)] == ["_run.json"]
    assert again.finish(DONE) == Run.begin("ingest", other).done


def test_what_a_killed_overwrite_has_not_cleared_is_no_work_of_the_new_run(settings, monkeypatch):
    """The receipts of other settings must not count for it, though its claim lies beside them."""
    Run.begin("ingest", settings).finish(DONE)
    left = storage.join(settings.output, "_receipts", "00000.json")
    storage.write_bytes(left, b"{}")
    other = settings.model_copy(update={"min_side": 100, "overwrite": True})
    with monkeypatch.context() as patched:
        deletions_until_killed(patched, 1)
        with pytest.raises(KilledError):
            Run.begin("ingest", other)
    assert storage.exists(left)
    again = Run.begin("ingest", other.model_copy(update={"overwrite": False}))
    assert not again.resumed
    assert not storage.exists(left)


def test_a_run_whose_claim_another_run_has_taken_writes_no_manifest(settings):
    first, second = (Run.begin("ingest", settings) for _ in range(2))
    assert second.resumed
    with pytest.raises(WorkError, match=r"another run has taken over .*this one stops"):
        first.finish(DONE)
    assert read_manifest(settings.output) is None
    second.finish(DONE)
    assert Run.begin("ingest", settings).done is not None


def test_a_run_whose_output_was_taken_away_writes_no_manifest(settings):
    run = Run.begin("ingest", settings)
    storage.clear(settings.output)
    with pytest.raises(WorkError, match="was removed or emptied"):
        run.finish(DONE)
    assert not storage.exists(settings.output)


def test_a_run_killed_while_it_wrote_its_claim_holds_no_folder(settings):
    """Nothing of it is there but the temporary file."""
    left = Path(settings.output, "._run.json.0123.tmp")
    left.parent.mkdir()
    left.write_bytes(b"{")
    run = Run.begin("ingest", settings)
    run.finish(DONE)
    assert not left.exists()
    storage.clear(settings.output)
    left.parent.mkdir()
    Path(settings.output, ".thesis.tmp.tex").write_text("years of work")
    with pytest.raises(InputError, match="not written by this stage"):
        Run.begin("ingest", settings)
