import json
from pathlib import Path
from typing import Any

import pytest

from coyo_labeler.data import LabelledImages, Loader, MultiHot
from coyo_labeler.errors import InputError
from tests.data.shards import FIRST_ID, Folders, picture, row_of, to_tensor, write_labels, write_tar
from tests.tars import write_members


def test_labels_in_another_order_than_the_tar_name_the_shard(
    folders: Folders, tmp_path: Path
) -> None:
    images, labels = folders(4, 4)
    ids = [FIRST_ID + 4, FIRST_ID + 6, FIRST_ID + 5, FIRST_ID + 7]
    write_labels(tmp_path / "beliefs/00001.parquet", {each: row_of(each) for each in ids})
    with pytest.raises(InputError, match=rf"shard 00001: id {FIRST_ID + 5} is in another position"):
        list(LabelledImages(images, labels))


def test_labels_of_an_image_that_is_not_in_the_tar_name_the_shard(
    folders: Folders, tmp_path: Path
) -> None:
    images, labels = folders(4, 4)
    rows = {each: row_of(each) for each in range(FIRST_ID, FIRST_ID + 5)}
    write_labels(tmp_path / "beliefs/00000.parquet", rows)
    with pytest.raises(InputError, match=rf"shard 00000: .* holds labels of id {FIRST_ID + 4}"):
        list(LabelledImages(images, labels))


def test_a_tar_without_a_labels_file_names_the_shard(folders: Folders, tmp_path: Path) -> None:
    images, labels = folders(4, 4)
    (tmp_path / "beliefs/00001.parquet").unlink()
    with pytest.raises(InputError, match=r"shard 00001: there is no 00001.parquet"):
        list(LabelledImages(images, labels))


def test_a_posterior_of_other_images_names_the_shard(folders: Folders, tmp_path: Path) -> None:
    images, _ = folders(4)
    write_labels(tmp_path / "other/part-0.parquet", {5: row_of(5)})
    with pytest.raises(InputError, match=r"shard 00000: .* has labels for none of its 4 images"):
        list(LabelledImages(images, str(tmp_path / "other")))


def test_a_posterior_with_an_id_twice_is_refused(folders: Folders, tmp_path: Path) -> None:
    images, _ = folders(4)
    for number in range(2):
        write_labels(tmp_path / f"twice/part-{number}.parquet", {FIRST_ID: row_of(FIRST_ID)})
    with pytest.raises(InputError, match=f"id {FIRST_ID} is in .* twice"):
        list(LabelledImages(images, str(tmp_path / "twice")))


def test_images_without_labels_are_counted_or_an_error(folders: Folders, tmp_path: Path) -> None:
    images, labels = folders(4)
    rows = {each: row_of(each) for each in (FIRST_ID + 1, FIRST_ID + 3)}
    write_labels(tmp_path / "beliefs/00000.parquet", rows)
    reader = iter(LabelledImages(images, labels))
    assert sorted(sample.id for sample in reader) == list(rows)
    assert reader.counts == {"drawn": 4, "used": 2, "unlabelled": 2}
    with pytest.raises(InputError, match=r"shard 00000: image 000000000 \(id \d+\) has no labels"):
        list(LabelledImages(images, labels, unlabelled="error"))


def test_empty_rows_and_low_rows_are_counted(folders: Folders, tmp_path: Path) -> None:
    images, labels = folders(4)
    ids = range(FIRST_ID, FIRST_ID + 4)
    rows = dict(zip(ids, [([], []), None, ([3], [0.125]), ([4], [0.5])], strict=True))
    write_labels(tmp_path / "beliefs/00000.parquet", rows)
    reader = iter(LabelledImages(images, labels, target=MultiHot(0.25)))
    assert [sample.id for sample in reader] == [FIRST_ID + 3]
    assert reader.counts == {"drawn": 4, "used": 1, "empty": 3}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (([1, 2], [0.5]), "has 2 labels but 1 probabilities"),
        (([1, 2], [0.5, float("nan")]), f"id {FIRST_ID + 1} has the probability nan"),
        (([1, 2], [0.5, 1.5]), f"id {FIRST_ID + 1} has the probability 1.5"),
        (([1, None], [0.5, 0.5]), "has a list with a null label"),
    ],
)
def test_rows_that_are_no_labels_name_file_and_id(
    folders: Folders, tmp_path: Path, row: Any, message: str
) -> None:
    images, labels = folders(2)
    rows = {FIRST_ID: row_of(FIRST_ID), FIRST_ID + 1: row}
    write_labels(tmp_path / "beliefs/00000.parquet", rows)
    with pytest.raises(InputError, match=message):
        list(LabelledImages(images, labels))


def test_a_picture_that_cannot_be_decoded_is_an_error_or_counted(
    folders: Folders, tmp_path: Path
) -> None:
    images, labels = folders(3)
    members = []
    for index in range(3):
        name = f"00000000{index}"
        members.append((f"{name}.json", json.dumps({"id": FIRST_ID + index}).encode()))
        members.append((f"{name}.jpg", b"not a picture" if index == 1 else picture(index)))
    write_members(tmp_path / "images/00000.tar", members)
    with pytest.raises(InputError, match="shard 00000: 000000001 cannot be decoded"):
        list(LabelledImages(images, labels))
    reader = iter(LabelledImages(images, labels, undecodable="skip"))
    assert len(list(reader)) == 2
    assert reader.counts == {"drawn": 3, "used": 2, "undecodable": 1}


def test_a_tar_that_breaks_off_names_the_shard(folders: Folders, tmp_path: Path) -> None:
    images, labels = folders(4)
    tar = tmp_path / "images/00000.tar"
    tar.write_bytes(tar.read_bytes()[: 5 * 512 + 100])
    with pytest.raises(InputError, match=r"images: shard 00000: .* is damaged"):
        list(LabelledImages(images, labels))


@pytest.mark.parametrize("kind", ["co-indexed", "by id"])
def test_a_damaged_tar_costs_what_is_behind_the_damage_where_that_is_wanted(
    folders: Folders, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    images, labels = folders(4, 3)
    if kind == "by id":
        labels = str(tmp_path / "other")
        rows = {each: row_of(each) for each in range(FIRST_ID, FIRST_ID + 7)}
        write_labels(tmp_path / "other/all.parquet", rows)
    tar = tmp_path / "images/00000.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: whole.index(b"000000002.json") + 100])
    dataset = LabelledImages(images, labels, undecodable="skip", shuffle_buffer=3)
    loader = Loader(dataset, 2)
    ids = [image_id for batch in loader for image_id in batch.ids.tolist()]
    # The sample at the damage may lack a part. By id, the whole tar is needed before its first.
    before = [FIRST_ID] if kind == "co-indexed" else []
    assert sorted(ids) == [*before, *range(FIRST_ID + 4, FIRST_ID + 7)]
    assert loader.counts["damaged_shards"] == 1
    assert loader.counts["drawn"] == loader.counts["used"] == len(ids)
    assert "images: shard 00000: " in caplog.text and "is left out" in caplog.text
    assert dataset.count() == {"co-indexed": 7, "by id": 3}[kind]  # by the labels' files, by ids
    with pytest.raises(InputError, match="fetch it again, or undecodable=skip"):
        list(LabelledImages(images, labels))


@pytest.mark.parametrize("meta", [b"{}", b'{"id": null}', b"[1]", b"not json"])
def test_a_sample_without_an_id_names_shard_and_key(
    folders: Folders, tmp_path: Path, meta: bytes
) -> None:
    images, labels = folders(1)
    write_members(tmp_path / "images/00000.tar", [("a.png", picture(1)), ("a.json", meta)])
    with pytest.raises(InputError, match=r"shard 00000: sample a: no_id: no whole number 'id' in"):
        list(LabelledImages(images, labels, unlabelled="error"))
    write_labels(tmp_path / "beliefs/00000.parquet", {})
    reader = iter(LabelledImages(images, labels))
    assert list(reader) == []
    assert reader.counts == {"drawn": 1, "no_id": 1}


def test_an_error_in_a_worker_process_comes_as_its_one_line(
    folders: Folders, tmp_path: Path
) -> None:
    images, labels = folders(4, 4)
    (tmp_path / "beliefs/00001.parquet").unlink()
    dataset = LabelledImages(images, labels, transform=to_tensor)
    with pytest.raises(InputError, match=r"^labels: shard 00001: there is no") as caught:
        list(Loader(dataset, 2, num_workers=2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["images", "labels"])
def test_nothing_there_names_the_key(folders: Folders, tmp_path: Path, key: str) -> None:
    images, labels = folders(1)
    given = {"images": images, "labels": labels, key: str(tmp_path / "nowhere")}
    with pytest.raises(InputError, match=f"^{key}: nothing at"):
        LabelledImages(**given)
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(InputError, match=f"^{key}: no .* files at"):
        LabelledImages(**given)


def test_a_table_without_label_probs_names_the_column(folders: Folders) -> None:
    images, _ = folders(2, table=True)
    with pytest.raises(InputError, match="has no column 'labels'"):
        list(LabelledImages(images, images))


def test_one_name_for_two_tars_is_refused(tmp_path: Path) -> None:
    for folder in "ab":
        write_tar(tmp_path / folder / "00000.tar", [1])
    write_labels(tmp_path / "beliefs/00000.parquet", {1: row_of(1)})
    with pytest.raises(InputError, match=r"00000.tar and .* have the same name"):
        LabelledImages(str(tmp_path / "*/00000.tar"), str(tmp_path / "beliefs"))


def test_a_picture_of_too_many_pixels_is_left_out_like_others_that_do_not_decode(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = folders(2)
    monkeypatch.setattr("coyo_labeler.formats.pictures.MAX_PIXELS", 63)
    with pytest.raises(InputError, match=r"cannot be decoded .*too_large: 8 × 8 px, at most 63 px"):
        list(LabelledImages(images, labels))
    reader = iter(LabelledImages(images, labels, undecodable="skip"))
    assert list(reader) == []
    assert reader.counts == {"drawn": 2, "undecodable": 2}
