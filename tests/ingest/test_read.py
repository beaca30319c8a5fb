"""What is read of the source, what never leaves the files, and what is wrong with them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileOpener
from pyspark.sql import DataFrame, SparkSession

from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.ingest import filters
from coyo_labeler.ingest.read import file_at_fault, inspect, read_source


def scan_of(frame: DataFrame) -> tuple[str, str]:
    """The columns that are read, and the filters that are pushed down, by the physical plan."""
    scan = frame._jdf.queryExecution().executedPlan().collectLeaves().apply(0)
    metadata = scan.metadata()
    return metadata.apply("ReadSchema"), metadata.apply("PushedFilters")


def test_only_needed_columns_are_read_and_filters_reach_the_files(
    spark: SparkSession, tmp_path: Path
) -> None:
    columns = {
        "id": pa.array([1], pa.int64()),
        "url": ["http://a.example/1"],
        "text": ["a long text that nobody asked for"],
        "width": pa.array([300], pa.int32()),
        "height": pa.array([300], pa.int32()),
        "image_phash": ["daf5a50aae4aa54a"],
        "num_faces": pa.array([0], pa.int32()),
        "watermark_score": pa.array([0.1], pa.float32()),
        "aesthetic_score_laion_v2": pa.array([5.0], pa.float32()),
    }
    pq.write_table(pa.table(columns), tmp_path / "part-0.parquet")
    settings = IngestSettings.model_validate(
        {
            "source": str(tmp_path),
            "output": "unused",
            "keep_columns": ["num_faces"],
            "thresholds": {"watermark_score": {"max": 0.5}},
        }
    )
    rows = read_source(spark, inspect(settings))
    schema, pushed = scan_of(rows.filter(filters.passes(settings)))
    read = [field.partition(":")[0] for field in schema.removeprefix("struct<").split(",")]
    assert read == ["id", "url", "image_phash", "width", "height", "watermark_score", "num_faces"]
    for condition in (
        "IsNotNull(id)",
        "GreaterThanOrEqual(width,200)",
        "GreaterThanOrEqual(height,200)",
        "LessThanOrEqual(watermark_score,0.5)",
    ):
        assert condition in pushed


SMALL = {
    "id": [1],
    "url": ["http://a.example/1"],
    "imagehash": ["daf5a50aae4aa54a"],
    "width": [300],
    "height": [300],
}


def settings_for(source: Path, **values: Any) -> IngestSettings:
    return IngestSettings(source=str(source), output="unused", **values)


def test_a_store_that_fails_says_nothing_about_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table(SMALL), tmp_path / "part-0.parquet")
    settings = settings_for(tmp_path, on_corrupt="skip")
    source = inspect(settings)
    spark_failed = Exception(
        f"while reading file {(tmp_path / 'part-0.parquet').as_uri()}. SQLSTATE"
    )

    def fail(*_: object) -> bytes:
        raise ConnectionResetError("connection reset")

    monkeypatch.setattr(LocalFileOpener, "read", fail)
    for look in (lambda: inspect(settings), lambda: file_at_fault(source, spark_failed)):
        with pytest.raises(WorkError, match=r"part-0\.parquet cannot be reached"):
            look()


def test_a_file_that_cannot_be_opened_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table(SMALL), tmp_path / "part-0.parquet")

    def refuse(*_: object) -> None:
        raise PermissionError("denied")

    monkeypatch.setattr(LocalFileOpener, "_open", refuse)
    with pytest.raises(WorkError, match="denied"):
        inspect(settings_for(tmp_path, on_corrupt="skip"))


@pytest.mark.parametrize(
    ("column", "values", "settings", "message"),
    [
        ("width", [300.5], {}, "column 'width' is double; .* or name .* with columns.width=NAME"),
        ("width", [300.5], {"columns": {"width": "height"}}, None),
        ("text", [["a"]], {"thresholds": {"text": {"max": 1}}}, "leave it out of thresholds"),
    ],
)
def test_a_column_of_the_wrong_type_is_named_with_its_file_and_a_remedy(
    tmp_path: Path, column: str, values: list, settings: dict, message: str | None
) -> None:
    good = {**SMALL, "text": [["a"]]}
    pq.write_table(pa.table(good), tmp_path / "part-0.parquet")
    pq.write_table(pa.table({**good, column: values}), tmp_path / "part-1.parquet")
    if message is None:
        assert inspect(settings_for(tmp_path, **settings)).rows == 2
        return
    file = 0 if column == "text" else 1
    with pytest.raises(InputError, match=rf"part-{file}\.parquet: .*{message}"):
        inspect(settings_for(tmp_path, **settings))


def test_a_kept_map_is_refused_for_rows_cannot_be_ordered_by_it(tmp_path: Path) -> None:
    maps = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({**SMALL, "tags": maps}), tmp_path / "part-0.parquet")
    with pytest.raises(InputError, match="column 'tags' is map"):
        inspect(settings_for(tmp_path, keep_columns=("tags",)))
