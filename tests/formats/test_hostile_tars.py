"""Headers that lie: bounded before anything is allocated, and named."""

import io
import random
import re
import resource
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.data.tars import read_ids
from coyo_labeler.data.tars import read_samples as read_to_train
from coyo_labeler.errors import InputError
from coyo_labeler.export.choose import Choice
from coyo_labeler.export.images import write_webdataset
from coyo_labeler.export.tars import find_tars
from coyo_labeler.formats import schemas, tars
from coyo_labeler.formats.faults import Fault
from coyo_labeler.formats.image_shards import Failure, Sample, find_shards, read_samples
from coyo_labeler.formats.side_tables import read_side_table
from coyo_labeler.formats.tars import DamagedTarError
from coyo_labeler.report.examples import thumbnails
from tests.memory import peak_growth
from tests.tars import write_members

END = bytes(1024)


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    """One block, with whatever size it is told."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    block[124:136] = number(size)
    return sealed(block)


def number(value: int) -> bytes:
    """As GNU writes it: octal where that fits, else 95 bits after a marker."""
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return (value + (1 << 96 if value < 0 else 1 << 95)).to_bytes(12, "big")


def sealed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + padded(data)


def pax(**records: str) -> bytes:
    lines = b""
    for key, value in records.items():
        body = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        lines += str(length).encode() + body
    return header("pax", len(lines), tarfile.XHDTYPE) + padded(lines)


def sparse() -> bytes:
    block = bytearray(header("000000001.jpg", 512, tarfile.GNUTYPE_SPARSE))
    block[386:398], block[398:410] = number(2**33), number(512)
    block[483:495] = number(2**33 + 512)
    return sealed(block)


def long_name(length: int) -> bytes:
    return header("././@LongLink", length, tarfile.GNUTYPE_LONGNAME) + padded(b"n" * length)


FIRST = member("000000000.jpg", b"picture") + member("000000000.json", b'{"id": 1}')

#: Name: (what stands behind one good sample, what is said of it).
HOSTILE: dict[str, tuple[bytes, str]] = {
    "size of 2^62": (header("000000001.jpg", 2**62), "000000001.jpg breaks off"),
    "size of 2^63 - 1": (header("000000001.jpg", 2**63 - 1), "000000001.jpg breaks off"),
    "size of 2^80": (header("000000001.jpg", 2**80), "000000001.jpg breaks off"),
    "size of 2^62 of what is not read": (header("000000001.txt", 2**62), "breaks off"),
    "size below zero": (header("000000001.jpg", -512), "000000001.jpg has a negative size"),
    "size back to the start": (header("0.txt", -2048), "0.txt has a negative size"),
    "pax size of 30 digits": (pax(size="9" * 30) + header("000000001.jpg"), "the size 9999999"),
    "pax size of 2^59": (pax(size=str(2**59)) + header("000000001.jpg"), "breaks off"),
    "pax size below zero": (pax(size="-1024") + header("000000001.jpg"), "the size -1024"),
    "pax record that lies": (header("pax", 512, b"x") + padded(b"999999 a=b\n"), "broken record"),
    "pax record of no length": (header("pax", 512, b"x") + padded(b"0 a=b\n"), "broken record"),
    "a sparse file": (sparse(), "000000001.jpg is a sparse file"),
    "a sparse file in pax 1.0": (
        pax(GNU_sparse_major="1", GNU_sparse_realsize=str(2**40)) + header("000000001.jpg"),
        "is a sparse file",
    ),
    "a sparse file in pax 0.1": (
        pax(GNU_sparse_map="0,512," * 9 + "8589934592,1") + header("000000001.jpg"),
        "is a sparse file",
    ),
    "a long name of 2^40 bytes": (
        header("././@LongLink", 2**40, tarfile.GNUTYPE_LONGNAME),
        "an extended header of 1,099,511,627,776 bytes",
    ),
    "a long name of -1 bytes": (header("x", -1, tarfile.GNUTYPE_LONGNAME), "header of -1 bytes"),
    "a long name of 5,000 bytes": (long_name(5000), "an extended header of 5,000 bytes"),
    "long names without end": (long_name(9) * 3000, "more than 8 extended headers"),
    "pax headers without end": (pax(path="x") * 3000, "more than 8 extended headers"),
    "a pax header of 2^40 bytes": (header("x", 2**40, b"x"), "an extended header of 1,099"),
    "a global header of 2^40 bytes": (header("x", 2**40, b"g"), "an extended header of 1,099"),
    "a long name and no member": (long_name(9) + END, "an extended header without its member"),
    "a pax name of 5,000 bytes": (pax(path="n" * 5000) + header("x"), "a name of 5,000 bytes"),
    "garbage behind the end": (END + b"garbage." * 64, ""),
}


def write_hostile(folder: Path, name: str) -> Path:
    folder.mkdir()
    path = folder / "00000.tar"
    path.write_bytes(FIRST + HOSTILE[name][0] + END)
    return path


@pytest.fixture
def little_memory() -> Iterator[None]:
    """At most 1 GiB more than there is."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_lies_costs_its_shard_by_name(
    name: str, tmp_path: Path, little_memory: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_hostile(tmp_path / "images", name)
    [shard] = find_shards(str(path.parent))
    with pytest.raises(DamagedTarError) as caught:
        list(read_samples(shard))
    assert str(path) in caught.value.url
    assert HOSTILE[name][1] in caught.value.why
    assert len(str(caught.value)) < 400
    for read in (lambda: list(read_to_train(shard)), lambda: read_ids(shard)):
        with pytest.raises(InputError, match=r"shard 00000: .* is damaged"):
            read()
    [tar] = find_tars(str(path.parent))
    rows = schemas.BELIEFS.append(schemas.IMAGES.field("key")).empty_table()
    with pytest.raises(DamagedTarError):
        write_webdataset(str(tmp_path / "out.tar"), tar, rows, Choice(0.0, 0, None, 10))
    assert not (tmp_path / "out.tar").exists()
    assert thumbnails({1: (str(path), "000000009")}) == {}
    assert re.search(r"report: images: .* is damaged", caplog.text)


def test_a_member_too_large_costs_its_sample_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MAX_SAMPLE_BYTES", 100)
    members = [
        ("0.jpg", b"x" * 101), ("0.json", b'{"id": 1}'), ("1.jpg", b"x"), ("1.json", b'{"id": 2}'),
    ]  # fmt: skip
    write_members(tmp_path / "00000.tar", members)
    large, small = read_samples(find_shards(str(tmp_path))[0])
    assert isinstance(large, Failure) and isinstance(small, Sample)
    assert (large.id, large.fault, small.id) == (1, Fault.TOO_LARGE, 2)
    assert "0.jpg has 101 bytes" in large.detail


def test_a_tar_of_too_many_samples_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MAX_SAMPLES", 3)
    write_members(tmp_path / "00000.tar", [(f"{number}.jpg", b"x") for number in range(4)])
    with pytest.raises(DamagedTarError, match="more than 3 samples"):
        list(read_samples(find_shards(str(tmp_path))[0]))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_all_lengths_are_read_in_every_format(tmp_path: Path, form: int) -> None:
    names = [f"{'folder/' * folders}{'k' * length}.jpg" for folders in (0, 9) for length in (1, 90)]
    names += [] if form == tarfile.USTAR_FORMAT else ["n" * 300 + ".jpg", "ü" * 80 + ".jpg"]
    with tarfile.open(tmp_path / "0.tar", "w", format=form) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 3, 1.5 if form == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(b"abc"))
    with (tmp_path / "0.tar").open("rb") as file:
        keys = [key for key, _ in tars.groups(file, "x")]
    assert keys == [name.removesuffix(".jpg") for name in names]


MUTATIONS = 1000


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to eight changes: a byte, a field of a header, a block doubled or lost, a cut."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 9)):
        if len(changed) < 1024:
            break
        block = chance.randrange(len(changed) // 512) * 512
        at = chance.randrange(len(changed))
        way = chance.randrange(6)
        if way == 0:
            changed[at] = chance.randrange(256)
        elif way == 1:
            size = chance.choice([2**33, 2**62, -512, -1, 511, 8**11 - 1, 2**80])
            changed[block + 124 : block + 136] = number(size)
        elif way == 2:
            changed[block + 156] = chance.choice(b"LKxgXS12345670\0")
        elif way == 3:
            changed[block:block] = changed[block : block + 512]
        elif way == 4:
            del changed[block : block + 512]
        else:
            del changed[at : at + chance.randrange(600)]
        if chance.random() < 0.7 and len(changed) >= block + 512:
            changed[block : block + 512] = sealed(changed[block : block + 512])
    return bytes(changed)


def fuzz(folder: Path) -> None:
    """Read mutations of small good tars; anything but samples and named errors ends the process."""
    resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
    chance = random.Random(20)
    originals = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as tar:
            for index in range(4):
                for ending, content in (("jpg", b"x" * 700), ("json", b'{"id": %d}' % index)):
                    name = "n" * 150 if index == 2 and form != tarfile.USTAR_FORMAT else "n"
                    info = tarfile.TarInfo(f"{name}{index}.{ending}")
                    info.size, info.mtime = len(content), 1.5
                    tar.addfile(info, io.BytesIO(content))
        originals.append(file.getvalue()[: 512 * 40])
    outcomes = {"samples": 0, "failures": 0, "damaged": 0}
    for turn in range(MUTATIONS):
        (folder / "00000.tar").write_bytes(mutate(originals[turn % 3], chance))
        try:
            for sample in read_samples(find_shards(str(folder))[0]):
                outcomes["samples" if isinstance(sample, Sample) else "failures"] += 1
        except DamagedTarError as error:
            assert error.why and "\n" not in error.why
            outcomes["damaged"] += 1
    print(outcomes)
    assert min(outcomes.values()) > 10


def test_a_thousand_mutations_give_samples_failures_or_a_damaged_tar(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from tests.formats.test_hostile_tars import fuzz; "
        "fuzz(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize("bound", ["MAX_ROWS", "MAX_BYTES"])
def test_a_table_that_unfolds_beyond_its_bounds_costs_its_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    write_members(tmp_path / "00000.tar", [("0.jpg", b"x")])
    pq.write_table(pa.table({"key": ["0"] * 9}), tmp_path / "00000.parquet")
    monkeypatch.setattr(f"coyo_labeler.formats.side_tables.{bound}", 8)
    with pytest.raises(DamagedTarError, match="the table beside it has 9 rows"):
        list(read_samples(find_shards(str(tmp_path))[0]))


@pytest.mark.parametrize("content", [b"", b"PAR1" * 99])
def test_a_table_that_is_none_costs_its_shard(tmp_path: Path, content: bytes) -> None:
    write_members(tmp_path / "00000.tar", [("0.jpg", b"x")])
    (tmp_path / "00000.parquet").write_bytes(content)
    with pytest.raises(DamagedTarError, match="the table beside it is unreadable"):
        list(read_samples(find_shards(str(tmp_path))[0]))


@pytest.mark.parametrize("column", ["key", "url"])
def test_a_text_that_every_row_of_a_table_repeats_is_in_memory_once(
    tmp_path: Path, column: str
) -> None:
    """A dictionary of one value: some kilobytes that would unfold to 100 GB."""
    rows = 100_000
    once = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["x" * 1_000_000])
    table = pa.table({"key": [f"{row:09d}" for row in range(rows)]} | {column: once})
    path = tmp_path / "00000.parquet"
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=2**30)
    assert path.stat().st_size < 2_000_000
    with peak_growth() as grown:
        side = read_side_table(str(tmp_path / "00000.tar"))
    assert len(side.positions) == (1 if column == "key" else rows)
    assert grown[0] < 400_000_000


def test_nested_columns_of_a_table_beside_a_tar_are_none_that_count(tmp_path: Path) -> None:
    table = pa.table({"key": ["0"], "url": [["a"]], "id": [{"x": 1}], "status": ["success"]})
    pq.write_table(table, tmp_path / "00000.parquet")
    assert read_side_table(str(tmp_path / "00000.tar")).row("0") == {"status": "success"}
    pq.write_table(pa.table({"key": [["0"]]}), tmp_path / "00000.parquet")
    assert read_side_table(str(tmp_path / "00000.tar")).positions == {}
