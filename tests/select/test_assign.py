"""Who answers what: quotas hold, nobody is asked twice, and the better ones are asked first."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_lists import LabelLists
from coyo_labeler.select.assign import NOBODY, assign_greedily, assign_randomly, quotas, used_of
from coyo_labeler.select.hashes import draw
from coyo_labeler.select.workers import Workers, read_workers
from tests.select.tables import write_csv


def crew(accuracy, cells=()):
    """cells: (class, worker, deviation)."""
    rows = sorted(cells)
    return Workers(
        tuple(f"w{i}" for i in range(len(accuracy))),
        np.array(accuracy),
        np.array([c for c, _, _ in rows], dtype=np.int64),
        np.array([w for _, w, _ in rows], dtype=np.int64),
        np.array([d for _, _, d in rows]),
    )


def about(*classes):
    """Images that have one class each for certain."""
    n = len(classes)
    return LabelLists(np.arange(n), np.arange(n + 1), np.array(classes, dtype=np.int32), np.ones(n))


def test_quotas_of_all_files_are_the_cap_of_each_worker():
    for most, files in ((1, 4), (7, 3), (40, 1)):
        total = sum(quotas(9, 100, most, file, files) for file in range(files))
        assert total.tolist() == [most] * 9
    assert quotas(3, 10, None, 0, 1).tolist() == [4, 4, 4]


def test_by_chance_quotas_hold_and_everybody_is_asked():
    barred = {0: {0, 1, 2}, 5: {3}}
    chosen = assign_randomly(draw(np.arange(38), 9), barred, np.array([10, 10, 10, 8]))
    assert used_of(chosen, 4).tolist() == [10, 10, 10, 8]
    assert chosen[0] == 3
    assert chosen[5] != 3
    more = assign_randomly(draw(np.arange(50), 9), {}, np.array([10, 10, 10, 8]))
    assert (more == NOBODY).sum() == 12


def test_by_chance_each_worker_is_as_likely_as_its_share_of_the_quota():
    first = [assign_randomly(draw(np.array([1]), seed), {}, np.array([30, 10]))[0]
             for seed in range(400)]  # fmt: skip
    assert np.mean(first) == pytest.approx(0.25, abs=0.06)


def test_greedily_the_most_accurate_on_the_image_is_asked_until_its_quota_is_used():
    # w0 is best in general, w1 in class 3.
    workers = crew([0.9, 0.7, 0.6], [(3, 1, 0.25)])
    lists = about(3, 0, 3, 0, 0)
    chosen = assign_greedily(lists, np.arange(5), {}, np.array([2, 2, 2]), workers)
    assert chosen.tolist() == [1, 0, 1, 0, 2]
    barred = assign_greedily(lists, np.arange(5), {0: {1}, 1: {0}}, np.array([5, 5, 5]), workers)
    assert barred.tolist() == [0, 1, 1, 0, 0]


def test_expected_accuracy_is_the_mean_over_the_classes_that_an_image_may_have():
    workers = crew([0.8, 0.5], [(2, 0, -0.3), (4, 0, 0.1), (4, 1, 0.2)])
    expected = workers.expected_accuracy(np.array([4, 2], dtype=np.int32), np.array([0.5, 0.2]))
    assert expected == pytest.approx([0.8 + 0.5 * 0.1 - 0.2 * 0.3, 0.5 + 0.5 * 0.2])


def test_workers_of_a_merge_come_with_their_confusions(tmp_path):
    (tmp_path / "workers").mkdir()
    (tmp_path / "confusions").mkdir()
    rows = {"worker_id": ["bob", "ann"], "n_votes": [5, 5], "accuracy": [0.5, None]}
    rows |= {field.name: [None, None] for field in schemas.WORKERS if field.name not in rows}
    pq.write_table(pa.table(rows), tmp_path / "workers" / "0.parquet")
    counts = pa.table(
        {"worker_id": ["bob", "bob", "zoe"], "true_label": [2, 2, 1], "voted_label": [2, 0, 1],
         "count": [8.0, 2.0, 1.0]}, schema=schemas.CONFUSIONS)  # fmt: skip
    pq.write_table(counts, tmp_path / "confusions" / "0.parquet")
    workers = read_workers(None, str(tmp_path))
    assert workers.names == ("ann", "bob")
    assert workers.accuracy.tolist() == [0.5, 0.5]  # ann: the mean of those who are known
    expected = workers.expected_accuracy(np.array([2], dtype=np.int32), np.ones(1))
    assert expected == pytest.approx([0.5, (8 + 10 * 0.5) / 20])


BAD = {
    "names nobody": (None, []),
    "row 2 has no worker_id": ("worker_id", [("a",), ("  ",)]),
    "row 2: a is named twice": ("worker_id", [("a",), ("a",)]),
    "a has the accuracy 1.5": ("worker_id,accuracy", [("a", 1.5)]),
    "the accuracy 'good'": ("worker_id,accuracy", [("a", "good")]),
    "no column 'worker_id'": ("name", [("a",)]),
}


@pytest.mark.parametrize("message", BAD)
def test_workers_that_cannot_be_used_are_named(tmp_path, message):
    header, rows = BAD[message]
    if header is None:
        path = tmp_path / "workers.txt"
        path.write_text("\n\n")
    else:
        path = write_csv(tmp_path / "workers.csv", header, rows)
    with pytest.raises(InputError, match=message):
        read_workers(str(path), "labels")


def test_workers_are_no_pictures_and_no_json(tmp_path):
    (tmp_path / "a.json").write_text('{"worker_id": "ann"}')
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    for name, message in (("a.json", "give a table"), ("a.txt", "not UTF-8"), ("b", "nothing at")):
        with pytest.raises(InputError, match=message):
            read_workers(str(tmp_path / name), "labels")
