import uuid
from decimal import Decimal

import pyarrow as pa
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import cast_column, cast_table, check_types, common_schema

WHERE = "gold: g.parquet: column 'label'"
INTEGERS = pa.list_(pa.int32())


@pytest.mark.parametrize(
    ("column", "kind", "expected"),
    [
        (pa.array(["1", None]), pa.int64(), [1, None]),
        (pa.array([3.0]), pa.int32(), [3]),
        (pa.array([Decimal(7)], pa.decimal128(20)), pa.int64(), [7]),
        (pa.array([2**63 - 1], pa.uint64()), pa.int64(), [2**63 - 1]),
        (pa.array(["a"]).dictionary_encode(), pa.string(), ["a"]),
        (pa.array([[1], None], pa.large_list(pa.int64())), INTEGERS, [[1], None]),
        (pa.array([[1, 2], None], pa.list_(pa.uint8(), 2)), INTEGERS, [[1, 2], None]),
        (pa.array([[0.5]], pa.list_(pa.float16())), pa.list_(pa.float32()), [[0.5]]),
        # A value outside the slice does not matter.
        (pa.array([[1.0], [2.0], [0.5]]).slice(1, 1), INTEGERS, [[2]]),
    ],
)
def test_values_that_fit_are_cast(column: pa.Array, kind: pa.DataType, expected: object) -> None:
    for given in (column, pa.chunked_array([column])):
        cast = cast_column(given, kind, WHERE)
        assert cast.type == kind
        assert cast.to_pylist() == expected


@pytest.mark.parametrize(
    ("column", "kind", "shown", "row"),
    [
        (pa.array([1, 2**63], pa.uint64()), pa.int64(), "9223372036854775808", 2),
        (pa.array([1, 2, 2**31, 2**40]), pa.int32(), "2147483648", 3),
        (pa.array([1.0, 1.5]), pa.int32(), "1.5", 2),
        (pa.array([float("nan")]), pa.int32(), "nan", 1),
        (pa.array(["7", "cat", "dog"]), pa.int32(), "'cat'", 2),
        (pa.array([b"a", b"\xff"]), pa.string(), r"b'\xff'", 2),
        (pa.array([[1.0], None, [2.0, 0.5]]), INTEGERS, "0.5", 3),
        (pa.array([[1], [2, 2**40]], pa.large_list(pa.int64())), INTEGERS, "1099511627776", 2),
        (pa.array([["1"], ["one"]]), INTEGERS, "'one'", 2),
    ],
)
def test_the_first_value_that_does_not_fit_is_named_with_its_row(
    column: pa.Array, kind: pa.DataType, shown: str, row: int
) -> None:
    for given in (column, pa.chunked_array([column.slice(0, 1), column.slice(1)])):
        with pytest.raises(InputError) as caught:
            cast_column(given, kind, WHERE, first_row=10)
        assert str(caught.value).startswith(f"{WHERE} has {shown} in row {10 + row}, which is not ")
        assert "; write the column as " in str(caught.value)


def test_a_long_value_is_cut_and_stays_on_one_line() -> None:
    with pytest.raises(InputError) as caught:
        cast_column(pa.array(["a\nb" * 1000]), pa.int32(), WHERE)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_uuids_become_their_text() -> None:
    ids = [uuid.UUID(int=each) for each in (0, 1, 2**128 - 1)]
    column = pa.array([*(each.bytes for each in ids), None], pa.uuid())
    cast = cast_column(pa.chunked_array([column, column.slice(2)]), pa.string(), WHERE)
    texts = [*map(str, ids), None]
    assert cast.to_pylist() == texts + texts[2:]


def test_a_table_is_cut_to_the_columns_of_the_schema() -> None:
    table = pa.table({"x": [1], "label": pa.array([3]), "image_id": ["5"]})
    cast = cast_table(table, schemas.GOLD, "gold: g.parquet")
    assert cast.equals(pa.table({"image_id": [5], "label": [3]}, schema=schemas.GOLD))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([("image_id", pa.int64())], "has no column 'label'"),
        (
            [("image_id", pa.int64()), ("label", pa.int64()), ("label", pa.int64())],
            "has two columns 'label'; rename or drop one",
        ),
        ([("image_id", pa.int64()), ("label", pa.list_(pa.int32()))], "column 'label' is list<"),
        ([("image_id", pa.uuid()), ("label", pa.int32())], "it must be int64; write it as that"),
    ],
)
def test_columns_that_cannot_be_read_are_told_by_the_footer(
    fields: list[tuple[str, pa.DataType]], message: str
) -> None:
    with pytest.raises(InputError, match=f"^gold: g.parquet.*{message}"):
        check_types("gold", "g.parquet", pa.schema(fields), schemas.GOLD)


BELIEFS = pa.schema([("id", pa.int64()), ("url", pa.string())])
RISK = pa.field("risk", pa.float32())


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"url": pa.string()}, r"b.parquet has no column 'id' \(its columns: url\)"),
        ({"id": pa.int64(), "URL": pa.string()}, "b.parquet has no column 'url' .*id, URL"),
        ({"id": pa.date32(), "url": pa.string()}, "b.parquet: column 'id' is date32"),
        ({"id": pa.int64(), "url": pa.list_(pa.string())}, "b.parquet: column 'url' is list"),
        (
            {"id": pa.int64(), "url": pa.string()},
            "b.parquet has no column 'risk', but a.parquet has",
        ),
    ],
)
def test_every_file_of_a_table_is_looked_at(second, message):
    files = {"a.parquet": pa.schema([*BELIEFS, RISK]), "b.parquet": pa.schema(second)}
    with pytest.raises(InputError, match=message):
        common_schema("labels", files, BELIEFS, [RISK])
    with pytest.raises(InputError, match=message):  # whichever is the first
        common_schema("labels", dict(reversed(files.items())), BELIEFS, [RISK])


def test_columns_that_can_be_cast_may_differ_from_file_to_file():
    files = {
        "a.parquet": pa.schema([("id", pa.int32()), ("url", pa.string()), ("x", pa.int8())]),
        "b.parquet": pa.schema([("url", pa.large_string()), ("id", pa.uint64())]),
    }
    assert common_schema("labels", files, BELIEFS, [RISK]) == BELIEFS
