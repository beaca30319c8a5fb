import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_lists import (
    LabelLists,
    check_label_lists,
    check_unique_images,
    read_label_lists,
)

SOURCE = "beliefs: b.parquet"


def table(labels: Any, probabilities: Any, kind: Any = pa.list_, **types: pa.DataType) -> pa.Table:
    """Rows of the images 100, 101, ...; kind: of list. types: of the elements."""
    label, probability = types.get("label", pa.int32()), types.get("probability", pa.float32())
    return pa.table(
        {
            "id": pa.array(range(100, 100 + len(labels)), types.get("id", pa.int64())),
            "labels": pa.array(labels, kind(label)),
            "label_probs": pa.array(probabilities, kind(probability)),
        }
    )


def pairs(size: int) -> Any:
    return lambda values: pa.list_(values, size)


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
@pytest.mark.parametrize("probability", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("label", [pa.int16(), pa.int32(), pa.int64(), pa.uint64(), pa.float64()])
def test_lists_of_any_kind_become_flat_arrays(
    kind: Any, label: pa.DataType, probability: pa.DataType
) -> None:
    rows = table([[3, 1], [], None, [2]], [[0.5, 0.25], [], None, [1.0]], kind, label=label,
                 probability=probability)  # fmt: skip
    for given in (rows, rows.slice(0), rows.to_batches()[0], pa.concat_tables([rows, rows])):
        lists = read_label_lists(given, SOURCE)
        times = given.num_rows // 4
        assert lists.image.tolist() == [100, 101, 102, 103] * times
        assert lists.lengths.tolist() == [2, 0, 0, 1] * times
        assert lists.label.tolist() == [3, 1, 2] * times
        assert lists.probability.tolist() == [0.5, 0.25, 1.0] * times
        assert (lists.label.dtype, lists.probability.dtype) == (np.int32, np.float64)
        check_label_lists(lists, SOURCE, classes=4, distinct=True, falling=True)


def test_lists_of_one_fixed_size_are_read() -> None:
    rows = table([[3, 1], None, [0, 2]], [[0.5, 0.25], None, [0.5, 0.5]], pairs(2))
    lists = read_label_lists(rows, SOURCE)
    assert lists.offsets.tolist() == [0, 2, 2, 4]
    assert lists.label.tolist() == [3, 1, 0, 2]


def test_a_slice_of_a_larger_table_is_read_as_itself() -> None:
    rows = table([[9], [1, 2], [8]], [[0.5], [0.5, 0.25], [0.5]]).slice(1, 1)
    lists = read_label_lists(rows, SOURCE)
    assert (lists.image.tolist(), lists.label.tolist()) == ([101], [1, 2])


def test_no_rows_are_no_fault() -> None:
    lists = read_label_lists(schemas.BELIEFS.empty_table(), SOURCE)
    check_label_lists(lists, SOURCE, classes=2, distinct=True, falling=True)
    assert lists.offsets.tolist() == [0]


GOOD = [1], [0.5]


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([1, 2], [0.5], "id 101 has 2 labels but 1 probabilities; give as many of both"),
        ([1], None, "id 101 has 1 labels but 0 probabilities"),
        ([1, None], [0.5, 0.25], "id 101 has a list with a null label or probability"),
        ([1, 2], [0.5, None], "id 101 has a list with a null label or probability"),
        ([1, 9], [0.5, 0.25], r"id 101 has the label 9, which is outside label_space \(0\.\.8\); "),
        ([-1], [0.5], "id 101 has the label -1, which is outside"),
        ([1], [math.nan], "id 101 has the probability nan, which is not between 0 and 1; label_pr"),
        ([1], [1.5], "id 101 has the probability 1.5, "),
        ([1], [-0.5], "id 101 has the probability -0.5, "),
        ([1, 2], [0.25, 0.5], "id 101 has labels that are not sorted by falling probability; sort"),
        ([1, 2, 1], [0.5, 0.25, 0.125], "id 101 has a class twice; drop one"),
    ],
)  # fmt: skip
def test_a_broken_list_is_named_with_the_remedy(
    labels: Any, probabilities: Any, message: str
) -> None:
    rows = table([GOOD[0], labels, [2, 1]], [GOOD[1], probabilities, [0.5, 0.25]])
    with pytest.raises(InputError, match=f"^{SOURCE}: {message}"):
        lists = read_label_lists(rows, SOURCE)
        check_label_lists(lists, SOURCE, classes=9, distinct=True, falling=True)


@pytest.mark.parametrize(
    ("types", "labels", "message"),
    [
        ({"label": pa.float64()}, [1.5], "column 'labels' has 1.5, which is not a whole number"),
        ({"label": pa.int64()}, [2**40], "column 'labels' has 1099511627776, which is not"),
        ({"label": pa.string()}, ["cat"], "column 'labels' has 'cat', which is not"),
    ],
)
def test_a_label_that_is_no_class_number_is_named(
    types: dict[str, pa.DataType], labels: list[Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{SOURCE}: {message}"):
        read_label_lists(table([labels], [[0.5]], **types), SOURCE)


def test_a_row_without_an_id_is_refused() -> None:
    rows = table([[1]], [[0.5]]).set_column(0, "id", pa.nulls(1, pa.int64()))
    with pytest.raises(InputError, match=f"^{SOURCE} has a row without an id; drop it"):
        read_label_lists(rows, SOURCE)


def test_what_a_reader_does_not_rely_on_is_not_asked_for() -> None:
    lists = read_label_lists(table([[99, 99]], [[0.25, 0.5]]), SOURCE)
    check_label_lists(lists, SOURCE)


def test_the_first_of_a_list_may_be_more_probable_than_the_last_of_the_one_before() -> None:
    lists = read_label_lists(table([[1], [], [2, 3]], [[0.1], [], [0.9, 0.9]]), SOURCE)
    check_label_lists(lists, SOURCE, falling=True)


@pytest.mark.parametrize("seed", range(5))
def test_repeated_classes_are_found_as_a_loop_finds_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 5, 20)
    label = random.integers(0, 12, lengths.sum()).astype(np.int32)
    offsets = np.append(0, np.cumsum(lengths))
    lists = LabelLists(np.arange(20), offsets, label, np.zeros(len(label)))
    repeated = [
        image
        for image in range(20)
        if len(set(label[offsets[image] : offsets[image + 1]])) < lengths[image]
    ]
    if not repeated:
        check_label_lists(lists, SOURCE, distinct=True)
        return
    with pytest.raises(InputError, match=f"id {repeated[0]} has a class twice"):
        check_label_lists(lists, SOURCE, distinct=True)


def test_an_id_of_two_rows_is_named() -> None:
    check_unique_images(np.array([1, 2, 3]), SOURCE)
    with pytest.raises(InputError, match=f"^{SOURCE}: id 2 has two rows"):
        check_unique_images(np.array([1, 2, 2, 3, 3]), SOURCE)
