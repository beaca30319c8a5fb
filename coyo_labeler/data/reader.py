"""One consumer's samples of one epoch, in an order that a seed fixes, from any point on."""

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
from coyo_labeler.data.tars import Failure, Shard, read_samples
from coyo_labeler.data.tars import Sample as Encoded
from coyo_labeler.errors import InputError
from coyo_labeler.formats.faults import Fault


@dataclass(frozen=True)
class Recipe:
    """What is read, and how a sample is made: the same for every consumer and epoch.

    shuffle_buffer: encoded samples held by each consumer to draw from; 0 or 1 keeps the tar's
    order. transform: a decoded picture to what the model takes. exclude: ids that are held out.
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
    """An encoded sample, and where it came from: member `position` of part `part`."""

    part: int
    position: int
    sample: Sample


@dataclass
class Reader:
    """Iterates over the samples of `consumer` (0-based, of `consumers`) in `epoch`.

    `state_dict` may be taken between any two samples; a reader of the same recipe, consumer and
    number of consumers that loads it goes on with exactly the sample that would have come next.
    `counts` is the tally of images so far: `drawn`, and by reason those that were left out.
    """

    recipe: Recipe
    consumer: int
    consumers: int
    epoch: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.begin(self.epoch)

    def begin(self, epoch: int) -> None:
        """Start an epoch from its first sample; the counts go on."""
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
        # The number of picks is all there is to remember of the random numbers.
        pick = seed_of(self.recipe.seed, self.epoch, self.consumer, self._picks) % len(self._buffer)
        self._picks += 1
        self._buffer[pick], self._buffer[-1] = self._buffer[-1], self._buffer[pick]
        return self._buffer.pop()

    def _read(self) -> Iterator[Drawn]:
        """What is left of the epoch, in the order of parts and tars."""
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
        """Where the reader stands, in plain numbers and lists."""
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
        """Go on from where another reader stood; the shards of its buffer are read once more.

        Raises: InputError where the state is of another number of consumers.
        """
        if (state["consumer"], state["consumers"]) != (self.consumer, self.consumers):
            raise InputError(
                f"reader: the state is of consumer {state['consumer']} of {state['consumers']}, "
                f"this is {self.consumer} of {self.consumers}; resume with the same number of "
                "processes and workers"
            )
        self.counts = Counter(state["counts"])
        self.begin(state["epoch"])
        self._part, self._position = state["part"], state["position"]
        self._picks = state["picks"]
        wanted = [tuple(place) for place in state["buffer"]]
        found: dict[tuple[int, int], Drawn] = {}
        for number in sorted({part for part, _ in wanted}):
            found |= self._find(number, {position for part, position in wanted if part == number})
        self._buffer = [found[place] for place in wanted]

    def _find(self, number: int, positions: set[int]) -> dict[tuple[int, int], Drawn]:
        found: dict[tuple[int, int], Drawn] = {}
        for drawn in self._read_part(number, min(positions), Counter(), track=False):
            if drawn.position in positions:
                found[number, drawn.position] = drawn
            if len(found) == len(positions):
                break
        return found


def _row_of(rows: ShardLabels, image: Encoded | Failure) -> tuple[I64, F32] | None:
    """The labels of the next sample of a tar, also where it has an id but no picture.

    Labels that were made elsewhere may have a row for it, and rows are asked for in their order.
    """
    if image.id is None:
        return None
    if isinstance(image, Failure) and image.fault in (Fault.DUPLICATE_ID, Fault.DUPLICATE_KEY):
        return None
    return rows.find(image.id)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Python's and PyTorch's random numbers from `seed` inside, as they were outside.

    So a picture is cut in the same way in the same epoch, whichever worker has it.
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
