"""Every stage on 24 images, each on the output of the one before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from safetensors.torch import load_file

from coyo_labeler.formats.image_shards import find_shards, read_samples
from coyo_labeler.formats.tars import DamagedTarError
from tests.chaos.commands import Stage
from tests.fetch.web import Web, encode, phash, photograph
from tests.merge.tables import assert_same_tables

IMAGES, CLASSES = 24, 10


def write_source(folder: Path, web: Web) -> None:
    """Rows of images behind URLs; some have a twin, some are rejected, some are not there."""
    rows = []
    for number in range(IMAGES):
        data = encode(photograph(number))
        url = web.serve(f"/{number}", data)
        rows.append({"id": 100 + number, "url": url, "image_phash": phash(data)})
        if number % 8 == 0:
            rows.append({**rows[-1], "id": 200 + number, "url": web.serve(f"/twin{number}", data)})
    rows.append({"id": 300, "url": web.url("/gone"), "image_phash": "0123456789abcdef"})
    rows.append({"id": 301, "url": "ftp://host/1", "image_phash": "0123456789abcde0"})
    rows = [{**row, "width": 300, "height": 300} for row in rows]
    folder.mkdir(parents=True)
    for number in range(2):
        table = pa.Table.from_pylist(rows[number::2])
        pq.write_table(table, folder / f"{number}.parquet", write_page_checksum=True)


def write_votes(folder: Path) -> None:
    """Votes of three workers on every other image, and gold for some."""
    votes = ["image_id,worker_id,label,response"]
    for image in range(100, 100 + IMAGES, 2):
        for worker in range(3):
            votes.append(f"{image},w{worker},{(image + worker // 2) % CLASSES},")
    (folder / "votes.csv").write_text("\n".join(votes) + "\n")
    ids = list(range(100, 100 + IMAGES, 3))
    gold = pa.table({"image_id": ids, "label": [image % CLASSES for image in ids]})
    pq.write_table(gold, folder / "gold.parquet")


def build(folder: Path, web: Web, spec: dict[str, Any], spark: SparkSession) -> dict[str, Stage]:
    """The stages, each with the output of its undisturbed run."""
    write_source(folder / "source", web)
    write_votes(folder)
    space = f"label_space={spec['label_space']}"
    catalog, images, beliefs, merged = (
        folder / f"{name}-whole" for name in ("ingest", "fetch", "label", "merge")
    )
    asked = ["allow_private=true", "robots_txt=false", "retries=0", "timeout_seconds=300"]
    taught = ["engine=local", "device=cpu", *(f"{key}={value}" for key, value in spec.items())]
    model = "model_args={patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2, proj_drop_rate: 0.1}"
    trained = [
        "model=vit_tiny_patch16_224",
        model,
        "image_size=24",
        f"num_classes={CLASSES}",
        "batch_size=6",
        "steps=8",
        "precision=float32",
        "workers=0",
        "threads=1",
        "shuffle_buffer=8",
        "log_every=2",
        "checkpoint_every=2",
        "keep_checkpoints=3",
        "tensorboard=false",
        "device=cpu",
    ]
    made: dict[str, Stage] = {}

    def add(
        key: str,
        reads: Path,
        words: list[str],
        other: str,
        same: Callable[[Path, Path], None],
        session: SparkSession | None = spark,
        **more: Any,
    ) -> None:
        made[key] = Stage(
            key.partition("-")[0], words, folder / key, other, reads, same, session, **more
        )
        error = made[key].run(output=made[key].whole)
        assert error is None, error

    source = [f"source={folder / 'source'}", "rows_per_shard=7"]
    add("ingest", folder / "source", source, "rows_per_shard=5", same_catalog)
    words = [f"catalog={catalog}", *asked]
    add("fetch", catalog, words, "max_distance=3", same_images, repair=remove_damaged)
    words = [f"images={images}", *taught]
    add("label", images, words, "top_k=2", same_files, None)
    votes = [f"votes={folder / 'votes.csv'}", f"gold={folder / 'gold.parquet'}", "engine=local"]
    words = [f"beliefs={beliefs}", *votes, space, "max_iterations=4", "tolerance=0"]
    add("merge", beliefs, words, "max_iterations=3", assert_same_tables, None)
    given = [f"labels={merged}", f"images={images}", space]
    words = [*given, f"gold={folder / 'gold.parquet'}", f"catalog={catalog}", f"compare={beliefs}"]
    add("report", merged, words, "top=3", same_report)
    words = [*given, "format=webdataset", "threshold=0.1"]
    add("export-webdataset", images, words, "threshold=0.2", same_files)
    words = [f"labels={merged}", space, "format=huggingface", "rows_per_shard=6"]
    add("export-huggingface", merged, words, "threshold=0.2", same_files)
    words = [f"labels={merged}", space, "format=parquet", "threshold=0.1", "rows_per_shard=6"]
    add("export-parquet", merged, words, "threshold=0.2", same_files)
    words = [f"labels={merged}", f"images={images}", *trained]
    add("pretrain_vit", images, words, "seed=9", same_model, None)
    return made


def rows_of(folder: Path, key: Callable[[dict[str, Any]], Any] = str) -> list[dict[str, Any]]:
    """The rows of a table, sorted: files and their order may differ."""
    tables = [pq.read_table(path).to_pylist() for path in sorted(folder.glob("*.parquet"))]
    return sorted((row for rows in tables for row in rows), key=key)


def same_catalog(one: Path, other: Path) -> None:
    for table in ("catalog", "rejects", "duplicates"):
        assert rows_of(one / table) == rows_of(other / table), table


def same_images(one: Path, other: Path) -> None:
    """Tars byte by byte; of the rows all but the seconds that each took."""
    tars = [{p.name: p.read_bytes() for p in folder.glob("*.tar")} for folder in (one, other)]
    assert tars[0] == tars[1]
    rows = [rows_of(folder, lambda row: row["key"]) for folder in (one, other)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    assert rows[0] == rows[1]


def remove_damaged(output: Path) -> None:
    """What label advises for a tar that is not as fetch wrote it: it is removed, and fetched."""
    for shard in find_shards(str(output)):
        try:
            list(read_samples(shard))
        except DamagedTarError:
            for ending in (".tar", ".parquet"):
                (output / (shard.name + ending)).unlink()


def same_files(one: Path, other: Path) -> None:
    """Tables byte by byte."""
    tables = [
        {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.suffix in {".parquet", ".tar"}
            # Spark names its files, and counts the rows that have no image in them.
            and "no_image" not in path.parts
        }
        for folder in (one, other)
    ]
    assert tables[0].keys() == tables[1].keys()
    assert [name for name in tables[0] if tables[0][name] != tables[1][name]] == []


def same_report(one: Path, other: Path) -> None:
    documents = [json.loads((folder / "report.json").read_text()) for folder in (one, other)]
    for document in documents:
        document.pop("about", None)
    assert documents[0] == documents[1]
    assert (one / "index.html").stat().st_size == (other / "index.html").stat().st_size


def same_model(one: Path, other: Path) -> None:
    models = [load_file(folder / "model.safetensors") for folder in (one, other)]
    assert models[0].keys() == models[1].keys()
    assert all(models[0][name].equal(models[1][name]) for name in models[0])
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (one, other)]
    losses = [[(row["step"], row["loss"]) for row in map(json.loads, each)] for each in lines]
    assert losses[0] == losses[1]
