"""The stage on a few rows, over Spark, from a server on 127.0.0.1."""

import json
import tarfile
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from pydantic import ValidationError

from coyo_labeler import storage
from coyo_labeler.config.fetch import FetchSettings
from coyo_labeler.errors import InputError
from coyo_labeler.fetch import stage as fetch_stage
from coyo_labeler.fetch.stage import facts, limits_of, tasks_at_once
from coyo_labeler.formats import schemas
from coyo_labeler.manifest import Counts, Manifest
from coyo_labeler.receipts import Receipt
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.fetch.web import encode, phash, photograph, reply

BIG = 1 << 33


def write_catalog(folder: Path, rows: list[dict], name: str = "part-0.parquet") -> str:
    table = pa.Table.from_pylist([{"width": 96, "height": 112, **row} for row in rows])
    storage.write_parquet(str(folder / name), table.cast(schemas_of(table)))
    return str(folder)


def write_bare(folder: Path, rows: list[dict]) -> str:
    """A catalog as another tool writes it: every column may be null."""
    storage.write_parquet(
        str(folder / "a.parquet"),
        pa.Table.from_pylist([{"width": 96, "height": 112, **row} for row in rows]),
    )
    return str(folder)


def schemas_of(table: pa.Table) -> pa.Schema:
    known = {field.name: field for field in schemas.CATALOG}
    known["fallback_urls"] = pa.field("fallback_urls", pa.list_(pa.string()))
    return pa.schema([known[name] for name in table.column_names])


def run(spark, **keys) -> tuple[Manifest, bool]:
    given = {"allow_private": True, "backoff_seconds": 0.01, "timeout_seconds": 300, **keys}
    return run_stage(STAGES["fetch"], FetchSettings.model_validate(given), spark)


@pytest.fixture
def site(web):
    """Six images, one of each fault, in two shards; ids are not in row order."""
    images = [encode(photograph(seed)) for seed in range(6)]
    rows = []
    for index, data in enumerate(images):
        url = web.serve(f"/{index}.jpg", data)
        rows.append({"id": BIG - index, "url": url, "imagehash": phash(data), "shard": index % 2})
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
                    document = json.load(tar.extractfile(f"{row['key']}.json"))
                    assert document["id"] == row["id"]
                    assert document["sha256"] == row["sha256"]
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


def test_without_a_contact_nothing_is_asked_and_no_output_claimed(site, tmp_path):
    catalog = write_catalog(tmp_path / "catalog", site)
    given = [f"catalog={catalog}", f"output={tmp_path / 'out'}"]
    with pytest.raises(InputError, match=r"^fetch: user_agent: missing; .*contact"):
        run_stage(STAGES["fetch"], read_stage_settings(STAGES["fetch"], given))
    assert not (tmp_path / "out").exists()


def test_retry_tries_what_failed_for_a_while_and_nothing_else(spark, site, web, tmp_path):
    web.answers["/busy"] = web.answers["/1.jpg"]
    web.answers["/1.jpg"] = reply(b"", "503 Busy")
    catalog, out = write_catalog(tmp_path / "catalog", site), str(tmp_path / "out")
    keys = {"catalog": catalog, "output": out, "retries": 0}
    first, _ = run(spark, **keys)
    assert first.rows.rejected["http_server_error"] == 1
    assert first.details["transient"] == 1
    web.answers["/1.jpg"] = web.answers["/busy"]
    web.asked.clear()
    second, worked = run(spark, **keys, retry=True)
    assert worked
    assert {path for path, _ in web.asked} == {"/1.jpg", "/robots.txt"}
    assert second.rows.rows_out == first.rows.rows_out + 1
    assert "http_server_error" not in second.rows.to_json()["rejected"]
    third, worked = run(spark, **keys, retry=True)
    assert not worked
    assert third == second


def test_the_fallback_urls_of_the_catalog_are_used(spark, web, tmp_path):
    data = encode(photograph(3))
    row = {"id": 1, "url": web.url("/gone"), "imagehash": phash(data), "shard": 4}
    rows = [{**row, "fallback_urls": [web.serve("/twin", data)]}]
    catalog = write_catalog(tmp_path / "catalog", rows)
    manifest, _ = run(spark, catalog=catalog, output=str(tmp_path / "out"))
    assert manifest.rows.rows_out == 1


def test_webdataset_reads_the_tars(spark, site, tmp_path):
    catalog = write_catalog(tmp_path / "catalog", site)
    run(spark, catalog=catalog, output=str(tmp_path / "out"))
    urls = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    assert len(samples) == 7
    assert all(sample["json"]["key"] == sample["__key__"] for sample in samples)
    assert {sample["jpg"].size for sample in samples if "jpg" in sample} == {(96, 112)}


def test_progress_tells_what_is_done_and_what_fails():
    counts = Counts(100, 80, {"timeout": 15, "http_not_found": 4, "corrupt": 1, "tls_failed": 0})
    details = {"asked": 100, "asked_bytes": 4_000_000, "finished": 1020.0}
    shown = facts([Receipt(0, "f", counts, 20.0, details)])
    assert shown == {
        "images": "80",
        "success": "80.0%",
        "img/s": "5",
        "MB/s": "0.2",
        "failures": "timeout 15 http_not_found 4 corrupt 1",
    }
    assert facts([]) == {}


def test_rates_are_of_this_run_and_of_what_it_asked_for():
    """Not of the rows that a shard had before, nor of the time between two runs."""
    details = {"asked": 100, "asked_bytes": 4_000_000, "finished": 1020.0}
    before = Receipt(0, "f", Counts(100, 100), 20.0, details)
    retried = {"asked": 10, "asked_bytes": 500_000, "finished": 90_002.0}
    now = Receipt(1, "f", Counts(100, 90, {"timeout": 10}), 2.0, retried)
    shown = facts([before, now], since=90_000.0)
    assert (shown["images"], shown["img/s"], shown["MB/s"]) == ("190", "5", "0.2")
    assert "img/s" not in facts([before], since=90_000.0)


def test_what_a_host_may_be_asked_is_shared_by_the_tasks(spark):
    settings = FetchSettings(catalog="c", output="o", host_requests_per_second=4)
    assert limits_of(settings, 1).host_interval_seconds == 0.25
    assert limits_of(settings, 8).host_interval_seconds == 2.0
    unpaced = FetchSettings(catalog="c", output="o")
    assert limits_of(unpaced, 8).host_interval_seconds == 0.0
    # The cores of the session: its spark.default.parallelism is 3.
    assert tasks_at_once(spark) == 2


def test_a_paced_host_is_not_asked_more_by_more_tasks(spark, web, tmp_path, monkeypatch):
    """Six shards, on executors that run two tasks at once; see also `test_manners`."""
    data, notes = encode(photograph(1)), tmp_path / "notes"
    notes.mkdir()
    work = fetch_stage.fetch_partition

    def noted(shards, settings, receipts, tasks, *rest):
        interval = limits_of(settings, tasks).host_interval_seconds
        (notes / uuid.uuid4().hex).write_text(str(interval))
        return work(shards, settings, receipts, tasks, *rest)

    monkeypatch.setattr(fetch_stage, "fetch_partition", noted)
    row = {"imagehash": phash(data)}
    urls = [web.serve(f"/{index}", data) for index in range(6)]
    rows = [{**row, "id": index, "url": url, "shard": index} for index, url in enumerate(urls)]
    catalog = write_catalog(tmp_path / "catalog", rows)
    given = {"catalog": catalog, "output": str(tmp_path / "out"), "robots_txt": False}
    run(spark, **given, host_requests_per_second=20)
    assert len(web.asked) == 6
    # Two tasks, each of which asks half as often as the host allows.
    assert [path.read_text() for path in notes.iterdir()] == ["0.1", "0.1"]


def test_what_a_killed_worker_left_is_gone_when_the_job_ends(spark, site, tmp_path, monkeypatch):
    catalog, out = write_catalog(tmp_path / "catalog", site), tmp_path / "out"
    fetch_shards = fetch_stage.fetch_shards

    def killed(*given):
        fetch_shards(*given)
        (out / ".00000.tar.0123.tmp").write_bytes(b"cut off")
        run = given[-1]
        (out / "_next" / f"00000-{run}-0123").mkdir(parents=True)
        (out / "_next" / f"00000-{run}-0123" / "00000.tar").write_bytes(b"cut off")

    monkeypatch.setattr(fetch_stage, "fetch_shards", killed)
    run(spark, catalog=catalog, output=str(out))
    shards = {
        f"0000{shard}{end}" for shard in (0, 1) for end in (".tar", ".parquet", "_stats.json")
    }
    own = {"_files.json", "_manifest.json", "_run.json"}
    assert {path.name for path in out.iterdir()} == {*shards, *own}


@pytest.mark.parametrize("agent", ["bot", "Mozilla/5.0"])
def test_a_user_agent_without_a_contact_is_refused(agent):
    with pytest.raises(ValidationError, match="names no contact; add a URL"):
        FetchSettings(catalog="c", output="o", user_agent=agent)


def test_a_catalog_without_shards_is_refused(spark, site, tmp_path):
    bare = [{key: row[key] for key in ("id", "url", "imagehash")} for row in site]
    catalog = write_catalog(tmp_path / "catalog", bare)
    with pytest.raises(InputError, match="has no column 'shard'"):
        run(spark, catalog=catalog, output=str(tmp_path / "out"))


def test_a_catalog_with_rows_without_an_id_is_refused(spark, site, tmp_path):
    catalog = write_bare(tmp_path / "catalog", [*site, {**site[0], "id": None}])
    with pytest.raises(InputError, match="'id' is null in 1 rows; give each an id"):
        run(spark, catalog=catalog, output=str(tmp_path / "out"))


def test_a_bare_catalog_may_lack_urls_and_hashes(spark, site, tmp_path):
    bare = [
        {**site[0], "url": None},
        {**site[1], "imagehash": "zzz"},
        {**site[2], "imagehash": None},
        {**site[3], "url": None, "fallback_urls": [None, site[3]["url"]]},
    ]
    rows = [{"fallback_urls": None, **row} for row in bare]
    catalog = write_bare(tmp_path / "catalog", rows)
    manifest, _ = run(spark, catalog=catalog, output=str(tmp_path / "out"))
    assert manifest.rows.to_json() == {"in": 4, "out": 2, "rejected": {"bad_hash": 1, "bad_url": 1}}
