from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from coyo_labeler.errors import InputError
from coyo_labeler.formats.spark_tables import read_table
from coyo_labeler.session import explain

WANTED = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("labels", pa.list_(pa.int32())),
        pa.field("label_probs", pa.list_(pa.float32())),
    ]
)


def write(path: Path, ids: pa.Array, labels: pa.Array, probs: pa.Array) -> str:
    pq.write_table(pa.table({"id": ids, "labels": labels, "label_probs": probs}), path)
    return str(path)


@pytest.mark.parametrize(
    ("ids", "lists", "number"),
    [
        (pa.int64(), pa.list_, pa.int32()),
        (pa.uint64(), pa.large_list, pa.int64()),
        (pa.string(), pa.list_view, pa.uint8()),
        (pa.string_view(), pa.list_, pa.float64()),
        (pa.decimal128(20), pa.list_, pa.int16()),
    ],
    ids=["signed", "unsigned", "text", "text_view", "decimal"],
)
def test_types_that_hold_the_same_values_are_read(
    spark: SparkSession, tmp_path: Path, ids: pa.DataType, lists: Any, number: pa.DataType
) -> None:
    made = pa.array([Decimal(7)]).cast(ids) if pa.types.is_decimal(ids) else None
    column = made if made is not None else pa.array([7]).cast(pa.string()).cast(ids)
    path = write(
        tmp_path / "b.parquet",
        column,
        pa.array([[2, 1]], lists(number)),
        pa.array([[0.5, 0.25]], lists(pa.float16() if number != pa.int32() else pa.float64())),
    )
    row = read_table(spark, "labels", path, WANTED).first()
    assert row is not None
    assert row.asDict() == {"id": 7, "labels": [2, 1], "label_probs": [0.5, 0.25]}


@pytest.mark.parametrize(
    ("ids", "labels", "message"),
    [
        (pa.array([1, 2**63], pa.uint64()), [[1]] * 2, "'id' has 9223372036854775808 in row 2"),
        (["1", "img_2"], [[1]] * 2, "'id' has 'img_2' in row 2"),
        ([1, 2], [[1], [3, 2**40]], "'labels' has 1099511627776 in row 2"),
        ([1, 2], [["1"], ["cat"]], "'labels' has 'cat' in row 2"),
        ([1, 2], [[1.0], [0.5]], "'labels' has 0.5 in row 2"),
        ([True, False], [[1]] * 2, "'id' is bool, it must be int64"),
        (
            pa.array([1, 2], pa.timestamp("us")),
            [[1]] * 2,
            r"'id' is timestamp\[us\], it must be int64",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    spark: SparkSession, tmp_path: Path, ids: Any, labels: Any, message: str
) -> None:
    path = write(tmp_path / "b.parquet", pa.array(ids), pa.array(labels), pa.array([[0.5]] * 2))
    with pytest.raises((InputError, PySparkException, Py4JError)) as caught:
        read_table(spark, "labels", path, WANTED).toArrow()
    error = caught.value if isinstance(caught.value, InputError) else explain(caught.value)
    with pytest.raises(InputError, match=rf"^labels: .*b\.parquet: column {message}.*; write"):
        raise error or caught.value


def test_files_whose_types_differ_are_read_right(spark: SparkSession, tmp_path: Path) -> None:
    """Spark takes the types of all files from one of them, and fails on the others."""
    for number, kind in enumerate((pa.int64(), pa.int32(), pa.uint64(), pa.string())):
        ids = pa.array([str(number)]).cast(kind)
        kinds = (pa.list_(pa.float32()), pa.list_(pa.float64()), pa.large_list(pa.float16()))
        probs = pa.array([[0.5]], kinds[number % 3])
        table = pa.table({"label_probs": probs, "id": ids, "labels": pa.array([[number]])})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    rows = sorted(read_table(spark, "labels", str(tmp_path), WANTED).collect())
    assert [row.asDict() for row in rows] == [
        {"id": number, "labels": [number], "label_probs": [0.5]} for number in range(4)
    ]


def test_columns_that_differ_in_case_alone_are_told_apart(
    spark: SparkSession, tmp_path: Path
) -> None:
    table = {"ID": [7], "id": [1], "labels": [[2]], "label_probs": [[0.5]]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    (row,) = read_table(spark, "labels", str(tmp_path), WANTED).collect()
    assert row.asDict() == {"id": 1, "labels": [2], "label_probs": [0.5]}
