from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.export.plan import find_labels, plan_shards, read_shard
from coyo_labeler.formats import schemas


def write(folder: Path, name: str, ids: range, groups: int = 4, **metadata: str) -> None:
    columns = {field.name: pa.nulls(len(ids), field.type) for field in schemas.BELIEFS}
    columns["id"] = pa.array(ids, pa.int64())
    table = pa.table(columns, schema=schemas.BELIEFS.with_metadata(metadata or None))
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / name, row_group_size=groups)


@pytest.mark.parametrize("rows_per_shard", [1, 3, 7, 8, 100])
def test_every_row_is_in_one_shard_in_order(tmp_path: Path, rows_per_shard: int) -> None:
    write(tmp_path, "00000.parquet", range(0, 10))
    write(tmp_path, "00001.parquet", range(0))
    write(tmp_path, "00002.parquet", range(10, 17))
    labels = find_labels(str(tmp_path))
    shards = plan_shards(labels.rows, rows_per_shard)
    ids_by_shard = [
        [i for table in read_shard(shard, labels.schema) for i in table["id"].to_pylist()]
        for shard in shards
    ]
    assert [i for ids in ids_by_shard for i in ids] == list(range(17))
    assert all(len(ids) == rows_per_shard for ids in ids_by_shard[:-1])
    assert [shard.number for shard in shards] == list(range(len(shards)))


def test_no_rows_make_one_empty_shard(tmp_path: Path) -> None:
    write(tmp_path, "00000.parquet", range(0))
    labels = find_labels(str(tmp_path))
    (shard,) = plan_shards(labels.rows, 5)
    assert list(read_shard(shard, labels.schema)) == []


def test_the_teacher_goes_along_and_other_metadata_does_not(tmp_path: Path) -> None:
    write(tmp_path, "00000.parquet", range(2), **{"teacher.model": "b0", "pandas": "{}"})
    assert find_labels(str(tmp_path)).metadata == {"teacher.model": "b0"}


def test_wider_types_are_cast(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1], pa.int32()),
            "url": pa.array(["u"], pa.large_string()),
            "imagehash": ["daf5a50aae4aa54a"],
            "labels": pa.array([[3]], pa.list_(pa.int64())),
            "label_probs": pa.array([[0.5]], pa.list_(pa.float64())),
            "width": pa.array([240], pa.int64()),
            "height": pa.array([240], pa.int64()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    labels = find_labels(str(tmp_path))
    (read,) = read_shard(plan_shards(labels.rows, 5)[0], labels.schema)
    assert read.schema == schemas.BELIEFS
    assert read["labels"].to_pylist() == [[3]]


def test_a_file_without_a_column_is_named(tmp_path: Path) -> None:
    write(tmp_path, "00000.parquet", range(2))
    pq.write_table(pa.table({"id": [1]}), tmp_path / "00001.parquet")
    with pytest.raises(InputError, match=r"00001\.parquet has no column 'url'"):
        find_labels(str(tmp_path))


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not Parquet at all")
    with pytest.raises(InputError, match=r"a\.parquet is not a readable Parquet file"):
        find_labels(str(tmp_path))


def test_a_column_of_another_kind_is_told(tmp_path: Path) -> None:
    write(tmp_path, "00000.parquet", range(1))
    table = pq.read_table(tmp_path / "00000.parquet")
    at = table.schema.get_field_index("width")
    pq.write_table(table.set_column(at, "width", pa.array(["wide"])), tmp_path / "00000.parquet")
    labels = find_labels(str(tmp_path))
    with pytest.raises(
        InputError,
        match=r"00000\.parquet: column 'width' has 'wide' in row 1, which is not a whole number",
    ):
        list(read_shard(plan_shards(labels.rows, 5)[0], labels.schema))
