import pytest
import torch
from torch.utils.data import DataLoader

from coyo_labeler.data import LabelledImages, collate
from tests.data.shards import FIRST_ID, Folders, ids_of, to_tensor


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
        sums = {}
        for rank in range(world):
            dataset = LabelledImages(
                images, labels, transform=to_tensor, rank=rank, world_size=world
            )
            sums |= {s.id: float(s.image.sum()) for s in dataset.reader(0, 1, epoch)}
        return sums

    before = torch.get_rng_state()
    assert noise(1, 0) == noise(3, 0)
    assert noise(1, 0) != noise(1, 1)
    assert torch.equal(torch.get_rng_state(), before)
