"""Simulated workers: their accuracy, what they answer, and tables of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.simulate.crowd import structured_crowd, uniform, uniform_crowd
from coyo_labeler.simulate.crowd_table import read_crowd


def table(tmp_path, rows, value="probability"):
    columns = ("worker_id", "true_label", "voted_label", value)
    file = tmp_path / "crowd.parquet"
    pq.write_table(pa.table({n: [row[k] for row in rows] for k, n in enumerate(columns)}), file)
    return str(file)


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.7, 1.0])
def test_crowds_have_the_accuracy_that_was_asked_for(accuracy):
    for crowd in (uniform_crowd(20, 6, accuracy), structured_crowd(20, 6, accuracy, 1)):
        assert crowd.accuracy == pytest.approx(accuracy, abs=0.03)
        assert crowd.theta.sum(axis=2) == pytest.approx(1)
        assert (crowd.theta >= 0).all()


def test_structured_workers_share_what_they_confuse():
    theta = structured_crowd(30, 8, 0.7, 0).theta
    mistakes = theta * (1 - np.eye(8))
    mistakes /= mistakes.sum(axis=2, keepdims=True)
    mean = mistakes.mean(axis=0)
    assert mean.max() > 0.35  # by chance 1 of 7
    assert uniform_crowd(3, 8, 0.7).theta[0, 0, 1] == pytest.approx(0.3 / 7)


def test_answers_come_as_often_as_the_matrix_says_and_do_not_change():
    crowd = structured_crowd(3, 4, 0.6, 5)
    images = np.arange(40_000)
    worker = np.full(40_000, 2)
    truth = np.full(40_000, 1)
    voted = crowd.answer(images, worker, truth, 9)
    assert np.bincount(voted, minlength=4) / 40_000 == pytest.approx(crowd.theta[2, 1], abs=0.01)
    later = crowd.answer(images[5:9], worker[5:9], truth[5:9], 9)
    assert (later == voted[5:9]).all()
    assert (crowd.answer(images, worker, truth, 10) != voted).any()


def test_draws_are_even_and_streams_differ():
    keys = np.arange(50_000)
    first, second = uniform(keys, 1, 1), uniform(keys, 1, 2)
    assert np.bincount((first * 10).astype(int)) == pytest.approx(np.full(10, 5_000), rel=0.05)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_a_table_of_probabilities_is_taken_as_it_is(tmp_path):
    rows = [("b", 0, 0, 0.9), ("b", 0, 1, 0.1), ("b", 1, 1, 1.0), ("a", 0, 0, 1.0)]
    crowd = read_crowd(table(tmp_path, rows), 2)
    assert crowd.names == ("a", "b")
    assert crowd.theta[1] == pytest.approx(np.array([[0.9, 0.1], [0, 1]]))
    assert crowd.theta[0] == pytest.approx(np.eye(2))  # class 1 as the others do


def test_counts_of_a_merge_are_smoothed(tmp_path):
    rows = [("a", 0, 0, 80.0), ("a", 0, 1, 20.0), ("b", 0, 0, 1.0)]
    crowd = read_crowd(table(tmp_path, rows, "count"), 2)
    assert crowd.theta[0, 0, 0] == pytest.approx(0.8, abs=0.02)
    assert (crowd.theta > 0).all()
    assert crowd.theta.sum(axis=2) == pytest.approx(1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 0, 0, 0.5)], r"worker 'a' for class 0 sum to 0\.500; they must sum to 1"),
        ([("a", 0, 5, 1.0)], r"row 1: voted_label 5 is outside the classes of gold \(0\.\.1\)"),
        ([("a", -1, 0, 1.0)], r"row 1: true_label -1 is outside"),
        ([("a", 0, 0, 1.5)], r"row 1: probability 1\.5 is not between 0 and 1"),
        ([("a", 0, 0, float("nan"))], r"probability nan is not between"),
        ([("a", 0, 0, 1.0)], r"says of no worker what becomes of class 1"),
        ([], r"has no row"),
        ([(None, 0, 0, 1.0)], r"column 'worker_id' has a null"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_crowd(table(tmp_path, rows) if rows else empty(tmp_path), 2)


def empty(tmp_path):
    kinds = (pa.string(), pa.int32(), pa.int32(), pa.float64())
    names = ("worker_id", "true_label", "voted_label", "probability")
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    pq.write_table(schema.empty_table(), tmp_path / "crowd.parquet")
    return str(tmp_path / "crowd.parquet")


def test_a_merge_without_confusions_is_told_how_to_get_them(tmp_path):
    folder = tmp_path / "merged" / "confusions"
    folder.mkdir(parents=True)
    pq.write_table(schemas.CONFUSIONS.empty_table(), folder / "part-0.parquet")
    with pytest.raises(InputError, match="merge with worker_model=confusion"):
        read_crowd(str(tmp_path / "merged"), 2)


def test_what_is_no_crowd_is_named(tmp_path):
    with pytest.raises(InputError, match=r"neither uniform:<accuracy>"):
        read_crowd(str(tmp_path / "nothing"), 2)
