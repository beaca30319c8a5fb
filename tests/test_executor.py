"""Threads and Spark run the same tasks and bring batches to the same partitions."""

from functools import partial
from pathlib import Path

import pytest

import coyo_labeler.merge
import coyo_labeler.select
from coyo_labeler import executor as executor_module
from coyo_labeler.executor import Round, executor_of


@pytest.fixture(params=["threads", "spark"])
def executor(request):
    session = request.getfixturevalue("spark") if request.param == "spark" else None
    return executor_of(session)


def digits(number):
    """A number to the partitions that are its digits."""
    for digit in str(number):
        yield int(digit), number


def count(partition, arrived):
    """How many numbers have a digit, by whether that is odd."""
    yield partition % 2, (partition, len(arrived))


def gather(partition, arrived, shared):
    yield shared.value[partition], sorted(arrived)


def test_batches_go_from_round_to_round_and_results_come_in_the_order_of_partitions(executor):
    with executor.share(["even", "odd"]) as shared:
        last = Round(2, partial(gather, shared=shared))
        results = executor.exchange([11, 23, 12, 4], digits, Round(10, count), last)
    assert results == [
        ("even", [(0, 0), (2, 2), (4, 1), (6, 0), (8, 0)]),
        ("odd", [(1, 3), (3, 1), (5, 0), (7, 0), (9, 0)]),
    ]


def test_a_task_of_spark_leaves_what_it_finds_out_of_garbage_collections(monkeypatch):
    """PySpark makes one after every task, among all modules that are imported."""
    frozen = []
    monkeypatch.setattr(executor_module.gc, "freeze", lambda: frozen.append(1))
    assert list(executor_module._map(str, [1, 2])) == ["1", "2"]
    assert list(executor_module._flat_map(digits, [12, 3])) == [(1, 12), (2, 12), (3, 3)]
    assert list(executor_module._receive(0, [(0, 5)], numbered)) == [(0, [5])]
    assert len(frozen) == 3


def numbered(partition, arrived):
    yield partition, arrived


def test_partitions_work_where_nothing_arrives(executor):
    assert executor.exchange([], digits, Round(3, numbered)) == [(0, []), (1, []), (2, [])]


def test_results_of_a_map_come_in_the_order_of_the_items(executor):
    assert executor.map(range(20), str) == [str(number) for number in range(20)]
    assert executor.map([], str) == []


def test_an_error_of_a_partition_reaches_the_driver(executor):
    with pytest.raises(Exception, match=r"partition 4 has \[4\]"):
        executor.exchange([4], digits, Round(5, numbered), Round(5, refuse_some))


def refuse_some(partition, arrived):
    if arrived != [[]]:
        raise ValueError(f"partition {partition} has {arrived[0]}")
    return ()


@pytest.mark.parametrize("package", [coyo_labeler.merge, coyo_labeler.select])
def test_no_module_of_a_stage_knows_which_engine_runs_it(package):
    (folder,) = package.__path__
    for path in Path(folder).glob("*.py"):
        text = path.read_text()
        knows = "pyspark" in text or "SparkExecutor" in text or "ThreadExecutor" in text
        # The stage is handed a session, which it passes on.
        assert not knows or path.name == "stage.py", path.name
