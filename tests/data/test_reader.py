import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from torch.utils.data import DataLoader

from coyo_labeler.data import LabelledImages, Loader, MultiHot, Soft, collate
from coyo_labeler.data.labels import open_labels
from coyo_labeler.data.tars import find_shards
from coyo_labeler.errors import InputError
from tests.data.shards import FIRST_ID, add, picture, row_of, write_labels, write_tar

Folders = Callable[..., tuple[str, str]]


def to_tensor(image: Any) -> torch.Tensor:
    """The picture with noise, so that randomness would show."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float()
    return pixels + torch.rand(())


def ids_of(dataset: LabelledImages) -> list[int]:
    return [sample.id for sample in dataset]


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
    # As merge writes it: who got no vote stays in the file of the shard, the others go by id.
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
    for shard in shards:  # the rows of shards are not looked through by id: only the six voted ones
        open_labels(str(posterior), scan_limit=6).open(shard)
    with pytest.raises(InputError, match=r"shard 00000: its ids lie scattered over"):
        open_labels(str(posterior), scan_limit=1).open(shards[0])
    (posterior / "voted-00001.parquet").unlink()
    (posterior / "voted-00000.parquet").unlink()
    write_labels(posterior / "voted-00000.parquet", {5: row_of(5)})
    with pytest.raises(InputError, match=r"shard 00003: .* has labels for none of its 2 images"):
        read(str(posterior))


@pytest.mark.parametrize("layout", ["00000", "part-0", "both"])
def test_images_to_train_on_are_counted_without_reading_them(
    folders: Folders, tmp_path: Path, layout: str
) -> None:
    images, _ = folders(4, table=True)
    rows = {FIRST_ID + each: row_of(each) for each in (0, 2, 3)}
    others = {FIRST_ID - 7: row_of(1), FIRST_ID + 9: row_of(1)} if layout == "part-0" else {}
    first = {"both": {FIRST_ID: row_of(0)}}.get(layout, {**rows, **others})
    name = "00000" if layout == "both" else layout
    write_labels(tmp_path / f"counted/{name}.parquet", first)
    if layout == "both":
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
    with pytest.raises(InputError, match=r"shard 00000: its ids lie scattered over 100 rows"):
        open_labels(str(tmp_path / "all"), scan_limit=99).open(shard)


@pytest.mark.parametrize("shards", [(7,), (5, 3, 6), (4, 1, 3, 2, 5)])
@pytest.mark.parametrize(("world", "workers"), [(1, 1), (2, 1), (2, 2), (3, 2)])
def test_ranks_and_workers_together_see_every_sample_once(
    folders: Folders, shards: tuple[int, ...], world: int, workers: int
) -> None:
    images, labels = folders(*shards)
    seen: list[int] = []
    for rank in range(world):
        dataset = LabelledImages(images, labels, rank=rank, world_size=world, shuffle_buffer=3)
        for worker in range(workers):
            seen += [sample.id for sample in dataset.reader(worker, workers, epoch=2)]
    assert sorted(seen) == list(range(FIRST_ID, FIRST_ID + sum(shards)))


def test_worker_processes_see_every_sample_once(folders: Folders) -> None:
    images, labels = folders(5, 3, 6)
    dataset = LabelledImages(images, labels, transform=to_tensor, num_classes=400)
    batches = list(DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=collate))
    seen = [image_id for batch in batches for image_id in batch.ids.tolist()]
    assert sorted(seen) == list(range(FIRST_ID, FIRST_ID + 14))
    assert all(batch.images.shape == (len(batch), 192) for batch in batches)
    assert all(batch.targets.dense(400).sum() == 3 * len(batch) for batch in batches)


def test_epochs_differ_in_order_and_a_seed_repeats_them(folders: Folders) -> None:
    images, labels = folders(10, 10)
    dataset = LabelledImages(images, labels, shuffle_buffer=8)
    first = ids_of(dataset)
    assert ids_of(dataset) == first
    dataset.set_epoch(1)
    assert ids_of(dataset) != first
    assert sorted(ids_of(dataset)) == sorted(first)
    assert ids_of(LabelledImages(images, labels, shuffle_buffer=8, seed=1)) != first
    assert first != sorted(first)


def test_a_picture_is_augmented_the_same_in_an_epoch_whoever_reads_it(folders: Folders) -> None:
    images, labels = folders(5, 4)

    def noise(world: int, epoch: int) -> dict[int, float]:
        found = {}
        for rank in range(world):
            dataset = LabelledImages(
                images, labels, transform=to_tensor, rank=rank, world_size=world
            )
            found |= {s.id: float(s.image.sum()) for s in dataset.reader(0, 1, epoch)}
        return found

    before = torch.get_rng_state()
    assert noise(1, 0) == noise(3, 0)
    assert noise(1, 0) != noise(1, 1)
    assert torch.equal(torch.get_rng_state(), before)


# -- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", range(1, 23, 3))
def test_a_reader_goes_on_with_the_very_next_sample(folders: Folders, stop: int) -> None:
    images, labels = folders(6, 9, 8)
    dataset = LabelledImages(images, labels, transform=to_tensor, shuffle_buffer=5)
    whole = [(s.id, float(s.image.sum())) for s in dataset]
    reader = iter(dataset)
    for _ in range(stop):
        next(reader)
    state = json.loads(json.dumps(reader.state_dict()))  # plain enough for any checkpoint
    resumed = iter(LabelledImages(images, labels, transform=to_tensor, shuffle_buffer=5))
    resumed.load_state_dict(state)
    rest = [(s.id, float(s.image.sum())) for s in resumed]
    assert rest == whole[stop:]
    assert resumed.counts["used"] == resumed.counts["drawn"] == 23


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("stop", [1, 2, 5, 8])
def test_a_loader_goes_on_with_the_very_next_batch(
    folders: Folders, workers: int, stop: int
) -> None:
    images, labels = folders(6, 9, 8, 5)

    def loader() -> Loader:
        dataset = LabelledImages(images, labels, transform=to_tensor, shuffle_buffer=4)
        return Loader(dataset, 3, num_workers=workers)

    whole = [(batch.ids.tolist(), batch.images.sum().item()) for batch in loader()]
    assert sum(len(ids) for ids, _ in whole) == 28
    stopped = loader()
    batches = iter(stopped)
    for _ in range(stop):
        next(batches)
    state = json.loads(json.dumps(stopped.state_dict()))
    del batches
    resumed = loader()
    resumed.load_state_dict(state)
    rest = [(batch.ids.tolist(), batch.images.sum().item()) for batch in resumed]
    assert rest == whole[stop:]
    assert resumed.counts["used"] == 28


def test_an_endless_loader_gives_epoch_after_epoch_in_full_batches(folders: Folders) -> None:
    images, labels = folders(5, 4)
    dataset = LabelledImages(images, labels, transform=to_tensor)
    before = torch.get_rng_state()
    batches = iter(Loader(dataset, 3, epochs=None))
    seen = [next(batches).ids.tolist() for _ in range(9)]
    flat = [image_id for ids in seen for image_id in ids]
    for epoch in range(3):
        assert sorted(flat[9 * epoch : 9 * epoch + 9]) == list(range(FIRST_ID, FIRST_ID + 9))
    assert flat[:9] != flat[9:18]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_may_be_iterated_again(folders: Folders, workers: int) -> None:
    images, labels = folders(5, 4)
    dataset = LabelledImages(images, labels, transform=to_tensor)
    loader = Loader(dataset, 3, num_workers=workers)
    first = [batch.ids.tolist() for batch in loader]
    assert [batch.ids.tolist() for batch in loader] == first
    dataset.set_epoch(1)
    second = [batch.ids.tolist() for batch in loader]
    assert {each for ids in second for each in ids} == {each for ids in first for each in ids}
    assert second != first
    assert loader.counts["used"] == 27
    resumed = Loader(dataset, 3, num_workers=workers)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert [batch.ids.tolist() for batch in resumed] == second
    assert resumed.counts["used"] == 36


def test_a_state_of_other_workers_or_shards_is_refused(folders: Folders) -> None:
    images, labels = folders(5, 4)
    dataset = LabelledImages(images, labels, transform=to_tensor)
    state = Loader(dataset, 3, num_workers=2).state_dict()
    with pytest.raises(InputError, match="cannot resume: workers was 2, is 1"):
        Loader(dataset, 3).load_state_dict(state)
    with pytest.raises(InputError, match="cannot resume: batch_size was 3, is 4"):
        Loader(dataset, 4, num_workers=2).load_state_dict(state)
    other = LabelledImages(images, labels, transform=to_tensor, seed=9)
    with pytest.raises(InputError, match="cannot resume: dataset"):
        Loader(other, 3, num_workers=2).load_state_dict(state)


# -- what is wrong with the input -----------------------------------------------------------------


def test_labels_in_another_order_than_the_tar_name_the_shard(
    folders: Folders, tmp_path: Path
) -> None:
    images, labels = folders(4, 4)
    ids = [FIRST_ID + 4, FIRST_ID + 6, FIRST_ID + 5, FIRST_ID + 7]
    write_labels(tmp_path / "beliefs/00001.parquet", {each: row_of(each) for each in ids})
    with pytest.raises(InputError, match=rf"shard 00001: id {FIRST_ID + 5} stands elsewhere"):
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
    with tarfile.open(tmp_path / "images/00000.tar", "w") as tar:
        for index in range(3):
            name = f"00000000{index}"
            add(tar, f"{name}.json", json.dumps({"id": FIRST_ID + index}).encode())
            add(tar, f"{name}.jpg", b"not a picture" if index == 1 else picture(index))
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


@pytest.mark.parametrize("meta", [b"{}", b'{"id": null}', b"[1]", b"not json"])
def test_a_sample_without_an_id_names_shard_and_key(
    folders: Folders, tmp_path: Path, meta: bytes
) -> None:
    images, labels = folders(1)
    with tarfile.open(tmp_path / "images/00000.tar", "w") as tar:
        add(tar, "a.png", picture(1))
        add(tar, "a.json", meta)
    with pytest.raises(InputError, match=r"shard 00000: sample a: a\.json"):
        list(LabelledImages(images, labels))


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


def test_any_fsspec_filesystem_is_read(folders: Folders, tmp_path: Path) -> None:
    folders(3, 2, table=True)
    memory = fsspec.filesystem("memory")
    for path in [*tmp_path.glob("images/*"), *tmp_path.glob("beliefs/*")]:
        memory.pipe_file(f"/reader/{path.parent.name}/{path.name}", path.read_bytes())
    dataset = LabelledImages("memory://reader/images", "memory://reader/beliefs")
    assert sorted(ids_of(dataset)) == list(range(FIRST_ID, FIRST_ID + 5))


def test_an_id_that_is_text_is_read_as_a_number(folders: Folders, tmp_path: Path) -> None:
    images, labels = folders(1)
    with tarfile.open(tmp_path / "images/00000.tar", "w") as tar:
        add(tar, "folder/a.JPEG", picture(1, form="JPEG"))
        add(tar, "folder/a.json", json.dumps({"id": str(FIRST_ID)}).encode())
    assert [sample.key for sample in LabelledImages(images, labels)] == ["folder/a"]


def test_one_name_for_two_tars_is_refused(tmp_path: Path) -> None:
    for folder in "ab":
        write_tar(tmp_path / folder / "00000.tar", [1])
    write_labels(tmp_path / "beliefs/00000.parquet", {1: row_of(1)})
    with pytest.raises(InputError, match=r"2 tars at .* are called 00000"):
        LabelledImages(str(tmp_path / "*/00000.tar"), str(tmp_path / "beliefs"))


def test_webdataset_reads_the_same_samples_from_tars_of_its_own(tmp_path: Path) -> None:
    tars = [tmp_path / f"images/{shard:05d}.tar" for shard in range(2)]
    tars[0].parent.mkdir()
    for shard, tar in enumerate(tars):
        ids = range(10 * shard, 10 * shard + 4)
        with webdataset.TarWriter(str(tar)) as writer:
            for image_id in ids:
                sample = {"png": picture(image_id), "json": {"id": image_id}, "txt": "caption"}
                writer.write({"__key__": f"{image_id:09d}", **sample})
        write_labels(tmp_path / f"beliefs/{tar.stem}.parquet", {each: row_of(each) for each in ids})
    urls = [str(tar) for tar in tars]
    theirs = webdataset.WebDataset(urls, shardshuffle=False).decode("pilrgb")
    ours = LabelledImages(str(tmp_path / "images"), str(tmp_path / "beliefs"), shuffle=False)
    assert [(s.key, s.id, s.image.tobytes()) for s in ours] == [
        (each["__key__"], each["json"]["id"], each["png"].tobytes()) for each in theirs
    ]


def test_pytorch_pyarrow_and_fsspec_are_all_that_the_reader_imports() -> None:
    others = ["pyspark", "pydantic", "yaml", "tqdm", "webdataset", "timm", "torchvision", "PIL"]
    others += ["pandas", "cv2", "torchdata", "pythonjsonlogger", "safetensors", "tensorboard"]
    code = f"import sys; sys.modules.update(dict.fromkeys({others})); import coyo_labeler.data"
    subprocess.run([sys.executable, "-c", code], check=True)
