import math

import numpy as np
import pyarrow as pa
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.export.choose import Choice, choose, count_reasons
from coyo_labeler.export.roll_up import RollUp
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import LabelSpace


def rows(*lists: tuple[list[int] | None, list[float] | None]) -> pa.Table:
    n = len(lists)
    columns = {field.name: pa.nulls(n, field.type) for field in schemas.BELIEFS}
    columns |= {
        "id": pa.array(range(100, 100 + n), pa.int64()),
        "labels": pa.array([labels for labels, _ in lists], pa.list_(pa.int32())),
        "label_probs": pa.array([probs for _, probs in lists], pa.list_(pa.float32())),
    }
    return pa.table(columns, schema=schemas.BELIEFS)


def kept(table: pa.Table, **choice: object) -> list[list[int]]:
    settings = {"threshold": 0.0, "min_labels": 1, "max_labels": None, "classes": 9, **choice}
    return choose(table, Choice(**settings))[0]["labels"].to_pylist()  # type: ignore[arg-type]


def test_labels_below_the_threshold_go_and_one_on_it_stays() -> None:
    table = rows(([3, 1, 2], [0.75, 0.5, 0.25]), ([4], [0.5]))
    assert kept(table, threshold=0.5) == [[3, 1], [4]]


def test_max_labels_keeps_the_most_probable() -> None:
    table = rows(([3, 1, 2], [0.75, 0.5, 0.25]), ([4], [0.5]))
    assert kept(table, max_labels=2) == [[3, 1], [4]]


def test_every_dropped_row_says_why() -> None:
    table = rows(([], []), (None, None), ([1], [0.125]), ([1, 2], [0.9, 0.1]), ([1, 2], [0.9, 0.8]))
    copy, rejects = choose(table, Choice(0.5, 2, None, 9))
    assert copy["id"].to_pylist() == [104]
    assert rejects.schema == schemas.EXPORT_REJECTS
    assert rejects["id"].to_pylist() == [100, 101, 102, 103]
    assert rejects["reason"].to_pylist() == [
        "no_labels", "no_labels", "below_threshold", "too_few_labels",
    ]  # fmt: skip
    assert rejects["detail"].to_pylist()[2] == "0 labels left; the highest has 0.125"
    assert count_reasons(rejects) == {"no_labels": 2, "below_threshold": 1, "too_few_labels": 1}


def test_min_labels_counts_before_max_labels_cuts() -> None:
    assert kept(rows(([1, 2], [0.9, 0.8])), min_labels=2, max_labels=2) == [[1, 2]]


def test_without_a_minimum_empty_lists_stay() -> None:
    table = rows(([1], [0.1]), (None, None))
    assert kept(table, threshold=0.5, min_labels=0) == [[], []]


def test_other_columns_and_types_stay() -> None:
    table = rows(([1, 2], [0.5, 0.25])).set_column(1, "url", pa.array(["http://a"]))
    copy, _ = choose(table, Choice(0.3, 1, None, 9))
    assert copy.schema.types == schemas.BELIEFS.types
    assert copy["url"].to_pylist() == ["http://a"]
    assert copy["label_probs"].to_pylist() == [[0.5]]


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_a_loop_over_rows(seed: int) -> None:
    random = np.random.default_rng(seed)
    lists = []
    for _ in range(200):
        n = int(random.integers(0, 6))
        probs = np.sort(random.random(n).astype(np.float32))[::-1]
        lists.append((random.integers(0, 9, n).tolist(), probs.tolist()))
    threshold, least, most = 0.4, 2, 3
    expected, reasons = [], []
    for labels, probs in lists:
        left = [label for label, p in zip(labels, probs, strict=True) if p >= threshold]
        if len(left) >= least:
            expected.append(left[:most])
        else:
            reasons.append("below_threshold" if labels and not left else
                           "too_few_labels" if left else "no_labels")  # fmt: skip
    # A slice of a larger table, as a reader gives it.
    table = pa.concat_tables([rows(([1], [0.5])), rows(*lists)]).slice(1)
    copy, rejects = choose(table, Choice(threshold, least, most, 9))
    assert copy["labels"].to_pylist() == expected
    assert rejects["reason"].to_pylist() == reasons


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        ([1, 2], [0.5], "id 101 has 2 labels but 1 probabilities"),
        (
            [9],
            [0.5],
            "id 101 has the label 9, which is outside label_space (0..8); set label_space",
        ),
        ([-1], [0.5], "the label -1"),
        ([1], [math.nan], "id 101 has the probability nan"),
        ([1], [1.5], "id 101 has the probability 1.5"),
        ([1, 2], [0.25, 0.5], "id 101 has labels that are not sorted"),
    ],
)
def test_a_broken_row_is_named(labels: list[int], probs: list[float], message: str) -> None:
    table = rows(([1], [0.5]), (labels, probs))
    with pytest.raises(InputError) as caught:
        choose(table, Choice(0.0, 1, None, 9))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_are_rolled_up_before_the_threshold() -> None:
    # canine > dog > (beagle, pug); cat stands apart.
    synsets = ("n02083346", "n02084071", "n02088364", "n02110958", "n02121620")
    space = LabelSpace("pets.txt", 5, synsets)
    table = rows(([2, 4, 3], [0.375, 0.25, 0.125]), ([1, 2], [0.75, 0.25]), (None, None))
    ancestors = {"classes": 5, "roll_up": RollUp(space, "ancestors"), "min_labels": 0}
    assert kept(table, **ancestors) == [[0, 1, 2, 4, 3], [0, 1, 2], []]
    assert kept(table, **ancestors, threshold=0.5) == [[0, 1], [0, 1], []]
    leaves = {**ancestors, "roll_up": RollUp(space, "leaves")}
    assert kept(table, **leaves) == [[2, 4, 3], [2], []]
    choice = Choice(0.0, 1, None, 5, RollUp(space, "ancestors_max"))
    copy, _ = choose(table, choice)
    assert copy["label_probs"].to_pylist()[0] == [0.375, 0.375, 0.375, 0.25, 0.125]
    assert copy.schema == table.schema
