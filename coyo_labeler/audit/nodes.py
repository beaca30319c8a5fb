"""Verifications of a class that has classes below it, where a merge read them so (`tree=true`)."""

from dataclasses import replace

import numpy as np

from coyo_labeler.audit.inputs import NO_CLASS, Answer, Answers, Lists
from coyo_labeler.em.segments import I64, offsets_of
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import LabelTree, read_label_tree
from coyo_labeler.manifest import read_manifest


def tree_of(labels: str, space: LabelSpace) -> LabelTree | None:
    """The tree, where the labels are a merge with `tree=true`; else None."""
    manifest = read_manifest(labels)
    if manifest is None or manifest.stage != "merge" or not manifest.config.get("tree"):
        return None
    return read_label_tree(space)


def about_sets(answers: Answers, tree: LabelTree | None) -> Answers:
    """The answers, where a verification of a class is about all classes at or below it."""
    if tree is None:
        return answers
    asks = np.isin(answers.answer, (Answer.YES, Answer.NO, Answer.UNSURE)) & (answers.label >= 0)
    inner = np.flatnonzero(asks)
    inner = inner[tree.set_sizes[answers.label[inner]] > 1]
    if not len(inner):
        return answers
    nodes, of_node = np.unique(answers.label[inner], return_inverse=True)
    set_offsets, classes = tree.node_sets(nodes.astype(np.int64))
    old = answers.offered
    start, length = old.offsets[:-1].copy(), np.diff(old.offsets)
    # The sets come behind what is offered already.
    start[inner] = len(old.label) + set_offsets[of_node]
    length[inner] = np.diff(set_offsets)[of_node]
    offsets: I64 = offsets_of(length)
    entry = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
    offered = np.concatenate([old.label, classes]).astype(np.int32)[entry]
    label = answers.label.copy()
    label[inner] = NO_CLASS
    return replace(answers, label=label, offered=Lists(offsets, offered))
