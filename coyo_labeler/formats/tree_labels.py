"""Lists of labels seen through the label tree: rolled up, cut to leaves, and where they are torn.

Lists are ragged: labels and probs (entries,), flattened over images; offsets (images + 1,), image i
owns [offsets[i], offsets[i + 1]). Results have the same form, most probable first, ties by label.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.formats.label_tree import F64, I32, I64, LabelTree

Lists = tuple[I64, F64, I64]
#: sum: the classes of a list exclude one another (a softmax, a posterior of one class). max: they
#: do not (sigmoids, truth=multi); then a node is at least as probable as any class below it.
Combine = Literal["sum", "max"]


def with_ancestors(
    tree: LabelTree, labels: I64, probs: F64, offsets: I64, combine: Combine
) -> Lists:
    """Lists with every class that is above a listed one added to them.

    The probability of a class combines those of the listed classes at or below it, at most 1.
    """
    return _spread(labels, probs, offsets, tree.class_ancestors(), combine)


def at_nodes(
    tree: LabelTree,
    labels: I64,
    probs: F64,
    offsets: I64,
    nodes: Sequence[int] | I32,
    combine: Combine,
) -> Lists:
    """Lists of indices into `nodes`: each with what is listed at or below it.

    A label below several of the nodes counts for each; one below none of them is dropped.
    """
    owner: list[I64] = []
    index: list[I64] = []
    for position, node in enumerate(nodes):
        below = tree.node_set(int(node)).astype(np.int64)
        owner.append(below)
        index.append(np.full(len(below), position))
    classes = np.concatenate(owner) if owner else np.zeros(0, np.int64)
    targets = np.concatenate(index) if index else np.zeros(0, np.int64)
    sizes = np.bincount(classes, minlength=tree.classes)
    order = np.argsort(classes, kind="stable")
    table = np.concatenate([[0], np.cumsum(sizes)]), targets[order]
    return _spread(labels, probs, offsets, table, combine)


def has_listed_below(tree: LabelTree, labels: I64, offsets: I64) -> NDArray[np.bool_]:
    """Whether another class of the same list lies below each entry, (entries,)."""
    starts, above = tree.class_ancestors()
    image = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    entry, index = _expand(starts[labels] + 1, starts[labels + 1])  # + 1: without itself
    implied = image[entry] * tree.classes + above[index]
    return np.isin(image * tree.classes + labels, implied)


def leaves_only(tree: LabelTree, labels: I64, probs: F64, offsets: I64) -> Lists:
    """Lists without the labels that another label of the same list lies below.

    The other labels keep their order and their probabilities.
    """
    keep = ~has_listed_below(tree, labels, offsets)
    kept = np.concatenate([[0], np.cumsum(keep)])
    return labels[keep], probs[keep], kept[offsets]


def node_probabilities(tree: LabelTree, labels: I64, probs: F64) -> tuple[I32, F64]:
    """The nodes at or above the labels of one list, in rising order, and the sums below each."""
    above = [np.append(tree.ancestors(int(label)), np.int32(label)) for label in labels]
    if not above:
        return np.zeros(0, np.int32), np.zeros(0)
    spread = np.repeat(probs, [len(nodes) for nodes in above])
    nodes, index = np.unique(np.concatenate(above), return_inverse=True)
    return nodes, np.bincount(index, spread).astype(np.float64)


def torn_node(tree: LabelTree, labels: I64, probs: F64) -> int:
    """The node about which a yes or no says most: whose probability is nearest to one half.

    labels, probs: one list, its classes excluding one another; probability that is missing to 1 is
    that of unlisted classes, outside of every node. "Is it a dog?" is asked where the dogs of the
    list sum to 0.6, whatever their breeds; one breed, where it has 0.5 by itself. Of nodes with
    equal probabilities the deepest, then the lowest number.

    Raises: ValueError for an empty list.
    """
    nodes, sums = node_probabilities(tree, labels, probs)
    if not len(nodes):
        raise ValueError("a list without labels is torn nowhere")
    # Sums of the same labels in another order differ in the last bits.
    gap = np.round(np.abs(sums - 0.5), 9)
    return int(nodes[np.lexsort((nodes, -tree.depth[nodes], gap))[0]])


def _spread(
    labels: I64, probs: F64, offsets: I64, table: tuple[I64, NDArray[np.integer]], combine: Combine
) -> Lists:
    """Each entry to the targets of its label (ragged: starts and targets), combined by image."""
    starts, targets = table
    images = len(offsets) - 1
    image = np.repeat(np.arange(images), np.diff(offsets))
    entry, index = _expand(starts[labels], starts[labels + 1])
    width = int(targets.max()) + 1 if len(targets) else 1
    key, group = np.unique(image[entry] * width + targets[index], return_inverse=True)
    spread = probs[entry]
    combined = np.zeros(len(key))
    add = np.add if combine == "sum" else np.maximum
    add.at(combined, group, spread)
    combined = np.minimum(combined, 1.0)
    owner, label = np.divmod(key, width)
    order = np.lexsort((label, -combined, owner))
    sizes = np.bincount(owner, minlength=images)
    return label[order], combined[order], np.concatenate([[0], np.cumsum(sizes)])


def _expand(starts: I64, ends: I64) -> tuple[I64, I64]:
    """The indices of ranges [start, end), flattened: the number of the range, and the index."""
    sizes = ends - starts
    owner = np.repeat(np.arange(len(sizes)), sizes)
    first = np.repeat(starts - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    return owner, first + np.arange(len(owner))
