from collections import Counter

import numpy as np
import pytest

from coyo_labeler.data import MultiHot, Soft, SparseTargets, Top1, Top1Soft, collate
from coyo_labeler.data.batch import Sample
from coyo_labeler.data.targets import Checked, Target
from coyo_labeler.errors import InputError

LABELS = np.array([4, 9, 2, 7])
PROBS = np.array([0.5, 0.5, 0.25, 0.0625], dtype=np.float32)


@pytest.mark.parametrize(
    ("target", "classes", "weights"),
    [
        (MultiHot(), [4, 9, 2, 7], [1, 1, 1, 1]),
        (MultiHot(0.25), [4, 9, 2], [1, 1, 1]),
        (Soft(), [4, 9, 2, 7], [0.5, 0.5, 0.25, 0.0625]),
        (Soft(0.3), [4, 9], [0.5, 0.5]),
        (Top1(), [4], [1]),
        (Top1Soft(), [4], [0.5]),
        (Top1(0.6), [], []),
        (Top1Soft(0.6), [], []),
        (MultiHot(0.6), [], []),
    ],
)
def test_targets_by_hand(target: Target, classes: list[int], weights: list[float]) -> None:
    labels, weight = target(LABELS, PROBS)
    assert labels.tolist() == classes
    assert weight.tolist() == weights
    assert weight.dtype == np.float32


def test_the_threshold_is_compared_in_the_precision_of_the_table() -> None:
    # 0.05 in float32 is above 0.05 in float64: a label of exactly the threshold counts.
    probs = np.array([0.05], dtype=np.float32)
    assert MultiHot(0.05)(np.array([1]), probs)[0].tolist() == [1]


def test_top1_does_not_rest_on_the_order_of_the_row() -> None:
    order = [3, 2, 1, 0]
    assert Top1()(LABELS[order], PROBS[order])[0].tolist() == [4]


def test_labels_out_of_range_are_an_error_that_names_them() -> None:
    checked = Checked(MultiHot(), 9)
    with pytest.raises(InputError, match=r"here: label 9 is outside 0\.\.8"):
        checked(LABELS, PROBS, "here", Counter())
    with pytest.raises(InputError, match="label -1 is outside"):
        checked(np.array([-1]), PROBS[:1], "here", Counter())


def test_labels_out_of_range_are_left_out_and_counted_by_choice() -> None:
    counts: Counter[str] = Counter()
    checked = Checked(Soft(), 9, out_of_range="skip")
    target = checked(LABELS, PROBS, "here", counts)
    assert target is not None
    assert target[0].tolist() == [4, 2, 7]
    assert target[1].tolist() == [0.5, 0.25, 0.0625]
    assert counts == {"out_of_range": 1}


def test_empty_targets_are_counted_or_an_error() -> None:
    counts: Counter[str] = Counter()
    assert Checked(MultiHot(0.9), 100)(LABELS, PROBS, "here", counts) is None
    assert counts == {"empty": 1}
    with pytest.raises(InputError, match="here: none of its labels is left"):
        Checked(MultiHot(0.9), 100, empty="error")(LABELS, PROBS, "here", counts)


def sample(classes: list[int], weights: list[float]) -> Sample:
    return Sample(None, np.array(classes), np.array(weights, np.float32), 1 << 40, "k")


def test_sparse_targets_expand_to_what_a_loop_would_write() -> None:
    samples = [sample([1, 3], [1, 0.5]), sample([0], [0.25]), sample([2, 1, 0], [1, 1, 1])]
    targets = collate(samples).targets
    assert len(targets) == 3
    assert targets.offsets.tolist() == [0, 2, 3, 6]
    assert targets.dense(5).tolist() == [
        [0, 1, 0, 0.5, 0],
        [0.25, 0, 0, 0, 0],
        [1, 1, 1, 0, 0],
    ]
    assert isinstance(targets.to("cpu"), SparseTargets)
    assert collate(samples).ids.tolist() == [1 << 40] * 3
