"""Lists of labels seen through the tree above their classes; works on arrays, without I/O."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from coyo_labeler.formats import tree_labels
from coyo_labeler.formats.label_lists import LabelLists
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import read_label_tree

How = Literal["leaves", "ancestors", "ancestors_max"]


@dataclass(frozen=True)
class RollUp:
    """What becomes of every list: see `formats.tree_labels`. space: the classes, which have a tree.

    leaves: labels that another label of the list lies below are dropped. ancestors: every class
    above a label joins the list, with the sum of the probabilities at or below it; ancestors_max:
    with their maximum.
    """

    space: LabelSpace
    how: How


def roll_up(lists: LabelLists, rule: RollUp) -> LabelLists:
    """The lists after the rule, most probable first."""
    tree = read_label_tree(rule.space)
    labels = lists.label.astype(np.int64)
    if rule.how == "leaves":
        rolled = tree_labels.leaves_only(tree, labels, lists.probability, lists.offsets)
    else:
        combine: tree_labels.Combine = "sum" if rule.how == "ancestors" else "max"
        rolled = tree_labels.with_ancestors(tree, labels, lists.probability, lists.offsets, combine)
    label, probability, offsets = rolled
    return replace(lists, label=label.astype(np.int32), probability=probability, offsets=offsets)
