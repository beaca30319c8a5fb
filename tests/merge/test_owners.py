"""Two merges on one output, strangers' files in it, and state that is not its own."""

import shutil
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coyo_labeler import storage
from coyo_labeler.errors import WorkError
from coyo_labeler.merge import prepare as preparation
from coyo_labeler.merge.state import StateFolder
from tests.merge.tables import assert_same_tables
from tests.merge.test_invariance import GIVEN, write
from tests.merge.test_stage import merge

#: Seconds that a busy machine may take for what a merge begins with.
STEP_SECONDS = 600


@pytest.fixture
def inputs(tmp_path):
    given = {**GIVEN, **write(tmp_path / "in", 0, 2)}
    merge(None, tmp_path, "whole", **given)
    return given


@pytest.mark.parametrize("point", ["_save", "_partitions"])
def test_of_two_merges_with_other_partition_counts_one_stops_and_one_is_right(
    inputs, tmp_path, monkeypatch, point
):
    """The second begins while the first prepares; each has another number of cores."""
    original = getattr(preparation, point)
    arrived, go_on = threading.Event(), threading.Event()
    failed = []

    def wait(*arguments):
        if threading.current_thread() is first:
            arrived.set()
            go_on.wait()
        return original(*arguments)

    def run_first():
        try:
            merge(None, tmp_path, "out", **inputs)
        except WorkError as error:
            failed.append(str(error))

    def cores():
        return 5 if threading.current_thread() is first else 2

    monkeypatch.setattr("coyo_labeler.executor.cores_of_machine", cores)
    monkeypatch.setattr(preparation, point, wait)
    first = threading.Thread(target=run_first)
    first.start()
    try:
        assert arrived.wait(STEP_SECONDS)
        manifest = merge(None, tmp_path, "out", **inputs)
    finally:
        go_on.set()
        first.join()
    rows = sum(pq.read_metadata(p).num_rows for p in (tmp_path / "out/posterior").iterdir())
    assert manifest.rows.rows_out == rows
    assert_same_tables(tmp_path / "out", tmp_path / "whole")
    assert len(failed) == 1
    assert "another run has taken over" in failed[0]
    assert "\n" not in failed[0]


@pytest.mark.parametrize("name", ["posterior/voted-00099", "confusions/part-00007", "rejects/a"])
def test_a_planted_file_never_becomes_a_part_of_a_table(inputs, tmp_path, monkeypatch, name):
    planted = tmp_path / "out" / f"{name}.parquet"
    save = preparation._save

    def plant(*arguments):
        save(*arguments)
        planted.parent.mkdir(exist_ok=True)
        shutil.copy(next((tmp_path / "whole/posterior").iterdir()), planted)

    monkeypatch.setattr(preparation, "_save", plant)
    with pytest.raises(WorkError, match=rf"did not write .*{name}\.parquet.*remove it"):
        merge(None, tmp_path, "out", **inputs)
    assert not (tmp_path / "out/_manifest.json").exists()
    planted.unlink()
    merge(None, tmp_path, "out", **inputs)
    assert_same_tables(tmp_path / "out", tmp_path / "whole")


@pytest.mark.parametrize("damage", ["cut", "swapped", "planted before"])
def test_a_file_of_the_posterior_that_is_not_as_it_was_is_written_anew(
    inputs, tmp_path, monkeypatch, damage
):
    def die(*_):
        raise KeyboardInterrupt

    posterior = tmp_path / "out" / "posterior"
    with monkeypatch.context() as patched:
        patched.setattr("coyo_labeler.merge.stage.write_reports", die)
        with pytest.raises(KeyboardInterrupt):
            merge(None, tmp_path, "out", **inputs)
    one, other = sorted(posterior.iterdir())[:2]
    if damage == "cut":
        one.write_bytes(one.read_bytes()[:-100])
    elif damage == "swapped":
        data = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)
    else:
        for record in (tmp_path / "out/_state").glob(f"*/written-*{one.stem}.json"):
            record.unlink()
        shutil.copy(other, one)
    merge(None, tmp_path, "out", **inputs)
    assert_same_tables(tmp_path / "out", tmp_path / "whole")


def test_the_state_of_another_run_does_not_count(inputs, tmp_path, monkeypatch, caplog):
    def die(self, state):
        raise KeyboardInterrupt

    for name, more in (("other", {"prior_strength": 7.0}), ("out", {})):
        with monkeypatch.context() as patched:
            patched.setattr(StateFolder, "save_checkpoint", die)
            with pytest.raises(KeyboardInterrupt):
                merge(None, tmp_path, name, **{**inputs, **more})
    shutil.rmtree(tmp_path / "out/_state")
    shutil.copytree(tmp_path / "other/_state", tmp_path / "out/_state")
    merge(None, tmp_path, "out", **inputs)
    assert_same_tables(tmp_path / "out", tmp_path / "whole")
    assert "of a run with other settings" in caplog.text


def test_a_merge_whose_output_is_taken_away_says_so_in_one_line(inputs, tmp_path, monkeypatch):
    save = StateFolder.save_checkpoint

    def clear(self, state):
        if len(state.history) == 2:
            storage.clear(str(tmp_path / "out"))
        save(self, state)

    monkeypatch.setattr(StateFolder, "save_checkpoint", clear)
    with pytest.raises(WorkError, match="was removed or emptied"):
        merge(None, tmp_path, "out", **inputs)
    assert not Path(tmp_path, "out", "_manifest.json").exists()
