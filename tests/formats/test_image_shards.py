"""One reader for label, training, export and report: the same ids, or the same named failure."""

import io
import json
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from coyo_labeler.data import LabelledImages
from coyo_labeler.export.choose import Choice
from coyo_labeler.export.images import write_webdataset
from coyo_labeler.export.tars import find_tars, index_tar
from coyo_labeler.formats import image_shards, schemas
from coyo_labeler.formats.faults import Fault
from coyo_labeler.formats.image_ids import IdRule, Ids, hash_id, whole_number
from coyo_labeler.formats.image_shards import Failure, Sample, find_shards, read_index, read_samples
from coyo_labeler.label.commit import Job, Slot, label_and_commit
from coyo_labeler.label.model import Teacher
from coyo_labeler.label.shards import find_shards as find_numbered_shards
from coyo_labeler.label.spec import TeacherSpec
from coyo_labeler.report.examples import thumbnails
from tests.label.teachers import MODEL, save_teacher
from tests.tars import write_members

Members = list[tuple[str, bytes]]

#: Classes of the teacher.
SPACE = 10


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (24, 16), (seed * 40 % 256, 90, 30)).save(file, "PNG")
    return file.getvalue()


def document(**facts: Any) -> bytes:
    return json.dumps(facts).encode()


def samples_of(ids: list[Any], keys: list[str] | None = None) -> Members:
    """Pictures with JSON beside them; ...: without JSON."""
    members = []
    for index, image_id in enumerate(ids):
        key = keys[index] if keys else f"00000{index:04d}"
        members.append((f"{key}.png", picture(index)))
        if image_id is not ...:
            members.append((f"{key}.json", document(id=image_id, key=key)))
    return members


#: Name: (members of 00000.tar, columns of the table beside, ids that come, failures that come).
CASES: dict[str, tuple[Members, dict[str, Any] | None, list[int], list[tuple[str, Fault]]]] = {
    "whole numbers": (samples_of([7, 2**40, 0]), None, [7, 2**40, 0], []),
    "as text and as 3.0": (samples_of(["3", 4.0, "-5"]), None, [3, 4, -5], []),
    "no whole number": (
        samples_of([3.5, True, 10**30, float("inf"), "0a1b", "1_23", " 4", 9]),
        None,
        [9],
        [(f"00000{index:04d}", Fault.NO_ID) for index in range(7)],
    ),
    "ids that are no whole numbers, under keys of digits": (
        samples_of(["0a1b2c3d4e5f6071", 2**63 + 5, 1.5]),
        None,
        [],
        [(f"00000{index:04d}", Fault.NO_ID) for index in range(3)],
    ),
    "ids in the table that are no whole numbers": (
        samples_of([..., ...]),
        {"key": ["000000000", "000000001"], "status": ["success"] * 2, "id": ["0a", "0b"]},
        [],
        [(f"00000{index:04d}", Fault.NO_ID) for index in range(2)],
    ),
    "the table where JSON has none": (
        samples_of([None, "0a1b", 5]),
        {"key": ["000000002", "000000000", "000000001"], "id": [5.0, 3.0, 4.0]},
        [3, 4, 5],
        [],
    ),
    "img2dataset with its table": (
        samples_of([70, 71, 72], ["00000000", "00000001", "00000003"]),
        {
            "key": ["00000000", "00000001", "00000002", "00000003"],
            "status": ["success", "success", "failed_to_download", "success"],
            "id": [70, 71, 99, 72],
        },
        [70, 71, 72],
        [],
    ),
    "img2dataset without ids": (
        samples_of([..., None, ...], ["00000003", "00000004", "00000011"]),
        {"key": ["00000003", "00000004", "00000011"], "status": ["success"] * 3},
        [3, 4, 11],
        [],
    ),
    "keys that are no numbers": (
        samples_of([..., ..., ...], ["1_23", "12_3", "123"]),
        None,
        [],
        [(key, Fault.NO_ID) for key in ("1_23", "12_3", "123")],
    ),
    "the id of an image before": (
        samples_of([5, 6, 5]),
        None,
        [5, 6],
        [("000000002", Fault.DUPLICATE_ID)],
    ),
    "a sample appended again": (
        [*samples_of([5, 6, 7]), *samples_of([5, 6])[2:]],
        None,
        [5, 6, 7],
        [("000000001", Fault.DUPLICATE_KEY)],
    ),
    "all pictures first": (
        sorted(samples_of([90, 91, 92]), key=lambda member: member[0][-4:]),
        None,
        [90, 91, 92],
        [],
    ),
    "a sample without a picture": (
        [*samples_of([5]), ("000000001.json", document(id=6)), *samples_of([1, 2, 7])[4:]],
        {
            "key": ["000000000", "000000001", "000000002"],
            "status": ["success"] * 3,
            "id": [5, 6, 7],
        },
        [5, 7],
        [("000000001", Fault.NO_IMAGE)],
    ),
    "two ids for one image": (
        samples_of([5, 6]),
        {"key": ["000000000", "000000001"], "status": ["success"] * 2, "id": [5, 8]},
        [5],
        [("000000001", Fault.NO_ID)],
    ),
    "files of macOS": (
        [("._000000000.png", b"AppleDouble"), *samples_of([1, 2]), (".DS_Store", b"x")],
        None,
        [1, 2],
        [],
    ),
    "JSON nested without end": (
        [*samples_of([1, ...]), ("000000001.json", b'{"id": 2, "x": ' + b"[" * 100_000)],
        None,
        [1],
        [("000000001", Fault.NO_ID)],
    ),
    "JSON nested deep and well": (
        [*samples_of([1, ...]), ("000000001.json", b'{"x":' * 500 + b"{}" + b"}" * 500)],
        None,
        [1],
        [("000000001", Fault.NO_ID)],
    ),
    "names that are no text": (
        [*samples_of([1]), ("caf\udce9.png", picture(3)), ("caf\udce9.json", document(id=2))],
        None,
        [1, 2],
        [],
    ),
}


def write_case(folder: Path, name: str) -> str:
    members, table, _, _ = CASES[name]
    write_members(folder / "00000.tar", members)
    if table is not None:
        pq.write_table(pa.table(table), folder / "00000.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    folder = tmp_path_factory.mktemp("teacher")
    save_teacher(folder / "model.safetensors", SPACE, 64)
    (folder / "labels.txt").write_text("\n".join(f"class {number}" for number in range(SPACE)))
    spec = TeacherSpec(
        model=MODEL,
        checkpoint=str(folder / "model.safetensors"),
        label_space=str(folder / "labels.txt"),
        activation="sigmoid",
        preprocess="automl_64",
        precision="float32",
        batch_size=4,
    )
    return Teacher(spec, torch.device("cpu"))


def label(teacher: Teacher, images: str, output: Path, ids: Ids = "auto") -> None:
    job = Job(teacher.spec, str(output), "f")
    shards = find_numbered_shards(images, ids)
    [done] = label_and_commit(job, teacher, Slot("cpu", 1, "here"), shards)
    assert done.damage is None


def beliefs_of(output: Path) -> pa.Table:
    return pq.read_table(output / "00000.parquet", schema=schemas.BELIEFS)


def failures_of(output: Path) -> list[tuple[str, str]]:
    rows = pq.read_table(output / "failures/00000.parquet").to_pylist()
    return [(row["key"], row["reason"]) for row in rows]


@pytest.mark.parametrize("name", CASES)
def test_all_who_read_a_shard_find_the_same_ids(
    name: str, teacher: Teacher, tmp_path: Path
) -> None:
    _, _, ids, failures = CASES[name]
    images = write_case(tmp_path / "images", name)

    output = tmp_path / "beliefs"
    label(teacher, images, output)
    assert beliefs_of(output)["id"].to_pylist() == ids
    assert failures_of(output) == sorted((key, str(fault)) for key, fault in failures)

    trained = iter(LabelledImages(images, str(output), num_classes=SPACE, shuffle=False))
    assert [sample.id for sample in trained] == ids
    by_fault = {str(fault): 0 for _, fault in failures}
    for _, fault in failures:
        by_fault[str(fault)] += 1
    used = {"used": len(ids)} if ids else {}
    assert trained.counts == {"drawn": len(ids) + len(failures), **used, **by_fault}
    # In one file of any other name, labels are looked up by id.
    storage = tmp_path / "by_id"
    storage.mkdir()
    pq.write_table(beliefs_of(output).slice(0), storage / "all.parquet")
    looked_up = LabelledImages(images, str(storage), num_classes=SPACE, shuffle=False)
    assert [sample.id for sample in looked_up] == ids

    [tar] = find_tars(images)
    key_of = {row["id"]: row["key"] for row in index_tar(tar).to_pylist()}
    rows = beliefs_of(output)
    rows = rows.append_column("key", pa.array([key_of[i] for i in ids], pa.string()))
    written = write_webdataset(
        str(tmp_path / "export/00000.tar"), tar, rows, Choice(0.0, 0, None, SPACE)
    )
    assert (written.rows_in, written.rows_out) == (len(ids), len(ids))
    exported = read_samples(find_shards(str(tmp_path / "export"))[0])
    assert [sample.name for sample in exported] == [key_of[image_id] for image_id in ids]

    [shard] = find_shards(images)
    locations = {image_id: (shard.url, key) for key, image_id in read_index(shard)}
    assert thumbnails({image_id: locations[image_id] for image_id in ids}).keys() == set(ids)


def test_with_hashes_every_image_has_an_id_that_stays(teacher: Teacher, tmp_path: Path) -> None:
    members = [
        *samples_of([..., ...], ["cat", "a/dog"]),
        ("uid.png", picture(3)),
        ("uid.json", document(uid="0a1b2c3d4e5f6071", id=1.5)),
        *samples_of([12], ["known"]),
    ]
    write_members(tmp_path / "images/00000.tar", members)
    label(teacher, str(tmp_path / "images"), tmp_path / "beliefs", ids="hash")
    ids = beliefs_of(tmp_path / "beliefs")["id"].to_pylist()
    assert ids == [hash_id("cat"), hash_id("a/dog"), hash_id("0a1b2c3d4e5f6071"), 12]
    assert all(0 <= image_id < 2**63 for image_id in ids)
    args = (str(tmp_path / "images"), str(tmp_path / "beliefs"))
    trained = LabelledImages(*args, num_classes=SPACE, shuffle=False, ids="hash")
    assert [sample.id for sample in trained] == ids
    assert [image_id for _, image_id in read_index(find_shards(args[0], "hash")[0])] == ids


def test_one_decision_holds_for_all_shards_of_a_folder(tmp_path: Path) -> None:
    write_members(tmp_path / "00000.tar", [])
    write_members(tmp_path / "00001.tar", samples_of([..., ...], ["00001000", "00001001"]))
    later = samples_of([7, ..., ...], ["00002000", "00002001", "2"])
    write_members(tmp_path / "00002.tar", later)
    shards = find_shards(str(tmp_path))
    assert {shard.ids for shard in shards} == {IdRule.KEY}
    samples = list(read_samples(shards[2]))
    assert [(type(each), each.id) for each in samples] == [
        (Failure, None), (Sample, 2001), (Failure, None),
    ]  # fmt: skip
    assert "has the id 7, but the first images of the folder have none" in str(samples[0])
    # With an id in the first shard, no key is an id anywhere.
    write_members(tmp_path / "00000.tar", samples_of([..., 5]))
    for shard in find_shards(str(tmp_path)):
        assert shard.ids is IdRule.NUMBER
        assert all(each.id in (None, 5, 7) for each in read_samples(shard))


def test_keys_are_ids_only_where_they_begin_with_the_number_of_their_shard(tmp_path: Path) -> None:
    """Else two shards would have the same ids."""
    for shard in range(2):
        write_members(tmp_path / f"{shard:05d}.tar", samples_of([..., ...], ["0", "1"]))
    for shard in find_shards(str(tmp_path)):
        assert [type(each) for each in read_samples(shard)] == [Failure, Failure]


def test_parts_that_stand_too_far_apart_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coyo_labeler.formats.tars.WINDOW_SAMPLES", 2)
    members = sorted(samples_of([1, 2, 3, 4]), key=lambda member: member[0][-4:])
    write_members(tmp_path / "00000.tar", members)
    samples = list(read_samples(find_shards(str(tmp_path))[0]))
    faults = [each.fault for each in samples if isinstance(each, Failure)]
    assert faults == [Fault.NO_ID] * 4 + [Fault.DUPLICATE_KEY] * 4


def test_a_second_tar_behind_the_first_is_read(tmp_path: Path) -> None:
    first = write_members(tmp_path / "a", samples_of([1])).read_bytes()
    second = write_members(tmp_path / "b", samples_of([2], ["000000001"])).read_bytes()
    (tmp_path / "00000.tar").write_bytes(first + second)
    assert [each.id for each in read_samples(find_shards(str(tmp_path))[0])] == [1, 2]


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), ("3", 3), (3.0, 3), ("-2", -2), (2**63 - 1, 2**63 - 1), (2**63, None), (1e400, None),
     (True, None), (3.5, None), ("3.5", None), ("1_23", None), ("٣", None), ("", None),
     (float("nan"), None), (None, None), ([3], None), ("9" * 5000, None)],
)  # fmt: skip
def test_what_is_a_whole_number(value: Any, number: int | None) -> None:
    assert whole_number(value) == number


def test_shards_behind_an_empty_one_are_opened_together_and_the_first_with_images_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store opens one in some 50 ms: of 70,000 empty ones that would be an hour."""
    members: dict[int, Members] = {
        5: [("000050000.png", picture(5))],
        6: [("000060000.png", picture(6)), ("000060000.json", b'{"id": 60}')],
    }
    for shard in range(9):
        write_members(tmp_path / f"{shard:05d}.tar", members.get(shard, []))
    together = threading.Barrier(8, timeout=600)
    opened: list[str] = []
    ids_of_first = image_shards._ids_of_first

    def waiting(shard: image_shards.Shard) -> Any:
        opened.append(shard.name)
        if shard.number:
            together.wait()
        return ids_of_first(shard)

    monkeypatch.setattr(image_shards, "_ids_of_first", waiting)
    shards = find_shards(str(tmp_path))
    assert {shard.ids for shard in shards} == {IdRule.KEY}  # shard 6 would say NUMBER
    assert sorted(opened) == [shard.name for shard in shards]
