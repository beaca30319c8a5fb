"""The rows of images without votes: in order, and those that are kept."""

import numpy as np
import pyarrow as pa
import pytest

from coyo_labeler.em.model import Calibration, Model
from coyo_labeler.formats import schemas
from coyo_labeler.merge.posterior import believed_rows

MODEL = Model(classes=50, workers=3)


def beliefs(seed, ties):
    """30 images with up to six classes; some lists are in order, with ties by class."""
    random = np.random.default_rng(seed)
    rows = []
    for image in range(30):
        length = int(random.integers(0, 7))
        labels = random.choice(50, length, replace=False)
        probs = random.random(length).round(1 if ties else 6) * 0.9
        if random.random() < 0.7:
            order = np.lexsort((labels, -probs))
            labels, probs = labels[order], probs[order]
        rows.append({"id": 100 + image, "labels": labels.tolist(), "label_probs": probs.tolist()})
    return pa.Table.from_pylist(rows, schema=schemas.BELIEFS)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_labels_are_sorted_by_falling_probability_and_ties_by_class(seed, ties):
    table = beliefs(seed, ties)
    written = believed_rows(table, Calibration(1.3, 0.2), MODEL).to_pylist()
    for before, row in zip(table.to_pylist(), written, strict=True):
        pairs = list(zip(row["label_probs"], row["labels"], strict=True))
        assert pairs == sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
        assert sorted(row["labels"]) == sorted(before["labels"])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_rows_that_are_kept_are_as_they_are_in_the_whole_table(share):
    table, calibration = beliefs(0, True), Calibration(1.3, 0.2)
    kept = np.random.default_rng(1).random(len(table)) < share
    whole = believed_rows(table, calibration, MODEL)
    assert believed_rows(table, calibration, MODEL, kept=kept).equals(whole.filter(pa.array(kept)))
    assert believed_rows(whole, calibration, MODEL, kept=kept).equals(whole.filter(pa.array(kept)))
    for start in (0, 11, 29):  # a block of a larger table
        part = believed_rows(table.slice(start, 11), calibration, MODEL)
        assert part.equals(whole.slice(start, 11))
