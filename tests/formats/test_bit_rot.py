"""One flipped bit in a file that one stage leaves and another reads."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.fetch.pack import ImageRow, digest, read_tar, write_tar
from coyo_labeler.fetch.status import Status
from coyo_labeler.formats import parquet_splits, schemas, tar_digests
from coyo_labeler.formats.image_shards import Sample, find_shards, read_samples
from coyo_labeler.formats.side_tables import read_side_table
from coyo_labeler.formats.spark_tables import read_table
from coyo_labeler.formats.tar_digests import ROWS_DIGEST
from coyo_labeler.formats.tars import DamagedTarError

ROWS = 3000


def beliefs():
    random = np.random.default_rng(0)
    labels = random.integers(0, 21_841, (ROWS, 5), dtype=np.int32)
    probs = random.random((ROWS, 5)).astype(np.float32)
    return pa.table(
        {
            "id": np.arange(ROWS),
            "url": [f"http://example.org/{n}" for n in range(ROWS)],
            "imagehash": [f"{n:016x}" for n in range(ROWS)],
            "labels": list(labels),
            "label_probs": list(probs),
            "width": np.full(ROWS, 240, np.int32),
            "height": np.full(ROWS, 320, np.int32),
        },
        schema=schemas.BELIEFS,
    )


def flip(path, position, bit=3):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def pages(path):
    """(start, end) of each column's pages."""
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            yield start, start + chunk.total_compressed_size


@pytest.mark.parametrize("writer", ["write_parquet", "write_tables"])
def test_no_flipped_bit_of_a_page_gives_other_rows(tmp_path, writer):
    """Every reader of a table goes through one of these functions."""
    whole = tmp_path / "whole.parquet"
    if writer == "write_parquet":
        storage.write_parquet(str(whole), beliefs())
    else:
        storage.write_tables(str(whole), schemas.BELIEFS, [beliefs()])
    random = np.random.default_rng(1)
    silent = 0
    for start, end in pages(whole):
        for position in random.integers(start, end, 12):
            path = tmp_path / "flipped.parquet"
            shutil.copy(whole, path)
            flip(path, int(position), int(random.integers(8)))
            try:
                splits = parquet_splits.plan_splits("beliefs", str(path), schemas.BELIEFS, 10**9)
                tables = [table for split in splits for table in parquet_splits.read_split(split)]
            except (InputError, OSError):
                continue
            silent += pa.concat_tables(tables) != beliefs()
    assert silent == 0


def test_spark_finds_the_same(tmp_path, spark):
    """Where Spark wrote a table, and where this package did."""
    for name in ("ours", "spark"):
        folder = tmp_path / name
        if name == "ours":
            storage.write_parquet(str(folder / "a.parquet"), beliefs())
        else:
            spark.createDataFrame(beliefs().to_pandas()).coalesce(1).write.parquet(str(folder))
        path = next(folder.glob("*.parquet"))
        for crc in folder.glob(".*.crc"):
            crc.unlink()
        schema = pa.schema([schemas.BELIEFS.field("id")])
        assert read_table(spark, "labels", str(folder), schema).agg({"id": "sum"}).collect()
        start, end = next(iter(pages(path)))
        flip(path, (start + end) // 2)
        with pytest.raises(Exception, match=r"CRC|checksum"):
            read_table(spark, "labels", str(folder), schema).agg({"id": "sum"}).collect()


def test_the_table_beside_a_tar_is_checked_too(tmp_path):
    table = pa.table(
        {"key": [f"{n:09d}" for n in range(ROWS)], "url": ["x" * (n % 9) for n in range(ROWS)]}
    )
    storage.write_parquet(str(tmp_path / "00000.parquet"), table)
    start, end = next(iter(pages(tmp_path / "00000.parquet")))
    flip(tmp_path / "00000.parquet", (start + end) // 2)
    with pytest.raises(DamagedTarError, match="table beside it is unreadable"):
        read_side_table(str(tmp_path / "00000.tar"))


@pytest.fixture
def tar(tmp_path):
    """A shard of five images as fetch leaves it."""
    keys = [f"00000{n:04d}" for n in range(5)]
    mark = digest([ImageRow(key, n, None, Status.SUCCESS) for n, key in enumerate(keys)])
    samples = [
        (n, key, {"jpg": os.urandom(3000), "json": json.dumps({"id": n}).encode()})
        for n, key in enumerate(keys)
    ]
    sha256 = write_tar(str(tmp_path / "00000.tar"), mark, samples)
    receipt = {"digest": mark, "tar_sha256": sha256}
    storage.write_json(str(tmp_path / "00000_stats.json"), receipt)
    return tmp_path / "00000.tar"


def ids(path):
    shard = find_shards(str(path))[0]
    return [each.id for each in read_samples(shard) if isinstance(each, Sample)]


def test_no_flipped_bit_of_a_tar_gives_other_images(tar):
    assert ids(tar) == list(range(5))
    whole = tar.read_bytes()
    for position in np.random.default_rng(2).integers(0, len(whole), 60):
        flip(tar, int(position))
        with pytest.raises(DamagedTarError):
            ids(tar)
        tar.write_bytes(whole)


def test_fetch_keeps_no_image_of_a_tar_that_is_not_as_it_was(tar):
    sha256 = storage.read_json(str(tar.with_name("00000_stats.json")))["tar_sha256"]
    index_of = {"000000001": 1, "000000003": 3}
    assert [index for index, _, _ in read_tar(str(tar), index_of, sha256)] == [1, 3]
    flip(tar, tar.stat().st_size // 2)
    with pytest.raises(Exception, match="remove the file, and run the same command again"):
        list(read_tar(str(tar), index_of, sha256))


@pytest.mark.parametrize(
    "case", ["no receipt", "another's receipt", "no digest", "no JSON", "empty", "deep"]
)
def test_a_tar_of_which_nothing_is_recorded_is_read_as_before(tar, case):
    receipt = tar.with_name("00000_stats.json")
    if case == "no receipt":
        receipt.unlink()
    elif case == "another's receipt":  # fetch replaces both, the receipt last
        receipt.write_text(json.dumps({"digest": "0" * 16, "tar_sha256": "0" * 64}))
        storage.write_bytes(str(tar.parent / "_next/00000-run-0/00000_stats.json"), b"")
    elif case == "no digest":  # img2dataset's
        receipt.write_text(json.dumps({"count": 5}))
    else:
        Path(receipt).write_text({"no JSON": "{", "empty": "", "deep": "[" * 100_000}[case])
    assert ids(tar) == list(range(5))


@pytest.mark.parametrize("other", ["tar", "rows", "receipt"])
def test_a_shard_that_two_runs_wrote_at_the_same_time_is_refused(tar, other):
    """Each had its own answers from the hosts, and the files of both are left."""
    mark = storage.read_json(str(tar.with_name("00000_stats.json")))["digest"]
    table = pa.table({"key": [f"00000{n:04d}" for n in range(5)], "id": range(5)})

    def write_rows(digest):
        storage.write_parquet(str(tar.with_suffix(".parquet")), table, {ROWS_DIGEST: digest})

    write_rows(mark)
    assert ids(tar) == list(range(5))
    if other == "rows":
        write_rows("0123456789abcdef")
    elif other == "receipt":
        receipt = {"digest": "0123456789abcdef", "tar_sha256": "0" * 64}
        storage.write_json(str(tar.with_name("00000_stats.json")), receipt)
    else:
        write_tar(str(tar), "0123456789abcdef", [(0, "000000000", {"jpg": b"x", "json": b"{}"})])
    with pytest.raises(DamagedTarError, match=r"two runs of fetch .* retry=true"):
        ids(tar)


def test_a_shard_that_fetch_has_just_replaced_is_read(tar, monkeypatch):
    """The reader saw the receipt of before; when it looks again, the staged files are gone."""
    receipt = tar.with_name("00000_stats.json")
    now = receipt.read_bytes()
    receipt.write_text(json.dumps({"digest": "0" * 16, "tar_sha256": "0" * 64}))
    replaced = tar_digests._is_being_replaced

    def ends(fs, url):
        receipt.write_bytes(now)
        return replaced(fs, url)

    monkeypatch.setattr(tar_digests, "_is_being_replaced", ends)
    assert ids(tar) == list(range(5))
