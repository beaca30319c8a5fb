"""Scores, cuts, answers and twins against slow twins that can be read."""

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.formats.label_lists import LabelLists
from coyo_labeler.select import score
from coyo_labeler.select.answers import Answer, count_answers
from coyo_labeler.select.ask import first_classes
from coyo_labeler.select.choose import plan_sizes
from coyo_labeler.select.class_cuts import Leaders, concat, cut_classes
from coyo_labeler.select.cut import HASH_DIGITS, count_digit, find_bin
from coyo_labeler.select.hashes import draw, salt, share_below, slot_of
from coyo_labeler.select.twins import group_of, representatives

CLASSES = 6
LISTS = st.lists(
    st.dictionaries(st.integers(0, CLASSES - 1), st.floats(0, 1, width=32), max_size=4),
    max_size=5,
)


def flat(images):
    lengths = [len(image) for image in images]
    return LabelLists(
        np.arange(len(images)),
        np.append(0, np.cumsum(lengths)).astype(np.int64),
        np.array([c for image in images for c in image], dtype=np.int32),
        np.array([p for image in images for p in image.values()], dtype=np.float64),
    )


@given(LISTS)
def test_scores_are_those_of_each_image_by_itself(images):
    lists = flat(images)
    for i, image in enumerate(images):
        first, second, *_ = [*sorted(image.values(), reverse=True), 0.0, 0.0]
        top = first if image else 1 / CLASSES
        assert score.risk_of(lists, CLASSES)[i] == pytest.approx(1 - top)
        assert score.margin_of(lists)[i] == pytest.approx(1 - (first - second))
        assert score.top_of(lists)[i] == min((c for c in image if image[c] == first), default=-1)
        total = max(1.0, sum(image.values()))
        states = [p / total for p in image.values()]
        left, others = max(0.0, 1 - sum(states)), max(CLASSES - len(image), 1)
        entropy = -sum(p * math.log(p) for p in states if p > 0)
        if left > 1e-12:
            entropy -= left * math.log(left / others)
        assert score.entropy_of(lists, CLASSES)[i] == pytest.approx(entropy, abs=1e-6)


@given(LISTS)
def test_two_images_share_a_pair_if_the_same_two_classes_lead(images):
    pairs = score.pair_of(flat(images), CLASSES)
    leading = [frozenset(sorted(image, key=lambda c: (-image[c], c))[:2]) for image in images]
    for i, one in enumerate(leading):
        for j, other in enumerate(leading):
            assert (pairs[i] == pairs[j]) == (one == other)
        assert (pairs[i] == -1) == (not one)


@given(LISTS, st.floats(0.55, 0.99))
def test_the_class_that_is_verified_tells_most(images, quality):
    def coin(p):
        return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)

    def told(p):
        return coin(quality * p + (1 - quality) * (1 - p)) - coin(quality)

    for chosen, image in zip(score.question_class(flat(images)), images, strict=True):
        if image:
            assert told(image[chosen]) == pytest.approx(max(map(told, image.values())), abs=1e-9)
        else:
            assert chosen == -1


@given(LISTS, st.integers(1, 5))
def test_the_most_probable_classes_are_offered_in_their_order(images, most):
    lists = flat(images)
    offsets, entries = first_classes(lists, most)
    for i, image in enumerate(images):
        offered = lists.label[entries[offsets[i] : offsets[i + 1]]].tolist()
        assert offered == sorted(image, key=lambda c: (-image[c], c))[:most]


@given(st.lists(st.tuples(st.floats(0, 20, width=32), st.booleans()), min_size=1))
def test_the_order_of_keys_is_that_of_scores_and_those_without_votes_come_first(images):
    values = np.array([value for value, _ in images], dtype=np.float32)
    keys = score.order_key(values, np.array([has for _, has in images]))
    assert keys.max() < 1 << score.KEY_BITS
    by_key = sorted(range(len(images)), key=lambda i: int(keys[i]))
    assert [(-images[i][0], images[i][1]) for i in by_key] == sorted(
        (-value, has) for value, has in images
    )
    assert score.score_of(int(keys[0])) == values[0]


KEYS = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 3), st.just(2**64 - 1))


@given(st.lists(KEYS, min_size=1), st.data())
@settings(max_examples=50, deadline=None)
def test_the_bin_of_the_nth_key_is_where_sorting_puts_it(keys, data):
    nth = data.draw(st.integers(1, len(keys)))
    numbers = np.array(keys, dtype=np.uint64)
    expected = sorted(keys)[nth - 1]
    parts = np.array_split(numbers, 3)

    def count(digit):
        return np.sum([count_digit(part, digit) for part in parts], axis=0)

    exact = find_bin(count, nth, HASH_DIGITS, exact=True)
    assert (exact.low, exact.high, exact.total) == (expected, expected, len(keys))
    assert exact.below == sum(key < expected for key in keys)
    assert exact.inside == keys.count(expected)
    enough = find_bin(count, nth, HASH_DIGITS)
    if len(set(keys)) == len(keys):
        assert sum(key <= enough.high for key in keys) == nth
    with pytest.raises(ValueError, match="fewer than"):
        find_bin(count, len(keys) + 1, HASH_DIGITS)


def test_numbers_by_chance_are_uniform_and_without_ties():
    ids = np.concatenate([np.arange(-5_000, 5_000), 2**62 + np.arange(5_000)])
    numbers = draw(ids, salt("audit", 0, 1))
    assert len(np.unique(numbers)) == len(ids)
    assert np.bincount(slot_of(numbers, 10)) == pytest.approx([1500] * 10, rel=0.15)
    assert (numbers <= np.uint64(share_below(0.25))).mean() == pytest.approx(0.25, abs=0.02)
    other = draw(ids, salt("audit", 0, 2))
    assert abs(np.corrcoef(numbers.astype(float), other.astype(float))[0, 1]) < 0.05
    assert (share_below(0.0), share_below(1.0)) == (-1, 2**64 - 1)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 9)), min_size=1),
    st.integers(1, 4),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_the_cut_of_a_class_is_where_sorting_puts_it(images, most, parts):
    """Whatever partitions the images lie in, and in whatever order those arrive."""
    label, key = (np.array([image[i] for image in images]) for i in (0, 1))
    number = draw(np.arange(len(images)), 77)
    leaders = [
        Leaders.of(label[p::parts], key[p::parts].astype(np.uint64),
                   number[p::parts], most)
        for p in range(parts)
    ]  # fmt: skip
    cuts = cut_classes(concat(leaders[::-1]), most)
    sizes = Counter(label.tolist())
    assert cuts.label.tolist() == sorted(c for c in sizes if sizes[c] >= most)
    for i, c in enumerate(cuts.label.tolist()):
        ranked = sorted((int(key[j]), int(number[j])) for j in np.flatnonzero(label == c))
        last, tie = ranked[most - 1]
        assert (int(cuts.key[i]), int(cuts.number[i])) == (last, tie)
        equal = sum(k == last for k, _ in ranked)
        taken = sum(k == last for k, _ in ranked[:most])
        assert cuts.share[i] == taken / equal


VOTE = st.tuples(
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([Answer.CHOICE, Answer.YES, Answer.NO, Answer.NONE, Answer.OTHER]),
)


@given(st.lists(VOTE, max_size=12), st.randoms())
def test_answers_are_counted_and_compared_image_by_image(votes, random):
    random.shuffle(votes)
    columns = [np.array([vote[i] for vote in votes], dtype=kind) for i, kind in
               enumerate((np.int64, np.int64, np.int32, np.int8))]  # fmt: skip
    images, counts, disagree = count_answers(*columns)
    assert images.tolist() == sorted({vote[0] for vote in votes})
    for image, count, conflict in zip(images, counts, disagree, strict=True):
        own = [vote[1:] for vote in votes if vote[0] == image]
        asked = {
            (worker, None if answer in (Answer.CHOICE, Answer.NONE) else label)
            for worker, label, answer in own
        }
        assert count == len(asked)
        named = {label for _, label, answer in own if answer in (Answer.CHOICE, Answer.YES)}
        denied = {label for _, label, answer in own if answer == Answer.NO}
        none = any(answer == Answer.NONE for _, _, answer in own)
        assert conflict == (len(named) > 1 or bool(named & denied) or (none and bool(named)))


def test_near_twins_share_a_group_and_images_without_a_hash_have_none():
    hashes = ["00ff00ff00ff00ff", "00FF00ff00ff00ff ", None, "", "ffffffffffffffff", "odd", "odd"]
    group = group_of(np.arange(7), pa.chunked_array([pa.array(hashes)]))
    assert group[0] == group[1]
    assert group[5] == group[6]
    assert len(set(group.tolist())) == 5
    plain = [hashes[0], hashes[0], hashes[4], "0123456789abcdef"]
    whole = group_of(np.arange(4), pa.chunked_array([pa.array(["x" * 16, *plain])[1:]]))
    assert whole[0] == whole[1] == group[0]
    assert whole[2] == group[4]
    assert len(set(whole.tolist())) == 3
    assert len(set(group_of(np.arange(4), None).tolist())) == 4


def test_of_near_twins_gold_is_asked_about_then_the_one_with_votes_then_the_lowest_id():
    group = np.array([5, 5, 5, 8, 8, 9, 9, 9])
    ids = np.array([3, 2, 1, 20, 10, 6, 5, 4])
    votes = np.array([0, 1, 2, 0, 0, 0, 3, 0])
    gold = np.array([False] * 5 + [True, False, False])
    assert ids[representatives(group, ids, votes, gold)].tolist() == [1, 10, 6]


@given(
    st.integers(1, 300),
    st.tuples(st.integers(0, 200), st.integers(0, 100), st.integers(0, 40)),
    st.floats(0, 1),
    st.floats(0, 0.5),
)
def test_sizes_are_possible_and_use_the_budget(questions, kinds, audit, gold_share):
    fresh, repeat, gold = kinds
    audit = min(audit, 1 - gold_share)
    sizes = plan_sizes(questions, np.array(kinds), audit, gold_share)
    assert 0 <= sizes.gold <= gold
    asked = sizes.gold + sizes.top + sizes.audit + (fresh if sizes.all_fresh else 0)
    assert sizes.audit < max(fresh, 1)
    assert sizes.top <= (repeat if sizes.all_fresh else fresh + repeat - sizes.audit)
    available = fresh + repeat + sizes.gold
    assert asked == min(questions, available)
