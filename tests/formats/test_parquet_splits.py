from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.parquet_splits import (
    RowGroup,
    bound_row_groups,
    plan_splits,
    read_footers,
    read_rows,
    read_split,
)


def write(path: Path, ids: range, groups: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"label": list(ids), "image_id": list(ids), "note": [["a", "b"]] * len(ids)})
    pq.write_table(table, path, row_group_size=groups)


def plan(folder: Path, rows: int) -> list[tuple[str, tuple[int, ...], int, int]]:
    splits = plan_splits("gold", str(folder), schemas.GOLD, rows)
    return [(split.name, split.row_groups, split.first_row, split.rows) for split in splits]


def test_a_split_ends_with_the_row_group_that_fills_it(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", range(10), 3)
    write(tmp_path / "a.parquet", range(2), 3)
    write(tmp_path / "c.parquet", range(0), 3)
    assert plan(tmp_path, 5) == [
        ("a", (0,), 0, 2),
        ("b-000", (0, 1), 0, 6),
        ("b-001", (2, 3), 6, 4),
        ("c", (0,), 0, 0),
    ]
    assert [split[0] for split in plan(tmp_path, 100)] == ["a", "b", "c"]


def test_files_of_one_name_make_splits_of_different_names(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write(tmp_path / folder / "00000.parquet", range(10), 5)
    names = [row[0] for row in plan(tmp_path / "*" / "*.parquet", 100)]
    assert names == ["00000-00000", "00001-00000"]


def test_a_numbered_split_and_a_file_of_its_name_have_different_names(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", range(10), 5)
    write(tmp_path / "a-000.parquet", range(10), 5)
    names = [row[0] for row in plan(tmp_path, 5)]
    assert len(set(names)) == len(names) == 4


def test_values_count_the_elements_of_lists(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", range(10), 5)
    (split,) = plan_splits("gold", str(tmp_path), schemas.GOLD, 100)
    assert split.values == 20


@pytest.mark.parametrize("batch_rows", [None, 2, 100])
def test_every_row_is_in_one_split_in_the_types_asked_for(
    tmp_path: Path, batch_rows: int | None
) -> None:
    write(tmp_path / "a.parquet", range(10), 3)
    ids = []
    for split in plan_splits("gold", str(tmp_path), schemas.GOLD, 4):
        for table in read_split(split, batch_rows=batch_rows):
            assert table.schema == schemas.GOLD
            assert batch_rows is None or table.num_rows <= batch_rows
            ids += table["image_id"].to_pylist()
    assert ids == list(range(10))


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", range(3), 3)
    (split,) = plan_splits("gold", str(tmp_path), schemas.GOLD, 4)
    (table,) = read_split(split, ["label"])
    assert table.column_names == ["label"]


def test_a_bad_value_is_named_with_its_row_in_the_file(tmp_path: Path) -> None:
    ids = [*map(str, range(7)), "cat", "8"]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image_id": ids, "label": ids}), path, row_group_size=2)
    splits = plan_splits("gold", str(path), schemas.GOLD, 4)
    assert [split.first_row for split in splits] == [0, 4, 8]
    assert [len(list(read_split(split))) for split in splits[::2]] == [2, 1]
    with pytest.raises(InputError, match=r"^gold: .*a\.parquet: column 'label' has 'cat' in row 8"):
        list(read_split(splits[1], ["label"]))


def test_no_files_and_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^gold: no Parquet files at .*; give Parquet, in files "):
        plan(tmp_path, 5)
    write(tmp_path / "a.parquet", range(3), 3)
    pq.write_table(pa.table({"image_id": [1], "label": [[1]]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: column 'label' is list<.*it must be int32"):
        plan(tmp_path, 5)
    (tmp_path / "b.parquet").write_bytes(b"not Parquet at all")
    with pytest.raises(InputError, match=r"b\.parquet is not a readable Parquet file"):
        plan(tmp_path, 5)


@pytest.mark.parametrize("batch_rows", [2, 100])
@pytest.mark.parametrize(
    ("start", "stop"), [(0, 10), (0, 1), (2, 3), (3, 6), (2, 7), (9, 10), (5, 5)]
)
def test_a_range_of_rows_is_read_from_the_row_groups_that_hold_it(
    tmp_path: Path, start: int, stop: int, batch_rows: int
) -> None:
    path = tmp_path / "a.parquet"
    write(path, range(10), 3)
    tables = read_rows("labels", str(path), start, stop, schemas.GOLD, batch_rows)
    ids = [image for table in tables for image in table["image_id"].to_pylist()]
    assert ids == list(range(start, stop))


def test_row_groups_are_bounded_by_the_footer_where_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, range(5), 3)
    (footer,) = read_footers("labels", [str(path)])
    assert bound_row_groups(footer, "image_id") == [RowGroup(0, 0, 2, 3), RowGroup(1, 3, 4, 2)]


@pytest.mark.parametrize(
    ("ids", "bounds"),
    [
        (pa.array(["a", "b"]), (-(2**63), 2**63 - 1)),
        (pa.array([1.0, 2.5]), (-(2**63), 2**63 - 1)),
        (pa.array([1, 2**63], pa.uint64()), (1, 2**63 - 1)),
        (pa.array([None, None], pa.int64()), (-(2**63), 2**63 - 1)),
    ],
)
def test_bounds_fit_int64_whatever_the_column_holds(
    tmp_path: Path, ids: pa.Array, bounds: tuple[int, int]
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ids}), path)
    (footer,) = read_footers("labels", [str(path)])
    assert bound_row_groups(footer, "id") == [RowGroup(0, *bounds, 2)]
