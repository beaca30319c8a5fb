"""Images joined with their labels, as an IterableDataset."""

import hashlib
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from coyo_labeler.data.batch import Sample
from coyo_labeler.data.decode import decode_rgb
from coyo_labeler.data.labels import Labels, open_labels
from coyo_labeler.data.reader import Reader, Recipe
from coyo_labeler.data.targets import Checked, Choice, MultiHot, Target
from coyo_labeler.data.tars import find_shards
from coyo_labeler.formats.image_ids import Ids
from coyo_labeler.formats.label_spaces import SIZES

#: Classes of ImageNet-21k as COYO-Labeled-300M numbers them.
IMAGENET_21K = SIZES["imagenet21k"]


class LabelledImages(IterableDataset[Sample]):
    """Samples of webdataset tars with targets made of beliefs or of a posterior.

    images: tars (a folder or glob). labels: Parquet with `id, labels, label_probs`, one file per
    tar in its order (label's output) or in other files and orders (merge's). Both may be any
    fsspec URL; `labels` also any object with the methods of `labels.Labels`, such as `Gold`.

    Every epoch gives every sample once, over all ranks and workers together. Call `set_epoch` for
    another order and other augmentations. A picture's augmentation depends on (seed, epoch, id)
    alone.

    ids: with `hash`, an image without a whole number as id gets a hash of its `uid` or key, as in
    label. Samples without an id or a picture, and repeated ids, are left out and counted under
    the name of their fault (formats.faults.Fault); with unlabelled=error they are an error.

    undecodable: with `skip`, a picture that cannot be decoded is left out and counted; so is what
    comes behind the damage in a damaged tar. `damaged_shards` counts how often one was read.

    exclude: ids of images to hold out.

    rank, world_size: of this process; by default those of torch.distributed where it runs.

    Raises: InputError naming the shard where labels and tars do not belong together, and wherever a
    choice (`unlabelled`, `out_of_range`, `empty`, `undecodable`) is error.
    """

    def __init__(
        self,
        images: str,
        labels: str | Labels,
        *,
        target: Target = MultiHot(),  # noqa: B008  # frozen
        num_classes: int = IMAGENET_21K,
        transform: Callable[[Any], Any] | None = None,
        decode: Callable[[bytes], Any] = decode_rgb,
        shuffle: bool = True,
        shuffle_buffer: int = 2048,
        seed: int = 0,
        unlabelled: Choice = "skip",
        out_of_range: Choice = "error",
        empty: Choice = "skip",
        undecodable: Choice = "error",
        ids: Ids = "auto",
        exclude: Collection[int] = (),
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.recipe = Recipe(
            shards=find_shards(images, ids),
            labels=open_labels(labels) if isinstance(labels, str) else labels,
            target=Checked(target, num_classes, out_of_range, empty),
            decode=decode,
            transform=transform,
            shuffle=shuffle,
            shuffle_buffer=shuffle_buffer,
            seed=seed,
            unlabelled=unlabelled,
            undecodable=undecodable,
            exclude=frozenset(exclude),
        )
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        if rank is None:
            rank = torch.distributed.get_rank() if running else 0
        if world_size is None:
            world_size = torch.distributed.get_world_size() if running else 1
        self.rank, self.world_size = rank, world_size
        # Shared, so that workers that outlive an epoch see it change.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration gives."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentations of the next iteration."""
        self._epoch.fill_(epoch)

    def count(self) -> int:
        """How many images have labels and are not held out, over all ranks; before thresholds."""
        return self.recipe.labels.count(self.recipe.shards, self.recipe.exclude)

    def fingerprint(self) -> str:
        """A digest of the shards and of the order in which they are read."""
        recipe = self.recipe
        names = [shard.name for shard in recipe.shards]
        text = repr(
            (names, recipe.shuffle, recipe.shuffle_buffer, recipe.seed, sorted(recipe.exclude))
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def reader(self, worker: int, workers: int, epoch: int) -> Reader:
        """The samples of one of this process's workers in one epoch."""
        return Reader(self.recipe, self.rank * workers + worker, self.world_size * workers, epoch)

    def __iter__(self) -> Reader:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        return self.reader(worker, workers, self.epoch)
