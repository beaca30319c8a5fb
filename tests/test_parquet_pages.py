"""Small Parquet files that unfold to gigabytes, and files that lie: an error, never the memory."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import parquet_pages, storage
from coyo_labeler.data.rows import read_rows as read_to_train
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.parquet_splits import plan_splits, read_split
from coyo_labeler.formats.side_tables import read_side_table
from coyo_labeler.formats.tars import DamagedTarError
from coyo_labeler.merge.earlier import _read_tables
from coyo_labeler.parquet_pages import Chunk, UnfoldedError, check_pages
from coyo_labeler.votes import read as votes_files
from tests.memory import peak_growth

MIB = 2**20


def read(path):
    with storage.open_parquet("votes", str(path)) as parquet:
        return list(parquet_pages.read_tables(parquet, parquet.schema_arrow.names))


def repeated_text(length, rows):
    """A column of one text; it takes `length` bytes in the dictionary, before compression."""
    texts = pa.array(["a" * length])
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), texts)


def write(path, columns, **options):
    options = {"compression": "zstd", "store_schema": False} | options
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_rows_are_those_that_arrow_reads(tmp_path, compression, version, dictionary):
    columns = {
        "id": np.arange(3000),
        "text": [f"http://example.org/{n}" for n in range(3000)],
        "list": [[5, 2], None, []] * 1000,
        "null": pa.nulls(3000, pa.string()),
    }
    path = tmp_path / "a.parquet"
    options = {"data_page_version": version, "use_dictionary": dictionary, "row_group_size": 1100}
    write(path, columns, compression=compression, **options)
    tables = read(path)
    assert [table.num_rows for table in tables] == [1100, 1100, 800]
    assert pa.concat_tables(tables).equals(pq.read_table(path))


@pytest.mark.parametrize("dictionary", [True, False, ["labels.list.element", "n"]])
@pytest.mark.parametrize("sizes", [(0,), (2048, 0), (0, 5, 0, 2048)])
def test_row_groups_without_rows_are_read(tmp_path, dictionary, sizes):
    path = tmp_path / "a.parquet"
    schema = pa.schema({"id": pa.int64(), "labels": pa.list_(pa.int32()), "n": pa.int32()})
    with pq.ParquetWriter(path, schema, use_dictionary=dictionary) as writer:
        for rows in sizes:
            columns = {"id": range(rows), "labels": [[1, 2]] * rows, "n": [7] * rows}
            writer.write_table(pa.table(columns, schema))
    assert sum(table.num_rows for table in read(path)) == sum(sizes)


def test_texts_that_repeat_the_one_before_are_read(tmp_path):
    texts = pa.table({"text": [f"http://example.org/{n}" for n in range(5000)]})
    options = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    pq.write_table(texts, tmp_path / "a.parquet", **options)
    assert pa.concat_tables(read(tmp_path / "a.parquet")).equals(texts)


def test_a_text_of_a_megabyte_in_a_million_rows_costs_no_memory(tmp_path):
    """The file has a kilobyte and unfolds to two terabytes."""
    text = repeated_text(2 * MIB, 1_000_000)
    votes = {"image_id": np.zeros(1_000_000, np.int64), "worker_id": text, "label": text}
    path = write(tmp_path / "votes.parquet", votes)
    (split,) = votes_files.plan(path, 10**9)
    with (
        peak_growth() as grown,
        pytest.raises(InputError, match=r"column 'worker_id' has a text of 2,097,152 bytes"),
    ):
        list(votes_files.read(split))
    assert grown[0] < 200 * MIB


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_a_large_dictionary_of_short_texts_is_read(tmp_path, compression):
    texts = [f"{n % 9999:<90}" for n in range(12_000)]
    write(tmp_path / "a.parquet", {"text": texts}, compression=compression)
    assert pa.concat_tables(read(tmp_path / "a.parquet"))["text"].to_pylist() == texts
    write(tmp_path / "b.parquet", {"text": repeated_text(MIB, 9)}, compression=compression)
    with pytest.raises(InputError, match="has a text of 1,048,576 bytes"):
        read(tmp_path / "b.parquet")


def test_categories_are_counted_as_what_they_unfold_to(tmp_path):
    """Arrow reads them as categories: a table of a million is small until they are written out."""
    write(tmp_path / "a.parquet", {"text": repeated_text(MIB // 8, 10_000)}, store_schema=True)
    tables = read(tmp_path / "a.parquet")
    assert sum(table.num_rows for table in tables) == 10_000
    assert max(table.num_rows for table in tables) * MIB // 8 < 2 * parquet_pages.MAX_TABLE_BYTES


def test_a_list_of_one_value_repeated_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_pages, "MAX_LIST_VALUES", 50_000)
    lists = pa.ListArray.from_arrays([0, 100_000], pa.array(np.zeros(100_000, np.float32)))
    path = write(tmp_path / "a.parquet", {"id": [1], "labels": [[1]], "label_probs": lists})
    wanted = pa.schema([schemas.BELIEFS.field(name) for name in ("id", "labels", "label_probs")])
    (split,) = plan_splits("beliefs", path, wanted, 10**9)
    message = r"beliefs: .*a.parquet .*'label_probs\S*' has lists of 100,000 values or more"
    with pytest.raises(InputError, match=message):
        list(read_split(split))
    with pytest.raises(InputError, match=r"labels: .*has lists of 100,000 values"):
        list(read_to_train(path))


def test_many_lists_that_the_file_has_room_for_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_pages, "MAX_LIST_VALUES", 50_000)
    lists = pa.ListArray.from_arrays(
        np.arange(0, 100_001, 50).astype(np.int32),
        pa.array(np.random.default_rng(0).random(100_000).astype(np.float32)),
    )
    write(tmp_path / "a.parquet", {"label_probs": lists})
    assert sum(table.num_rows for table in read(tmp_path / "a.parquet")) == 2000


def test_a_page_that_unfolds_to_too_much_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", {"text": ["a" * 3 * MIB]}, use_dictionary=False)
    assert sum(table.num_rows for table in read(path)) == 1
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", MIB)
    with pytest.raises(InputError, match=r"'text' has a page of 3,145,738 bytes unpacked"):
        read(path)


def test_texts_too_long_to_be_read_a_thousand_at_a_time_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_pages, "MAX_TEXTS", MIB)
    path = write(tmp_path / "a.parquet", {"text": ["a" * MIB] * 3}, use_dictionary=False)
    with pytest.raises(InputError, match=r"'text' has \d texts of [0-9,]+ bytes together"):
        read(path)
    delta = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    path = write(tmp_path / "b.parquet", {"text": ["a" * 3 * MIB] * 3}, **delta)
    with pytest.raises(InputError, match="DELTA_BYTE_ARRAY"):
        read(path)


def number(value):
    """A field of a page header: the next one, a number."""
    coded, octets = value << 1 if value >= 0 else (-value << 1) - 1, b""
    while coded > 127:
        octets, coded = octets + bytes([coded & 127 | 128]), coded >> 7
    return b"\x15" + octets + bytes([coded])


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        (
            number(0) + number(2**31 - 1) + number(9) + b"\0",
            UnfoldedError,
            "2,147,483,647 bytes unpacked",
        ),
        (number(0) + number(-1) + number(9) + b"\0", ValueError, "negative size"),
        (number(0) + number(9) + number(9) + b"\x2c\x15" + b"\xff" * 12, ValueError, "without end"),
        (number(0) + number(9) + number(9) + b"\x2c" * 99, ValueError, "nested without end"),
        (number(0) + number(9) + number(9) + b"\x2d", ValueError, "of the type 13"),
        (number(0) + b"\x15", ValueError, "break off"),
    ],
)
def test_page_headers_that_lie(header, error, message):
    chunk = Chunk("url", 0, 1000, 10, True, False)
    with pytest.raises(error, match=message):
        check_pages(chunk, header)


def test_a_page_of_a_side_table_that_unfolds_to_too_much_costs_its_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", MIB)
    table = {"key": ["000000000"], "url": ["a" * 3 * MIB]}
    write(tmp_path / "00000.parquet", table, use_dictionary=False)
    with pytest.raises(DamagedTarError, match="'url' has a page of 3,145,738 bytes unpacked"):
        read_side_table(str(tmp_path / "00000.tar"))


def test_a_side_table_with_two_columns_of_one_name_costs_its_shard(tmp_path):
    table = pa.table([["000000000"], [1], [2]], names=["key", "id", "id"])
    pq.write_table(table, tmp_path / "00000.parquet")
    with pytest.raises(DamagedTarError, match="has two columns 'id'"):
        read_side_table(str(tmp_path / "00000.tar"))


def test_damaged_tables_of_an_earlier_merge_are_named(tmp_path):
    table = pa.table([["ann"], *[[1]] * 5], schema=schemas.TALLY)
    path = tmp_path / "tally.parquet"
    pq.write_table(table, path, write_page_checksum=True)
    assert list(_read_tables(str(tmp_path), schemas.TALLY)) == [table]
    data = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(3)
    data[chunk.dictionary_page_offset + chunk.total_compressed_size - 1] ^= 4
    path.write_bytes(data)
    remedy = "merge all votes once more, anew, or leave warm_start out"
    with pytest.raises(InputError, match=f"warm_start: .*tally.parquet is not .*; {remedy}"):
        list(_read_tables(str(tmp_path), schemas.TALLY))
    pq.write_table(table.drop_columns("unsure"), path)
    with pytest.raises(InputError, match=f"tally.parquet has no column 'unsure' .*; {remedy}"):
        list(_read_tables(str(tmp_path), schemas.TALLY))


FUZZ = """
import random, resource, sys
from pathlib import Path
from coyo_labeler import parquet_pages, storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import parquet_splits
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
folder, chance, good = Path(sys.argv[1]), random.Random(7), 0
sources = [path.read_bytes() for path in sorted(folder.glob("good-*"))]
target = folder / "mutated.parquet"
for _ in range(1000):
    data = bytearray(chance.choice(sources))
    for _ in range(chance.choice([1, 1, 3])):
        data[chance.randrange(len(data))] = chance.choice([0, 127, 255, chance.randrange(256)])
    target.write_bytes(data)
    try:
        with storage.open_parquet("votes", str(target)) as parquet:
            with storage.parsing_parquet("votes", str(target)):
                if 'id' in parquet.schema_arrow.names:
                    parquet_splits.bound_row_groups(parquet.metadata, 'id')
                list(parquet_pages.read_tables(parquet, parquet.schema_arrow.names))
        good += 1
    except InputError:
        pass
print(good)
"""


def test_a_thousand_mutations_give_rows_or_one_error(tmp_path):
    columns = {
        "id": [1, 2, 3],
        "url": ["http://a", "http://b", None],
        "labels": [[1, 2], [], None],
    }
    for dictionary in (True, False):
        options = {"use_dictionary": dictionary, "write_page_checksum": dictionary}
        write(tmp_path / f"good-{dictionary}", columns, **options)
    script = [sys.executable, "-c", FUZZ, str(tmp_path)]
    ran = subprocess.run(script, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert 0 < int(ran.stdout) < 1000


def dictionary(*lengths):
    """The page of a dictionary of texts, unpacked."""
    return b"".join(length.to_bytes(4, "little") + b"x" * length for length in lengths)


def test_a_dictionary_of_texts_of_one_length_passes_and_one_long_text_among_them_does_not():
    chunk = Chunk("hash", 0, 0, 0, is_text=True, is_list=False)
    equal = dictionary(*[16] * 20_000)
    parquet_pages._check_dictionary(chunk, equal, len(equal))
    long = dictionary(*[16] * 20_000, 20 * 20_000 - 4, *[16] * 10)  # the page divides by 20 too
    assert len(long) % 20 == 0
    with pytest.raises(UnfoldedError, match="a text of 399,996 bytes"):
        parquet_pages._check_dictionary(chunk, long, len(long))
