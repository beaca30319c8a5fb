"""How much each image asks for an answer, from its list of probabilities."""

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64, I32, I64, segment_argmax, segment_max, segment_sum
from coyo_labeler.formats.label_lists import LabelLists

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]

#: Where the order key of an image has its score: above one bit that says whether it has votes.
KEY_BITS = 33


def risk_of(lists: LabelLists, classes: int) -> F64:
    """1 - the top probability of each image, (n,); 1 - 1 / classes where the list is empty."""
    return 1.0 - _top(lists, np.full(len(lists.image), 1.0 / classes))


def margin_of(lists: LabelLists) -> F64:
    """1 - (first - second probability) of each image, (n,); a class that is not listed has 0."""
    first = _top(lists, np.zeros(len(lists.image)))
    filled, offsets = _filled(lists)
    second = np.zeros(len(first))
    if len(lists.probability):
        rest = lists.probability.copy()
        rest[segment_argmax(rest, offsets)] = 0.0
        second[filled] = segment_max(rest, offsets)
    return np.asarray(np.maximum(1.0 - (first - second), 0.0))


def entropy_of(lists: LabelLists, classes: int) -> F64:
    """The entropy of each image in nats, (n,).

    What the listed probabilities leave over is spread over the other classes; where they sum to
    more than 1 they are scaled to 1. Without a list it is that of the uniform distribution.
    """
    entropy = np.full(len(lists.image), np.log(classes))
    filled, offsets = _filled(lists)
    total = segment_sum(lists.probability, offsets)
    scale = np.maximum(total, 1.0)
    p = lists.probability / np.repeat(scale, np.diff(offsets))
    rest = np.clip(1.0 - total, 0.0, None)
    others = np.maximum(classes - np.diff(offsets), 1)
    entropy[filled] = segment_sum(_terms(p), offsets) + _terms(rest, others)
    return np.asarray(np.maximum(entropy, 0.0))


def _terms(mass: F64, states: I64 | int = 1) -> F64:
    """-m log(m / k) of mass m spread evenly over k states; 0 for m = 0."""
    safe = np.where(mass > 0, mass, 1.0)
    return np.where(mass > 0, -mass * np.log(safe / states), 0.0)


def top_of(lists: LabelLists) -> I32:
    """The most probable class of each image, (n,); the lowest of equals, -1 without a list."""
    top = np.full(len(lists.image), -1, dtype=np.int32)
    filled, offsets = _filled(lists)
    best = np.repeat(segment_max(lists.probability, offsets), np.diff(offsets))
    label = np.where(lists.probability == best, lists.label, np.iinfo(np.int32).max)
    if len(label):
        top[filled] = np.minimum.reduceat(label, offsets[:-1])
    return top


def pair_of(lists: LabelLists, classes: int) -> I64:
    """A number for the two most probable classes of each image, (n,); -1 without a list.

    Which of the two comes first makes no difference. A second one that is not listed counts as one.
    """
    pair = np.full(len(lists.image), -1, dtype=np.int64)
    filled, offsets = _filled(lists)
    if not filled.any():
        return pair
    image = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((lists.label, -lists.probability, image))
    first = lists.label[order[offsets[:-1]]].astype(np.int64)
    has_second = np.diff(offsets) > 1
    second = np.full(len(first), classes, dtype=np.int64)
    second[has_second] = lists.label[order[offsets[:-1][has_second] + 1]]
    pair[filled] = np.minimum(first, second) * (classes + 1) + np.maximum(first, second)
    return pair


def question_class(lists: LabelLists) -> I32:
    """The class whose verification tells most about each image, (n,); -1 without a list.

    An answer to "is it c?" that is right with probability q tells H(q p + (1 - q)(1 - p)) - H(q)
    about c, where H is the entropy of a coin and p the probability of c (Lindley 1956). For every q
    that is greatest for the p closest to 1/2. In a distribution it is the top class: asking for
    another one tells less. Of independent probabilities it may be any. Of equals the more probable
    class is asked about, then the lower one.
    """
    chosen = np.full(len(lists.image), -1, dtype=np.int32)
    filled, offsets = _filled(lists)
    if not filled.any():
        return chosen
    image = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    distance = np.abs(lists.probability - 0.5)
    order = np.lexsort((lists.label, -lists.probability, distance, image))
    chosen[filled] = lists.label[order[offsets[:-1]]]
    return chosen


def order_key(score: F32, has_votes: NDArray[np.bool_]) -> U64:
    """Keys of `KEY_BITS` bits, (n,), whose ascending order is the order of asking.

    score: (n,) not negative, the highest first. Of equals those without votes come first.
    """
    bits = (np.asarray(score, dtype=np.float32) + np.float32(0)).view(np.uint32)  # no -0
    return ((~bits).astype(np.uint64) << np.uint64(1)) | has_votes.astype(np.uint64)


def score_of(key: int) -> float:
    """The score that a key stands for."""
    bits = np.array([(key >> 1) ^ 0xFFFFFFFF], dtype=np.uint32)
    return float(bits.view(np.float32)[0])


def _top(lists: LabelLists, missing: F64) -> F64:
    filled, offsets = _filled(lists)
    missing[filled] = segment_max(lists.probability, offsets)
    return missing


def _filled(lists: LabelLists) -> tuple[NDArray[np.bool_], I64]:
    """(n,) which images have a list, and the offsets of these lists."""
    filled = lists.lengths > 0
    return filled, np.append(lists.offsets[:-1][filled], len(lists.label))
