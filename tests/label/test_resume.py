"""Runs that go on where others ended: what is done again, and what is refused."""

import hashlib
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from safetensors.torch import load_file, save_file

from coyo_labeler import storage
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.inputs import MANIFEST
from coyo_labeler.label.commit import remove_unfinished
from coyo_labeler.label.stage import _refuse_mixed
from coyo_labeler.label.weights import load_model
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import Receipt
from tests.label.jobs import FILES, label, tables
from tests.label.tars import write_tar


def test_a_run_that_goes_on_does_only_what_is_missing(settings, tmp_path):
    output = tmp_path / "beliefs"
    label(settings())
    before = tables(output)
    (output / MANIFEST).unlink()
    (output / "_receipts" / "00001.json").unlink()
    (output / "00001.parquet").write_bytes(b"half a file")
    kept = (output / "00000.parquet").stat().st_mtime_ns
    manifest, _ = label(settings())
    assert tables(output) == before
    assert (output / "00000.parquet").stat().st_mtime_ns == kept
    assert manifest.rows.rows_in == 17


def test_another_teacher_on_the_same_output_is_refused(settings, tmp_path):
    label(settings())
    with pytest.raises(InputError, match="preprocess was 'automl_64', is 'automl_96'"):
        label(settings(preprocess="automl_96"))
    assert label(settings(decode_threads=1))[1] is False


@pytest.fixture
def own_files(tmp_path, small_spec):
    """Keys of a teacher whose files the test may change."""
    for name in ("checkpoint", "label_space"):
        shutil.copy(small_spec[name], tmp_path)
    return {
        name: str(tmp_path / Path(small_spec[name]).name) for name in ("checkpoint", "label_space")
    }


def test_a_checkpoint_of_the_same_bytes_is_the_same_wherever_and_whenever(settings, own_files):
    label(settings(**own_files))
    os.utime(own_files["checkpoint"], (1, 1))
    assert label(settings(**own_files))[1] is False
    moved = shutil.move(own_files["checkpoint"], own_files["checkpoint"] + ".safetensors")
    assert label(settings(**{**own_files, "checkpoint": moved}))[1] is False


def shift_bias(checkpoint):
    state = load_file(checkpoint)
    state["classifier.bias"] = state["classifier.bias"] + 1
    save_file(state, checkpoint)


def test_files_of_another_content_under_the_same_name_are_another_teacher(settings, own_files):
    label(settings(**own_files))
    names = Path(own_files["label_space"])
    before = names.read_text()
    names.write_text("\n".join(reversed(before.splitlines())))
    with pytest.raises(InputError, match="changed: content of label_space"):
        label(settings(**own_files))
    names.write_text(before)
    times = Path(own_files["checkpoint"]).stat()
    shift_bias(own_files["checkpoint"])
    os.utime(own_files["checkpoint"], ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(InputError, match="changed: content of checkpoint"):
        label(settings(**own_files))


def test_one_session_labels_with_the_weights_that_are_there_at_the_time(
    settings, own_files, spark, tmp_path
):
    for name in ("before", "after"):
        label(settings(name, engine="spark", **own_files), spark)
        metadata = pq.read_schema(tmp_path / name / "00000.parquet").metadata
        digest = hashlib.sha256(Path(own_files["checkpoint"]).read_bytes()).hexdigest()
        assert metadata[b"teacher.weights_sha256"].decode() == digest
        shift_bias(own_files["checkpoint"])


def test_weights_that_changed_at_their_hub_do_not_go_on_where_others_began(
    settings, tmp_path, monkeypatch
):
    """Nothing in the settings tells them apart."""
    label(settings())
    output = tmp_path / "beliefs"
    (output / MANIFEST).unlink()
    (output / "_receipts" / "00001.json").unlink()
    monkeypatch.setattr(
        "coyo_labeler.label.model.load_model", lambda *spec: (*load_model(*spec)[:2], "0" * 64)
    )
    kept = {name: data for name, data in tables(output).items() if "00001" not in name}
    with pytest.raises(InputError, match=r"another teacher \(weights_sha256 was .*, is 0000"):
        label(settings())
    assert tables(output) == kept


def test_machines_that_found_different_weights_are_told_of():
    receipts = [
        Receipt(
            shard, "f", Counts(1, 1), 1.0, {"weights_sha256": f"{shard}", "device": f"m{shard}"}
        )
        for shard in range(2)
    ]
    _refuse_mixed(receipts[:1] * 2)
    with pytest.raises(WorkError, match="m0 and m1 found different weights"):
        _refuse_mixed(receipts)


def test_a_tar_that_is_taken_away_before_it_is_labelled_is_not_missed(settings, images):
    (images / "00001.tar").write_bytes(b"damaged")
    with pytest.raises(WorkError, match="or take it away"):
        label(settings())
    (images / "00001.tar").unlink()
    assert label(settings())[0].rows.rows_in == 11


def test_files_of_a_killed_writer_do_not_outlive_their_tar(settings, images, tmp_path):
    """Killed between a shard's files and its receipt; then the tar is taken away."""
    chosen = settings(embeddings=True, sampling={"min_top1": 0.5})
    label(chosen)
    output = tmp_path / "beliefs"
    (output / MANIFEST).unlink()
    (output / "_receipts" / "00001.json").unlink()
    (output / "below_threshold").mkdir(exist_ok=True)
    (output / "below_threshold" / "00001.parquet").write_bytes(b"of another content")
    (output / "notes.parquet").write_bytes(b"not ours")
    (images / "00001.tar").unlink()
    label(chosen)
    assert not list(output.rglob("00001.*"))
    assert (output / "00000.parquet").exists()
    assert (output / "notes.parquet").exists()


def test_tars_that_come_later_are_labelled_alone(settings, images, tmp_path):
    label(settings())
    output = tmp_path / "beliefs"
    kept = {path: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    write_tar(images, 7, FILES[:2])
    manifest, worked = label(settings())
    assert worked
    assert manifest.rows.rows_in == 19
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert label(settings())[1] is False


def test_receipts_of_finished_shards_are_read_once(settings, images, monkeypatch):
    """58,000 of them, at an object store's pace."""
    label(settings())
    write_tar(images, 7, FILES[:2])
    reads, read_json = [], storage.read_json
    monkeypatch.setattr(
        storage, "read_json", lambda url, *more: reads.append(url) or read_json(url, *more)
    )
    assert label(settings())[0].rows.rows_in == 19
    assert sorted(
        url[-10:] for url in reads if "_receipts/0000" in url and "7.json" not in url
    ) == [
        "00000.json",
        "00001.json",
        "00002.json",
    ]


@pytest.mark.parametrize("change", ["has changed", "is missing"])
def test_a_tar_that_is_not_what_was_labelled_is_refused_and_only_it_replaced_on_request(
    settings, images, tmp_path, change
):
    label(settings())
    output = tmp_path / "beliefs"
    kept = (output / "00000.parquet").stat().st_mtime_ns
    if change == "is missing":
        (images / "00002.tar").unlink()
    else:
        write_tar(images, 2, FILES[4:])
    with pytest.raises(InputError, match=f"tar of shard 00002 {change}.*overwrite=true"):
        label(settings())
    assert (output / MANIFEST).exists()
    manifest, _ = label(settings(overwrite=True))
    assert manifest.rows.rows_in == (13 if change == "is missing" else 15)
    assert (output / "00000.parquet").stat().st_mtime_ns == kept
    assert (output / "00002.parquet").exists() == (change == "has changed")
    assert (output / "failures" / "00002.parquet").exists() == (change == "has changed")


def finished_but_for_the_manifest(settings, output):
    label(settings())
    (output / MANIFEST).unlink()
    return tables(output)


@pytest.mark.parametrize("damage", ["deleted", "cut", "swapped", "swapped, of one size"])
@pytest.mark.parametrize("folder", [".", "failures"])
def test_a_file_that_is_not_as_it_was_written_is_written_anew(settings, tmp_path, damage, folder):
    output = tmp_path / "beliefs"
    whole = finished_but_for_the_manifest(settings, output)
    one, other = (output / folder / f"0000{number}.parquet" for number in (0, 1))
    if damage == "deleted":
        one.unlink()
    elif damage == "cut":
        one.write_bytes(one.read_bytes()[:-20])
    elif damage == "swapped":
        data = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)
    else:
        data = bytearray(one.read_bytes())
        data[-30] ^= 1
        one.write_bytes(data)
    manifest, worked = label(settings())
    assert worked
    assert manifest.rows.rows_in == 17
    assert tables(output) == whole


def test_a_file_that_is_lost_while_the_others_are_labelled_leaves_no_manifest(
    settings, tmp_path, monkeypatch
):
    write = storage.write_parquet

    def lose(url, *rest):
        write(url, *rest)
        if url.endswith("beliefs/00002.parquet"):
            (tmp_path / "beliefs/00000.parquet").unlink()

    monkeypatch.setattr(storage, "write_parquet", lose)
    with pytest.raises(WorkError, match=r"00000\.parquet is missing.*same command again"):
        label(settings())
    assert not (tmp_path / "beliefs" / MANIFEST).exists()
    monkeypatch.undo()
    assert label(settings())[0].rows.rows_in == 17


def test_an_output_deleted_in_the_middle_leaves_no_manifest(settings, tmp_path, monkeypatch):
    write = storage.write_parquet

    def lose(url, *rest):
        if url.endswith("beliefs/00001.parquet"):
            shutil.rmtree(tmp_path / "beliefs")
        write(url, *rest)

    monkeypatch.setattr(storage, "write_parquet", lose)
    with pytest.raises(WorkError, match=r"shards are incomplete|removed or emptied"):
        label(settings())
    assert not (tmp_path / "beliefs" / MANIFEST).exists()


def test_a_listing_that_does_not_show_what_was_written_loses_nothing(
    settings, tmp_path, monkeypatch
):
    """Neither where the run ends, nor where another one goes on."""
    listed = LocalFileSystem.ls

    def stale(self, path, detail=False, **options):
        infos = listed(self, path, detail=True, **options)
        late = ("beliefs", "_receipts", "failures")
        shown = [
            info
            for info in infos
            if info["type"] == "directory" or Path(info["name"]).parent.name not in late
        ]
        return shown if detail else [info["name"] for info in shown]

    monkeypatch.setattr(LocalFileSystem, "ls", stale)
    assert label(settings())[0].rows.to_json() == {
        "in": 17,
        "out": 14,
        "rejected": {"undecodable": 3},
    }
    (tmp_path / "beliefs" / MANIFEST).unlink()
    assert label(settings())[0].rows.rows_in == 17


def test_a_planted_shard_is_no_part_of_the_beliefs(settings, tmp_path, monkeypatch):
    write = storage.write_parquet

    def plant(url, *rest):
        write(url, *rest)
        if url.endswith("beliefs/00002.parquet"):
            shutil.copy(url, tmp_path / "beliefs/00099.parquet")

    monkeypatch.setattr(storage, "write_parquet", plant)
    label(settings())
    assert sorted(path.name for path in (tmp_path / "beliefs").glob("*.parquet")) == [
        f"{number:05d}.parquet" for number in range(3)
    ]


def test_a_listing_that_still_shows_what_is_gone_removes_nothing_else(
    settings, tmp_path, monkeypatch
):
    """Files of a shard that was never finished, and one that a listing shows after its removal."""
    label(settings())
    output = tmp_path / "beliefs"
    whole = tables(output)
    (output / MANIFEST).unlink()
    (output / "_receipts" / "00001.json").unlink()
    (output / "00009.parquet").write_bytes(b"of a killed writer")
    listed, removed = LocalFileSystem.ls, LocalFileSystem.rm_file
    late = {}

    def stale(self, path, detail=False, **options):
        """As it was when it was first asked for."""
        infos = late.setdefault(str(path), listed(self, path, detail=True, **options))
        return infos if detail else [info["name"] for info in infos]

    gone = []

    def remove(self, path):
        gone.append(Path(path).name)
        removed(self, path)

    monkeypatch.setattr(LocalFileSystem, "ls", stale)
    monkeypatch.setattr(LocalFileSystem, "rm_file", remove)
    assert label(settings())[0].rows.rows_in == 17
    monkeypatch.undo()
    assert tables(output) == whole
    assert "00009.parquet" in gone
    assert not {"00000.parquet", "00002.parquet", "00000.json", "00002.json"} & set(gone)


def test_files_of_unfinished_shards_that_are_gone_already_are_no_error(tmp_path, monkeypatch):
    """Another process removed them after the listing."""
    for name in ("00000.parquet", "00001.parquet", "failures/00001.parquet", "notes.parquet"):
        storage.write_bytes(str(tmp_path / name), b"rows")
    listed = LocalFileSystem.ls
    monkeypatch.setattr(
        LocalFileSystem,
        "ls",
        lambda self, path, detail=False, **options: [
            *listed(self, path, detail, **options),
            f"{path}/00007.parquet",
        ],
    )
    remove_unfinished(str(tmp_path), {0})
    monkeypatch.undo()
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.parquet"))
    assert left == ["00000.parquet", "notes.parquet"]
