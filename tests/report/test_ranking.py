import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from coyo_labeler.report import metrics, ranking
from coyo_labeler.report.sums import Aggregates
from coyo_labeler.report.tally import LOGIT_BINS, LOGIT_END, Tally, logit_bin

CLASSES, IMAGES, LISTED = 7, 400, 4


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray, Aggregates]:
    """Dense scores and truth of a multi-label problem, and the sums of its first few labels.

    Scores sit in the middle of a bin, so that binning ties only what is tied; classes that an
    image does not list score 0.
    """
    random = np.random.default_rng(3)
    truth = random.random((IMAGES, CLASSES)) < 0.2
    truth[np.arange(IMAGES), random.integers(0, CLASSES, IMAGES)] = True
    logits = random.normal(-1, 1.5, (IMAGES, CLASSES)) + 2 * truth
    width = 2 * LOGIT_END / LOGIT_BINS
    logits = (np.floor((logits + LOGIT_END) / width) + 0.5) * width - LOGIT_END
    scores = 1 / (1 + np.exp(-logits))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :LISTED]
    listed = np.zeros_like(scores)
    np.put_along_axis(listed, order, np.take_along_axis(scores, order, 1), 1)
    tally = Tally(CLASSES)
    for half in (slice(0, 150), slice(150, IMAGES)):
        columns = {
            "id": pa.array(np.arange(IMAGES)[half]),
            "labels": pa.array(order[half].astype(np.int32).tolist(), pa.list_(pa.int32())),
            "label_probs": pa.array(
                np.take_along_axis(scores, order, 1)[half].tolist(), pa.list_(pa.float64())
            ),
            "width": pa.array([1] * len(order[half])),
            "height": pa.array([1] * len(order[half])),
            "gold": pa.array([np.flatnonzero(row).tolist() for row in truth[half]]),
        }
        tally.add(pa.RecordBatch.from_pydict(columns))
    return listed, truth, Aggregates.of(tally.total())


def test_average_precision_equals_scikit_learns(
    problem: tuple[np.ndarray, np.ndarray, Aggregates],
) -> None:
    listed, truth, sums = problem
    areas = ranking.listed_areas(sums.of_measure("scores"))
    precisions = ranking.average_precisions(areas, sums.dense("true", CLASSES), sums.count("known"))
    expected = [average_precision_score(truth[:, c], listed[:, c]) for c in range(CLASSES)]
    assert precisions == pytest.approx(expected)
    assert ranking.mean_average_precision(precisions)["value"] == pytest.approx(np.mean(expected))


def test_precision_recall_curve_equals_scikit_learns(
    problem: tuple[np.ndarray, np.ndarray, Aggregates],
) -> None:
    listed, truth, sums = problem
    precision, recall, thresholds = precision_recall_curve(truth.ravel(), listed.ravel())
    expected = {
        (round(r, 9), round(p, 9))
        for p, r, t in zip(precision[:-1], recall[:-1], thresholds, strict=True)
        if t > 0
    }
    curve = ranking.precision_recall(sums, points=10_000)
    assert {(round(p["recall"], 9), round(p["precision"], 9)) for p in curve} == expected


def test_precision_and_recall_above_a_threshold(
    problem: tuple[np.ndarray, np.ndarray, Aggregates],
) -> None:
    listed, truth, sums = problem
    for row in metrics.multilabel(sums):
        given = (listed >= row["threshold"]) & (listed > 0)
        assert row["precision"] == pytest.approx((given & truth).sum() / given.sum())
        assert row["recall"] == pytest.approx((given & truth).sum() / truth.sum())


def test_coverage_ends_at_the_accuracy_of_all_images(
    problem: tuple[np.ndarray, np.ndarray, Aggregates],
) -> None:
    _, _, sums = problem
    curve = metrics.coverage(sums)
    assert curve[-1]["share"] == 1.0
    assert curve[-1]["accuracy"] == pytest.approx(metrics.accuracy(sums)["top1"]["value"])
    assert [p["share"] for p in curve] == sorted(p["share"] for p in curve)


def test_log_odds_bins_rise_with_the_probability_and_hold_the_ends() -> None:
    bins = logit_bin(np.array([0.0, 1e-7, 0.2, 0.5, 0.501, 1 - 1e-7, 1.0]))
    assert bins.tolist() == sorted(bins.tolist())
    assert (bins[0], bins[3], bins[-1]) == (0, LOGIT_BINS // 2, LOGIT_BINS - 1)
