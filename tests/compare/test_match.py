"""Matching against slow twins and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coyo_labeler.compare import tables
from coyo_labeler.compare.masks import box_intersections, box_iou, intersections
from coyo_labeler.compare.match import cover_by_crowds, find_splits, match_best_first, shares_within
from coyo_labeler.config.compare import CompareSettings
from coyo_labeler.config.report import ReportSettings
from coyo_labeler.engines import report_instead
from coyo_labeler.errors import InputError


def slow_pairs(iou: np.ndarray, floor: float, same: np.ndarray) -> list[tuple[int, int]]:
    """The best pair that is left, again and again."""
    left = iou.copy()
    pairs = []
    while left.size:
        best = max(
            np.ndindex(*left.shape),
            key=lambda p: (left[p], same[p], -p[0], -p[1]),
        )
        if left[best] < floor or left[best] <= 0:
            break
        pairs.append(best)
        left[best[0], :] = left[:, best[1]] = -1
    return pairs


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 10_000))
def test_pairs_are_those_of_the_slow_twin(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    iou = rng.integers(0, 5, (rows, columns)) / 4  # many ties
    same = rng.random((rows, columns)) < 0.5
    found = match_best_first(iou, 0.5, same)
    assert list(zip(found.a.tolist(), found.b.tolist(), strict=True)) == slow_pairs(iou, 0.5, same)
    lower = match_best_first(iou, 0.25, same)
    assert lower.a[: len(found.a)].tolist() == found.a.tolist()  # the first are the same


def test_of_two_equal_masks_the_one_of_the_class_is_matched() -> None:
    iou = np.ones((2, 2))
    same = np.array([[False, True], [True, False]])
    pairs = match_best_first(iou, 0.5, same)
    assert sorted(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_a_part_of_two_wholes_belongs_to_the_better_one() -> None:
    iou = np.array([[0.3, 0.3, 0.0], [0.2, 0.0, 0.4]])
    share = np.array([[0.9, 0.9, 0.0], [0.8, 0.0, 0.7]])
    same = np.ones((2, 3), bool)
    none = match_best_first(iou, 0.5, same)
    split, part = find_splits(iou, share, same, none)
    assert (split.tolist(), part.tolist()) == ([True, False], [True, True, False])
    split, part = find_splits(iou, share, np.zeros((2, 3), bool), none)
    assert not split.any() and not part.any()


def test_a_crowd_need_only_be_touched() -> None:
    both = np.array([[1.0, 0.0], [1.0, 0.0]])
    boxes = np.array([[50.0, 50.0], [50.0, 50.0]])
    areas = np.array([10.0, 10.0])
    share = shares_within(both, areas, boxes, np.array([100.0, 100.0]), np.array([True, False]))
    assert share.tolist() == [[0.5, 0.0], [0.1, 0.0]]


def test_a_crowd_covers_objects_of_its_class() -> None:
    both = np.array([[8.0, 8.0], [10.0, 10.0]])
    same = np.array([[True, False], [True, True]])
    crowd = np.array([True, False])
    assert cover_by_crowds(both, np.array([10.0, 10.0]), same, crowd).tolist() == [0.8, 0.0]


def test_intersections_come_back_out_of_the_iou() -> None:
    a, b = np.array([30.0]), np.array([50.0])
    assert intersections(np.array([[20 / 60]]), a, b)[0, 0] == pytest.approx(20)
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 0, 0]])
    other = np.array([[5.0, 5, 10, 10], [0, 0, 0, 0]])
    assert box_intersections(boxes, other).tolist() == [[25.0, 0.0], [0.0, 0.0]]
    assert box_iou(boxes, other).tolist() == [25 / 175, 0.0]


def test_sizes_end_where_cocos_do() -> None:
    columns = {
        "area": np.array([100.0, 100.5, 1023.9, 1024.0, 9215.9, 9216.0]),
        "kind": np.zeros(6, np.int8),
        "crowd": np.zeros(6, bool),
        "polygons": np.ones(6, np.int32),
        "vertices": np.full(6, 4, np.int32),
        "klass": np.zeros(6, np.int32),
    }
    counts = tables.count_objects(columns)
    assert [counts[name] for name in tables.SIZES] == [1, 3, 2, 1]


def test_two_labels_folders_are_for_report(tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "posterior").mkdir(parents=True)
    (tmp_path / "coco").mkdir()
    settings = CompareSettings(
        a=str(tmp_path / "one"), b=str(tmp_path / "two"), output="out", title="T", label_space="x"
    )
    stage, values = report_instead(settings) or ("", {})
    report = ReportSettings.model_validate(values)
    assert (stage, report.labels, report.compare) == ("report", settings.b, settings.a)
    assert (report.output, report.title, report.label_space) == ("out", "T", "x")
    mixed = settings.model_copy(update={"b": str(tmp_path / "coco")})
    with pytest.raises(InputError, match=r"compare: a: .*one is a labels folder, and b .*coco"):
        report_instead(mixed)
    assert report_instead(mixed.model_copy(update={"a": "nowhere"})) is None
