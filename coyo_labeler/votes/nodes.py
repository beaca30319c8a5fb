"""Votes about nodes of the label tree: a verification speaks for all classes at or below its node.

"Is it a dog?" is about the set of all dogs, in all breeds. A vote names the node as its label (a
class, or the id or name of a synset above the classes), or in its candidates. Choices stay as they
are: who chose the dog did not choose a beagle.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler.em.sets import set_hashes
from coyo_labeler.formats.columns import is_text
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import LabelTree, read_label_tree

I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Nodes:
    """What votes about nodes are about.

    truth: of merge. With multi, a class is there wherever one below it is (`em.hierarchy`): then
    the question about a class is the question about its node, and stays one class.
    """

    space: LabelSpace
    truth: Literal["single", "multi"]

    @cached_property
    def tree(self) -> LabelTree:
        """The tree above the classes. Raises: InputError where there is none."""
        return read_label_tree(self.space)

    def numbers(self, names: pa.Array | pa.ChunkedArray, classes: pa.Array) -> pa.Array:
        """The nodes that are named, as int64; null where there is none.

        classes: of each name, null where it is no class.
        """
        if not is_text(names.type) or classes.null_count == 0:
            return classes
        if isinstance(names, pa.ChunkedArray):
            names = names.combine_chunks()
        other = pc.if_else(classes.is_null(), names.cast(pa.string()), None).dictionary_encode()
        nodes = [
            self.tree.find_above((name or "").strip()) for name in other.dictionary.to_pylist()
        ]
        return pc.coalesce(classes, pa.array(nodes, pa.int64()).take(other.indices))

    def is_set(self, node: I64) -> Bool:
        """Whether the question about each node (n,) is about a set of classes; −1: no node."""
        above_classes = node >= self.tree.classes
        if self.truth == "multi":
            return above_classes
        return above_classes | ((node >= 0) & (self.tree.set_sizes[node] > 1))

    def sets_of(self, node: I64) -> pa.Array:
        """The classes at or below each node (n,), as lists; null for −1."""
        nodes, inverse = np.unique(np.maximum(node, 0), return_inverse=True)
        lists = _lists(*self.tree.node_sets(nodes))
        return lists.take(pa.array(inverse, mask=node < 0))

    def close(self, lists: pa.Array) -> pa.Array:
        """Sets of nodes as the classes at or below any of their nodes; null stays."""
        rows = np.flatnonzero(np.asarray(lists.is_valid()))
        if len(rows) == 0:
            return lists
        offsets, values = _parts(lists.take(pa.array(rows)))
        _, example, inverse = np.unique(
            set_hashes(offsets, values), return_index=True, return_inverse=True
        )
        closed = [self._close(values[offsets[e] : offsets[e + 1]]) for e in example.tolist()]
        index = np.full(len(lists), -1, dtype=np.int64)
        index[rows] = inverse
        distinct = pa.array(closed, pa.list_(pa.int32()))
        return distinct.take(pa.array(index, mask=index < 0))

    def whole_classes(self, lists: pa.Array) -> I64:
        """The class that stands for all of each set, (n,); −1 where none does, or for null.

        Sets as of `close`. With truth single −1 for all: there a class is one of its node's.
        """
        whole = np.full(len(lists), -1, dtype=np.int64)
        rows = np.flatnonzero(np.asarray(lists.is_valid()))
        if self.truth == "single" or len(rows) == 0:
            return whole
        offsets, values = _parts(lists.take(pa.array(rows)))
        # A closed set of as many classes as one of its classes stands for is that one's.
        sizes = np.repeat(np.diff(offsets), np.diff(offsets))
        hits = np.flatnonzero(self.tree.set_sizes[values] == sizes)
        row = np.repeat(rows, np.diff(offsets))
        whole[row[hits]] = values[hits]
        return whole

    def _close(self, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.unique(self.tree.node_sets(nodes.astype(np.int64))[1])


def _parts(lists: pa.Array) -> tuple[I64, NDArray[np.int32]]:
    """Offsets and values of lists that are neither null nor empty."""
    lengths = np.asarray(pc.list_value_length(lists)).astype(np.int64)
    return np.append(0, np.cumsum(lengths)), np.asarray(pc.list_flatten(lists)).astype(np.int32)


def _lists(offsets: I64, values: NDArray[np.int32]) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.int32()))
