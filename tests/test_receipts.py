import json
import threading
from contextlib import contextmanager

import pytest

from coyo_labeler import receipts as receipts_module
from coyo_labeler import storage
from coyo_labeler.export import job as export
from coyo_labeler.fetch import generation as fetch
from coyo_labeler.ingest import part as ingest
from coyo_labeler.ingest.statistics import Statistics
from coyo_labeler.label import commit as label
from coyo_labeler.manifest import Counts
from coyo_labeler.progress import Progress
from coyo_labeler.receipts import Receipt, Receipts, total


def receipt(shard, fingerprint="f", **details):
    return Receipt(shard, fingerprint, Counts(10, 8, {"timeout": 2}), 1.5, details)


def test_receipts_come_back_by_shard(tmp_path):
    for name in ("_receipts/{shard:05d}.json", "{shard:05d}_stats.json"):
        receipts = Receipts(str(tmp_path / name[:3]), "f", name)
        receipts.write(receipt(7, images_per_second=3))
        receipts.write(receipt(123456))
        assert receipts.shards() == {7, 123456}
        assert receipts.read() == {7: receipt(7, images_per_second=3), 123456: receipt(123456)}


def test_receipts_are_read_side_by_side_and_each_once(tmp_path, monkeypatch):
    """An object store answers each of 58,000 after 30 ms."""
    receipts = Receipts(str(tmp_path), "f")
    for shard in range(8):
        receipts.write(receipt(shard))
    together = threading.Barrier(8, timeout=600)
    reads = []
    read_json = storage.read_json

    def slow(url, remedy):
        reads.append(url)
        together.wait()
        return read_json(url, remedy)

    with monkeypatch.context() as context:
        context.setattr(storage, "read_json", slow)
        known = receipts.read()
    assert list(known) == list(range(8))
    monkeypatch.setattr(storage, "read_json", lambda url, _: reads.append(url) or read_json(url))
    with receipts.watch("fetch", 9, lambda _: {}, 0.01, known) as seen:
        receipts.write(receipt(8))
    assert seen == {**known, 8: receipt(8)}
    assert len(reads) == len(set(reads)) == 9


def test_a_receipt_of_another_run_does_not_count(tmp_path):
    Receipts(str(tmp_path), "other").write(receipt(1, "other"))
    receipts = Receipts(str(tmp_path), "f")
    assert receipts.get(1) is None
    assert receipts.read() == {}


def test_a_folder_without_receipts_has_none(tmp_path):
    assert Receipts(str(tmp_path / "none"), "f").read() == {}
    assert Receipts(f"memory://{tmp_path}", "f").read() == {}


def test_totals_add_up_by_reason():
    counts = total([receipt(1), receipt(2)])
    assert counts == Counts(20, 16, {"timeout": 4})


def test_watching_ends_with_all_receipts_seen(tmp_path):
    receipts = Receipts(str(tmp_path), "f")
    seen = []

    def facts(read):
        seen.append(len(read))
        return {"images": 10 * len(read)}

    with receipts.watch("fetch", 3, facts, interval_seconds=0.01):
        for shard in range(3):
            receipts.write(receipt(shard))
    assert seen[-1] == 3
    assert storage.exists(str(tmp_path))


def test_shards_that_are_redone_count_when_their_receipts_are_replaced(tmp_path, monkeypatch):
    receipts = Receipts(str(tmp_path), "f")
    for shard in range(3):
        receipts.write(receipt(shard, generation=1))
    shown = []

    class Shown(Progress):
        def update(self, done, **facts):
            shown.append((done, facts["generations"]))

    monkeypatch.setattr(receipts_module, "Progress", Shown)

    def facts(read):
        return {"generations": sorted(one.details["generation"] for one in read)}

    with receipts.watch("fetch", 3, facts, interval_seconds=60, redo={0, 2}):
        pass
    with receipts.watch("fetch", 3, facts, interval_seconds=60, redo={0, 2}):
        receipts.write(receipt(2, generation=2))
    assert shown == [(1, [1]), (2, [1, 2])]


def test_watching_rests_longer_than_it_looks(tmp_path, monkeypatch):
    """A store takes many seconds to list 70,000 receipts: every two seconds is too often."""
    receipts = Receipts(str(tmp_path), "f")
    listed = []
    list_shards, list_numbers = Receipts._listed, Receipts.shards

    @contextmanager
    def every(seconds, look):
        for _ in range(5):
            look()
        yield

    def slow(self, besides=None):
        listed.append(besides)
        clock.append(clock[-1] + 4.0)
        return list_numbers(self) if besides is None else list_shards(self, besides)

    clock = [0.0]
    monkeypatch.setattr(receipts_module, "every", every)
    monkeypatch.setattr(receipts_module.time, "monotonic", lambda: clock[-1])
    monkeypatch.setattr(Receipts, "_listed", slow)
    monkeypatch.setattr(Receipts, "shards", slow)
    with receipts.watch("label", 1, lambda _: {}, known={}) as seen:
        receipts.write(receipt(0))
    assert len(listed) == 3  # before, once of five times, and at the end
    assert seen == {0: receipt(0)}


WRONG = ["three", None, [], {}, -1, 2.5, True, [1], {"a": 1}]


@pytest.mark.parametrize(
    "kind", [label.ShardDetails, export.ShardDetails, fetch.ShardDetails, ingest.PartDetails]
)
def test_a_receipt_with_other_values_counts_as_none_or_is_of_the_form_that_is_used(tmp_path, kind):
    """Its fingerprint may be right: somebody has edited it, or it is of another shard."""
    example = {str: "a", int: 3, float: 0.5}
    details = {
        name: example.get(field.annotation, {"a": 1})
        for name, field in kind.model_fields.items()
        if field.is_required()
    }
    if "statistics" in details:
        details["statistics"] = Statistics().to_json()
    details["files"] = {"00000.parquet": [3, "ab"]}
    receipts = Receipts(str(tmp_path), "f", details=kind)
    receipts.write(receipt(0, **details))
    assert receipts.get(0).details == details
    path = tmp_path / "_receipts/00000.json"
    whole = json.loads(path.read_text())
    refused = 0
    for name in whole:
        for wrong in WRONG:
            if name in details and type(wrong) in (type(details[name]), bool, int, float):
                continue  # of the right form, or a number that will do
            path.write_text(json.dumps({**whole, name: wrong}))
            refused += receipts.get(0) is None
            assert receipts.get(0) is None or name not in ("rows", "files", *details), (name, wrong)
        path.write_text(json.dumps({key: whole[key] for key in whole if key != name}))
        assert receipts.get(0) is None or name == "files"
    assert refused > 20
    path.write_text(json.dumps(whole))
    path.rename(tmp_path / "_receipts/00001.json")
    assert receipts.get(1) is None
