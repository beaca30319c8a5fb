"""Verifications of a class with others below it are about all of them, as merge reads them."""

import numpy as np

from coyo_labeler.audit import Answer, Answers, Lists
from coyo_labeler.audit.inputs import NO_CLASS
from coyo_labeler.audit.nodes import about_sets, tree_of
from coyo_labeler.formats.label_spaces import load_label_space
from coyo_labeler.formats.label_tree import read_label_tree


def test_a_verification_of_an_inner_class_is_about_its_set_and_others_stay(tmp_path):
    tree = read_label_tree("imagenet21k")
    sizes = tree.set_sizes[: tree.classes]
    inner, leaf = int(np.flatnonzero(sizes == 5)[0]), int(np.flatnonzero(sizes == 1)[0])
    code = [Answer.YES, Answer.CHOICE, Answer.NO, Answer.UNSURE, Answer.NONE, Answer.NO]
    label = [inner, inner, leaf, inner, NO_CLASS, NO_CLASS]
    answers = Answers(
        image=np.zeros(6, np.int64),
        worker=np.arange(6, dtype=np.int32),
        answer=np.array(code, np.int8),
        label=np.array(label, np.int32),
        offered=Lists(np.array([0, 0, 0, 0, 0, 2, 3]), np.array([7, 8, 9], np.int32)),
    )
    found = about_sets(answers, tree)
    assert found.label.tolist() == [NO_CLASS, inner, leaf, NO_CLASS, NO_CLASS, NO_CLASS]
    below = tree.node_sets(np.array([inner]))[1].tolist()
    lists = np.split(found.offered.label, found.offered.offsets[1:-1])
    assert [each.tolist() for each in lists] == [below, [], [], below, [7, 8], [9]]
    assert about_sets(answers, None) is answers
    assert tree_of(str(tmp_path), load_label_space("imagenet21k")) is None
