"""Groups of near twins on Spark."""

from collections.abc import Callable

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as scipy_components

from coyo_labeler.ingest.components import components, components_in_one_task, find_near_twins


@pytest.mark.parametrize("connected", [components, components_in_one_task])
def test_components_are_those_of_scipy(
    spark: SparkSession, connected: Callable[[DataFrame], DataFrame]
) -> None:
    rng = np.random.default_rng(0)
    ends = rng.integers(0, 300, (220, 2))
    ends = np.concatenate([ends, [[1000 + i, 1001 + i] for i in range(40)]])  # and a long chain
    low, high = ends.min(axis=1), ends.max(axis=1)
    low, high = low[low < high], high[low < high]
    frame = spark.createDataFrame(
        [*zip(low.tolist(), high.tolist(), strict=True)], "low long, high long"
    )
    roots = {row["node"]: row["root"] for row in connected(frame).collect()}
    _, label = scipy_components(coo_array((np.ones(len(low)), (low, high)), (1100, 1100)))
    lowest = {name: int(np.flatnonzero(label == name)[0]) for name in set(label.tolist())}
    touched = set(low.tolist()) | set(high.tolist())
    expected = {node: lowest[label[node]] for node in touched if lowest[label[node]] != node}
    assert roots == expected


def test_a_group_above_the_limit_is_left_alone_and_counted(spark: SparkSession) -> None:
    centre = 0x5A5A5A5A5A5A5A5A
    star = [(i, centre ^ (3 << 2 * i)) for i in range(12)]  # 4 bits from each other
    pair = [(100, 0x0123456789ABCDEF), (101, 0x0123456789ABCDEF ^ 0b11)]
    images = spark.createDataFrame(star + pair, "id long, bits long")
    near = find_near_twins(images, 14, distance=4, max_group=10)
    assert [tuple(row) for row in near.mapping.collect()] == [(101, 100, 2)]
    assert (near.groups_left, near.rows_left) == (1, 12)
    assert near.pairs == 12 * 11 // 2 + 1
