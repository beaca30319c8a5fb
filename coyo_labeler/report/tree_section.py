"""The section of the report that the tree above the classes makes possible."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from coyo_labeler.formats.label_tree import LabelTree, node_names
from coyo_labeler.report.aggregate import most_frequent
from coyo_labeler.report.metrics import rate
from coyo_labeler.report.sums import Aggregates
from coyo_labeler.report.tree_tally import TreeTally, related_thresholds

#: The depth of the branches: living things, artifacts, foods, natural objects, acts, …
BRANCH_DEPTH = 4


def describe_tree(sums: Aggregates, tally: TreeTally, top: int) -> dict[str, Any]:
    """First labels by branch, lists with parent and child, and what gold says along the tree."""
    tree = tally.tree
    section: dict[str, Any] = {
        "branches": _branches(sums, tree, top),
        "parent_and_child": [
            {
                "threshold": threshold,
                **rate(sums.count("related", index), sums.count("kept", index)),
            }
            for index, threshold in related_thresholds()
        ],
    }
    for name, prefix in (("accuracy", ""), ("other_accuracy", "other_")):
        if prefix + "tree_distance" in sums:
            section[name] = _against_gold(sums, tally, prefix, top)
    return section


def _branches(sums: Aggregates, tree: LabelTree, top: int) -> list[dict[str, Any]]:
    """How many first labels each branch has; those beyond the `top` largest are together."""
    first = sums.dense("first", tree.classes)
    counts = np.bincount(tree.at_depth(BRANCH_DEPTH), first, tree.nodes).astype(np.int64)
    order = np.lexsort((np.arange(tree.nodes), -counts))
    used = order[counts[order] > 0]
    shown = used[:top].tolist()
    rows = [
        {"node": tree.synsets[node], "name": name, "first": int(counts[node])}
        for node, name in zip(shown, node_names(tree, shown), strict=True)
    ]
    rest = int(counts[used[top:]].sum())
    return [*rows, {"node": None, "name": "all others", "first": rest}] if rest else rows


def _against_gold(sums: Aggregates, tally: TreeTally, prefix: str, top: int) -> dict[str, Any]:
    distance = sums.of_measure(prefix + "tree_distance")
    images = int(sums.of_measure(prefix + "support").count.sum())
    wrong = distance.a > 0
    mistakes = int(distance.count[wrong].sum())
    return {
        "distances": np.stack([distance.a, distance.count], axis=1).tolist(),
        "mean_distance_of_mistakes": (
            float((distance.a * distance.count)[wrong].sum() / mistakes) if mistakes else None
        ),
        "levels": [
            {
                "depth": level,
                **rate(sums.count(prefix + "tree_level", index, 1), images),
                "confused": _confused(sums, tally.tree, prefix, index, top),
            }
            for index, level in enumerate(tally.levels)
        ],
        "nodes": [
            _node(sums, tally, prefix, index, synset) for index, synset in enumerate(tally.nodes)
        ],
    }


def _confused(
    sums: Aggregates, tree: LabelTree, prefix: str, index: int, top: int
) -> list[dict[str, Any]]:
    """The most frequent pairs of a true and a given node at a level."""
    cells = most_frequent(sums.of_measure(prefix + "tree_confusion", str(index)), top)
    names = (node_names(tree, nodes.tolist()) for nodes in (cells.a, cells.b))
    return [
        {"from": tree.synsets[a], "to": tree.synsets[b], "count": n, "from_name": c, "to_name": d}
        for a, b, n, c, d in zip(
            cells.a.tolist(), cells.b.tolist(), cells.count.tolist(), *names, strict=True
        )
    ]


def _node(
    sums: Aggregates, tally: TreeTally, prefix: str, index: int, synset: str
) -> Mapping[str, Any]:
    """Accuracy, precision and recall of "is it one?", by the first label and by the sum."""
    cells = sums.of_measure(prefix + "tree_node")
    counts = np.zeros(8, dtype=np.int64)
    mine = cells.a == index
    counts[cells.b[mine]] = cells.count[mine]
    answer = np.arange(8)
    is_true = answer >= 4
    row: dict[str, Any] = {
        "node": synset,
        "name": node_names(tally.tree, [tally.tree.node(synset)])[0],
        "true": int(counts[is_true].sum()),
        "images": int(counts.sum()),
    }
    for name, given in (("first", answer & 2 > 0), ("sum", answer & 1 > 0)):
        hits = int(counts[is_true & given].sum())
        row[name] = {
            "given": int(counts[given].sum()),
            "hits": hits,
            "accuracy": rate(int(counts[is_true == given].sum()), row["images"]),
            "precision": rate(hits, int(counts[given].sum())),
            "recall": rate(hits, row["true"]),
        }
    return row
