"""The tree above the classes: WordNet's hypernyms, as arrays.

    level, targets = read_label_tree("imagenet21k").semantic_levels()

A node is a number. Nodes 0 to classes − 1 are the classes of the label space; behind them come the
synsets above, sorted by id. Every node but the root has one parent or several: strictly it is a
directed acyclic graph with one root, `entity`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import SIZES, LabelSpace
from coyo_labeler.formats.wordnet import Node, read_nodes

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

#: Pairs of nodes that are compared at once, with some 800 cells each.
_CHUNK = 2_048


@dataclass(frozen=True, eq=False)
class LabelTree:
    """The classes of a label space and the nodes above them.

    classes: number of classes. synsets, names, definitions: by node, (nodes,). parents: the nodes
    right above each node, in WordNet's order; the first is the principal one.
    """

    classes: int
    synsets: tuple[str, ...]
    names: tuple[str, ...]
    definitions: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self.synsets)

    @cached_property
    def root(self) -> int:
        """The node above all others."""
        return next(node for node in range(self.nodes) if not self.parents[node])

    @cached_property
    def depth(self) -> I32:
        """Steps from the root to each node by the longest way, (nodes,); the root's is 0."""
        depth = np.zeros(self.nodes, dtype=np.int32)
        for node in self._from_the_root:
            for parent in self.parents[node]:
                depth[node] = max(depth[node], depth[parent] + 1)
        return depth

    def node(self, synset: str) -> int:
        """The node of a synset id, such as n02084071.

        Raises: InputError where the tree has none.
        """
        node = self.find(synset)
        if node is None:
            raise InputError(
                f"{synset} is no synset of the tree above {self.classes:,} classes; give an id "
                "such as n02084071 (dog), as `label_tree` or wordnet.tsv.gz lists them"
            )
        return node

    def find(self, synset: str) -> int | None:
        """The node of a synset id; None where the tree has none."""
        return self._node_of.get(synset)

    def ancestors(self, node: int) -> I32:
        """The nodes above a node, the nearest first, the root last; [] for the root."""
        offsets, above, _ = self._above
        return above[offsets[node] + 1 : offsets[node + 1]]

    def descendants(self, node: int) -> I32:
        """The nodes below a node, in rising order; [] for a leaf."""
        offsets, below = self._below
        found = below[offsets[node] : offsets[node + 1]]
        others: I32 = found[found != node]
        return others

    def node_set(self, node: int) -> I32:
        """The classes at or below a node, in rising order: what a question about it asks."""
        starts, classes = self._classes_below
        return classes[starts[node] : starts[node + 1]]

    def node_sets(self, nodes: I64) -> tuple[I64, I32]:
        """`node_set` of several nodes (n,): offsets (n + 1,) and classes, rising in each."""
        starts, classes = self._classes_below
        sizes = starts[nodes + 1] - starts[nodes]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        index = np.arange(offsets[-1]) + np.repeat(starts[nodes] - offsets[:-1], sizes)
        return offsets, classes[index]

    @property
    def set_sizes(self) -> I64:
        """How many classes are at or below each node, (nodes,)."""
        return np.diff(self._classes_below[0])

    def children(self, node: int) -> I32:
        """The nodes right below a node, in rising order; [] for a leaf."""
        return np.array(self._children[node], dtype=np.int32)

    def find_set(self, classes: Sequence[int]) -> int | None:
        """The node whose `node_set` these classes are; of several the nearest to them."""
        wanted = np.unique(np.asarray(classes, dtype=np.int64))
        if not len(wanted) or wanted[0] < 0 or wanted[-1] >= self.classes:
            return None
        starts, above = self.lineages
        way = above[starts[wanted[0]] : starts[wanted[0] + 1]]
        for node in way[self.set_sizes[way] == len(wanted)].tolist():
            if np.array_equal(self.node_set(node), wanted):
                return int(node)
        return None

    def find_above(self, name: str) -> int | None:
        """The node that is no class and has this synset id, or this name alone among such nodes."""
        return self._above_by_name.get(name)

    @property
    def lineages(self) -> tuple[I64, I32]:
        """Each node with all above it: offsets (nodes + 1,), and nodes, itself first."""
        offsets, above, _ = self._above
        return offsets, above

    def is_at_or_below(self, node: int | I64, above: int) -> NDArray[np.bool_]:
        """Whether nodes are `above` or lie below it, in the shape of `node`."""
        offsets, below = self._below
        found: NDArray[np.bool_] = np.isin(node, below[offsets[above] : offsets[above + 1]])
        return found

    @cached_property
    def leaves(self) -> I32:
        """The classes that have no class below them, in rising order."""
        inner = {parent for parents in self.parents for parent in parents}
        return np.array([c for c in range(self.classes) if c not in inner], dtype=np.int32)

    def lowest_common_ancestor(self, a: int, b: int) -> int:
        """The deepest node that is or lies above both; of equals the nearest, then the lowest."""
        return int(self.lowest_common_ancestors([a], [b])[0])

    def lowest_common_ancestors(self, a: Sequence[int] | I64, b: Sequence[int] | I64) -> I32:
        """`lowest_common_ancestor` of each pair; a, b: (pairs,)."""
        return self._meet(np.asarray(a), np.asarray(b), by_depth=True)[0]

    def distance(self, a: Sequence[int] | I64, b: Sequence[int] | I64) -> I32:
        """Steps from a up to a common ancestor and down to b, by the shortest way, (pairs,)."""
        return self._meet(np.asarray(a), np.asarray(b), by_depth=False)[1]

    def class_ancestors(self) -> tuple[I64, I32]:
        """Each class with those of its ancestors that are classes, along all parents.

        Returns offsets (classes + 1,) and classes: class c owns [offsets[c], offsets[c + 1]), which
        begins with c itself; then the nearest first. For losses in which a class implies those
        above it.
        """
        offsets, above, _ = self._above
        last = offsets[self.classes]
        owner = np.repeat(np.arange(self.classes), np.diff(offsets[: self.classes + 1]))
        keep = above[:last] < self.classes
        sizes = np.bincount(owner[keep], minlength=self.classes)
        return np.concatenate([[0], np.cumsum(sizes)]), above[:last][keep]

    def semantic_levels(self) -> tuple[I32, I32]:
        """The arrays of a semantic softmax (Ridnik et al. 2021, arXiv:2104.10972, section 3.2.2).

        Only principal parents count, so that every class has one chain. Returns the level of each
        class, (classes,): how many classes stand above it in its chain; and targets, (classes,
        levels): the class at each level of its chain, itself at its own; −1 below that. A softmax
        of level l runs over the classes of that level, and an image of class c has targets[c, l].
        """
        chains = [self._chain(c) for c in range(self.classes)]
        level = np.array([len(chain) - 1 for chain in chains], dtype=np.int32)
        targets = np.full((self.classes, level.max() + 1), -1, dtype=np.int32)
        for c, chain in enumerate(chains):
            targets[c, : len(chain)] = chain
        return level, targets

    def at_depth(self, depth: int) -> I32:
        """The node at a depth on the principal way to each class, (classes,); less deep: itself.

        Depth here counts the steps of that way, so that each class has exactly one such node.
        """
        ways = (self._way(c) for c in range(self.classes))
        return np.array([way[min(depth, len(way) - 1)] for way in ways], dtype=np.int32)

    def to_json(self) -> dict[str, object]:
        """The tree as JSON values: synsets, names and definitions by node, and parents."""
        return {
            "classes": self.classes,
            "nodes": [
                {"synset": synset, "name": name, "definition": definition, "parents": list(above)}
                for synset, name, definition, above in zip(
                    self.synsets, self.names, self.definitions, self.parents, strict=True
                )
            ],
        }

    def _way(self, node: int) -> list[int]:
        """The nodes from the root to a node along principal parents, itself included."""
        way = [node]
        while parents := self.parents[way[-1]]:
            way.append(parents[0])
        return way[::-1]

    def _chain(self, node: int) -> list[int]:
        return [above for above in self._way(node) if above < self.classes]

    @cached_property
    def _classes_below(self) -> tuple[I64, I32]:
        """`_below` without the nodes that are no classes."""
        offsets, below = self._below
        kept = np.concatenate([[0], np.cumsum(below < self.classes)])
        return kept[offsets], below[below < self.classes]

    @cached_property
    def _above_by_name(self) -> Mapping[str, int | None]:
        nodes: dict[str, int | None] = {}
        for node in range(self.classes, self.nodes):
            name = self.names[node]
            nodes[name] = None if name in nodes else node
        nodes.update({self.synsets[node]: node for node in range(self.classes, self.nodes)})
        return nodes

    @cached_property
    def _node_of(self) -> Mapping[str, int]:
        return {synset: node for node, synset in enumerate(self.synsets)}

    @cached_property
    def _children(self) -> list[list[int]]:
        children: list[list[int]] = [[] for _ in range(self.nodes)]
        for node, parents in enumerate(self.parents):
            for parent in parents:
                children[parent].append(node)
        return children

    @cached_property
    def _from_the_root(self) -> list[int]:
        """All nodes, each behind all of its parents."""
        missing = [len(parents) for parents in self.parents]
        order = [node for node in range(self.nodes) if not missing[node]]
        for node in order:  # grows while it is read
            for child in self._children[node]:
                missing[child] -= 1
                if not missing[child]:
                    order.append(child)
        return order

    @cached_property
    def _above(self) -> tuple[I64, I32, I32]:
        """Each node with all above it: offsets (nodes + 1,), nodes, and steps to them.

        A node owns [offsets[node], offsets[node + 1]): itself first, then by steps, depth, number.
        """
        steps: list[dict[int, int]] = [{} for _ in range(self.nodes)]
        for node in self._from_the_root:
            mine = {node: 0}
            for parent in self.parents[node]:
                for above, count in steps[parent].items():
                    mine[above] = min(count + 1, mine.get(above, count + 1))
            steps[node] = mine
        offsets = np.concatenate([[0], np.cumsum([len(mine) for mine in steps])])
        nodes = np.array([above for mine in steps for above in mine], dtype=np.int32)
        counts = np.array([count for mine in steps for count in mine.values()], dtype=np.int32)
        owner = np.repeat(np.arange(self.nodes), np.diff(offsets))
        order = np.lexsort((nodes, -self.depth[nodes], counts, owner))
        return offsets, nodes[order], counts[order]

    @cached_property
    def _below(self) -> tuple[I64, I32]:
        """Each node with all below it, itself included: offsets (nodes + 1,) and nodes, rising."""
        offsets, above, _ = self._above
        owner = np.repeat(np.arange(self.nodes, dtype=np.int32), np.diff(offsets))
        sizes = np.bincount(above, minlength=self.nodes)
        return np.concatenate([[0], np.cumsum(sizes)]), owner[np.lexsort((owner, above))]

    @cached_property
    def _padded(self) -> tuple[I32, I32]:
        """`_above` as tables, (nodes, most): nodes, −1 where there is none, and steps."""
        offsets, above, steps = self._above
        sizes = np.diff(offsets)
        index = np.arange(sizes.max()) < sizes[:, None]
        nodes = np.full(index.shape, -1, dtype=np.int32)
        counts = np.zeros(index.shape, dtype=np.int32)
        nodes[index], counts[index] = above, steps
        return nodes, counts

    def _meet(self, a: I64, b: I64, by_depth: bool) -> tuple[I32, I32]:
        """The best common ancestor of each pair, by depth or by steps, and the steps over it."""
        nodes, counts = self._padded
        met, steps = np.zeros((2, len(a)), dtype=np.int32)
        for start in range(0, len(a), _CHUNK):
            end = start + _CHUNK
            above, other = nodes[a[start:end]], nodes[b[start:end]]
            same = (above[:, :, None] == other[:, None, :]) & (above[:, :, None] >= 0)
            way = counts[a[start:end]][:, :, None] + counts[b[start:end]][:, None, :]
            deep = self.depth[above][:, :, None] + 0 * way
            node = above[:, :, None].astype(np.int64) + 0 * way
            # One number to minimise: the criteria in order, each in a range of its own.
            first, second = (-deep, way) if by_depth else (way, -deep)
            score = ((first + 512).astype(np.int64) * 1024 + second + 512) * 2**32 + node
            score[~same] = np.iinfo(np.int64).max
            best = score.reshape(len(score), -1).argmin(axis=1)
            row = np.arange(len(score))
            met[start:end] = node.reshape(len(score), -1)[row, best]
            steps[start:end] = way.reshape(len(score), -1)[row, best]
        return met, steps


def build_label_tree(classes: Sequence[str], nodes: Mapping[str, Node]) -> LabelTree:
    """The tree above classes that are given by synset, in their order.

    Raises: InputError where `nodes` lacks a class.
    """
    known = set()
    waiting = list(classes)
    while waiting:
        synset = waiting.pop()
        if synset not in nodes:
            raise InputError(f"label_space: WordNet 3.0 as this package has it lacks {synset}")
        if synset not in known:
            known.add(synset)
            waiting += nodes[synset].hypernyms
    synsets = (*classes, *sorted(known - set(classes)))
    index = {synset: node for node, synset in enumerate(synsets)}
    return LabelTree(
        classes=len(classes),
        synsets=synsets,
        names=tuple(nodes[synset].lemmas for synset in synsets),
        definitions=tuple(nodes[synset].definition for synset in synsets),
        parents=tuple(
            tuple(index[above] for above in nodes[synset].hypernyms) for synset in synsets
        ),
    )


@cache
def read_label_tree(label_space: str | LabelSpace = "imagenet21k") -> LabelTree:
    """The tree above imagenet21k or imagenet1k, or above a list of classes that are synset ids.

    Raises: InputError for a space without synsets.
    """
    space = label_space if isinstance(label_space, LabelSpace) else None
    if space is None and label_space in SIZES:
        space = LabelSpace(str(label_space), SIZES[str(label_space)])
    tree = None if space is None else find_label_tree(space)
    if tree is None:
        name = label_space if space is None else space.name
        raise InputError(
            f"label_space: {name} has no tree; imagenet21k and imagenet1k have WordNet's, and so "
            "has a text file whose lines are synset ids of their classes, such as n02084071"
        )
    return tree


@cache
def find_label_tree(space: LabelSpace) -> LabelTree | None:
    """The tree above the classes of a label space; None where they are no synsets."""
    nodes = read_nodes()
    synsets = space.synsets or space.given or ()
    if not synsets or len(set(synsets)) < len(synsets) or any(s not in nodes for s in synsets):
        return None
    return build_label_tree(synsets, nodes)


def node_names(tree: LabelTree, nodes: Iterable[int]) -> list[str]:
    """What to call nodes where people read it: `dog, domestic dog (n02084071)`."""
    return [f"{tree.names[node]} ({tree.synsets[node]})" for node in nodes]
