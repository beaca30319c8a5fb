import io
import json
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from coyo_labeler.formats import pictures, schemas
from coyo_labeler.formats.faults import Fault
from coyo_labeler.formats.image_shards import Failure, read_samples
from coyo_labeler.formats.tars import DamagedTarError
from coyo_labeler.label import ahead, predict
from coyo_labeler.label.devices import Done, to_answers
from coyo_labeler.label.model import Teacher
from coyo_labeler.label.predict import label_shards
from coyo_labeler.label.shards import find_shards
from coyo_labeler.label.spec import TeacherSpec
from tests.label.tars import crops, jpeg, write_tar
from tests.tars import write_members

FILES = [jpeg(pixels) for pixels in crops(11, seed=3, small=40, large=90)]


@pytest.fixture(scope="module")
def make_teacher(small_spec):
    def make(**changes):
        return Teacher(TeacherSpec(**{**small_spec, **changes}), torch.device("cpu"))

    return make


def run(teacher, folder, shards=None, **options):
    every = find_shards(str(folder))
    chosen = every if shards is None else [every[index] for index in shards]
    return list(label_shards(teacher, chosen, **{"cores": 2, **options}))


def test_a_shard_comes_out_the_same_whatever_ran_with_it(make_teacher, tmp_path):
    for shard, count in enumerate((11, 3, 0, 5)):
        write_tar(tmp_path, shard, FILES[:count])
    teacher = make_teacher()
    together = run(teacher, tmp_path)
    assert [result.shard.number for result in together] == [0, 1, 2, 3]
    assert [result.beliefs.num_rows for result in together] == [11, 3, 0, 5]
    for index, result in enumerate(together):
        for cores in (1, 3):
            alone = run(make_teacher(), tmp_path, [index], cores=cores)[0]
            assert alone.beliefs.equals(result.beliefs)


def test_a_poisoned_image_costs_itself(make_teacher, tmp_path):
    write_tar(tmp_path, 0, [FILES[0], b"poison", None, FILES[3], FILES[4][:-9], *FILES[5:]])
    write_tar(tmp_path, 1, FILES)
    poisoned, clean = run(make_teacher(), tmp_path)
    assert poisoned.samples == 11
    assert poisoned.rejected == {Fault.UNDECODABLE: 2, Fault.NO_IMAGE: 1}
    assert poisoned.failures.schema == schemas.LABEL_FAILURES
    assert poisoned.failures["key"].to_pylist() == ["000000001", "000000002", "000000004"]
    assert poisoned.failures["id"].to_pylist() == [1, 2, 4]
    usable = [0, 3, *range(5, 11)]
    assert poisoned.beliefs["id"].to_pylist() == usable
    for name in ("labels", "label_probs"):
        ours = np.array(poisoned.beliefs[name].to_pylist())
        theirs = np.array(clean.beliefs.take(usable)[name].to_pylist())
        assert np.allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize(
    "document",
    [
        b'{"id": 1, "url": 5, "imagehash": 7}',
        b'{"id": 1, "url": ["a"], "imagehash": {}}',
        b'{"id": 1, "original_width": 3000000000, "original_height": -2}',
        b'{"id": 1, "url": "http://x/\\ud800", "imagehash": "\\udfff"}',
        b"[" * 200_000,
        b"\xff\xfe{",
    ],
)
def test_what_a_json_may_hold_costs_at_most_its_own_columns(make_teacher, tmp_path, document):
    members = [("0.jpg", FILES[0]), ("1.jpg", FILES[1]), ("1.json", document), ("2.jpg", FILES[2])]
    write_members(tmp_path / "00000.tar", members)
    rows = {"key": ["0", "1", "2"], "id": [0, 1, 2]}
    pq.write_table(schemas.pa.table(rows), tmp_path / "00000.parquet")
    beliefs = run(make_teacher(), tmp_path)[0].beliefs
    assert beliefs["id"].to_pylist() == [0, 1, 2]
    row = beliefs.to_pylist()[1]
    assert (row["url"], row["imagehash"]) == (None, None)
    height, width = crops(2, seed=3, small=40, large=90)[1].shape[:2]
    assert (row["width"], row["height"]) == (width, height)


def test_a_name_that_is_no_text_is_written_with_its_bytes_spelt_out(make_teacher, tmp_path):
    members = [("caf\udce9.jpg", FILES[0]), ("7.jpg", FILES[1]), ("7.json", b'{"id": 7}')]
    write_members(tmp_path / "00000.tar", members)
    result = run(make_teacher(), tmp_path)[0]
    assert result.failures["key"].to_pylist() == ["caf\\udce9"]
    assert result.beliefs["id"].to_pylist() == [7]


def test_nan_is_a_failure_with_a_name(make_teacher, tmp_path):
    write_tar(tmp_path, 0, FILES)
    teacher = make_teacher()
    network, calls = teacher.network, []

    def spoilt(batch):
        logits, pooled = network(batch)
        if not calls:
            logits = logits.clone()
            logits[2] = float("nan")
        calls.append(len(batch))
        return logits, pooled

    teacher.network = spoilt
    result = run(teacher, tmp_path, cores=1)[0]
    assert result.rejected == {predict.NOT_FINITE: 1}
    assert result.failures["id"].to_pylist() == [2]
    assert result.beliefs["id"].to_pylist() == [0, 1, *range(3, 11)]


def test_images_below_the_threshold_are_set_aside_and_not_lost(make_teacher, tmp_path):
    write_tar(tmp_path, 0, FILES)
    everything = run(make_teacher(), tmp_path)[0].beliefs
    tops = [probs[0] for probs in everything["label_probs"].to_pylist()]
    middle = sorted(tops)[5]
    result = run(make_teacher(), tmp_path, min_top1=middle)[0]
    assert result.rejected == {predict.BELOW_THRESHOLD: 5}
    assert result.beliefs.num_rows == 6
    assert min(probs[0] for probs in result.beliefs["label_probs"].to_pylist()) == middle
    ids = result.beliefs["id"].to_pylist() + result.below["id"].to_pylist()
    assert sorted(ids) == everything["id"].to_pylist()


def test_embeddings_stand_beside_the_beliefs_in_the_same_order(make_teacher, tmp_path):
    write_tar(tmp_path, 0, [*FILES[:5], b"poison"])
    write_tar(tmp_path, 1, [b"poison"])
    result, empty = run(make_teacher(embeddings=True), tmp_path)
    assert result.embeddings["id"].to_pylist() == result.beliefs["id"].to_pylist()
    assert str(result.embeddings.schema.field("embedding").type) == (
        "fixed_size_list<item: halffloat>[1280]"
    )
    vectors = np.array(result.embeddings["embedding"].to_pylist())
    assert np.isfinite(vectors).all()
    assert np.ptp(vectors, axis=0).max() > 0.1
    assert empty.embeddings.num_rows == 0
    assert empty.embeddings.schema == result.embeddings.schema  # so that the folder reads as one
    assert run(make_teacher(), tmp_path)[0].embeddings is None


class Watched:
    """A device that notes what it is given and waited for, in order, and gives no answer of use."""

    depth = 2

    def __init__(self, teacher):
        self.pool, self.events, self._teacher = ThreadPoolExecutor(1), [], teacher

    def shrink(self, pixels):
        return torch.zeros(3, 64, 64)

    def submit(self, images):
        number = sum(what == "submit" for what, _ in self.events)
        self.events.append(("submit", number))

        def wait():
            self.events.append(("wait", number))
            return Done(to_answers(self._teacher.answer(torch.stack(images))), 0.0)

        return wait

    def close(self):
        self.pool.shutdown()


def test_the_device_has_its_next_batch_before_the_last_of_a_shard_is_waited_for(
    make_teacher, tmp_path, monkeypatch
):
    for shard in range(4):
        write_tar(tmp_path, shard, FILES[:4])  # a batch each
    teacher = make_teacher()
    device = Watched(teacher)
    monkeypatch.setattr(predict, "open_device", lambda *_: device)
    assert [result.beliefs.num_rows for result in run(teacher, tmp_path)] == [4] * 4
    ends = {number: device.events.index(("wait", number)) for number in range(4)}
    starts = {number: device.events.index(("submit", number)) for number in range(4)}
    assert all(starts[number + 1] < ends[number] for number in range(3))


def test_no_more_is_read_ahead_than_the_device_has_use_for(make_teacher, tmp_path, monkeypatch):
    for shard in range(10):
        write_tar(tmp_path, shard, FILES[:4])
    read, let_go = [], threading.Event()

    def watched(shard):
        for sample in read_samples(shard):
            read.append(sample)
            yield sample

    monkeypatch.setattr(ahead, "read_samples", watched)
    pool = ThreadPoolExecutor(2)
    with ahead.ReadAhead(find_shards(str(tmp_path)), torch.from_numpy, False, pool, 2, 6) as events:
        reader = next(thread for thread in threading.enumerate() if thread.name == "read")
        deadline = time.monotonic() + 280
        while not events._events.full() and time.monotonic() < deadline:
            let_go.wait(0.01)
        let_go.wait(0.2)  # time to go on in, if it did
        assert reader.is_alive()
        assert len(read) <= 8
        assert sum(event[0] for event in events if isinstance(event, tuple)) == 40
    pool.shutdown()


def test_a_programming_error_in_a_thread_is_raised_and_not_waited_for(
    make_teacher, tmp_path, monkeypatch
):
    write_tar(tmp_path, 0, FILES)

    def broken(data, exif_orientation):
        raise AttributeError("a bug")

    monkeypatch.setattr(pictures, "decode", broken)
    with pytest.raises(AttributeError, match="a bug"):
        run(make_teacher(), tmp_path)


def test_a_reader_that_is_left_in_the_middle_ends_its_threads(make_teacher, tmp_path):
    for shard in range(3):
        write_tar(tmp_path, shard, FILES)
    before = threading.active_count()
    results = label_shards(make_teacher(), find_shards(str(tmp_path)), cores=2)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_a_damaged_tar_is_told_and_the_next_goes_on(make_teacher, tmp_path):
    path = write_tar(tmp_path, 0, FILES)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    write_tar(tmp_path, 1, FILES[:2])
    damaged, whole = run(make_teacher(), tmp_path)
    assert damaged.damage is not None
    assert whole.damage is None
    assert whole.beliefs.num_rows == 2


def test_a_tar_that_ends_between_two_members_is_damaged(tmp_path):
    path = write_tar(tmp_path, 0, FILES[:3])
    with tarfile.open(path) as tar:
        third = tar.getmembers()[2].offset
    path.write_bytes(path.read_bytes()[:third])
    with pytest.raises(DamagedTarError, match="end of the archive"):
        list(read_samples(find_shards(str(tmp_path))[0]))


@pytest.mark.parametrize("content", [b"", b"not a tar" * 100])
def test_what_is_no_tar_is_damaged(tmp_path, content):
    (tmp_path / "00000.tar").write_bytes(content)
    with pytest.raises(DamagedTarError):
        list(read_samples(find_shards(str(tmp_path))[0]))


def test_the_row_of_an_image_holds_what_its_json_says(make_teacher, tmp_path):
    write_tar(tmp_path, 0, FILES[:1], original_width=4000, original_height=3000)
    write_tar(tmp_path, 1, FILES[:1])
    with_json, without = (result.beliefs.to_pylist()[0] for result in run(make_teacher(), tmp_path))
    assert (with_json["width"], with_json["height"]) == (4000, 3000)
    assert (with_json["url"], with_json["imagehash"]) == ("http://example.org/000000000", "0" * 16)
    height, width = crops(11, seed=3, small=40, large=90)[0].shape[:2]
    assert (without["width"], without["height"]) == (width, height)


def test_img2datasets_shards_take_ids_from_the_table_and_else_from_the_key(tmp_path):
    """Its JSON has only the chosen columns; without an `id`, a key of digits is the id."""
    members = []
    for index in range(3):
        key = f"00012000{index}"
        facts = {"key": key, "url": "u", "status": "success", "original_width": 5, "id": None}
        members += [(f"{key}.jpg", FILES[0]), (f"{key}.txt", b"a caption")]
        members.append((f"{key}.json", json.dumps(facts).encode()))
    write_members(tmp_path / "00012.tar", members)
    shard = find_shards(str(tmp_path))[0]
    assert [sample.id for sample in read_samples(shard)] == [120000, 120001, 120002]
    rows = {"key": ["000120000", "000120001"], "id": [2**40, 2**40 + 1]}
    pq.write_table(schemas.pa.table(rows), tmp_path / "00012.parquet")
    shard = find_shards(str(tmp_path))[0]
    *first, last = read_samples(shard)
    assert [sample.id for sample in first] == [2**40, 2**40 + 1]
    # Others of the folder have an id, so that a key is none.
    assert isinstance(last, Failure)
    assert (last.key, last.fault) == ("000120002", Fault.NO_ID)


def test_a_sample_without_any_number_for_an_id_is_a_failure(make_teacher, tmp_path):
    dog = json.dumps({"id": 7}).encode()
    members = [("cat.jpg", FILES[0]), ("dog.jpg", FILES[1]), ("dog.json", dog)]
    write_members(tmp_path / "00000.tar", members)
    result = run(make_teacher(), tmp_path)[0]
    assert result.rejected == {Fault.NO_ID: 1}
    assert result.failures["key"].to_pylist() == ["cat"]
    assert result.beliefs["id"].to_pylist() == [7]


def test_shards_are_read_from_any_filesystem(make_teacher, tmp_path):
    import fsspec  # noqa: PLC0415

    data = write_tar(tmp_path, 3, FILES[:2]).read_bytes()
    with fsspec.open("memory://images/00003.tar", "wb") as file:
        file.write(io.BytesIO(data).getvalue())
    shards = find_shards("memory://images")
    result = next(label_shards(make_teacher(), shards, cores=1))
    assert result.beliefs["id"].to_pylist() == [300, 301]
