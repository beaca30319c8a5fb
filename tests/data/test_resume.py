import json

import pytest
import torch

from coyo_labeler.data import LabelledImages, Loader
from coyo_labeler.errors import InputError
from tests.data.shards import FIRST_ID, Folders, to_tensor


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
