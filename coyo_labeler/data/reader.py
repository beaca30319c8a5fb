"""The samples of one consumer in one epoch: their order follows from a seed, and can be resumed."""

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from coyo_labeler.data.batch import Sample
from coyo_labeler.data.labels import Labels, ShardLabels
from coyo_labeler.data.split import parts_of, seed_of
from coyo_labeler.data.targets import F32, I64, Checked, Choice
from coyo_labeler.data.tars import DamagedShardError, Failure, Shard, read_samples
from coyo_labeler.data.tars import Sample as Encoded
from coyo_labeler.errors import InputError
from coyo_labeler.formats.faults import Fault

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What is read, and how samples are made; the same for every consumer and epoch.

    shuffle_buffer: how many encoded samples each consumer holds to draw from; 0 or 1 keeps the
    tar's order. transform: turns a decoded picture into the model's input. exclude: held-out ids.
    """

    shards: Sequence[Shard]
    labels: Labels
    target: Checked
    decode: Callable[[bytes], Any]
    transform: Callable[[Any], Any] | None
    shuffle: bool
    shuffle_buffer: int
    seed: int
    unlabelled: Choice
    undecodable: Choice
    exclude: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Drawn:
    """An encoded sample and its origin: member `position` of part `part`."""

    part: int
    position: int
    sample: Sample


@dataclass
class Reader:
    """Iterates over the samples of `consumer` (0-based, of `consumers`) in `epoch`.

    `state_dict` may be called between any two samples. A reader of the same recipe, consumer and
    number of consumers that loads the state continues with exactly the next sample. `counts` has
    the number of images so far: `drawn`, and by reason those that were left out. Beside them,
    `damaged_shards` counts how often a damaged tar was read.
    """

    recipe: Recipe
    consumer: int
    consumers: int
    epoch: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.begin(self.epoch)

    def begin(self, epoch: int) -> None:
        """Start an epoch from its first sample; the counts continue."""
        self.epoch, recipe = epoch, self.recipe
        self._parts = parts_of(
            len(recipe.shards),
            self.consumer,
            self.consumers,
            seed=recipe.seed,
            epoch=epoch,
            shuffle=recipe.shuffle,
        )
        self._buffer: list[Drawn] = []
        self._part = self._position = 0  # the next member to read
        self._picks = 0  # random numbers used
        self._source = self._read()

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        while True:
            sample = self._finish(self._draw())
            if sample is not None:
                self.counts["used"] += 1
                return sample

    # -- order ------------------------------------------------------------------------------------

    def _draw(self) -> Drawn:
        """The next sample in shuffled order. Raises: StopIteration after the last."""
        size = max(1, self.recipe.shuffle_buffer if self.recipe.shuffle else 1)
        for drawn in self._source:
            self._buffer.append(drawn)
            if len(self._buffer) >= size:
                break
        if not self._buffer:
            raise StopIteration
        # The number of picks is the whole state of the random numbers.
        pick = seed_of(self.recipe.seed, self.epoch, self.consumer, self._picks) % len(self._buffer)
        self._picks += 1
        self._buffer[pick], self._buffer[-1] = self._buffer[-1], self._buffer[pick]
        return self._buffer.pop()

    def _read(self) -> Iterator[Drawn]:
        """The rest of the epoch, in the order of parts and tars."""
        while self._part < len(self._parts):
            skip = self._position
            yield from self._read_part(self._part, skip, self.counts)
            self._part, self._position = self._part + 1, 0

    def _read_part(
        self, number: int, skip: int, counts: "Counter[str]", track: bool = True
    ) -> Iterator[Drawn]:
        """The usable samples of a part from member `skip` on.

        track: keep `_position` at the member to be read next.
        """
        try:
            yield from self._read_members(number, skip, counts, track)
        except DamagedShardError as error:
            if self.recipe.undecodable == "error":
                raise
            counts["damaged_shards"] += 1
            logger.warning("%s: what it holds behind the damage is left out", error)

    def _read_members(
        self, number: int, skip: int, counts: "Counter[str]", track: bool
    ) -> Iterator[Drawn]:
        part, recipe = self._parts[number], self.recipe
        shard = recipe.shards[part.shard]
        rows = recipe.labels.open(shard)
        for position, image in enumerate(read_samples(shard)):
            row = _row_of(rows, image)
            if track:
                self._position = max(position + 1, skip)
            if position < skip or not part.holds(position):
                continue
            counts["drawn"] += 1
            if isinstance(image, Failure):
                if recipe.unlabelled == "error":
                    raise InputError(
                        f"images: shard {shard.name}: sample {image.key}: {image.fault}: "
                        f"{image.detail}; fetch the shard again, or unlabelled=skip"
                    )
                counts[str(image.fault)] += 1
                continue
            if image.id in recipe.exclude:
                counts["held_out"] += 1
                continue
            where = f"labels: shard {shard.name}: image {image.key} (id {image.id})"
            if row is None:
                if recipe.unlabelled == "error":
                    raise InputError(f"{where} has no labels; label it, or unlabelled=skip")
                counts["unlabelled"] += 1
                continue
            target = recipe.target(*row, where, counts)
            if target is not None:
                yield Drawn(number, position, Sample(image.image, *target, image.id, image.key))
        rows.finish()

    # -- picture ----------------------------------------------------------------------------------

    def _finish(self, drawn: Drawn) -> Sample | None:
        recipe, sample = self.recipe, drawn.sample
        try:
            image = recipe.decode(sample.image)
        except (OSError, ValueError, RuntimeError) as error:
            if recipe.undecodable == "error":
                shard = recipe.shards[self._parts[drawn.part].shard]
                raise InputError(
                    f"images: shard {shard.name}: {sample.key} cannot be decoded ({error}); fetch "
                    "the shard again, or undecodable=skip"
                ) from None
            self.counts["undecodable"] += 1
            return None
        if recipe.transform is not None:
            with _seeded(seed_of(recipe.seed, self.epoch, sample.id)):
                image = recipe.transform(image)
        return Sample(image, sample.classes, sample.weights, sample.id, sample.key)

    # -- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The position of the reader, in plain numbers and lists."""
        return {
            "consumer": self.consumer,
            "consumers": self.consumers,
            "epoch": self.epoch,
            "part": self._part,
            "position": self._position,
            "picks": self._picks,
            "buffer": [(drawn.part, drawn.position) for drawn in self._buffer],
            "counts": dict(self.counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the position of another reader; the shards of its buffer are read again.

        Raises: InputError where the state belongs to another consumer or number of consumers.
        """
        if (state["consumer"], state["consumers"]) != (self.consumer, self.consumers):
            raise InputError(
                f"reader: the state belongs to consumer {state['consumer']} of "
                f"{state['consumers']}, this is {self.consumer} of {self.consumers}; resume with "
                "the same number of processes and workers"
            )
        self.counts = Counter(state["counts"])
        self.begin(state["epoch"])
        self._part, self._position = state["part"], state["position"]
        self._picks = state["picks"]
        origins = [(part, position) for part, position in state["buffer"]]
        samples: dict[tuple[int, int], Drawn] = {}
        for number in sorted({part for part, _ in origins}):
            positions = {position for part, position in origins if part == number}
            samples |= self._read_again(number, positions)
        self._buffer = [samples[origin] for origin in origins]

    def _read_again(self, number: int, positions: set[int]) -> dict[tuple[int, int], Drawn]:
        """The samples at some positions of a part, by (part, position)."""
        samples: dict[tuple[int, int], Drawn] = {}
        for drawn in self._read_part(number, min(positions), Counter(), track=False):
            if drawn.position in positions:
                samples[number, drawn.position] = drawn
            if len(samples) == len(positions):
                break
        return samples


def _row_of(rows: ShardLabels, image: Encoded | Failure) -> tuple[I64, F32] | None:
    """The labels of the next sample of a tar, also of one with an id but no picture.

    Labels from another source may have a row for such a sample, and rows are requested in order.
    """
    if image.id is None:
        return None
    if isinstance(image, Failure) and image.fault in (Fault.DUPLICATE_ID, Fault.DUPLICATE_KEY):
        return None
    return rows.find(image.id)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Python's and PyTorch's random numbers inside the block, and restore them after it.

    A picture is thus augmented in the same way in an epoch, whichever worker reads it.
    """
    python, generator = random.getstate(), torch.default_generator
    before = generator.get_state()
    random.seed(seed)
    generator.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
    try:
        yield
    finally:
        random.setstate(python)
        generator.set_state(before)
