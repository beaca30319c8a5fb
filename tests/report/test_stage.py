import io
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from coyo_labeler import storage
from coyo_labeler.config.report import ReportSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.manifest import Manifest
from coyo_labeler.session import explain
from coyo_labeler.stages import STAGES, run_stage
from tests.tars import write_members


def write_labels(folder: Path, first: list[int], probs: list[float], votes: bool) -> str:
    rows = len(first)
    columns = {
        "id": list(range(rows)),
        "url": [f"http://127.0.0.1/{i}" for i in range(rows)],
        "imagehash": ["daf5a50aae4aa54a"] * rows,
        "labels": [[label, (label + 1) % 3] for label in first],
        "label_probs": [[p, 1 - p] for p in probs],
        "width": [240] * rows,
        "height": [320] * rows,
    }
    schema = schemas.BELIEFS
    if votes:
        schema = schemas.POSTERIOR
        columns |= {"n_votes": [1] * rows, "risk": [1 - p for p in probs], "entropy": [0.5] * rows}
        history = [{"iteration": i, "objective": -9.0 / i, "change": 0.1} for i in (1, 2, 3)]
        storage.write_json(str(folder / "history.json"), {"iterations": history})
        folder = folder / "posterior"
    storage.write_parquet(str(folder / "00000.parquet"), pa.table(columns, schema=schema))
    return str(folder.parent if votes else folder)


def write_images(folder: Path, rows: int) -> str:
    keys = [f"{0:05d}{index:04d}" for index in range(rows)]
    buffer = io.BytesIO()
    Image.new("RGB", (240, 320), "teal").save(buffer, "JPEG")
    write_members(folder / "00000.tar", [(f"{key}.jpg", buffer.getvalue()) for key in keys])
    columns = {field.name: pa.nulls(rows, field.type) for field in schemas.IMAGES}
    columns |= {
        "key": pa.array(keys),
        "id": pa.array(range(rows)),
        "status": pa.array(["success"] * rows),
    }
    storage.write_parquet(str(folder / "00000.parquet"), pa.table(columns, schema=schemas.IMAGES))
    return str(folder)


class Links(HTMLParser):
    """Every URL that a browser would fetch from, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.urls += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


def run(spark: SparkSession, **settings: object) -> Manifest:
    return run_stage(STAGES["report"], ReportSettings.model_validate(settings), spark)[0]


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "names.txt").write_text("cat\n<script>alert(1)</script>\nlamp & shade\n")
    (tmp_path / "gold.csv").write_text("image_id,label\n0,0\n1,1\n2,2\n3,0\n")
    (tmp_path / "slices.csv").write_text("image_id,slice\n0,day\n1,day\n2,night\n3,night\n")
    return {
        "labels": write_labels(tmp_path / "merged", [0, 1, 2, 1], [0.9, 0.8, 0.7, 0.6], True),
        "compare": write_labels(tmp_path / "beliefs", [0, 0, 2, 1], [0.6, 0.6, 0.6, 0.6], False),
        "gold": str(tmp_path / "gold.csv"),
        "slices": str(tmp_path / "slices.csv"),
        "images": write_images(tmp_path / "images", 4),
        "label_space": str(tmp_path / "names.txt"),
        "output": str(tmp_path / "report"),
    }


def test_the_report_says_what_can_be_counted_by_eye(
    spark: SparkSession, inputs: dict[str, str]
) -> None:
    manifest = run(spark, **inputs)
    document = storage.read_json(storage.join(inputs["output"], "report.json"))
    assert document is not None
    assert (manifest.rows.rows_in, manifest.rows.rows_out) == (4, 4)
    assert document["accuracy"]["top1"]["value"] == 0.75
    assert document["other_accuracy"]["top1"]["value"] == 0.5
    assert document["agreement"]["against_gold"]["mended"] == 1
    assert document["agreement"]["pairs"][0]["from_name"] == "cat"
    assert {row["slice"]: row["value"] for row in document["slices"]} == {"day": 0.0, "night": 0.5}
    assert [row["objective"] for row in document["fit"]["iterations"]] == [-9.0, -4.5, -3.0]
    assert [row["id"] for row in document["examples"]["changed"]] == [1]
    assert [row["id"] for row in document["examples"]["wrong"]] == [3]
    assert [row["id"] for row in document["examples"]["uncertain"]] == [3, 2, 1, 0]
    assert "accuracy, these labels: 0.7500" in storage.read_text(inputs["output"] + "/report.txt")


def test_the_page_is_whole_in_itself_and_escapes_names(
    spark: SparkSession, inputs: dict[str, str]
) -> None:
    run(spark, **inputs)
    page = storage.read_text(inputs["output"] + "/index.html")
    links = Links()
    links.feed(page)
    assert all(url.startswith(("data:", "#")) or url == "report.json" for url in links.urls)
    assert "script" not in links.tags
    assert "&lt;script&gt;alert(1)" in page
    assert links.tags.count("img") == 6
    assert "url(" not in page and "@import" not in page


def test_labels_alone_make_a_report(spark: SparkSession, inputs: dict[str, str]) -> None:
    """Beliefs of other origin may have ids and lists alone."""
    names = ("label_space", "output")
    file = Path(inputs["compare"], "00000.parquet")
    pq.write_table(pq.read_table(file, columns=["id", "labels", "label_probs"]), file)
    run(spark, labels=inputs["compare"], **{name: inputs[name] for name in names})
    document = storage.read_json(storage.join(inputs["output"], "report.json"))
    assert document is not None
    assert document["classes"]["first_somewhere"] == 3
    assert not {"accuracy", "agreement", "posterior", "workers"} & document.keys()


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("gold", "image,label\n0,0\n", "has no column 'image_id'"),
        (
            "gold",
            "image_id,label\n0,dogfish\n",
            "in row 1: 'dogfish' is not an integer and not",
        ),
        ("label_space", "\n", "names fewer than two classes"),
        ("label_space", "cat\ndog\n", "the label 2, which is outside label_space (0..1)"),
    ],
)
def test_a_bad_input_is_named(
    spark: SparkSession, inputs: dict[str, str], key: str, text: str, message: str
) -> None:
    bad = Path(inputs["output"]).with_name("bad.csv")
    bad.write_text(text)
    with pytest.raises((InputError, PySparkException, Py4JError)) as caught:
        run(spark, **{**inputs, key: str(bad)})
    error = caught.value if isinstance(caught.value, InputError) else explain(caught.value)
    assert isinstance(error, InputError)
    assert message in str(error)


def test_gold_may_be_parquet_that_names_classes(
    spark: SparkSession, inputs: dict[str, str], tmp_path: Path
) -> None:
    names = Path(inputs["label_space"]).read_text().splitlines()
    gold = pa.table({"image_id": ["0", "1", "2", "3"], "label": [names[c] for c in (0, 1, 2, 0)]})
    storage.write_parquet(str(tmp_path / "gold.parquet"), gold)
    run(spark, **inputs)
    by_number = storage.read_json(storage.join(inputs["output"], "report.json")) or {}
    changed = {"gold": str(tmp_path / "gold.parquet"), "output": str(tmp_path / "by_name")}
    run(spark, **{**inputs, **changed})
    by_name = storage.read_json(storage.join(changed["output"], "report.json")) or {}
    assert by_name["accuracy"] == by_number["accuracy"]


def test_compare_with_an_id_twice_is_refused(
    spark: SparkSession, inputs: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "beliefs"
    (folder / "00001.parquet").write_bytes((folder / "00000.parquet").read_bytes())
    with pytest.raises(InputError, match="some ids occur more than once"):
        run(spark, **inputs)
