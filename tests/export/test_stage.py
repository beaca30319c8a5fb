import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from huggingface_hub import DatasetCard
from PIL import Image
from pyspark.sql import SparkSession
from tfrecord.reader import tfrecord_loader

from coyo_labeler.config.export import ExportSettings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.spark_tables import spark_schema
from coyo_labeler.stages import STAGES, run_stage
from tests.export.builders import (
    ENDINGS,
    expected,
    picture,
    run,
    snapshot,
    write_images,
    write_labels,
)


def test_five_readers_find_the_same_rows_and_types(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    manifest = run(spark, **given, rows_per_shard=5)
    assert manifest.rows.to_json() == {"in": 12, "out": 11, "rejected": {"below_threshold": 1}}
    out = given["output"]
    assert sorted(path.name for path in Path(out).glob("*.parquet")) == [
        f"part-{n:05d}.parquet" for n in range(3)
    ]
    wanted = expected(range(12))

    arrow = pq.read_table(out)  # the whole folder: what is not data must not get in the way
    assert arrow.schema.types == schemas.POSTERIOR.types
    assert arrow.schema.metadata[b"teacher.model"] == b"b0"
    frames = {
        "arrow": arrow.to_pylist(),
        "pandas": pd.read_parquet(out).to_dict("records"),
        "polars": pl.read_parquet(f"{out}/*.parquet").to_dicts(),
        "duckdb": duckdb.sql(f"from '{out}/*.parquet' order by id").to_arrow_table().to_pylist(),
        "spark": [row.asDict() for row in spark.read.parquet(out).orderBy("id").collect()],
        "datasets": datasets.load_dataset(
            "parquet", data_files=f"{out}/*.parquet", split="train", cache_dir=str(tmp_path / "c")
        ).to_list(),
    }  # fmt: skip
    for reader, rows in frames.items():
        assert [(row["id"], list(row["labels"])) for row in rows] == wanted, reader
        assert [list(row) for row in rows] == [schemas.POSTERIOR.names] * 11, reader
    assert spark.read.parquet(out).schema == spark_schema(schemas.POSTERIOR)
    assert pl.read_parquet(f"{out}/*.parquet").schema["label_probs"] == pl.List(pl.Float32)
    described = duckdb.sql(f"describe select * from '{out}/*.parquet'").fetchall()
    assert {row[0]: row[1] for row in described}["labels"] == "INTEGER[]"
    rejects = pq.read_table(f"{out}/_rejects")
    assert rejects["id"].to_pylist() == [(1 << 33) + 3]


def test_the_huggingface_folder_loads_by_its_card(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    run(spark, **given, format="huggingface", rows_per_shard=5)
    out = Path(given["output"])
    assert sorted(path.name for path in (out / "data").iterdir()) == [
        f"train-{n:05d}-of-00003.parquet" for n in range(3)
    ]
    # The folder itself: `datasets` follows the card's configs, and checks its features and counts.
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert [(row["id"], row["labels"]) for row in rows] == expected(range(12))
    assert rows.features["labels"] == datasets.List(datasets.Value("int32"))
    assert rows.features["label_probs"] == datasets.List(datasets.Value("float32"))
    card = DatasetCard.load(out / "README.md")
    info = card.data.to_dict()["dataset_info"]
    assert [field["name"] for field in info["features"]] == schemas.POSTERIOR.names
    assert info["splits"][0]["num_examples"] == 11
    data = sum(path.stat().st_size for path in (out / "data").iterdir())
    assert info["download_size"] == data
    assert card.data.annotations_creators == ["machine-generated", "crowdsourced"]
    # 12 images less one; those from image 4 on keep two labels (0.25 + 4 / 64 ≥ 0.3).
    assert "| 0.00 | 1.73 | 3 | 100.00 % |" in card.text
    assert "| model | b0 |" in card.text
    assert "| below threshold | 1 |" in card.text


def test_webdataset_reads_the_labels_beside_the_images(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images")
    # No labels for image 0; labels for two images that no tar holds.
    given["labels"] = write_labels(tmp_path / "others", range(1, 14))
    manifest = run(spark, **given, format="webdataset", images=images)
    assert manifest.rows.to_json() == {
        "in": 13, "out": 10, "rejected": {"below_threshold": 1, "no_image": 2},
    }  # fmt: skip
    assert manifest.tables["images"].to_json() == {
        "in": 12, "out": 11, "rejected": {"no_labels": 1},
    }  # fmt: skip
    pattern = f"{given['output']}/{{00000..00002}}.tar"
    samples = list(wds.WebDataset(pattern, shardshuffle=False).decode("rgb8"))
    assert [sample["json"]["labels"] for sample in samples] == [
        labels for _, labels in expected(range(1, 12))
    ]
    by_id = {sample["json"]["id"] - (1 << 33): sample for sample in samples}
    assert by_id.keys() == set(range(1, 12)) - {3}
    assert by_id[5]["__key__"] == "000010001"
    assert by_id[5]["json"]["sha256"] == "x"  # other fields stay
    assert by_id[5]["json"]["label_probs"] == [0.75, 0.328125]
    assert by_id[5]["json"]["n_votes"] == 1
    assert by_id[6]["jpg"].shape == (6, 14, 3)
    with tarfile.open(f"{given['output']}/00001.tar") as tar:
        content = tar.extractfile("000010001.webp")
        assert content is not None and content.read() == picture(5)
    rejects = pq.read_table(f"{given['output']}/_rejects/no_image")
    assert sorted(i - (1 << 33) for i in rejects["id"].to_pylist()) == [12, 13]


def test_tars_without_tables_tell_their_ids_themselves(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images", tables=False)
    manifest = run(spark, **given, format="webdataset", images=images)
    assert (manifest.rows.rows_in, manifest.rows.rows_out) == (12, 11)


def test_an_independent_parser_reads_the_tfrecord_folder(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images")
    given["labels"] = write_labels(tmp_path / "others", range(4, 12))  # the first tar has none
    manifest = run(spark, **given, format="tfrecord", images=images, name="digits")
    out = Path(given["output"])
    info = json.loads((out / "dataset_info.json").read_text())
    assert info["name"] == "digits"
    lengths = [int(n) for n in info["splits"][0]["shardLengths"]]
    assert lengths == [0, 4, 4]
    declared = json.loads(json.loads((out / "features.json").read_text())["content"])["features"]
    kinds = {"uint8": "byte", "int32": "int", "float32": "float"}
    description = {
        name: kinds[next(v for k, v in feature.items() if k != "pythonClassName")["dtype"]]
        for name, feature in declared.items()
    }
    written = []
    for shard, length in enumerate(lengths):
        path = out / f"digits-train.tfrecord-{shard:05d}-of-00003"
        examples = list(tfrecord_loader(str(path), None, description))
        assert len(examples) == length
        written += examples
    assert [example["labels"].tolist() for example in written] == [
        labels for _, labels in expected(range(4, 12))
    ]
    for image, example in zip(range(4, 12), written, strict=True):
        data = bytes(example["image"])
        assert data == picture(image) or ENDINGS[image % 3] == "webp"
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.format in ("JPEG", "PNG") and opened.width == 8 + image
    assert manifest.details["re_encoded"] == 3


def test_an_image_that_does_not_decode_is_a_reject(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    images = Path(write_images(tmp_path / "images", tables=False))
    rewritten = io.BytesIO()
    with (
        tarfile.open(images / "00001.tar") as old,
        tarfile.open(fileobj=rewritten, mode="w") as new,
    ):
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            data = b"RIFFnone" if member.name == "000010001.webp" else content.read()
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    (images / "00001.tar").write_bytes(rewritten.getvalue())
    manifest = run(spark, **given, format="tfrecord", images=str(images))
    rejected = manifest.rows.to_json()["rejected"]
    assert rejected == {"below_threshold": 1, "unreadable_image": 1}
    rejects = pq.read_table(f"{given['output']}/_rejects/part-00001.parquet").to_pylist()
    assert rejects == [
        {"id": (1 << 33) + 5, "reason": "unreadable_image",
         "detail": "000010001.webp: undecodable: cannot identify image file"}
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["parquet", "tfrecord"])
def test_a_second_run_writes_what_is_missing_and_nothing_else(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    settings = {**given, "format": kind, "rows_per_shard": 4}
    if kind == "tfrecord":
        settings["images"] = write_images(tmp_path / "images")
    run(spark, **settings)
    out = Path(settings["output"])
    name = (
        "part-00001.parquet" if kind == "parquet" else "coyo_labeled-train.tfrecord-00001-of-00003"
    )
    before = snapshot(settings["output"])
    assert name in before
    # What a kill leaves: no manifest, one shard without receipt, half of its file.
    (out / "_manifest.json").unlink()
    (out / "_receipts" / "00001.json").unlink()
    (out / name).unlink()
    (out / f".{name}.0123.tmp").write_bytes(b"half")
    manifest = run(spark, **settings)
    after = snapshot(settings["output"])
    own = {n for n in before if n.startswith(("part-", "coyo_")) or n == "_receipts/00000.json"}
    assert {n: after[n] for n in own - {name}} == {n: before[n] for n in own - {name}}
    assert after[name][1] == before[name][1]
    assert not any(n.endswith(".tmp") for n in after)
    assert manifest.rows.rows_out == 11
    assert run_stage(STAGES["export"], ExportSettings.model_validate(settings), spark)[1] is False


def kill_after(shards: int, words: list[str], output: Path) -> list[str]:
    """Kill a run when it has made so many shards; returns the names of its receipts."""
    killed = subprocess.Popen(
        [sys.executable, "-m", "coyo_labeler.cli", "export", *words, "spark.master=local[1]"],
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    done: list[str] = []
    try:
        while len(done) < shards:
            has_ended = killed.poll() is not None
            done = [path.name for path in output.glob("_receipts/[0-9]*.json")]
            assert len(done) >= shards or not has_ended
            time.sleep(0.005)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    return [path.name for path in output.glob("_receipts/[0-9]*.json")]


def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    shards = 40
    given["labels"] = write_labels(tmp_path / "many", range(shards))
    given |= {"rows_per_shard": 1, "threshold": 0.0}
    words = [f"{key}={value}" for key, value in given.items()]
    output = Path(given["output"])
    done = kill_after(3, words, output)
    while len(done) == shards:  # this process was too late
        shutil.rmtree(output)
        done = kill_after(3, words, output)
    kept = [output / f"part-{name[:5]}.parquet" for name in done]
    first = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}
    run(spark, **given)
    after = snapshot(given["output"])
    assert {path: after[path.name] for path in kept} == first
    other = {**given, "output": str(tmp_path / "undisturbed")}
    run(spark, **other)
    undisturbed = snapshot(other["output"])
    for n in range(shards):
        name = f"part-{n:05d}.parquet"
        assert after[name][1] == undisturbed[name][1]


@pytest.mark.parametrize("damage", ["lost", "cut", "planted"])
def test_a_copy_holds_the_files_that_were_written_and_no_others(
    spark: SparkSession, given: dict[str, Any], damage: str
) -> None:
    run(spark, **given, rows_per_shard=5)
    out = Path(given["output"])
    whole = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
    (out / "_manifest.json").unlink()
    part = out / "part-00001.parquet"
    if damage == "planted":
        (out / "part-00099.parquet").write_bytes(part.read_bytes())
        with pytest.raises(WorkError, match=r"did not write .*part-00099\.parquet"):
            run(spark, **given, rows_per_shard=5)
        assert not (out / "_manifest.json").exists()
        (out / "part-00099.parquet").unlink()
    elif damage == "lost":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-9])
    run(spark, **given, rows_per_shard=5)
    assert {path.name: path.read_bytes() for path in out.glob("*.parquet")} == whole


def test_the_tree_lies_beside_the_copy_and_lists_can_be_cut_to_its_leaves(
    spark: SparkSession, given: dict[str, Any]
) -> None:
    given = {**given, "label_space": "imagenet21k"}
    manifest = run(spark, **given, roll_up="leaves")
    out = Path(given["output"])
    tree = json.loads((out / "_tree.json").read_text())
    assert (tree["classes"], len(tree["nodes"])) == (21_841, 23_546)
    copy = pq.read_table(out)  # the tree does not get in the way
    assert copy.schema.metadata[b"export.roll_up"] == b"leaves"
    # 0 is organism, above 1 and 2; without it an image whose other label is weak goes.
    assert not any(0 in labels for labels in copy["labels"].to_pylist())
    assert manifest.rows.to_json() == {"in": 12, "out": 10, "rejected": {"below_threshold": 2}}


def test_classes_without_a_tree_cannot_be_rolled_up(
    spark: SparkSession, given: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"label_space: names\.txt has no tree; imagenet21k and"):
        run(spark, **given, roll_up="ancestors")
