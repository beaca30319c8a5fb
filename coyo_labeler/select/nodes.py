"""Questions about nodes of the label tree: is it one of the classes at or below this one?

The node of an image is the one that its list is torn about (`formats.tree_labels.torn_nodes`).
Where that is a class with none below it, the question is an ordinary verification of the class.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from coyo_labeler.em.segments import find
from coyo_labeler.formats.label_lists import LabelLists
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import LabelTree, read_label_tree
from coyo_labeler.formats.tree_labels import Combine, torn_nodes
from coyo_labeler.select.ask import Asked


@dataclass(frozen=True)
class NodeRule:
    """How nodes are chosen. space: the classes, which have a tree. The others: `torn_nodes`."""

    space: LabelSpace
    combine: Combine
    most: int

    @property
    def tree(self) -> LabelTree:
        """The tree above the classes."""
        return read_label_tree(self.space)


def ask_nodes(lists: LabelLists, rule: NodeRule) -> Asked:
    """Is it one of the classes at or below this node? Every image has a list.

    The ids of questions end in the node's synset, for its classes alone do not always tell it.
    """
    tree, labels = rule.tree, lists.label.astype(np.int64)
    torn = torn_nodes(tree, labels, lists.probability, lists.offsets, rule.combine, rule.most)
    offsets, classes = tree.node_sets(torn)
    one = np.diff(offsets) == 1
    image = np.repeat(np.arange(len(torn)), np.diff(offsets))
    probability = np.zeros(len(classes), dtype=np.float32)
    listed = np.repeat(np.arange(len(torn)), lists.lengths) * tree.classes + labels
    order = np.argsort(listed)
    index, known = find(listed[order], image * tree.classes + classes)
    probability[known] = lists.probability[order][index[known]]
    ends, several = pa.array(offsets, pa.int32()), pa.array(one)
    return Asked(
        [tree.synsets[node] for node in torn.tolist()],
        "verify",
        pa.array(classes[offsets[:-1]], mask=~one),
        pa.ListArray.from_arrays(ends, pa.array(classes), mask=several),
        pa.ListArray.from_arrays(ends, pa.array(probability), mask=several),
    )
