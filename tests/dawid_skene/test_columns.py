"""Tables as notebooks have them: any type that can be understood, else one error that helps."""

import datetime
import decimal
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from coyo_labeler import DawidSkene
from coyo_labeler.dawid_skene.columns import label_index
from coyo_labeler.errors import InputError

VOTES = {
    "task": ["t1", "t1", "t2", "t2"],
    "worker": ["a", "b", "a", "b"],
    "label": ["cat", "cat", "dog", "dog"],
}
NAN = float("nan")


def votes(**changes):
    return pd.DataFrame(VOTES | changes)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([2**63 + 1, 2**63 + 1, 5, 5], np.uint64), [2**63 + 1, 5]),
        ([0.5, 0.5, 1.5, 1.5], [0.5, 1.5]),
        (np.array([0, 0, 1, 1], np.float16), [0.0, 1.0]),
        (pd.Categorical(["b", "b", "a", "a"], categories=["b", "a", "unused"]), ["b", "a"]),
        (pd.array([1, 1, 2, 2], "Int64"), [1, 2]),
        (pd.array([True, True, False, False], "boolean"), [True, False]),
        (pd.array(["x", "x", "y", "y"], "string[pyarrow]"), ["x", "y"]),
        (pd.arrays.SparseArray([0, 0, 1, 1]), [0, 1]),
        ([b"x", b"x", b"y", b"y"], ["x", "y"]),
        ([decimal.Decimal(1)] * 2 + [decimal.Decimal(2)] * 2, [1, 2]),
        ([datetime.date(2020, 1, day) for day in (1, 1, 2, 2)], [datetime.date(2020, 1, 1),
                                                                datetime.date(2020, 1, 2)]),
    ],
)  # fmt: skip
def test_labels_of_all_plain_types(labels, expected):
    assert DawidSkene().fit(votes(label=labels)).labels_.tolist() == expected


def categories(values):
    """As Polars gives them to Arrow."""
    texts = sorted(set(values))
    indices = pa.array([texts.index(value) for value in values], pa.uint32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(texts, pa.string_view()))


@pytest.mark.parametrize(
    "table",
    [
        pa.table(VOTES),
        pa.RecordBatch.from_pydict(VOTES),
        pa.table({name: pa.array(values, pa.string_view()) for name, values in VOTES.items()}),
        pa.table({name: pa.array(values).dictionary_encode() for name, values in VOTES.items()}),
        pa.table({name: categories(values) for name, values in VOTES.items()}),
        pa.table(VOTES).to_pandas(types_mapper=pd.ArrowDtype),
        votes().assign(x=1, y=2).rename(columns={"y": "x"}),  # two columns that nobody reads
        votes().set_index(pd.Index([5, 5, 1, 1])),
        votes(worker=[uuid.UUID(int=number) for number in (1, 2, 1, 2)]),
    ],
)
def test_tables_of_all_kinds(table):
    assert DawidSkene().fit(table).labels_.to_dict() == {"t1": "cat", "t2": "dog"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (votes(label=["cat", 1, "dog", "dog"]), "'label' has 1 in row 2, of the type int, but str"),
        (votes(task=[(1, 2)] * 4), "column 'task' is list<item: int64>; give one number, text"),
        (votes(label=[{"a": 1}] * 4), "column 'label' is struct"),
        (votes(label=[1j] * 4), "column 'label' has 1j in row 1, which is no number, text"),
        (votes(label=["\udc80"] * 4), "column 'label' has .* in row 1"),
        (votes(task=pd.period_range("2020", periods=4)), "column 'task' is .*period"),
        (pa.table(VOTES | {"worker": [b"\xff"] * 4}), "column 'worker' has .* not text in UTF-8"),
        (pd.DataFrame(np.ones((1, 4)), columns=[*VOTES, "label"]), "two columns 'label'"),
        (pa.table([[1]] * 4, names=[*VOTES, "task"]), "two columns 'task'"),
        (votes().set_index(["task", "worker"]), r"'task' is in the index; call reset_index\(\)"),
        (votes().iloc[:0], "there is not one vote to use"),
        (pd.DataFrame(), "no column 'task'"),
        (pd.Series([1]), "Series is no pandas DataFrame"),
        (votes(label=["cat", NAN, "dog", "dog"]), "row 2: label is missing"),
        (votes(label=pd.array([1, 1, None, 2], "Int64")), "row 3: label is missing"),
    ],
)
def test_what_cannot_be_read_is_named(table, message):
    with pytest.raises(InputError, match=f"votes: .*{message}"):
        DawidSkene().fit(table)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("labels", ["cat", "dog"], "column 'labels' is string; it must hold a list in each row"),
        ("labels", [["cat", None], ["dog"]], "column 'labels' has a list with a null in row 1"),
        ("labels", [[1, 2], [3]], "'label' is string, but beliefs: column 'labels' is int64"),
        ("label_probs", [["a", "b"], ["c"]], "'label_probs' has 'a' in row 1, which is not a num"),
        ("label_probs", [[0.9, 0.1], [None]], "'label_probs' has a list with a null in row 2"),
        ("task", [1, 2], "votes: column 'task' is string, but beliefs: column 'task' is int64"),
    ],
)
def test_beliefs_that_cannot_be_read_are_named(column, values, message):
    beliefs = {"task": ["t1", "t3"], "labels": [["cat", "dog"], ["dog"]]}
    beliefs |= {"label_probs": [[0.9, 0.1], [0.7]], column: values}
    with pytest.raises(InputError, match=message):
        DawidSkene().fit(votes(), pd.DataFrame(beliefs))


@pytest.mark.parametrize("empty", [pd.DataFrame({"task": [], "label": []}), None])
def test_a_table_without_rows_is_as_none(empty):
    assert DawidSkene().fit(votes(), None, empty).labels_.tolist() == ["cat", "dog"]


LARGE = 2**53


def test_large_ids_of_other_types_stay_apart():
    """As floats, which signed and unsigned numbers have in common, the two tasks would be one."""
    table = votes(task=np.array([LARGE, LARGE, LARGE + 1, LARGE + 1]))
    gold = pd.DataFrame({"task": np.array([LARGE + 1], np.uint64), "label": ["cat"]})
    fitted = DawidSkene().fit(table, None, gold)
    assert fitted.labels_.to_dict() == {LARGE: "cat", LARGE + 1: "cat"}
    with pytest.raises(InputError, match=r"'task' has 9007199254740992.0 .* a float that is"):
        DawidSkene().fit(table, None, gold.astype({"task": float}))


def test_large_numbers_beside_a_missing_one_stay_exact():
    table = votes(task=pd.array([LARGE + 1, None, LARGE, LARGE], "Int64"))
    table["label"] = pd.array([LARGE + 1, LARGE, LARGE, None], "Int64")
    fitted = DawidSkene(labels=[LARGE, LARGE + 1], on_bad_vote="reject").fit(table)
    assert fitted.labels_.to_dict() == {LARGE: LARGE, LARGE + 1: LARGE + 1}
    assert fitted.rejects_["row"].tolist() == [2, 4]
    assert fitted.rejects_["label"].tolist() == [LARGE, None]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (0, "0 classes"),
        ("cat", "'cat' is neither a number of classes nor a list"),
        ({"cat"}, "neither a number"),  # a set has no order
        (1.5, "neither a number"),
        (True, "neither a number"),
        ([], "the list is empty"),
        (["cat", "cat"], "'cat' is there twice"),
        (["cat", None], "a name is missing"),
        ([NAN], "a name is missing"),
        ([["cat"]], "is no name of a class"),
    ],
)
def test_what_is_no_label_space(labels, message):
    with pytest.raises(InputError, match=f"labels: .*{message}"):
        label_index(labels)


@pytest.mark.parametrize("kind", [list, tuple, np.array, pa.array, pd.Index, pd.Series])
def test_label_spaces(kind):
    assert label_index(kind(["cat", "dog"])).tolist() == ["cat", "dog"]
    assert label_index(np.int64(2)).tolist() == [0, 1]
