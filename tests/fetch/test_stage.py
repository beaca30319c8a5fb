"""The stage on a few rows, over Spark, from a server on 127.0.0.1."""

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import schemas, storage
from coyo_labeler.config.fetch import FetchSettings
from coyo_labeler.errors import InputError
from coyo_labeler.manifest import Manifest
from coyo_labeler.stages import STAGES, run_stage
from tests.fetch.web import encode, phash, photograph

BIG = 1 << 33


def write_catalog(folder: Path, rows: list[dict], name: str = "part-0.parquet") -> str:
    table = pa.Table.from_pylist([{"width": 96, "height": 112, **row} for row in rows])
    storage.write_parquet(str(folder / name), table.cast(schemas_of(table)))
    return str(folder)


def schemas_of(table: pa.Table) -> pa.Schema:
    known = {field.name: field for field in schemas.CATALOG}
    known["fallback_urls"] = pa.field("fallback_urls", pa.list_(pa.string()))
    return pa.schema([known[name] for name in table.column_names])


def run(spark, **keys) -> tuple[Manifest, bool]:
    given = {"allow_private": True, "backoff_seconds": 0.01, "timeout_seconds": 5, **keys}
    return run_stage(STAGES["fetch"], FetchSettings.model_validate(given), spark)


@pytest.fixture
def site(web):
    """Six images, one of each fault, in two shards; ids are not in row order."""
    images = [encode(photograph(seed)) for seed in range(6)]
    rows = []
    for place, data in enumerate(images):
        url = web.serve(f"/{place}.jpg", data)
        rows.append({"id": BIG - place, "url": url, "imagehash": phash(data), "shard": place % 2})
    png = encode(photograph(40), "PNG")
    rows.append({"id": 40, "url": web.serve("/p", png), "imagehash": phash(png), "shard": 1})
    rows.append({"id": 50, "url": web.url("/gone"), "imagehash": phash(png), "shard": 1})
    other = web.serve("/other", encode(photograph(51)))
    rows.append({"id": 51, "url": other, "imagehash": phash(png), "shard": 1})
    cut = web.serve("/cut", images[0][: len(images[0]) // 2])
    rows.append({"id": 52, "url": cut, "imagehash": phash(png), "shard": 0})
    return rows


def test_every_catalog_row_has_one_row_and_every_success_one_image(spark, site, tmp_path):
    catalog = write_catalog(tmp_path / "catalog", site)
    manifest, worked = run(spark, catalog=catalog, output=str(tmp_path / "out"))
    assert worked
    assert manifest.rows.to_json() == {
        "in": 10,
        "out": 7,
        "rejected": {"content_changed": 1, "corrupt": 1, "http_not_found": 1},
    }
    for shard in (0, 1):
        table = pq.read_table(tmp_path / "out" / f"{shard:05d}.parquet")
        assert table.schema.equals(schemas.IMAGES)
        rows = table.to_pylist()
        mine = sorted(row["id"] for row in site if row["shard"] == shard)
        assert [row["id"] for row in rows] == mine
        assert [row["key"] for row in rows] == [f"{shard:05d}{i:04d}" for i in range(len(mine))]
        with tarfile.open(tmp_path / "out" / f"{shard:05d}.tar") as tar:
            names = tar.getnames()
            for row in rows:
                if row["status"] == "success":
                    kind = "png" if row["id"] == 40 else "jpg"
                    assert f"{row['key']}.{kind}" in names
                    told = json.load(tar.extractfile(f"{row['key']}.json"))
                    assert told["id"] == row["id"]
                    assert told["sha256"] == row["sha256"]
        assert len(names) == 2 * sum(row["status"] == "success" for row in rows)


def test_a_second_run_asks_for_nothing(spark, site, web, tmp_path):
    catalog = write_catalog(tmp_path / "catalog", site)
    run(spark, catalog=catalog, output=str(tmp_path / "out"))
    asked = len(web.asked)
    _, worked = run(spark, catalog=catalog, output=str(tmp_path / "out"))
    assert not worked
    assert len(web.asked) == asked


def test_a_resumed_run_fetches_only_shards_without_a_receipt(spark, site, web, tmp_path):
    catalog, out = write_catalog(tmp_path / "catalog", site), tmp_path / "out"
    whole, _ = run(spark, catalog=catalog, output=str(out))
    before = {name: (out / name).read_bytes() for name in ("00000.tar", "00001.tar")}
    for name in ("_manifest.json", "00001_stats.json", "00001.tar"):
        (out / name).unlink()
    (out / ".00001.tar.0.tmp").write_bytes(b"what a killed writer left")
    web.asked.clear()
    resumed, worked = run(spark, catalog=catalog, output=str(out))
    assert worked
    assert resumed.rows == whole.rows
    assert {path for path, _ in web.asked} - {"/robots.txt"} == {
        "/1.jpg",
        "/3.jpg",
        "/5.jpg",
        "/p",
        "/gone",
        "/other",
    }
    assert {name: (out / name).read_bytes() for name in before} == before
    assert list(out.glob(".*")) == []


def test_without_a_contact_nothing_but_loopback_is_asked(spark, site, tmp_path):
    catalog = write_catalog(tmp_path / "catalog", site)
    with pytest.raises(InputError, match=r"^fetch: user_agent: missing; .*contact"):
        run(spark, catalog=catalog, output=str(tmp_path / "out"), allow_private=False)
