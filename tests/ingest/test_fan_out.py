"""The recipes of docs/ingest.md that give the labels of kept images to their twins."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.formats import schemas
from coyo_labeler.stages import STAGES, run_stage

DOCS = Path(__file__).parents[2] / "docs" / "ingest.md"


def recipe(language: str, folder: Path) -> str:
    """The one block in a language, with its paths below a folder."""
    [example] = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return re.sub(r"(['\"])(catalog|labels)\b", rf"\1{folder}/\2", example)


def in_spark(spark: SparkSession, folder: Path) -> pa.Table:
    exec(recipe("python", folder), {"spark": spark})
    return pq.read_table(folder / "labels-of-all-ids")


def in_duckdb(spark: SparkSession, folder: Path) -> pa.Table:
    pytest.importorskip("duckdb").sql(recipe("sql", folder))
    return pq.read_table(folder / "labels-of-all-ids.parquet")


@pytest.fixture(scope="module")
def outputs(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of three rows of each of 40 images, some not sampled, and labels of all but one.

    Row n, n + 100 and n + 200 are image n; the last is 2 bits from the others. One row comes twice.
    """
    folder = tmp_path_factory.mktemp("fan-out")
    rows = [
        {
            "id": image + again,
            "url": f"https://a.example/{image + again}",
            "imagehash": f"{(2**63 + image * 0x9E3779B97F4A7C15 // 4) % 2**64 ^ moved:016x}",
            "width": 300,
            "height": 300,
        }
        for image in range(1, 41)
        for again, moved in ((0, 0), (100, 0), (200, 3))
    ]
    (folder / "source").mkdir()
    pq.write_table(pa.Table.from_pylist([*rows, rows[50]]), folder / "source" / "0.parquet")
    values: dict[str, Any] = {"near_distance": 2, "sample": 0.5}
    settings = IngestSettings(
        source=str(folder / "source"), output=str(folder / "catalog"), **values
    )
    run_stage(STAGES["ingest"], settings, spark)
    labelled = pq.read_table(folder / "catalog" / "catalog").to_pylist()[1:]
    beliefs = [{**row, "labels": [row["id"]], "label_probs": [0.5]} for row in labelled]
    (folder / "labels" / "failures").mkdir(parents=True)
    table = pa.Table.from_pylist(beliefs, schemas.BELIEFS)
    pq.write_table(table, folder / "labels" / "00000.parquet")
    return folder


@pytest.mark.parametrize("fan_out", [in_spark, in_duckdb])
def test_every_id_of_a_labelled_image_gets_its_labels(
    spark: SparkSession, outputs: Path, fan_out: Callable[[SparkSession, Path], pa.Table]
) -> None:
    images = pq.read_table(outputs / "labels" / "00000.parquet")["id"].to_pylist()
    assert 5 < len(images) < 35  # or the sample would show nothing
    table = fan_out(spark, outputs)
    assert set(table.column_names) == set(schemas.BELIEFS.names)
    labels = sorted((row["id"], row["url"], row["labels"]) for row in table.to_pylist())
    assert labels == sorted(
        (image + again, f"https://a.example/{image + again}", [image])
        for image in images
        for again in (0, 100, 200)
    )
