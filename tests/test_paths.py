"""Every stage takes its paths as they are: spaces, umlauts, `#`, `%`, `=`, braces, patterns."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from coyo_labeler import storage
from coyo_labeler.config.read import read_settings
from coyo_labeler.formats import schemas
from coyo_labeler.formats.spark_tables import paths_to_read
from coyo_labeler.manifest import Manifest
from coyo_labeler.session import spark_path
from coyo_labeler.stages import STAGES, run_stage
from tests.tars import write_members

NAME = "my lábels #1 %20 =x {a,b} [1]?*"
Spell = Callable[[str], str]


@pytest.fixture(params=["relative, file", "home, absolute"])
def spell(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spell:
    """How a user writes the path of a file in the folder `NAME`: inputs one way, outputs another.

    Python's workers and the JVM were started in other folders, as on a cluster.
    """
    folder = tmp_path / NAME
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    ways = {
        "relative": NAME,
        "absolute": str(folder),
        "file": f"file://{folder}",
        "home": f"~/{NAME}",
    }
    inputs, output = (ways[name] for name in request.param.split(", "))
    return lambda name: f"{output if name.startswith('out') else inputs}/{name}"


def run(spark: SparkSession | None, stage: str, *words: str) -> Manifest:
    settings = read_settings(STAGES[stage].settings_class(), stage, None, words)
    return run_stage(STAGES[stage], settings, spark)[0]


def written(tmp_path: Path) -> set[str]:
    """The names beside and in the folder: a second spelling would make another one."""
    return {path.name for path in tmp_path.iterdir()} | {
        f"{NAME}/{path.name}" for path in (tmp_path / NAME).iterdir()
    }


def write_beliefs(url: str) -> None:
    rows = 4
    columns = {
        "id": range(rows),
        "url": ["http://127.0.0.1/x"] * rows,
        "imagehash": ["daf5a50aae4aa54a"] * rows,
        "labels": [[0, 1]] * rows,
        "label_probs": [[0.75, 0.25]] * rows,
        "width": [8] * rows,
        "height": [6] * rows,
    }
    table = pa.table({k: list(v) for k, v in columns.items()}, schema=schemas.BELIEFS)
    storage.write_parquet(url, table)


def write_images(folder: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "teal").save(buffer, "JPEG")
    members = []
    for number in range(4):
        members += [
            (f"{number:09d}.jpg", buffer.getvalue()),
            (f"{number:09d}.json", json.dumps({"id": number}).encode()),
        ]
    write_members(folder / "00000.tar", members)


def test_ingest(spark: SparkSession, spell: Spell, tmp_path: Path) -> None:
    rows = [
        {"id": i, "url": f"http://h/{i}", "image_phash": f"{i + 8:016x}", "width": 300}
        for i in range(4)
    ]
    table = pa.Table.from_pylist([{**row, "height": 300} for row in rows])
    storage.write_parquet(spell("source/a.parquet"), table)
    manifest = run(spark, "ingest", f"source={spell('source')}", f"output={spell('out')}")
    assert manifest.rows.rows_in == manifest.rows.rows_out == 4
    assert written(tmp_path) == {NAME, f"{NAME}/source", f"{NAME}/out"}


def test_fetch(spark: SparkSession, spell: Spell, tmp_path: Path) -> None:
    row = {"id": 1, "url": "x:y", "imagehash": None, "width": 8, "height": 8, "shard": 0}
    table = pa.Table.from_pylist([row], schema=schemas.CATALOG)
    storage.write_parquet(spell("cat/a.parquet"), table)
    words = [f"catalog={spell('cat')}", f"output={spell('out')}", "allow_private=true"]
    assert run(spark, "fetch", *words).rows.rejected == {"bad_url": 1}
    assert written(tmp_path) == {NAME, f"{NAME}/cat", f"{NAME}/out"}


def test_label(spell: Spell, tmp_path: Path) -> None:
    write_images(tmp_path / NAME / "images")
    words = ["model=test_vit.r160_in1k", "pretrained=false", "label_space=imagenet1k"]
    words += ["preprocess=timm", "precision=float32", "engine=local", "device=cpu", "top_k=3"]
    manifest = run(None, "label", f"images={spell('images')}", f"output={spell('out')}", *words)
    assert manifest.rows.rows_out == 4
    assert written(tmp_path) == {NAME, f"{NAME}/images", f"{NAME}/out"}


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_merge(engine: str, spark: SparkSession, spell: Spell, tmp_path: Path) -> None:
    write_beliefs(spell("beliefs/a.parquet"))
    votes = "image_id,worker_id,label\n" + "".join(f"{i},w,1\n" for i in range(4))
    storage.write_bytes(spell("votes.csv"), votes.encode())
    storage.write_bytes(spell("space.txt"), b"cat\ndog\nfish\n")
    words = [f"{key}={spell(key)}" for key in ("beliefs", "output")]
    words += [f"votes={spell('votes.csv')}", f"label_space={spell('space.txt')}"]
    assert run(spark, "merge", *words, f"engine={engine}").rows.rows_out == 4
    names = ("beliefs", "votes.csv", "space.txt", "output")
    assert written(tmp_path) == {NAME, *(f"{NAME}/{name}" for name in names)}


def test_report(spark: SparkSession, spell: Spell, tmp_path: Path) -> None:
    write_beliefs(spell("labels/a.parquet"))
    storage.write_bytes(spell("space.txt"), b"cat\ndog\nfish\n")
    gold = "gold.csv"
    storage.write_bytes(spell(gold), b"image_id,label\n1,0\n2,1\n")
    words = [f"labels={spell('labels')}", f"gold={spell(gold)}", f"output={spell('out')}"]
    manifest = run(spark, "report", *words, f"label_space={spell('space.txt')}")
    assert manifest.rows.rows_out == 4
    names = ("labels", "space.txt", gold, "out")
    assert written(tmp_path) == {NAME, *(f"{NAME}/{name}" for name in names)}


@pytest.mark.parametrize("kind", ["webdataset", "huggingface"])
def test_export(kind: str, spark: SparkSession, spell: Spell, tmp_path: Path) -> None:
    write_beliefs(spell("labels/a.parquet"))
    write_images(tmp_path / NAME / "images")
    storage.write_bytes(spell("space.txt"), b"cat\ndog\nfish\n")
    words = [f"labels={spell('labels')}", f"label_space={spell('space.txt')}"]
    words += [f"format={kind}", f"output={spell('out')}"]
    if kind == "webdataset":
        words.append(f"images={spell('images')}")
    assert run(spark, "export", *words).rows.rows_out == 4
    names = ("labels", "images", "space.txt", "out")
    assert written(tmp_path) == {NAME, *(f"{NAME}/{name}" for name in names)}


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/a b/ü%20#1", "/a b/ü%20#1"),
        ("a b", "{here}/a b"),
        ("./a", "{here}/a"),
        ("~/a b", "{home}/a b"),
        ("file://~/a", "{home}/a"),
        ("~", "{home}"),
        ("~other", "{here}/~other"),
        ("a~/b", "{here}/a~/b"),
        ("file:///a%20b/", "/a%20b"),
        ("file:/a b", "/a b"),
        ("local:///a", "/a"),
        ("a::b", "{here}/a::b"),
        ("12:30/x", "{here}/12:30/x"),
    ],
)
def test_one_path_for_fsspec_and_spark(
    url: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = path.replace("{here}", str(tmp_path / "here")).replace("{home}", str(tmp_path))
    assert storage.resolve(url)[1] == path
    assert spark_path(url) == f"file://{path}"


def test_other_filesystems_keep_their_path_as_it_is() -> None:
    assert spark_path("s3://bucket/a b%20#1") == "s3a://bucket/a b%20#1"
    assert spark_path("hdfs:///a b") == "hdfs:///a b"


def test_a_pattern_is_expanded_once_and_a_name_like_one_is_a_name(tmp_path: Path) -> None:
    for folder in ("x [1]", "x 1"):
        storage.write_bytes(str(tmp_path / folder / "a {b}.parquet"), b"")
    found = list(storage.files_of(str(tmp_path / "x [1]")))
    assert found == [f"file://{tmp_path}/x [1]/a {{b}}.parquet"]
    assert paths_to_read(str(tmp_path / "x [1]")) == [f"file://{tmp_path}/x \\[1\\]"]
    (tmp_path / "x [1]" / "a {b}.parquet").unlink()
    (tmp_path / "x [1]").rmdir()
    assert paths_to_read(f"{tmp_path}/x [1]") == [f"file://{tmp_path}/x 1/a \\{{b\\}}.parquet"]
