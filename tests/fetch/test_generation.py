"""Generations of a shard: what a retry writes, and how it takes the place of what was there."""

import json
import os
import signal
import subprocess
import sys

import pytest

from coyo_labeler import receipt_bundles, storage
from coyo_labeler.errors import WorkError
from coyo_labeler.fetch import generation
from coyo_labeler.fetch.generation import RECEIPT_NAME
from coyo_labeler.fetch.pack import read_rows
from coyo_labeler.fetch.stage import plan
from coyo_labeler.listings import name_of
from coyo_labeler.receipts import Receipts
from tests.fetch.shards import FILES, assert_agreed, files, make, read, statuses, tar, whole


def test_a_later_generation_asks_only_for_what_failed_for_a_while(output, rows, web):
    make(output, rows)
    before = tar(output)
    web.answers["/1"] = web.answers["/busy"]
    web.asked.clear()
    receipt = make(output, rows, 2)
    assert [path for path, _ in web.asked] == ["/1"]
    assert receipt.details["generation"] == 2
    assert receipt.rows.to_json() == {"in": 4, "out": 3, "rejected": {"http_not_found": 1}}
    assert statuses(output) == ["success", "success", "http_not_found", "success"]
    after = tar(output)
    assert [name[:9] for name in after] == [f"00000000{index}" for index in (0, 0, 1, 1, 3, 3)]
    assert before.items() <= after.items()
    assert files(output) == FILES


def test_the_generations_end_in_what_one_undisturbed_run_gives(output, rows, web, tmp_path):
    make(output, rows)
    web.answers["/1"] = web.answers["/busy"]
    make(output, rows, 2)
    make(str(tmp_path / "once"), rows)
    assert read(output, "00000.tar") == (tmp_path / "once/00000.tar").read_bytes()


def test_a_generation_that_is_there_is_not_made_again(output, rows, web):
    first = make(output, rows)
    asked = len(web.asked)
    assert make(output, rows) == first
    assert len(web.asked) == asked


def test_a_whole_shard_is_read_again_only_where_an_etag_has_changed(rows, tmp_path, monkeypatch):
    """On a store with ETags, as a run does at its start and its end."""
    output, known, asked = str(tmp_path), {}, []
    receipt = make(output, rows)
    receipts = Receipts(output, "f", RECEIPT_NAME)
    etags = {name: 1 for name in FILES}
    for name in ("etag_of", "identity_of"):
        monkeypatch.setattr(generation, name, lambda info: str(etags[name_of(info)]))
    get = Receipts.get
    monkeypatch.setattr(
        Receipts, "get", lambda self, shard: asked.append(shard) or get(self, shard)
    )
    for reads in (1, 0, 0):
        asked.clear()
        assert generation.valid(receipts, known) == {0: receipt}
        assert len(asked) == reads
    tar_file = tmp_path / "00000.tar"
    tar_file.write_bytes(bytes(tar_file.stat().st_size))  # another run's, of the same size
    etags["00000.tar"] = 2
    assert generation.valid(receipts, known) == {}
    (tmp_path / "00000_stats.json").unlink()
    assert generation.valid(receipts, known) == {}


@pytest.mark.parametrize("has_etags", [True, False])
def test_whole_shards_in_bundles_are_looked_at_again_only_without_etags(
    rows, tmp_path, monkeypatch, has_etags
):
    """By the next run, which knows nothing of the one before."""
    output, asked, ends = str(tmp_path), [], []
    receipt = make(output, rows)
    receipts = Receipts(output, "f", RECEIPT_NAME)
    etags = {name: 1 for name in FILES}
    monkeypatch.setattr(receipt_bundles, "FEWEST", 1)
    if has_etags:
        for name in ("etag_of", "identity_of"):
            monkeypatch.setattr(generation, name, lambda info: str(etags[name_of(info)]))
    get, read_ends = Receipts.get, generation._read_ends
    monkeypatch.setattr(
        Receipts, "get", lambda self, shard: asked.append(shard) or get(self, shard)
    )
    monkeypatch.setattr(
        generation,
        "_read_ends",
        lambda fs, folder, spans: ends.extend(spans) or read_ends(fs, folder, spans),
    )

    def looked_at():
        asked.clear()
        ends.clear()
        whole = generation.valid(receipts)
        return len(asked), len(ends), whole == {0: receipt}

    assert looked_at() == (1, 2, True)
    assert looked_at() == (0, 0 if has_etags else 2, True)
    tar_file = tmp_path / "00000.tar"
    whole = tar_file.read_bytes()
    tar_file.write_bytes(bytes(len(whole)))  # another run's, of the same size
    etags["00000.tar"] = 2
    assert looked_at() == (1, 2, False)
    assert looked_at() == (1, 2, False)
    tar_file.write_bytes(whole)
    etags["00000.tar"] = 3
    assert looked_at() == (1, 2, True)
    (tmp_path / "00000_stats.json").unlink()
    assert looked_at() == (0, 0, False)


def cut_off(output, rows, monkeypatch, moved):
    """Make a second generation, and die after so many of its moves."""
    move, moves = generation.move_file, []

    def die_after(fs, source, target):
        if len(moves) == moved:
            raise KeyboardInterrupt
        moves.append(source)
        move(fs, source, target)

    with monkeypatch.context() as patch:
        patch.setattr(generation, "move_file", die_after)
        with pytest.raises(KeyboardInterrupt):
            make(output, rows, 2)


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_move_that_was_cut_off_is_finished(output, rows, web, monkeypatch, moved):
    """The run dies between the moves of a later generation; no image is lost at any moment."""
    make(output, rows)
    web.answers["/1"] = web.answers["/busy"]
    cut_off(output, rows, monkeypatch, moved)
    promised = {
        row.key
        for row in read_rows(storage.join(output, "00000.parquet"))
        if row.sha256 is not None
    }
    assert promised <= {name.partition(".")[0] for name in tar(output)}
    receipts = Receipts(output, "f", RECEIPT_NAME)
    generation.recover(receipts)
    assert statuses(output) == ["success", "success", "http_not_found", "success"]
    assert generation.valid(receipts)[0].details["generation"] == 2
    assert files(output) == FILES


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_task_that_is_run_again_finishes_the_move(output, rows, web, monkeypatch, moved):
    """Spark runs it again after a worker's death, without a word to the driver."""
    make(output, rows)
    busy, web.answers["/1"] = web.answers["/1"], web.answers["/busy"]
    cut_off(output, rows, monkeypatch, moved)
    web.answers["/1"] = busy
    web.asked.clear()
    receipt = make(output, rows, 2)
    assert web.asked == []
    assert statuses(output) == ["success", "success", "http_not_found", "success"]
    assert_agreed(output)
    assert whole(output) == {0: receipt}
    assert files(output) == FILES


def test_a_killed_process_leaves_a_shard_that_the_next_one_finishes(rows, web, tmp_path):
    output = str(tmp_path)
    make(output, rows)
    busy, web.answers["/1"] = web.answers["/1"], web.answers["/busy"]
    script = """if True:
        import json, os, signal, sys
        from coyo_labeler.fetch import generation
        from coyo_labeler.fetch.shard import CatalogRow
        from tests.fetch.shards import make

        move = generation.move_file

        def die(fs, source, target):
            move(fs, source, target)
            os.kill(os.getpid(), signal.SIGKILL)

        generation.move_file = die
        make(sys.argv[1], [CatalogRow(*row) for row in json.loads(sys.argv[2])], 2)
    """
    given = json.dumps([(row.id, row.url, row.imagehash) for row in rows])
    words = [sys.executable, "-c", script, output, given]
    path = os.pathsep.join(sys.path)
    died = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert whole(output) == {}  # the tar of one generation, the rows of the other
    web.answers["/1"] = busy
    receipt = make(output, rows, 2)
    assert statuses(output) == ["success", "success", "http_not_found", "success"]
    assert_agreed(output)
    assert whole(output) == {0: receipt}
    generation.recover(Receipts(output, "f", RECEIPT_NAME))
    assert files(output) == FILES


def test_an_earlier_writers_late_generation_reslots_nothing(output, rows, web, monkeypatch):
    """It was made whole, but others have gone on."""
    make(output, rows)
    cut_off(output, rows, monkeypatch, 0)
    receipts = Receipts(output, "f", RECEIPT_NAME)
    with monkeypatch.context() as patch:
        patch.setattr(generation, "_staged", lambda *_: [])
        web.answers["/1"] = web.answers["/busy"]
        newest = make(output, rows, 3)
    generation.recover(receipts)
    assert whole(output) == {0: newest}
    assert files(output) == FILES


def test_a_generation_that_was_not_finished_is_forgotten(output, rows, web, monkeypatch):
    make(output, rows)
    before = {name: read(output, name) for name in FILES}
    web.answers["/1"] = web.answers["/busy"]

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Receipts, "write", die)
        with pytest.raises(KeyboardInterrupt):
            make(output, rows, 2)
    generation.recover(Receipts(output, "f", RECEIPT_NAME))
    assert {name: read(output, name) for name in FILES} == before
    assert files(output) == FILES


def test_another_runs_unfinished_generation_is_left_alone_until_it_is_old(
    output, rows, web, monkeypatch
):
    make(output, rows)
    staged = generation.staging(output, 0, "other")
    storage.write_bytes(storage.join(staged, "00000.tar"), b"in the making")
    receipts = Receipts(output, "f", RECEIPT_NAME)
    for run in ("", "mine"):
        generation.recover(receipts, run)
        assert read(staged, "00000.tar") == b"in the making"
    monkeypatch.setattr(generation, "ABANDONED_SECONDS", -3600.0)
    generation.recover(receipts, "mine")
    assert files(output) == FILES


def test_a_runs_own_unfinished_generation_is_removed(output, rows, web):
    make(output, rows)
    staged = generation.staging(output, 0, "mine")
    storage.write_bytes(storage.join(staged, "00000.tar"), b"cut off")
    generation.recover(Receipts(output, "f", RECEIPT_NAME), "mine")
    assert files(output) == FILES


@pytest.mark.parametrize(
    "lost", [("00000.tar",), ("00000.parquet",), ("00000.tar", "00000.parquet")]
)
def test_a_generation_whose_files_were_taken_away_replaces_nothing(
    output, rows, web, monkeypatch, lost
):
    """As another process did that took it for abandoned, while its receipt was being written."""
    make(output, rows)
    before = {name: read(output, name) for name in FILES}
    web.answers["/1"] = web.answers["/busy"]
    write = Receipts.write

    def take_away(receipts, receipt):
        for name in lost:
            storage.remove(storage.join(receipts.output, name))
        write(receipts, receipt)

    with monkeypatch.context() as patch:
        patch.setattr(Receipts, "write", take_away)
        with pytest.raises(WorkError, match="changed by another writer"):
            make(output, rows, 2)
    assert {name: read(output, name) for name in FILES} == before
    generation.recover(Receipts(output, "f", RECEIPT_NAME))
    assert {name: read(output, name) for name in FILES} == before
    assert files(output) == FILES


def test_an_impatient_restart_loses_no_image(output, rows, web, monkeypatch):
    """A second run recovers while the first one writes; then the hosts are gone."""
    make(output, rows)
    busy, web.answers["/1"] = web.answers["/1"], web.answers["/busy"]
    write = Receipts.write

    def interrupted(receipts, receipt):
        generation.recover(Receipts(output, "f", RECEIPT_NAME), "second")
        write(receipts, receipt)

    with monkeypatch.context() as patch:
        patch.setattr(Receipts, "write", interrupted)
        receipt = make(output, rows, 2, run="first")
    web.answers = {"/1": busy}
    assert whole(output) == {0: receipt}
    assert statuses(output) == ["success", "success", "http_not_found", "success"]
    assert_agreed(output)


def test_retry_makes_generations_of_shards_with_something_to_gain(output, rows):
    first = make(output, rows)
    finished = {0: first, 1: make(output, rows[:1], shard=1)}
    assert plan({0: 4, 1: 1, 2: 9}, finished, retry=False) == {2: 1}
    assert plan({0: 4, 1: 1, 2: 9}, finished, retry=True) == {2: 1, 0: 2}
