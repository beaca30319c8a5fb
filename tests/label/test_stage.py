import os
import re
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from coyo_labeler import storage
from coyo_labeler.config.label import LabelSettings
from coyo_labeler.config.read import read_settings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.inputs import MANIFEST
from coyo_labeler.label.commit import Slot
from coyo_labeler.label.local import devices_of, run_local
from coyo_labeler.label.shards import find_shards
from coyo_labeler.label.spec import spec_of
from coyo_labeler.label.stage import Job, _rates, _spec, _speed
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import Receipt, Receipts
from tests.label.jobs import label, tables


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


def test_executors_get_absolute_paths_of_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("cat\ndog\n")
    words = ["images=i", "output=o", "label_space=mine.txt", "model_label_space=imagenet21k_goog"]
    spec = _spec(read_settings(LabelSettings, "label", None, words))
    assert spec.label_space == str(tmp_path / "mine.txt")
    assert spec.model_label_space == "imagenet21k_goog"


def test_several_processes_write_the_same_bytes_as_one(settings, images, tmp_path):
    label(settings("one"))
    many = settings("many")
    slots = [Slot("cpu", 1, f"device {index}") for index in range(2)]
    job = Job(spec_of(many), many.output, "fingerprint")
    done = list(run_local(job, find_shards(str(images)), slots))
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
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name == "pyspark" else find_spec(name, package)
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


def test_rates_of_many_devices_take_time_in_proportion_to_the_shards():
    """Thousands of devices came to thousands of passes over all shards: 33 s in the end."""
    receipts = [done_at(n, float(n), 10.0, f"host {n % 2000:04d}/gpu 0") for n in range(70_000)]
    start = time.process_time()
    rates = _rates(receipts)
    shown = _speed(set())(receipts)
    assert time.process_time() - start < 8
    assert len(rates) == 2000
    assert len(shown["images/s"]) < 1000
    assert "and 1984 more devices" in shown["images/s"]
