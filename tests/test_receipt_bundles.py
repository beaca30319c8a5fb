"""Receipts are the same with and without bundles, whatever has become of these."""

import hashlib
import itertools
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coyo_labeler import receipt_bundles, storage
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import Receipt, Receipts


@pytest.fixture(autouse=True)
def small_bundles(monkeypatch):
    monkeypatch.setattr(receipt_bundles, "FEWEST", 2)
    monkeypatch.setattr(receipt_bundles, "BUNDLED", 5)


def receipt(shard, version=0, fingerprint="f"):
    return Receipt(shard, fingerprint, Counts(10 + version, 10 + version), 1.5, {"n": version})


def bundles(folder):
    return sorted(Path(folder, receipt_bundles.FOLDER).glob("*.jsonl"))


def singly(receipts):
    """The twin: every receipt from its own file."""
    return receipts.get_all(receipts.shards())


def reads_of(receipts, monkeypatch):
    """What is read from its own file by `read`, and by nothing else."""
    got = []
    get = Receipts.get
    with monkeypatch.context() as context:
        context.setattr(Receipts, "get", lambda self, shard: got.append(shard) or get(self, shard))
        read = receipts.read()
    assert read == singly(receipts)
    return sorted(got)


def flip(path):
    data = bytearray(path.read_bytes())
    if data:  # another step may have emptied it
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forge(path):
    """A bundle of the right name whose lines are no receipts."""
    for text in (b"[0]\n", b"{}\n", b'[[], "v", {}]\n', b"\xff\n", b"[" * 100_000):
        name = hashlib.sha256(text).hexdigest()[:32] + ".jsonl"
        path.with_name(name).write_bytes(text)


DAMAGES = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
    "of another name": lambda path: path.rename(path.with_name("0" * 32 + ".jsonl")),
    "forged": forge,
}

SHARDS = st.integers(0, 12)
STEPS = st.one_of(
    st.tuples(st.just("write"), SHARDS, st.integers(0, 3)),
    st.tuples(st.just("write of another run"), SHARDS, st.just(0)),
    st.tuples(st.just("remove"), SHARDS, st.just(0)),
    st.tuples(st.just("read"), st.just(0), st.just(0)),
    st.tuples(st.just("damage"), st.integers(0, 3), st.sampled_from(sorted(DAMAGES))),
)
FOLDERS = itertools.count()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=15))
def test_receipts_are_those_that_lie_there_whatever_happened_to_bundles(tmp_path, steps):
    output = tmp_path / str(next(FOLDERS))
    receipts = Receipts(str(output), "f")
    receipts.write(receipt(3))
    for step, number, more in [("write", n, 0) for n in range(7)] + [("read", 0, 0), *steps]:
        if step == "write":
            receipts.write(receipt(number, more))
        elif step == "write of another run":
            receipts.write(receipt(number, fingerprint="other"))
        elif step == "remove":
            receipts.remove(number)
        elif step == "damage" and bundles(output):
            present = bundles(output)
            DAMAGES[more](present[number % len(present)])
        assert receipts.read() == singly(receipts), step


def test_receipts_in_bundles_are_not_read_again(tmp_path, monkeypatch):
    receipts = Receipts(str(tmp_path), "f")
    for shard in range(11):
        receipts.write(receipt(shard))
    assert reads_of(receipts, monkeypatch) == list(range(11))
    lines = [len(path.read_text().splitlines()) for path in bundles(tmp_path)]
    assert sorted(lines) == [1, 5, 5]
    assert reads_of(receipts, monkeypatch) == []
    receipts.write(receipt(4, 1))  # one alone is no bundle
    for _ in range(2):
        assert reads_of(receipts, monkeypatch) == [4]
    receipts.write(receipt(11))
    assert reads_of(receipts, monkeypatch) == [4, 11]
    assert reads_of(receipts, monkeypatch) == []
    assert len(bundles(tmp_path)) == 3  # the small one has gone into another


def test_a_receipt_of_the_same_size_and_time_is_another_file(tmp_path, monkeypatch):
    receipts = Receipts(str(tmp_path), "f")
    for shard in range(3):
        receipts.write(receipt(shard, 1))
    receipts.read()
    path = tmp_path / "_receipts" / "00001.json"
    before = path.stat()
    receipts.write(receipt(1, 2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert reads_of(receipts, monkeypatch) == [1]


def test_a_copied_output_has_other_files(tmp_path, monkeypatch):
    receipts = Receipts(str(tmp_path / "one"), "f")
    for shard in range(3):
        receipts.write(receipt(shard))
    receipts.read()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert reads_of(Receipts(str(tmp_path / "two"), "f"), monkeypatch) == [0, 1, 2]


def test_two_runs_at_once_leave_bundles_that_hold(tmp_path, monkeypatch):
    """Each removes what the other may be about to read, and adds what it has read itself."""
    output = str(tmp_path)
    receipts = Receipts(output, "f")
    for shard in range(4):
        receipts.write(receipt(shard))
    receipts.read()
    receipts.write(receipt(4))
    receipts.write(receipt(5))
    runs = [receipts.bundles(receipts._listed()) for _ in range(2)]
    late = receipts.bundles({**runs[0].versions, 5: "another"})
    for run in (*runs, late):
        run.add(receipts.get_all([4, 5]).values())
    assert receipts.read() == {shard: receipt(shard) for shard in range(6)}
    assert reads_of(receipts, monkeypatch) == []
    read = receipt_bundles._read
    monkeypatch.setattr(  # removed between the listing and the reading
        receipt_bundles,
        "_read",
        lambda fs, folder, versions, parse, name: (
            storage.remove(f"{folder}/{name}") or read(fs, folder, versions, parse, name)
        ),
    )
    assert receipts.read() == {shard: receipt(shard) for shard in range(6)}


def test_a_run_bundles_what_is_done_while_it_goes_on(tmp_path, monkeypatch):
    receipts = Receipts(str(tmp_path), "f")
    with receipts.watch("label", 9, lambda _: {}, interval_seconds=0.001, known={}) as seen:
        for shard in range(5):
            receipts.write(receipt(shard))
        while not bundles(tmp_path):
            assert len(seen) <= 5
        receipts.write(receipt(5))  # one is too few for a bundle
    assert len(bundles(tmp_path)) == 1
    assert reads_of(receipts, monkeypatch) == [5]
    with receipts.watch("label", 9, lambda _: {}, 60) as seen:
        for shard in range(6, 9):
            receipts.write(receipt(shard))
    assert len(seen) == 9
    assert len(bundles(tmp_path)) == 2
    assert reads_of(receipts, monkeypatch) == [5]
