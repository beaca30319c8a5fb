import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import precision_recall_fscore_support

from coyo_labeler.config.report import ReportSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.report import metrics
from coyo_labeler.report.document import Context, describe
from coyo_labeler.report.sums import Aggregates
from coyo_labeler.report.tally import Tally


def batch(**columns: object) -> pa.RecordBatch:
    rows = len(columns["labels"])  # type: ignore[arg-type]
    types = {
        "labels": pa.list_(pa.int32()),
        "label_probs": pa.list_(pa.float32()),
        "gold": pa.list_(pa.int32()),
        "other_labels": pa.list_(pa.int32()),
        "other_probs": pa.list_(pa.float32()),
        "slices": pa.list_(pa.string()),
    }
    sizes = {"id": list(range(rows)), "width": [240] * rows, "height": [240] * rows}
    return pa.RecordBatch.from_arrays(
        [pa.array(c, types.get(n, pa.int32())) for n, c in {**sizes, **columns}.items()],
        names=list({**sizes, **columns}),
    )


def sums_of(*batches: pa.RecordBatch, classes: int = 10) -> Aggregates:
    tally = Tally(classes)
    for part in batches:
        tally.add(part)
    return Aggregates.of(tally.total())


def test_threshold_table_counts_labels_over_the_images_that_keep_one() -> None:
    rows = batch(labels=[[1, 2, 3], [2, 4], []], label_probs=[[0.5, 0.25, 0.1], [0.12, 0.02], []])
    table = {row["threshold"]: row for row in metrics.threshold_table(sums_of(rows), False)}
    assert (table[0.0]["labels_per_image"], table[0.0]["unique_labels"]) == (2.5, 4)
    assert table[0.0]["share_kept"] == pytest.approx(2 / 3)
    assert (table[0.10]["labels_per_image"], table[0.10]["unique_labels"]) == (2.0, 3)
    assert (table[0.25]["labels_per_image"], table[0.25]["unique_labels"]) == (2.0, 2)
    assert table[0.25]["share_kept"] == pytest.approx(1 / 3)


def test_sums_do_not_depend_on_how_the_rows_are_cut() -> None:
    random = np.random.default_rng(1)
    labels = [random.permutation(10)[: random.integers(1, 6)].tolist() for _ in range(40)]
    probs = [np.sort(random.random(len(row)))[::-1].tolist() for row in labels]
    gold = [[int(random.integers(10))] for _ in labels]
    whole = sums_of(batch(labels=labels, label_probs=probs, gold=gold))
    parts = sums_of(
        *(batch(labels=labels[i::3], label_probs=probs[i::3], gold=gold[i::3]) for i in range(3))
    )
    assert whole.cells.keys() == parts.cells.keys()
    for key, cells in whole.cells.items():
        for column in ("key", "count"):
            assert getattr(cells, column).tolist() == getattr(parts.cells[key], column).tolist()
        assert parts.cells[key].total == pytest.approx(cells.total)


def test_class_scores_equal_scikit_learns() -> None:
    random = np.random.default_rng(2)
    true, given = random.integers(0, 6, 300), random.integers(0, 6, 300)
    rows = batch(
        labels=[[int(c)] for c in given],
        label_probs=[[0.5]] * 300,
        gold=[[int(c)] for c in true],
    )
    scores = metrics.class_scores(sums_of(rows), 10, np.full(10, np.nan))
    expected = precision_recall_fscore_support(true, given)
    for row, key in enumerate(("precision", "recall", "f1", "support")):
        assert [score[key] for score in scores] == pytest.approx(expected[row].tolist())


def test_accuracy_counts_a_hit_on_any_of_several_true_classes() -> None:
    rows = batch(
        labels=[[1, 2], [3, 4], [5]],
        label_probs=[[0.9, 0.1], [0.8, 0.2], [0.5]],
        gold=[[7, 1], [4], None],
    )
    accuracy = metrics.accuracy(sums_of(rows))
    assert accuracy["images"] == 2
    assert (accuracy["top1"]["value"], accuracy["top5"]["value"]) == (0.5, 1.0)


def test_calibration_error_by_hand() -> None:
    # Two images at 0.95, one right; two at 0.30, none right: (|0.5 − 0.95| + |0 − 0.30|) / 2.
    rows = batch(
        labels=[[0], [1], [2], [3]],
        label_probs=[[0.95], [0.95], [0.3], [0.3]],
        gold=[[0], [0], [0], [0]],
    )
    assert metrics.reliability(sums_of(rows))["ece"] == pytest.approx(0.375, abs=1e-6)


def test_wilson_interval_of_8_in_10() -> None:
    # Newcombe 1998 gives (0.4902, 0.9433) for 8 of 10 at 95 %.
    assert metrics.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_changed_labels_are_split_into_mended_and_broken() -> None:
    rows = batch(
        labels=[[1], [2], [3], [4]],
        label_probs=[[0.9]] * 4,
        other_labels=[[0], [2], [5], None],
        other_probs=[[0.6]] * 3 + [None],
        gold=[[1], [2], [5], [4]],
    )
    agreement = metrics.agreement(sums_of(rows))
    assert (agreement["images"], agreement["changed"], agreement["same"]["value"]) == (3, 2, 1 / 3)
    assert agreement["against_gold"] == {
        "mended": 1, "broken": 1, "right_in_both": 1, "wrong_in_both": 0,
    }  # fmt: skip


def test_slices_give_the_error_rate_of_each_group_an_image_is_in() -> None:
    rows = batch(
        labels=[[1], [2], [3]],
        label_probs=[[0.9]] * 3,
        gold=[[1], [1], [3]],
        slices=[["day", "old"], ["day"], None],
    )
    errors = {row["slice"]: (row["value"], row["n"]) for row in metrics.slice_errors(sums_of(rows))}
    assert errors == {"day": (0.5, 2), "old": (0.0, 1)}


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        ([[1, 10]], [[0.5, 0.4]], "outside label_space"),
        ([[1, 2]], [[0.4, 0.5]], "not sorted"),
        ([[1, 2]], [[0.4]], "id 0 has 2 labels but 1 probabilities"),
    ],
)
def test_rows_that_break_the_schema_are_refused(
    labels: list[list[int]], probs: list[list[float]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sums_of(batch(labels=labels, label_probs=probs))


def test_confused_classes_are_listed_by_count_and_by_confidence() -> None:
    rows = batch(
        labels=[[1], [1], [2], [0], [1]],
        label_probs=[[0.25], [0.5], [0.875], [0.75], [0.5]],
        gold=[[0], [0], [1], [0], [1]],
    )
    settings = ReportSettings(labels="l", gold="g", output="o")
    context = Context(series={"own": "a", "other": "b"}, about={})
    space = LabelSpace("three.txt", 3, ("cat", "dog", "cat"))
    document = describe(sums_of(rows, classes=3), space, settings, context)["accuracy"]
    pairs = [
        [(pair["from_name"], pair["to_name"], pair["count"], pair["confidence"]) for pair in listed]
        for listed in (document["confused"], document["confused_by_confidence"])
    ]
    assert pairs[0] == [("cat (0)", "dog", 2, 0.375), ("dog", "cat (2)", 1, 0.875)]
    assert pairs[1] == pairs[0][::-1]
