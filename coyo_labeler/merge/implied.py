"""Which classes imply which (`tree=true` with `truth=multi`), and lists that agree with it."""

from functools import cache

import numpy as np

from coyo_labeler.em.hierarchy import (
    Hierarchy,
    implied_posterior,
    make_ancestry,
    raise_others,
)
from coyo_labeler.em.model import Truth
from coyo_labeler.em.segments import F64, I64
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import read_label_tree
from coyo_labeler.votes.nodes import Nodes


def nodes_of(tree: LabelSpace | None, truth: Truth) -> Nodes | None:
    """How votes about nodes of the tree are read; None without one."""
    return None if tree is None else Nodes(tree, truth)


def hierarchy_of(tree: LabelSpace | None, truth: Truth) -> Hierarchy | None:
    """Which classes imply which; None without a tree, or where an image has one class only."""
    return None if tree is None or truth == "single" else _hierarchy(tree)


@cache
def _hierarchy(space: LabelSpace) -> Hierarchy:
    return Hierarchy(*read_label_tree(space).class_ancestors())


def imply(
    image: I64, label: I64, probability: F64, hierarchy: Hierarchy | None, classes: int
) -> F64:
    """Probabilities (nnz,) of lists without votes, where a class is there if one below it is.

    image: (nnz,) index of each entry's image, rising. label: (nnz,) its classes.
    """
    if hierarchy is None or len(label) == 0:
        return probability
    key = image * classes + label
    order = np.argsort(key, kind="stable")
    ancestry = make_ancestry(key[order], order, hierarchy, classes)
    if len(ancestry.question) == 0:
        return probability
    both = np.stack([probability, 1.0 - probability], axis=1).ravel()
    with np.errstate(divide="ignore"):
        log_prior = np.log(both)
    implied = implied_posterior(ancestry, log_prior, both)
    alone = np.exp(implied.prior)  # there are no votes: it is the posterior
    return np.asarray(raise_others(ancestry, alone)[::2])
