"""What is out of the ordinary is said, and nothing else."""

import numpy as np

from coyo_labeler.simulate.inputs import Images
from coyo_labeler.simulate.notes import notes_of


def images(truth, known=2, classes=3):
    n = len(truth)
    features = np.zeros((n, 2), np.float32)
    return Images(np.arange(n), features, np.array(truth), np.arange(n) < known, classes, {})


def test_an_ordinary_case_has_no_note():
    assert notes_of(images([0, 1, 2, 0, 1]), 0.7) == []


def test_each_extraordinary_thing_has_its_note():
    def first_words(*arguments):
        return [note[:25] for note in notes_of(*arguments)]

    assert first_words(images([0] * 5, classes=1), 0.7) == ["There is one class only: "]
    assert first_words(images([0, 1, 2, 2, 2]), 0.7) == ["All images are of class 2"]
    assert first_words(images([0, 1, 2], known=0), 0.7) == ["No image is known at the "]
    assert first_words(images([0, 1, 2, 0]), 0.33) == ["Workers are right in 33.0"]
