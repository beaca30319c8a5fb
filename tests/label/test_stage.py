import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from coyo_labeler import storage
from coyo_labeler.config.label import LabelSettings
from coyo_labeler.config.read import read_settings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.label.commit import Seat
from coyo_labeler.label.local import devices_of, run_local
from coyo_labeler.label.read import find_shards
from coyo_labeler.label.stage import Job, _rates, _refuse_mixed, _speed, spec_of
from coyo_labeler.label.weights import load_model
from coyo_labeler.manifest import MANIFEST, Counts
from coyo_labeler.receipts import Receipt, Receipts
from coyo_labeler.stages import STAGES, run_stage
from tests.label.tars import crops, jpeg, write_tar

FILES = [jpeg(pixels) for pixels in crops(6, seed=5, small=40, large=90)]


@pytest.fixture
def images(tmp_path):
    for shard, count in enumerate((6, 5, 3)):
        write_tar(tmp_path / "images", shard, [*FILES[:count], b"poison"])
    return tmp_path / "images"


@pytest.fixture
def settings(images, tmp_path, small_spec):
    def make(output="beliefs", **changes):
        keys = {"engine": "local", "device": "cpu", **small_spec, **changes}
        return LabelSettings(images=str(images), output=str(tmp_path / output), **keys)

    return make


def label(settings, spark=None):
    return run_stage(STAGES["label"], settings, spark)


def tables(output):
    """The bytes of every table, by name."""
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.parquet")}


def test_every_sample_of_the_tars_is_a_belief_or_a_failure(settings, tmp_path):
    manifest, worked = label(settings())
    assert worked
    assert manifest.rows.to_json() == {"in": 17, "out": 14, "rejected": {"undecodable": 3}}
    assert sorted(tables(tmp_path / "beliefs")) == [
        *(f"{shard:05d}.parquet" for shard in range(3)),
        *(f"failures/{shard:05d}.parquet" for shard in range(3)),
    ]
    assert manifest.details["devices"].popitem()[1]["images_per_second"] > 0
    assert label(settings())[1] is False


def test_spark_and_the_bare_machine_write_the_same_bytes(settings, spark, tmp_path):
    label(settings("local"))
    label(settings("spark", engine="spark"), spark)
    assert tables(tmp_path / "local") == tables(tmp_path / "spark")


def test_several_processes_write_the_same_bytes_as_one(settings, images, tmp_path):
    label(settings("one"))
    many = settings("many")
    seats = [Seat("cpu", 1, f"device {index}") for index in range(2)]
    job = Job(spec_of(many), many.output, "fingerprint")
    done = list(run_local(job, find_shards(str(images)), seats))
    assert sorted(shard.shard for shard in done) == [0, 1, 2]
    assert tables(tmp_path / "one") == tables(tmp_path / "many")


@pytest.mark.parametrize("fails_at", ["00001.parquet", "failures/00001.parquet"])
def test_a_shard_whose_files_are_not_all_written_has_no_receipt(
    settings, tmp_path, monkeypatch, fails_at
):
    write = storage.write_parquet

    def full_disk(url, *rest):
        if url.endswith(fails_at):
            raise OSError("no space left on device")
        write(url, *rest)

    monkeypatch.setattr(storage, "write_parquet", full_disk)
    with pytest.raises(OSError, match="no space left"):
        label(settings())
    output = tmp_path / "beliefs"
    assert [path.name for path in output.glob("_receipts/*")] == ["00000.json"]
    monkeypatch.undo()
    assert label(settings())[0].rows.rows_in == 17


def done_at(shard, end, seconds, device="host/cpu", images=1000):
    counts = Counts(images, images)
    details = {"device": device, "busy_seconds": 0.9 * seconds, "finished": end}
    return Receipt(shard, "f", counts, seconds, details)


def test_progress_tells_images_a_second_of_each_device_and_in_all_and_what_is_idle():
    receipts = [
        done_at(0, 50.0, 10.0, "a/gpu 0"),
        done_at(1, 110.0, 10.0, "a/gpu 0"),
        done_at(2, 120.0, 10.0, "a/gpu 0"),
        done_at(3, 120.0, 20.0, "b/gpu 1"),
    ]
    assert _speed({0})(receipts) == {
        "images": "4,000",
        "images/s": "150 (a/gpu 0 100/s idle 10%, b/gpu 1 50/s idle 10%)",
    }
    assert _speed({0})(receipts[:1]) == {"images": "1,000"}


def test_tasks_side_by_side_on_one_device_add_up():
    """Eight at a time, then none for a minute, then four: 12,000 images in 20 s."""
    receipts = [done_at(shard, 10.0, 10.0) for shard in range(8)]
    receipts += [done_at(shard, 80.0, 10.0) for shard in range(8, 12)]
    assert _rates(receipts[:8])["host/cpu"]["images_per_second"] == 800
    assert _rates(receipts) == {"host/cpu": {"images_per_second": 600, "idle_share": 0.1}}


def test_progress_is_told_while_it_works(settings, caplog, monkeypatch):
    monkeypatch.setattr("coyo_labeler.progress.LINE_SECONDS", 0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with caplog.at_level("INFO", logger="coyo_labeler.progress"):
        label(settings())
    assert re.search(r"3/3 shards.*images 17, images/s .*/cpu .*/s idle \d+%", caplog.text)


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


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_a_damaged_tar_stops_the_run_when_the_others_are_done(
    settings, images, tmp_path, engine, request
):
    path = images / "00001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    spark = request.getfixturevalue("spark") if engine == "spark" else None
    chosen = settings(engine=engine)
    with pytest.raises(WorkError, match=r"00001\.tar cannot be read.*the same command") as caught:
        label(chosen, spark)
    assert "\n" not in str(caught.value)
    assert "overwrite" not in str(caught.value)
    output = tmp_path / "beliefs"
    assert not (output / "00001.parquet").exists()
    assert not (output / MANIFEST).exists()
    kept = {name: (output / name).stat().st_mtime_ns for name in ("00000.parquet", "00002.parquet")}
    path.write_bytes(whole)
    assert label(settings(engine=engine), spark)[0].rows.rows_in == 17
    assert {name: (output / name).stat().st_mtime_ns for name in kept} == kept


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


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
@pytest.mark.parametrize(("gpus", "seen"), [(0, "no GPU"), (2, "cuda:0, cuda:1")])
def test_a_device_that_is_not_there_is_one_line(settings, monkeypatch, device, gpus, seen):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    if device == "cuda" and gpus:
        assert devices_of(device) == ["cuda:0", "cuda:1"]
        return
    with pytest.raises(InputError, match=f"device: {device}: torch sees {seen} on"):
        label(settings(device=device))


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
    monkeypatch.setattr(storage, "read_json", lambda url: reads.append(url) or read_json(url))
    assert label(settings())[0].rows.rows_in == 19
    assert sorted(
        url[-10:] for url in reads if "_receipts/0000" in url and "7.json" not in url
    ) == [
        "00000.json",
        "00001.json",
        "00002.json",
    ]


@pytest.mark.parametrize("change", ["has changed", "is gone"])
def test_a_tar_that_is_not_what_was_labelled_is_refused_and_only_it_replaced_on_request(
    settings, images, tmp_path, change
):
    label(settings())
    output = tmp_path / "beliefs"
    kept = (output / "00000.parquet").stat().st_mtime_ns
    if change == "is gone":
        (images / "00002.tar").unlink()
    else:
        write_tar(images, 2, FILES[4:])
    with pytest.raises(InputError, match=f"tar of shard 00002 {change}.*overwrite=true"):
        label(settings())
    assert (output / MANIFEST).exists()
    manifest, _ = label(settings(overwrite=True))
    assert manifest.rows.rows_in == (13 if change == "is gone" else 15)
    assert (output / "00000.parquet").stat().st_mtime_ns == kept
    assert (output / "00002.parquet").exists() == (change == "has changed")
    assert (output / "failures" / "00002.parquet").exists() == (change == "has changed")


def test_the_teacher_is_told_in_every_file(settings, tmp_path):
    label(settings())
    for shard in range(3):
        metadata = pq.read_schema(tmp_path / "beliefs" / f"{shard:05d}.parquet").metadata
        assert metadata[b"teacher.model"] == b"tf_efficientnetv2_b0"
        assert metadata[b"teacher.activation"] == b"sigmoid"
        assert metadata[b"teacher.precision"] == b"float32"
        assert len(metadata[b"teacher.weights_sha256"]) == 64
        assert metadata[b"coyo_labeler.version"]


def test_receipts_name_the_device_and_its_share_of_work(settings):
    label(settings())
    chosen = settings()
    fingerprint = storage.read_json(f"{chosen.output}/_run.json")["fingerprint"]
    for receipt in Receipts(chosen.output, fingerprint).read().values():
        assert receipt.details["device"].endswith("/cpu")
        assert receipt.details["busy_seconds"] > 0


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("preprocess=automl", "preprocess: 'automl' is no preset"),
        ("preprocess=automl_8", "N from 32 to 4096"),
        ("activation=relu", "activation: 'relu' is wrong"),
        ("device=tpu", "device: 'tpu' is no device"),
        ("top_k=0", "top_k: 0 is wrong"),
        ("sampling.min_top1=2", "sampling.min_top1: 2 is wrong"),
        ("precision=int8", "precision: 'int8' is wrong"),
        ("presision=float32", "did you mean precision?"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_key(word, says):
    with pytest.raises(InputError, match=says.replace("?", r"\?")):
        read_settings(LabelSettings, "label", None, ["images=x", "output=y", word])


def test_tars_without_a_number_and_folders_without_tars_are_refused(settings, images):
    (images / "00000.tar").rename(images / "first.tar")
    with pytest.raises(InputError, match="the name of a tar must be its shard's number"):
        label(settings())
    for path in images.iterdir():
        path.rename(path.with_suffix(".zip"))
    with pytest.raises(InputError, match=r"no \.tar files"):
        label(settings("other"))


BARE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pyspark", "py4j", "cv2"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name == "pyspark" else found(name, package)
)
def loaded():
    return {name.split(".")[0] for name in sys.modules}
import coyo_labeler.label.head, coyo_labeler.label.preprocess
import coyo_labeler.label.model, coyo_labeler.label.predict
assert "pydantic" not in loaded()
from coyo_labeler.cli import main
status = main(["label", *sys.argv[1:]])
assert not loaded() & {"pyspark", "py4j", "cv2"}
sys.exit(status)
"""


def test_a_machine_without_spark_java_and_opencv_writes_the_same_bytes(settings, tmp_path):
    """And the kernel alone asks for no pydantic either."""
    label(settings("here"))
    bare = settings("bare", engine="auto")
    keys = ["images", "output", "model", "checkpoint", "label_space", "activation", "preprocess"]
    keys += ["precision", "batch_size", "device"]
    words = [f"{key}={getattr(bare, key)}" for key in keys]
    environment = {k: v for k, v in os.environ.items() if k not in {"JAVA_HOME", "SPARK_HOME"}}
    environment |= {"PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", BARE, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "here") == tables(tmp_path / "bare")
