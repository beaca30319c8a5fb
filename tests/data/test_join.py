from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from coyo_labeler.data import LabelledImages, Soft
from coyo_labeler.data.labels import open_labels
from coyo_labeler.data.tars import find_shards
from coyo_labeler.errors import InputError
from tests.data.shards import FIRST_ID, Folders, ids_of, picture, row_of, write_labels


def test_labels_are_joined_to_their_own_pictures(folders: Folders) -> None:
    images, labels = folders(5, 3)
    dataset = LabelledImages(images, labels, target=Soft(0.1), shuffle=False)
    samples = list(dataset)
    assert [sample.id for sample in samples] == list(range(FIRST_ID, FIRST_ID + 8))
    for sample in samples:
        assert sample.classes.tolist() == [sample.id % 100, 200]
        assert sample.weights.tolist() == [0.75, 0.25]
        assert sample.image.size == (8, 8)
        first = dataset.recipe.decode(picture(sample.id))
        assert sample.image.tobytes() == first.tobytes()


def test_a_posterior_in_other_files_and_order_gives_the_same_samples(
    folders: Folders, tmp_path: Path
) -> None:
    images, labels = folders(5, 3, 6, table=True)
    ids = list(range(FIRST_ID, FIRST_ID + 14))
    ids = ids[::3] + ids[1::3] + ids[2::3]
    posterior = tmp_path / "merged/posterior"
    for number in range(2):
        rows = {image_id: row_of(image_id) for image_id in ids[number::2]}
        name = f"part-0000{number}-c000.zstd.parquet"
        write_labels(posterior / name, rows, row_group_size=3)

    def read(url: str) -> list[tuple[int, str, list[int]]]:
        dataset = LabelledImages(images, url, target=Soft())
        return [(sample.id, sample.key, sample.classes.tolist()) for sample in dataset]

    assert read(str(tmp_path / "merged")) == read(labels)
    for table in Path(images).glob("*.parquet"):  # without the tables, ids come from the tars
        table.unlink()
    assert read(str(posterior)) == read(labels)


def test_a_posterior_with_voted_images_in_files_of_their_own_gives_the_same_samples(
    folders: Folders, tmp_path: Path
) -> None:
    # As merge writes it: images without votes stay in the file of their shard.
    images, labels = folders(5, 3, 4, 2, table=True)
    ids = list(range(FIRST_ID, FIRST_ID + 14))
    voted = {*ids[1:8:3], ids[6], ids[12], ids[13]}
    posterior = tmp_path / "merged/posterior"
    for shard, of_shard in enumerate((ids[:5], ids[5:8], ids[8:12], ids[12:])):
        rows = {each: row_of(each) for each in of_shard if each not in voted}
        if rows:  # of the last shard every image has a vote
            write_labels(posterior / f"{shard:05d}.parquet", rows)
    for number in range(2):
        rows = {each: row_of(each) for each in sorted(voted)[number::2]}
        write_labels(posterior / f"voted-0000{number}.parquet", rows)

    def read(url: str) -> list[tuple[int, list[int]]]:
        dataset = LabelledImages(images, url, target=Soft())
        return [(sample.id, sample.classes.tolist()) for sample in dataset]

    assert read(str(tmp_path / "merged")) == read(labels)
    assert LabelledImages(images, str(tmp_path / "merged"), exclude=ids[:2]).count() == 12
    shards = find_shards(images)
    for shard in shards:  # rows of shards are not searched by id: only the six voted ones
        open_labels(str(posterior), scan_limit=6).open(shard)
    with pytest.raises(InputError, match=r"shard 00000: its ids are scattered over"):
        open_labels(str(posterior), scan_limit=1).open(shards[0])
    (posterior / "voted-00001.parquet").unlink()
    (posterior / "voted-00000.parquet").unlink()
    write_labels(posterior / "voted-00000.parquet", {5: row_of(5)})
    with pytest.raises(InputError, match=r"shard 00003: .* has labels for none of its 2 images"):
        read(str(posterior))


@pytest.mark.parametrize("kind", ["00000", "part-0", "mixed"])
def test_images_to_train_on_are_counted_without_reading_them(
    folders: Folders, tmp_path: Path, kind: str
) -> None:
    images, _ = folders(4, table=True)
    rows = {FIRST_ID + each: row_of(each) for each in (0, 2, 3)}
    others = {FIRST_ID - 7: row_of(1), FIRST_ID + 9: row_of(1)} if kind == "part-0" else {}
    first = {"mixed": {FIRST_ID: row_of(0)}}.get(kind, {**rows, **others})
    name = "00000" if kind == "mixed" else kind
    write_labels(tmp_path / f"counted/{name}.parquet", first)
    if kind == "mixed":
        rest = {each: row for each, row in rows.items() if each != FIRST_ID}
        write_labels(tmp_path / "counted/voted-0.parquet", rest)
    (tmp_path / "images/00000.tar").write_bytes(b"")
    for exclude, expected in (((), 3), ((FIRST_ID + 2, 1), 2)):
        dataset = LabelledImages(images, str(tmp_path / "counted"), exclude=exclude)
        assert dataset.count() == expected


def test_a_shard_reads_only_the_row_groups_that_can_hold_its_ids(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = folders(4, 4, 4)
    rows = {image_id: row_of(image_id) for image_id in range(FIRST_ID, FIRST_ID + 12)}
    write_labels(tmp_path / "sorted/part-0.parquet", rows, row_group_size=2)
    asked: list[list[int]] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: Any, size: int, groups: list[int], columns: list[str], **more: Any) -> Any:
        asked.append(list(groups))
        return original(self, size, groups, columns, **more)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    dataset = LabelledImages(images, str(tmp_path / "sorted"), shuffle=False)
    assert len(ids_of(dataset)) == 12
    assert asked == [[0, 1], [2, 3], [4, 5]]


def test_ids_scattered_over_more_rows_than_a_shard_may_scan_are_refused(
    folders: Folders, tmp_path: Path
) -> None:
    images, _ = folders(4)
    rows = {image_id: row_of(image_id) for image_id in range(FIRST_ID - 50, FIRST_ID + 50)}
    write_labels(tmp_path / "all/part-0.parquet", rows)
    shard = find_shards(images)[0]
    assert open_labels(str(tmp_path / "all"), scan_limit=100).open(shard).find(FIRST_ID)
    with pytest.raises(InputError, match=r"shard 00000: its ids are scattered over 100 rows"):
        open_labels(str(tmp_path / "all"), scan_limit=99).open(shard)
