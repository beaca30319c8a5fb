import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from coyo_labeler.errors import InputError
from coyo_labeler.session import explain
from tests.export.builders import run, write_images


def test_an_export_loads_no_torch() -> None:
    program = (
        "import sys; import coyo_labeler.export.stage; "
        "sys.exit(bool({'torch', 'tensorflow', 'timm'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "webdataset"}, "images: missing; format=webdataset holds the images"),
        ({"format": "tfrecord"}, "images: missing; format=tfrecord holds the images"),
        ({"images": "x"}, "images: format=parquet holds no images"),
        ({"min_labels": 3, "max_labels": 2}, "max_labels: 2 is less than min_labels (3)"),
        (
            {"format": "tfrecord", "images": "x", "min_labels": 0},
            "min_labels: 0 keeps empty lists",
        ),
        ({"name": "Coyo Labels"}, "name: 'Coyo Labels' is wrong"),
        ({"threshold": 1.5}, "threshold: 1.5 is wrong"),
        ({"format": "csv"}, "format: 'csv' is wrong"),
        ({"labels": "/nowhere"}, "labels: nothing at /nowhere"),
        ({"label_space": "/nowhere.txt"}, "label_space: /nowhere.txt is neither one of"),
    ],
)
def test_what_does_not_fit_together_is_told_in_one_line(
    given: dict[str, Any], capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    from coyo_labeler.cli import main  # noqa: PLC0415

    words = [f"{key}={value}" for key, value in {**given, **change}.items()]
    assert main(["export", *words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: export: ") or line.startswith("error: label_space: ")
    assert message in line


def fail(spark: SparkSession, **settings: object) -> str:
    """The message that the command line would print."""
    with pytest.raises((InputError, PySparkException)) as caught:
        run(spark, **settings)
    error = caught.value if isinstance(caught.value, InputError) else explain(caught.value)
    assert isinstance(error, InputError)
    assert "\n" not in str(error)
    return str(error)


def test_a_label_outside_the_space_is_named(spark: SparkSession, given: dict[str, Any]) -> None:
    Path(given["label_space"]).write_text("cat\ndog\n")
    assert "the label 2, which is outside label_space (0..1)" in fail(spark, **given)


def test_a_torn_tar_is_named(spark: SparkSession, given: dict[str, Any], tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    tar = Path(images) / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:2048])
    message = fail(spark, **given, format="webdataset", images=images)
    assert "00001.tar is no whole tar (the end of the archive is missing)" in message
    assert not (Path(given["output"]) / "00001.tar").exists()


def test_a_tar_without_some_of_its_images_is_named(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images")
    tar = Path(images) / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:2048] + bytes(1024))
    message = fail(spark, **given, format="webdataset", images=images)
    assert "00001.tar lacks 3 of the images in the table beside it, first 000010001" in message


def test_an_id_of_two_images_is_refused(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    images = Path(write_images(tmp_path / "images"))
    for ending in ("tar", "parquet"):
        data = (images / f"00000.{ending}").read_bytes()
        (images / f"00007.{ending}").write_bytes(data)
    message = fail(spark, **given, format="webdataset", images=str(images))
    assert f"id {1 << 33} belongs to 2 images" in message


def test_labels_with_an_id_twice_are_refused(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    folder = Path(given["labels"])
    (folder / "c.parquet").write_bytes((folder / "a.parquet").read_bytes())
    images = write_images(tmp_path / "images")
    message = fail(spark, **given, format="webdataset", images=images)
    assert "has more than one row of labels" in message
