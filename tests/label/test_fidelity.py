"""`label` against a slow reference, on a teacher whose answers depend on the picture."""

import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.config.label import LabelSettings
from coyo_labeler.formats import schemas
from coyo_labeler.stages import STAGES, run_stage
from tests.label import reference
from tests.label.tars import crops, jpeg, write_tar
from tests.label.teachers import MODEL

SIZE, K = 96, 50
WRONG = ["bicubic", "antialias", "127.5", "no crop", "class order", "softmax"]


@pytest.fixture(scope="module")
def files():
    return [jpeg(pixels) for pixels in crops(8, seed=1)]


@pytest.fixture(scope="module")
def labelled(files, goog_teacher, tmp_path_factory):
    """What `label` wrote of the files, in float32 unrounded."""
    folder = tmp_path_factory.mktemp("fidelity")
    write_tar(folder / "images", 0, files)
    settings = LabelSettings(
        images=str(folder / "images"),
        output=str(folder / "beliefs"),
        model=MODEL,
        checkpoint=str(goog_teacher),
        preprocess=f"automl_{SIZE}",
        precision="float32",
        label_probs_dtype="float32",
        engine="local",
        device="cpu",
    )
    run_stage(STAGES["label"], settings)
    return pq.read_table(folder / "beliefs" / "00000.parquet")


def disagreement(table, expected):
    """(smallest share of the top k in common, largest difference of a shared probability)."""
    shared, differences = [], []
    rows = table.select(["labels", "label_probs"]).to_pylist()
    for row, answer in zip(rows, expected, strict=True):
        labelled = dict(zip(row["labels"], row["label_probs"], strict=True))
        both = labelled.keys() & answer.keys()
        # A class at the end of the list may change places with one that is as probable.
        last = min(answer.values()) + 2e-3
        probs = {**answer, **labelled}
        sure = {label for label in labelled.keys() ^ answer.keys() if probs[label] > last}
        shared.append(1 - len(sure) / K if len(both) > K * 0.9 else len(both) / K)
        differences += [abs(labelled[label] - answer[label]) for label in both] or [1.0]
    return min(shared), max(differences)


def agrees(table, expected):
    share, difference = disagreement(table, expected)
    return share == 1 and difference < 2e-3


def test_labels_and_probabilities_are_those_of_the_reference(labelled, files, goog_teacher):
    expected = reference.answer(files, MODEL, goog_teacher, SIZE, K)
    assert agrees(labelled, expected), disagreement(labelled, expected)


@pytest.mark.parametrize("rank", [0, 1, 10])
def test_the_comparison_sees_a_label_that_is_missing(files, goog_teacher, rank):
    """And the next in its place."""
    expected = reference.answer(files, MODEL, goog_teacher, SIZE, K)
    more = [list(row.items()) for row in reference.answer(files, MODEL, goog_teacher, SIZE, K + 1)]
    short = [row[:rank] + row[rank + 1 :] for row in more]
    columns = [[[pair[side] for pair in row] for row in short] for side in (0, 1)]
    table = pa.table(columns, names=["labels", "label_probs"])
    assert not agrees(table, expected), disagreement(table, expected)


def test_the_order_is_that_of_the_reference(labelled, files, goog_teacher):
    expected = reference.answer(files, MODEL, goog_teacher, SIZE, K)
    for row, answer in zip(labelled.to_pylist(), expected, strict=True):
        order = [answer.get(label, min(answer.values())) for label in row["labels"]]
        assert all(a - b > -2e-3 for a, b in itertools.pairwise(order))
        assert row["labels"][0] == next(iter(answer))


@pytest.mark.parametrize("wrong", WRONG)
def test_the_comparison_sees_a_wrong_way(labelled, files, goog_teacher, wrong):
    expected = reference.answer(files, MODEL, goog_teacher, SIZE, K, wrong)
    assert not agrees(labelled, expected), disagreement(labelled, expected)


def test_the_teacher_of_these_tests_depends_on_its_input(files, goog_teacher):
    answers = reference.answer(files, MODEL, goog_teacher, SIZE, K)
    assert len({next(iter(answer)) for answer in answers}) >= 4


def test_files_have_the_published_columns_and_order(labelled):
    assert labelled.schema.remove_metadata() == schemas.BELIEFS
    for row in labelled.to_pylist():
        pairs = list(zip(row["label_probs"], row["labels"], strict=True))
        assert pairs == sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
        assert len(pairs) == K
        assert max(row["labels"]) < 21_841
