"""Row 315 of COYO-Labeled-300M goes through all that touches labels without a change in a value."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from coyo_labeler.data import LabelledImages, MultiHot, Soft, collate
from coyo_labeler.formats import schemas
from coyo_labeler.formats.spark_tables import read_table
from coyo_labeler.label.model import top_k
from coyo_labeler.report import metrics
from coyo_labeler.report.sums import Aggregates
from coyo_labeler.report.tally import Tally
from tests.label.tars import crops, jpeg
from tests.tars import write_members

LABELS = [8087, 11054, 8086, 6614, 6966, 8193, 10576, 9710, 4334, 9909]
PROBS = [
    0.4453125,
    0.30419921875,
    0.09417724609375,
    0.033905029296875,
    0.03240966796875,
    0.0157928466796875,
    0.01406097412109375,
    0.01129150390625,
    0.00978851318359375,
    0.00841522216796875,
]
ROW = {
    "id": 315,
    "url": "http://example.org/315.jpg",
    "imagehash": "daf5a50aae4aa54a",
    "labels": LABELS,
    "label_probs": PROBS,
    "width": 240,
    "height": 240,
}


@pytest.fixture
def published(tmp_path):
    """The row in a file named as the published ones, and a tar with its image."""
    name = "part-00000-c9672901-7346-47d7-b02e-c1562fdf3cf9-c000.snappy.parquet"
    (tmp_path / "labels").mkdir()
    table = pa.Table.from_pylist([ROW], schema=schemas.BELIEFS)
    pq.write_table(table, tmp_path / "labels" / name, compression="snappy")
    document = json.dumps({"id": 315}).encode()
    members = [("000000000.jpg", jpeg(crops(1)[0])), ("000000000.json", document)]
    write_members(tmp_path / "images" / "00000.tar", members)
    return tmp_path


def test_a_teacher_that_means_it_writes_it():
    """Its values are float16 numbers, sorted: what `label` makes of the logits behind them."""
    logits = torch.full((1, 21_841), -12.0, dtype=torch.float64)
    logits[0, LABELS] = torch.logit(torch.tensor(PROBS, dtype=torch.float64))
    labels, probs, _ = top_k(logits.float(), len(LABELS), "sigmoid", torch.float16)
    assert labels.tolist() == [LABELS]
    assert probs.tolist() == [PROBS]


def test_the_schema_and_spark_hold_it(published, spark):
    row = read_table(spark, "labels", str(published / "labels"), schemas.BELIEFS).first()
    assert row.asDict() == ROW


@pytest.mark.parametrize("target", [Soft(), MultiHot(0.05)])
def test_the_reader_makes_a_vit_target_of_it(published, target):
    images = LabelledImages(
        str(published / "images"), str(published / "labels"), target=target, shuffle=False
    )
    batch = collate(list(images))
    assert batch.ids.tolist() == [315]
    dense = batch.targets.dense(21_841)
    expected = torch.zeros(1, 21_841)
    if isinstance(target, Soft):
        expected[0, LABELS] = torch.tensor(PROBS)
    else:
        expected[0, LABELS[:3]] = 1
    assert torch.equal(dense, expected)
    if isinstance(target, Soft):
        assert dense[0, LABELS].double().tolist() == PROBS


def test_the_report_counts_its_labels_at_every_threshold(published):
    table = pq.read_table(published / "labels")
    tally = Tally(21_841)
    for batch in table.to_batches():
        tally.add(batch)
    sums = Aggregates.of(tally.total())
    by_threshold = {row["threshold"]: row for row in metrics.threshold_table(sums, True)}
    assert by_threshold[0.0]["labels_per_image"] == by_threshold[0.0]["unique_labels"] == 10
    assert by_threshold[0.1]["labels_per_image"] == 2
    for threshold, row in by_threshold.items():
        assert row["labels_per_image"] == np.sum(np.array(PROBS) >= threshold)
