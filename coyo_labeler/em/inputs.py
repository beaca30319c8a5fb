"""Votes, beliefs and gold of some images, as arrays: what problems are built from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64, I32, I64, Bool, offsets_of, spread


@dataclass(frozen=True)
class Votes:
    """Votes, all arrays (votes,), in the order of `votes.questions.order_votes`.

    image: id. worker: 0 to J − 1. label: class. response: of `Response`. offered: how many classes
    a choice was offered, 0 where that is not known (the default).
    """

    image: I64
    worker: I32
    label: I32
    response: NDArray[np.int8]
    offered: I32 = field(default_factory=lambda: np.zeros(0, np.int32))

    def __post_init__(self) -> None:
        if len(self.offered) != len(self.image):
            object.__setattr__(self, "offered", np.zeros(len(self.image), np.int32))


@dataclass(frozen=True)
class SetVotes:
    """Answers to "is the class of this image one of these?", in the order of `Votes`.

    image: (votes,) id. worker: (votes,) 0 to J − 1. response: (votes,) of `Response`, no choice.
    offsets: (votes + 1,), label: (nnz,): vote v is about the classes
    label[offsets[v]:offsets[v + 1]], at least one, sorted and distinct.
    """

    image: I64
    worker: I32
    response: NDArray[np.int8]
    offsets: I64
    label: I32

    @classmethod
    def none(cls) -> "SetVotes":
        """No such votes."""
        empty = np.zeros(0, dtype=np.int64)
        small = empty.astype(np.int32)
        return cls(empty, small, empty.astype(np.int8), np.zeros(1, dtype=np.int64), small)

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Beliefs:
    """The machine's beliefs.

    image: (n,) ids, sorted. Image i has the classes label[offsets[i]:offsets[i + 1]] with as many
    probabilities.
    """

    image: I64
    offsets: I64
    label: I32
    probability: F64


@dataclass(frozen=True)
class Gold:
    """True classes. image, label: (n,), sorted by both; one per image in `truth: single`."""

    image: I64
    label: I32


@dataclass(frozen=True)
class Inclusion:
    """With what probability people were asked about images: image (n,) ids, sorted, probability."""

    image: I64
    probability: F64


@dataclass(frozen=True)
class Inputs:
    """All that problems are built from."""

    votes: Votes
    set_votes: SetVotes
    beliefs: Beliefs
    gold: Gold
    inclusion: Inclusion

    def where(self, chosen: Callable[[I64], Bool]) -> "Inputs":
        """What there is of some images; chosen: which of some ids (n,)."""
        votes, sets, beliefs = self.votes, self.set_votes, self.beliefs
        of_votes, of_sets = chosen(votes.image), chosen(sets.image)
        of_beliefs, of_gold = chosen(beliefs.image), chosen(self.gold.image)
        of_inclusion = chosen(self.inclusion.image)
        in_sets, in_beliefs = spread(of_sets, sets.offsets), spread(of_beliefs, beliefs.offsets)
        return Inputs(
            Votes(*(getattr(votes, name)[of_votes] for name in _VOTES)),
            SetVotes(
                sets.image[of_sets],
                sets.worker[of_sets],
                sets.response[of_sets],
                offsets_of(np.diff(sets.offsets)[of_sets]),
                sets.label[in_sets],
            ),
            Beliefs(
                beliefs.image[of_beliefs],
                offsets_of(np.diff(beliefs.offsets)[of_beliefs]),
                beliefs.label[in_beliefs],
                beliefs.probability[in_beliefs],
            ),
            Gold(self.gold.image[of_gold], self.gold.label[of_gold]),
            Inclusion(self.inclusion.image[of_inclusion], self.inclusion.probability[of_inclusion]),
        )


_VOTES = ("image", "worker", "label", "response", "offered")


def concatenate_inputs(parts: Sequence[Inputs]) -> Inputs:
    """The inputs of several partitions, by image whatever the partitions are."""
    votes = _sorted([[getattr(part.votes, name) for name in _VOTES] for part in parts])
    sets, set_offsets, set_label = _sorted_lists(
        [
            [getattr(part.set_votes, name) for name in ("image", "worker", "response")]
            for part in parts
        ],
        [part.set_votes.offsets for part in parts],
        [[part.set_votes.label] for part in parts],
    )
    beliefs, offsets, values = _sorted_lists(
        [[part.beliefs.image] for part in parts],
        [part.beliefs.offsets for part in parts],
        [[part.beliefs.label, part.beliefs.probability] for part in parts],
    )
    gold = _sorted([[part.gold.image, part.gold.label] for part in parts])
    inclusion = _sorted([[part.inclusion.image, part.inclusion.probability] for part in parts])
    image, worker, response = sets
    label, probability = values
    return Inputs(
        Votes(*votes),
        SetVotes(image, worker, response, set_offsets, set_label[0]),
        Beliefs(beliefs[0], offsets, label, probability),
        Gold(*gold),
        Inclusion(*inclusion),
    )


def _sorted(parts: Sequence[Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Columns of parts, one after the other, stably by the first: the image."""
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return [column[order] for column in columns]


def _sorted_lists(
    parts: Sequence[Sequence[NDArray[Any]]],
    offsets: Sequence[I64],
    values: Sequence[Sequence[NDArray[Any]]],
) -> tuple[list[NDArray[Any]], I64, list[NDArray[Any]]]:
    """The same, for rows that have a list each; values: columns of the elements."""
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    lengths = np.concatenate([np.diff(each) for each in offsets])
    before = offsets_of(lengths)
    order = np.argsort(columns[0], kind="stable")
    after = offsets_of(lengths[order])
    index = np.arange(after[-1]) + np.repeat(before[:-1][order] - after[:-1], lengths[order])
    elements = [np.concatenate(column)[index] for column in zip(*values, strict=True)]
    return [column[order] for column in columns], after, elements
