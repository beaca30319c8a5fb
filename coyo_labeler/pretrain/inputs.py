"""The datasets and loaders that the settings describe."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coyo_labeler.config.pretrain_vit import PretrainVitSettings
from coyo_labeler.data import (
    Gold,
    LabelledImages,
    Loader,
    MultiHot,
    Soft,
    Top1,
    Top1Soft,
    read_gold,
)
from coyo_labeler.data.targets import Target
from coyo_labeler.errors import InputError
from coyo_labeler.pretrain.augment import evaluation_transform, training_transform
from coyo_labeler.pretrain.distributed import Process

_TARGETS: dict[str, Callable[[float], Target]] = {
    "multi_hot": MultiHot,
    "soft": Soft,
    "top1": Top1,
    "top1_soft": Top1Soft,
}


@dataclass(frozen=True)
class GoldImages:
    """Gold in two parts: `held_out` to test on, and the `rest` for a probe to train on."""

    settings: PretrainVitSettings
    held_out: Gold
    rest: Gold

    def test(self) -> LabelledImages:
        """The held-out images, cropped centrally, in the order of the tars."""
        transform = evaluation_transform(self.settings.image_size, self.settings.augment)
        return self._open(self.held_out, transform, False)

    def train(self, augment: bool) -> LabelledImages:
        """The rest of the gold images: prepared as for the test, or shuffled and augmented."""
        make = training_transform if augment else evaluation_transform
        transform = make(self.settings.image_size, self.settings.augment)
        return self._open(self.rest, transform, augment)

    def _open(self, gold: Gold, transform: Callable[[Any], Any], shuffle: bool) -> LabelledImages:
        settings = self.settings
        return LabelledImages(
            settings.gold_images or settings.images,
            gold,
            num_classes=settings.num_classes,
            transform=transform,
            shuffle=shuffle,
            shuffle_buffer=settings.shuffle_buffer,
            seed=settings.seed,
            undecodable=settings.undecodable,
            ids=settings.ids,
            rank=0,
            world_size=1,
        )


def open_gold(settings: PretrainVitSettings) -> GoldImages | None:
    """The gold, if any is given.

    Raises: InputError if none of it is held out.
    """
    if settings.gold is None:
        return None
    held_out, rest = read_gold(settings.gold, settings.num_classes).split(settings.held_out)
    if not len(held_out.ids):
        raise InputError(
            f"pretrain_vit: held_out: a share of {settings.held_out} holds out none of the "
            f"{len(rest.ids)} gold images; give a larger share or more gold"
        )
    return GoldImages(settings, held_out, rest)


def open_training(
    settings: PretrainVitSettings, gold: GoldImages | None, process: Process
) -> LabelledImages:
    """The images to train on: all labelled ones, except for the held-out gold."""
    return LabelledImages(
        settings.images,
        settings.labels,
        target=_TARGETS[settings.target](settings.threshold),
        num_classes=settings.num_classes,
        transform=training_transform(settings.image_size, settings.augment),
        shuffle_buffer=settings.shuffle_buffer,
        seed=settings.seed,
        unlabelled=settings.unlabelled,
        out_of_range=settings.out_of_range,
        empty=settings.empty,
        undecodable=settings.undecodable,
        ids=settings.ids,
        exclude=gold.held_out.ids.tolist() if gold else (),
        rank=process.rank,
        world_size=process.count,
    )


def open_loader(
    settings: PretrainVitSettings, dataset: LabelledImages, micro_batch: int, process: Process
) -> Loader:
    """Endless micro-batches of the images to train on."""
    return Loader(
        dataset,
        micro_batch,
        num_workers=settings.workers,
        epochs=None,
        pin_memory=process.device.type == "cuda",
        prefetch_factor=settings.prefetch,
    )


def split_batch(settings: PretrainVitSettings, processes: int) -> tuple[int, int]:
    """(images of a micro-batch, micro-batches per step) of each process.

    Raises: InputError if the batch cannot be divided evenly.
    """
    share, rest = divmod(settings.batch_size, processes)
    if rest or not share:
        raise InputError(
            f"pretrain_vit: batch_size: {settings.batch_size} images cannot be divided evenly "
            f"among {processes} processes; give a multiple of {processes}"
        )
    micro = min(settings.micro_batch_size or share, share)
    if share % micro:
        raise InputError(
            f"pretrain_vit: micro_batch_size: {micro} does not divide the {share} images of each "
            "process; give a divisor"
        )
    return micro, share // micro
