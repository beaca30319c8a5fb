"""Lists of labels seen through the label tree: rolled up, cut to leaves, and where they are torn.

Lists are ragged: labels and probs (entries,), flattened over images; offsets (images + 1,), image i
owns [offsets[i], offsets[i + 1]). Results have the same form, most probable first, ties by label.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.formats.label_tree import F64, I32, I64, LabelTree

Lists = tuple[I64, F64, I64]
#: sum: the classes of a list exclude one another (a softmax, a posterior of one class). max: they
#: do not (sigmoids, truth=multi); then a node is at least as probable as any class below it.
Combine = Literal["sum", "max"]

#: Lists that are worked on at once: of 50 labels, some 5 million pairs of a label and a node above.
_CHUNK: Final = 8_192


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


def torn_node(tree: LabelTree, labels: I64, probs: F64) -> int:
    """`torn_nodes` of one list, of classes that exclude one another.

    Raises: ValueError for an empty list.
    """
    (node,) = torn_nodes(tree, labels, probs, np.array([0, len(labels)])).tolist()
    if node < 0:
        raise ValueError("a list without labels is torn nowhere")
    return int(node)


def torn_nodes(
    tree: LabelTree,
    labels: I64,
    probs: F64,
    offsets: I64,
    combine: Combine = "sum",
    most: int | None = None,
) -> I64:
    """The node of each list about which a yes or no says most: that closest to one half, (images,).

    "Is it a dog?" is asked where the dogs of the list sum to 0.6, whatever their breeds; one breed,
    where it has 0.5 by itself. Probability that is missing to 1 is that of unlisted classes, which
    are outside of every node; a list of more than 1 in all is scaled to 1 (combine = sum). Of nodes
    with equal probabilities the deepest, then the lowest number. Nodes of more than `most` classes
    come last: people cannot tell "a whole" from others. −1 for an empty list.
    """
    nodes = np.full(len(offsets) - 1, -1, dtype=np.int64)
    for start in range(0, len(nodes), _CHUNK):
        part = offsets[start : start + _CHUNK + 1]
        entries = slice(part[0], part[-1])
        own = part - part[0]
        nodes[start : start + _CHUNK] = _torn(
            tree, labels[entries], probs[entries], own, combine, most
        )
    return nodes


def _torn(
    tree: LabelTree, labels: I64, probs: F64, offsets: I64, combine: Combine, most: int | None
) -> I64:
    images = len(offsets) - 1
    image = np.repeat(np.arange(images), np.diff(offsets))
    if combine == "sum":
        probs = probs / np.maximum(np.bincount(image, probs, images), 1.0)[image]
    starts, above = tree.lineages
    entry, index = _expand(starts[labels], starts[labels + 1])
    key, group = np.unique(image[entry] * tree.nodes + above[index], return_inverse=True)
    total = np.zeros(len(key))
    add = np.add if combine == "sum" else np.maximum
    add.at(total, group, probs[entry])
    owner, node = np.divmod(key, tree.nodes)
    # Sums of the same labels in another order differ in the last bits.
    gap = np.round(np.abs(total - 0.5), 9)
    if most is not None:
        gap += tree.set_sizes[node] > most
    order = np.lexsort((node, -tree.depth[node], gap, owner))
    first = np.ones(len(order), dtype=bool)
    first[1:] = owner[order][1:] != owner[order][:-1]
    nodes = np.full(images, -1, dtype=np.int64)
    nodes[owner[order][first]] = node[order][first]
    return nodes


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
