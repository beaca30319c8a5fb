"""The stage on a dozen rows that a reader can check by eye."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.config.read import read_settings
from coyo_labeler.errors import InputError
from coyo_labeler.ingest import stage
from coyo_labeler.manifest import Manifest
from coyo_labeler.stages import STAGES, run_stage

GOOD = {"width": 300, "height": 300, "watermark_score": 0.1}


def row(identity: int | None, imagehash: str | None, **values: Any) -> dict[str, Any]:
    url = f"https://host{identity}.example/{identity}.jpg"
    return {"id": identity, "url": url, "image_phash": imagehash, **GOOD, **values}


def write(folder: Path, *files: list[dict[str, Any]]) -> str:
    folder.mkdir(exist_ok=True)
    for number, rows in enumerate(files):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"part-{number}.parquet")
    return str(folder)


def ingest(spark: SparkSession, source: str, output: Path, *words: str) -> Manifest:
    overrides = [f"source={source}", f"output={output}", *words]
    settings = read_settings(IngestSettings, "ingest", None, overrides)
    return run_stage(STAGES["ingest"], settings, spark)[0]


def table(output: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(output / name).to_pylist()
    return rows


def reasons(output: Path) -> dict[int | None, str]:
    return {row["id"]: row["reason"] for row in table(output, "rejects")}


def test_every_row_is_in_the_catalog_or_has_one_reason(spark: SparkSession, tmp_path: Path) -> None:
    source = write(
        tmp_path / "source",
        [
            row(1, "8000000000000001"),
            row(2, "8000000000000001"),
            row(3, "ABCDEF0123456789"),
            row(4, " abcdef0123456789"),
            row(5, "not a hash"),
            row(6, "8000000000000006", url="ftp://host/6.jpg"),
            row(7, "8000000000000007", width=199),
            row(8, "8000000000000008", width=901),
            row(9, "8000000000000009", watermark_score=0.6),
            row(None, "800000000000000a"),
            row(11, "800000000000000b", url=None),
            row(12, "123"),
            row(13, "800000000000000d", width=3_000_000_000, height=3_000_000_000),
        ],
    )
    output = tmp_path / "output"
    manifest = ingest(spark, source, output, "thresholds.watermark_score.max=0.5")
    assert reasons(output) == {
        2: "duplicate_hash",
        4: "duplicate_hash",
        5: "bad_hash",
        6: "bad_url",
        7: "too_small",
        8: "aspect_ratio",
        9: "watermark_score",
        None: "missing_id",
        11: "bad_url",
        13: "bad_size",
    }
    catalog = {row["id"]: row for row in table(output, "catalog")}
    assert {key: row["imagehash"] for key, row in catalog.items()} == {
        1: "8000000000000001",
        3: "abcdef0123456789",
        12: "0000000000000123",
    }
    assert catalog[1]["fallback_urls"] == ["https://host2.example/2.jpg"]
    assert catalog[12]["fallback_urls"] == []
    twins = [(row["id"], row["kept_id"], row["distance"]) for row in table(output, "duplicates")]
    assert sorted(twins) == [(2, 1, 0), (4, 3, 0)]
    assert manifest.rows.rows_in == 13
    assert manifest.rows.rows_out == 3


def test_flat_colours_are_not_twins_of_each_other(spark: SparkSession, tmp_path: Path) -> None:
    flat = [row(i, "8000000000000000" if i % 2 else "0") for i in range(6)]
    ingest(spark, write(tmp_path / "source", flat), tmp_path / "output")
    assert len(table(tmp_path / "output", "catalog")) == 6


def test_one_row_of_a_repeated_id_stays_whatever_the_order(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [row(1, "80000000000000aa"), row(1, "80000000000000bb"), row(2, "80000000000000bb")]
    kept = []
    for name, order in {"a": rows, "b": rows[::-1]}.items():
        output = tmp_path / f"output-{name}"
        ingest(spark, write(tmp_path / name, order), output)
        kept.append(sorted((r["id"], r["imagehash"]) for r in table(output, "catalog")))
        assert reasons(output) == {1: "duplicate_id"}
    assert kept[0] == kept[1] == [(1, "80000000000000aa"), (2, "80000000000000bb")]


def test_same_rows_make_the_same_shards_however_they_are_cut_into_files(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [row(i, f"{2**63 + 2**20 + i:016x}") for i in range(1003)]
    shuffled = random.Random(0).sample(rows, len(rows))
    catalogs = []
    for name, files in {"a": [rows], "b": [shuffled[:7], shuffled[7:500], shuffled[500:]]}.items():
        output = tmp_path / f"output-{name}"
        ingest(spark, write(tmp_path / name, *files), output, "rows_per_shard=100")
        catalogs.append(table(output, "catalog"))
    assert catalogs[0] == catalogs[1]
    numbers = [row["shard"] for row in catalogs[0]]
    assert {shard: numbers.count(shard) for shard in range(11)} == {
        **dict.fromkeys(range(10), 100),
        10: 3,
    }
    ids = [(row["shard"], row["id"]) for row in catalogs[0]]
    assert ids == sorted(ids)
    # Neighbours in the source, as the rows of one host are, do not share a shard.
    assert len({row["shard"] for row in catalogs[0] if row["id"] < 100}) > 5


def test_of_rows_with_one_id_hash_and_url_the_same_stays_whatever_the_order(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [row(1, "8000000000000007", text=text) for text in "cab"]
    rows.append({**rows[0], "width": 299})
    for name, order in {"a": rows, "b": rows[::-1]}.items():
        source = write(tmp_path / name, *([one] for one in order))
        ingest(spark, source, tmp_path / f"output-{name}", "keep_columns=[text]")
        [kept] = table(tmp_path / f"output-{name}", "catalog")
        assert (kept["width"], kept["text"]) == (299, "c")


def test_a_sample_is_part_of_every_larger_sample(spark: SparkSession, tmp_path: Path) -> None:
    source = write(tmp_path / "source", [row(i, f"{2**63 + 2 + i:016x}") for i in range(1000)])
    samples = []
    for share in (0.1, 0.43):
        output = tmp_path / str(share)
        manifest = ingest(spark, source, output, f"sample={share}")
        samples.append({row["id"] for row in table(output, "catalog")})
        assert manifest.rows.rejected == {"not_sampled": 1000 - len(samples[-1])}
        assert abs(len(samples[-1]) / 1000 - share) < 0.05
    assert samples[0] < samples[1]


def test_kept_columns_and_both_published_layouts_are_read(
    spark: SparkSession, tmp_path: Path
) -> None:
    labeled = pa.table(
        {
            "id": pa.array([7], pa.int64()),
            "url": ["http://a.example/7"],
            "imagehash": ["daf5a50aae4aa54a"],
            "labels": [[8087]],
            "width": pa.array([240], pa.int32()),
            "height": pa.array([240], pa.int64()),
            "text": ["a lamp"],
            "aesthetic_score": pa.array([5.5], pa.float32()),
        }
    )
    (tmp_path / "source").mkdir()
    pq.write_table(labeled, tmp_path / "source" / "0.parquet", compression="snappy")
    words = ["keep_columns=[text]", "thresholds.aesthetic_score.min=5"]
    ingest(spark, str(tmp_path / "source"), tmp_path / "output", *words)
    assert table(tmp_path / "output", "catalog") == [
        {
            "id": 7,
            "url": "http://a.example/7",
            "imagehash": "daf5a50aae4aa54a",
            "width": 240,
            "height": 240,
            "shard": 0,
            "fallback_urls": [],
            "text": "a lamp",
        }
    ]


def test_a_kept_column_may_have_any_name(spark: SparkSession, tmp_path: Path) -> None:
    """Also one that the stage uses itself, or that Spark would take apart."""
    ours = [
        "position",
        "place",
        "reason",
        "detail",
        "part",
        "bits",
        "sampled",
        "near_of",
        "near_distance",
    ]
    names = [*ours, "bucket", "before", "cut", "touch", "kept_bits", "a.b", "a`b", "source_part"]
    values = {name: f"the {name}" for name in names}
    one = row(1, "8000000000000001", **values)
    rows = [one, {**one, "image_phash": "8000000000000002"}]  # joined with the hash of its id
    source = write(tmp_path / "source", rows)
    output = tmp_path / "output"
    ingest(spark, source, output, f"keep_columns={json.dumps(names)}", "sample=0.99")
    [kept] = table(output, "catalog")
    assert {name: kept[name] for name in names} == values
    assert list(kept)[-len(names) :] == names


def test_a_threshold_may_be_of_a_column_with_a_name_of_ours(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [row(n, f"800000000000000{n}", bits=n, shard=n) for n in (1, 2, 3)]
    words = ["thresholds.bits.max=2", "thresholds.shard.min=2"]
    ingest(spark, write(tmp_path / "source", rows), tmp_path / "output", *words)
    rejected = [(r["id"], r["reason"], r["detail"]) for r in table(tmp_path / "output", "rejects")]
    assert sorted(rejected) == [(1, "shard", "1"), (3, "bits", "3")]


def test_128_snappy_files_as_published_are_read_by_folder_and_by_glob(
    spark: SparkSession, tmp_path: Path
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    names = ["id", "url", "text", "width", "height", "image_phash", "watermark_score"]
    for number in range(128):
        rows = [row(10 * number + k, f"{2**63 + 100 * number + k + 1:016x}") for k in range(3)]
        content = pa.Table.from_pylist([{**one, "text": "alt"} for one in rows]).select(names)
        name = f"part-{number:05d}-17da4908-939c-46e5-91d0-15f256041956-c000.snappy.parquet"
        pq.write_table(content, folder / name, compression="snappy")
    (folder / "_SUCCESS").touch()
    ids = {10 * number + k for number in range(128) for k in range(3)}
    for number, source in enumerate([str(folder), f"{folder}/part-*.snappy.parquet"]):
        output = tmp_path / f"output-{number}"
        assert ingest(spark, source, output).rows.rows_in == 384
        assert {row["id"] for row in table(output, "catalog")} == ids
    one = tmp_path / "one"
    assert ingest(spark, f"{folder}/part-0000[0-4]-*", one).rows.rows_in == 15


def test_int32_and_int64_files_are_read_together(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for number, (whole, real) in enumerate(
        [(pa.int32(), pa.float32()), (pa.int64(), pa.float64())]
    ):
        schema = pa.schema(
            [
                ("id", whole),
                ("url", pa.string()),
                ("image_phash", pa.string()),
                ("width", whole),
                ("height", whole),
                ("watermark_score", real),
            ]
        )
        rows = [row(number, f"800000000000000{number + 1}")]
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"{number}.parquet")
    ingest(spark, str(folder), tmp_path / "output", "thresholds.watermark_score.max=0.5")
    assert sorted(row["id"] for row in table(tmp_path / "output", "catalog")) == [0, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["thresholds.watermark.max=1"], "no column 'watermark'"),
        (["thresholds.url.max=1"], "column 'url' is string"),
        (["keep_columns=[id]"], "the catalog has it anyway"),
        (["near_distance=6"], "more than 4"),
        (["near_distance=3"], "even"),
        (["columns.imagehash=phash"], "no column 'phash'"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(
    spark: SparkSession, tmp_path: Path, words: list[str], message: str
) -> None:
    source = write(tmp_path / "source", [row(1, "8000000000000001")])
    with pytest.raises(InputError, match=message) as refused:
        ingest(spark, source, tmp_path / "output", *words)
    assert "\n" not in str(refused.value)


def test_an_unreadable_file_stops_the_job_or_is_one_reject(
    spark: SparkSession, tmp_path: Path
) -> None:
    source = write(tmp_path / "source", [row(1, "8000000000000001")])
    (tmp_path / "source" / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"broken\.parquet"):
        ingest(spark, source, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "catalog").exists()
    manifest = ingest(spark, source, tmp_path / "output", "on_corrupt=skip")
    assert manifest.rows.rows_in == 2
    [reject] = table(tmp_path / "output", "rejects")
    assert reject["reason"] == "corrupt_file"
    assert reject["url"].endswith("broken.parquet")


def test_a_file_with_damaged_pages_stops_the_job_or_is_one_reject(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Its footer is whole, so that only reading it shows the damage."""
    good, bad = ([row(i, f"{2**63 + i:016x}") for i in ids] for ids in (range(3), range(3, 300)))
    source = write(tmp_path / "a source", good, bad)
    file = tmp_path / "a source" / "part-1.parquet"
    data = bytearray(file.read_bytes())
    data[100:2000] = b"\xff" * 1900
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"part-1\.parquet") as stopped:
        ingest(spark, source, tmp_path / "stopped")
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "stopped" / "catalog").exists()
    manifest = ingest(spark, source, tmp_path / "output", "on_corrupt=skip")
    assert len(table(tmp_path / "output", "catalog")) == 3
    assert manifest.rows.rejected == {"corrupt_file": 1}


def test_damage_that_only_the_second_reading_meets_stops_the_job_or_is_one_reject(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reading leaves out row groups without one good row."""
    source = write(tmp_path / "source", [row(i, f"{2**63 + i:016x}") for i in range(1, 4)])
    for name in ("bad", "bad too"):
        groups = [
            [row(i, f"{2**63 + i:016x}", width=width) for i in range(first, first + 500)]
            for first, width in ((1000, 300), (2000, 100))
        ]
        damage_last_group(tmp_path / "source" / f"{name}.parquet", groups)
    with pytest.raises(InputError, match=r"bad( too)?\.parquet") as stopped:
        ingest(spark, source, tmp_path / "stopped")
    assert "\n" not in str(stopped.value)
    assert [file.name for file in (tmp_path / "stopped").iterdir()] == ["_run.json"]
    output = tmp_path / "output"
    manifest = ingest(spark, source, output, "on_corrupt=skip")
    assert manifest.rows.rejected == {"corrupt_file": 2}
    assert {row["id"] for row in table(output, "catalog")} == {1, 2, 3}
    # A run that was cut off goes on without looking for the damage again.
    before = table(output, "catalog")
    for file in ("_manifest.json", "_receipts/00000.json"):
        (output / file).unlink()
    monkeypatch.setattr(stage, "set_aside", None)
    again = ingest(spark, source, output, "on_corrupt=skip")
    assert (again.rows, table(output, "catalog")) == (manifest.rows, before)


def damage_last_group(file: Path, groups: list[list[dict[str, Any]]]) -> None:
    """Write row groups, and overwrite the URLs of the last."""
    tables = [pa.Table.from_pylist(rows) for rows in groups]
    with pq.ParquetWriter(file, tables[0].schema, compression="snappy") as writer:
        for rows in tables:
            writer.write_table(rows)
    metadata = pq.read_metadata(file)
    column = metadata.row_group(metadata.num_row_groups - 1).column(1)
    begin, size = column.dictionary_page_offset, column.total_compressed_size
    data = bytearray(file.read_bytes())
    data[begin + 5 : begin + size - 10] = b"\xff" * (size - 15)
    file.write_bytes(data)


def test_near_twins_go_with_their_exact_twins_to_one_row(
    spark: SparkSession, tmp_path: Path
) -> None:
    """2 is 2 bits from 1 and 3 is 4 bits from 2 but 6 from 1; 4 is an exact twin of 2."""
    one = 0xDAF5A50AAE4AA54A
    two, three = one ^ 0b11, one ^ 0b111111
    hashes = {1: one, 2: two, 3: three, 4: two}
    source = write(tmp_path / "source", [row(i, f"{h:016x}") for i, h in hashes.items()])
    output = tmp_path / "output"
    manifest = ingest(spark, source, output, "near_distance=4")
    assert sorted(row["id"] for row in table(output, "catalog")) == [1, 3]
    assert reasons(output) == {2: "near_duplicate", 4: "duplicate_hash"}
    twins = {row["id"]: (row["kept_id"], row["distance"]) for row in table(output, "duplicates")}
    assert twins == {2: (1, 2), 4: (1, 2)}
    assert manifest.details["near"]["pairs"] == 2
