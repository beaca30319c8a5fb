"""The counts that need the tree above the classes, of a batch of rows, kept in `sums`."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import LabelTree, read_label_tree
from coyo_labeler.formats.published import THRESHOLDS
from coyo_labeler.formats.tree_labels import has_listed_below
from coyo_labeler.report.ragged import I64, Mask, Ragged
from coyo_labeler.report.sums import Ledger

#: What a row says of a node: the sum of its labels at or below it, above this one.
NODE_PROBABILITY = 0.5


def related_thresholds() -> list[tuple[int, float]]:
    """The thresholds of `count_lists` with their indices. Without one, lists of 50 have it all."""
    return [(index, threshold) for index, threshold in enumerate(THRESHOLDS) if threshold > 0]


@dataclass(frozen=True)
class TreeTally:
    """What is counted along the tree of a label space.

    nodes: synsets of the nodes about which each row is asked: is it there, and is it true? levels:
    depths at which the first label is compared with the truth. Small enough to be sent to tasks;
    they read the tree from the package.
    """

    space: LabelSpace
    nodes: tuple[str, ...]
    levels: tuple[int, ...]

    @cached_property
    def tree(self) -> LabelTree:
        """The tree above the classes of the space."""
        return read_label_tree(self.space)

    def count_lists(self, ledger: Ledger, own: Ragged) -> None:
        """Count the rows whose list has a class and one below it, among labels of a threshold.

        Measure `related`: a is the index of the threshold.
        """
        for index, threshold in related_thresholds():
            keep = own.probs >= threshold
            image = own.image[keep]
            offsets = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=own.images))])
            above = has_listed_below(self.tree, own.labels[keep], offsets)
            ledger.count("related", len(np.unique(image[above])), a=index)

    def count_truth(self, ledger: Ledger, prefix: str, own: Ragged, truth: Ragged) -> None:
        """Count first labels against the truth along the tree. prefix: of the measures.

        `tree_distance`: a is the steps from the first label to the only true class. `tree_level`: a
        is the index of the level, b whether both have the same node there. `tree_confusion`, by the
        index of the level: a is the true node and b the given one, where they differ. `tree_node`:
        a is the index of the node, b is 4 × (a true class is at or below it) + 2 × (the first label
        is) + (the labels at or below it sum to `NODE_PROBABILITY` or more).
        """
        first, _ = own.first()
        single = (truth.lengths == 1) & (first >= 0)
        expected, given = truth.labels[truth.starts[single]], first[single]
        ledger.tally(prefix + "tree_distance", self._distance(expected, given))
        for index, nodes in enumerate(self._nodes_at_levels):
            same = nodes[expected] == nodes[given]
            ledger.tally(prefix + "tree_level", np.full(len(same), index), same)
            a, b = nodes[expected][~same], nodes[given][~same]
            ledger.tally(prefix + "tree_confusion", a, b, name=str(index))
        known = truth.lengths > 0
        for index, inside in enumerate(self._inside):
            is_true = _any(inside[truth.labels], truth)
            is_first = (first >= 0) & inside[np.maximum(first, 0)]
            total = np.bincount(own.image, own.probs * inside[own.labels], own.images)
            answer = 4 * is_true + 2 * is_first + (total >= NODE_PROBABILITY)
            ledger.tally(prefix + "tree_node", np.full(known.sum(), index), answer[known])

    def _distance(self, a: I64, b: I64) -> I64:
        """Steps between pairs of classes; each distinct pair is looked up once."""
        if not len(a):
            return a
        key, index = np.unique(a * self.tree.classes + b, return_inverse=True)
        steps = self.tree.distance(key // self.tree.classes, key % self.tree.classes)
        return steps.astype(np.int64)[index]

    @cached_property
    def _nodes_at_levels(self) -> list[I64]:
        return [self.tree.at_depth(level).astype(np.int64) for level in self.levels]

    @cached_property
    def _inside(self) -> list[Mask]:
        """For each node, whether a class is at or below it, (classes,)."""
        masks = []
        for synset in self.nodes:
            mask = np.zeros(self.tree.classes, dtype=bool)
            mask[self.tree.node_set(self.tree.node(synset))] = True
            masks.append(mask)
        return masks


def _any(entries: Mask, of: Ragged) -> Mask:
    """Whether any entry of each image holds, (images,)."""
    return np.bincount(of.image[entries], minlength=of.images) > 0
