"""Lists through the tree, on five classes that can be checked by eye."""

from itertools import pairwise

import numpy as np
import pytest

from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import LabelTree, read_label_tree
from coyo_labeler.formats.tree_labels import (
    at_nodes,
    has_listed_below,
    leaves_only,
    torn_node,
    torn_nodes,
    with_ancestors,
)

# canine > dog > (beagle, pug); cat is another carnivore.
CANINE, DOG, BEAGLE, PUG, CAT = range(5)
SYNSETS = ("n02083346", "n02084071", "n02088364", "n02110958", "n02121620")


@pytest.fixture(scope="module")
def tree() -> LabelTree:
    return read_label_tree(LabelSpace("pets.txt", 5, SYNSETS))


def lists(*images: dict[int, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = np.array([label for image in images for label in image], dtype=np.int64)
    probs = np.array([prob for image in images for prob in image.values()])
    return labels, probs, np.cumsum([0, *map(len, images)])


def by_image(result: tuple[np.ndarray, np.ndarray, np.ndarray]) -> list[list[tuple[int, float]]]:
    labels, probs, offsets = result
    pairs = [(int(c), round(float(p), 6)) for c, p in zip(labels, probs, strict=True)]
    return [pairs[a:b] for a, b in pairwise(offsets)]


def test_ancestors_get_the_sum_of_what_is_below(tree: LabelTree) -> None:
    images = lists({BEAGLE: 0.4, PUG: 0.3, CAT: 0.2}, {}, {CAT: 0.9})
    assert by_image(with_ancestors(tree, *images, combine="sum")) == [
        [(CANINE, 0.7), (DOG, 0.7), (BEAGLE, 0.4), (PUG, 0.3), (CAT, 0.2)],
        [],
        [(CAT, 0.9)],
    ]
    assert by_image(with_ancestors(tree, *images, combine="max"))[0][:2] == [
        (CANINE, 0.4),
        (DOG, 0.4),
    ]


def test_an_ancestor_that_is_listed_itself_counts_once_and_at_most_one(tree: LabelTree) -> None:
    images = lists({DOG: 0.8, BEAGLE: 0.7})
    rolled = by_image(with_ancestors(tree, *images, combine="sum"))
    assert rolled == [[(CANINE, 1.0), (DOG, 1.0), (BEAGLE, 0.7)]]


def test_labels_become_the_nodes_that_are_asked_for(tree: LabelTree) -> None:
    carnivore = tree.node("n02075296")
    images = lists({BEAGLE: 0.4, CANINE: 0.3, CAT: 0.2}, {PUG: 0.5})
    rolled = by_image(at_nodes(tree, *images, nodes=[carnivore, DOG], combine="sum"))
    assert rolled == [[(0, 0.9), (1, 0.4)], [(0, 0.5), (1, 0.5)]]
    assert by_image(at_nodes(tree, *images, nodes=[], combine="sum")) == [[], []]


def test_leaves_keep_order_and_probability(tree: LabelTree) -> None:
    images = lists({DOG: 0.5, BEAGLE: 0.3, CAT: 0.1}, {DOG: 0.6, CANINE: 0.2}, {CANINE: 0.4}, {})
    labels, probs, offsets = images
    assert has_listed_below(tree, labels, offsets).tolist() == [1, 0, 0, 0, 1, 0]
    assert by_image(leaves_only(tree, labels, probs, offsets)) == [
        [(BEAGLE, 0.3), (CAT, 0.1)],
        [(DOG, 0.6)],
        [(CANINE, 0.4)],
        [],
    ]


@pytest.mark.parametrize(
    ("belief", "asked"),
    [
        ({BEAGLE: 0.3, PUG: 0.3, CAT: 0.3}, DOG),  # "is it a dog?" before "which dog?"
        ({BEAGLE: 0.55, PUG: 0.35, CAT: 0.05}, BEAGLE),  # a dog for certain: which?
        ({BEAGLE: 0.6}, BEAGLE),  # every node above is equally probable: the deepest
        ({CANINE: 0.2, BEAGLE: 0.3, CAT: 0.1}, CANINE),
        ({CAT: 0.04, PUG: 0.03}, None),  # all that is listed together
    ],
)
def test_the_question_goes_to_the_node_nearest_to_one_half(
    tree: LabelTree, belief: dict[int, float], asked: int | None
) -> None:
    labels, probs, _ = lists(belief)
    carnivore = tree.node("n02075296")
    assert torn_node(tree, labels, probs) == (carnivore if asked is None else asked)


def test_the_question_does_not_depend_on_the_order_of_the_list() -> None:
    tree = read_label_tree("imagenet21k")
    rng = np.random.default_rng(3)
    for _ in range(20):
        labels = rng.choice(tree.classes, 12, replace=False)
        probs = rng.dirichlet(np.ones(12)) * 0.95
        order = rng.permutation(12)
        assert torn_node(tree, labels, probs) == torn_node(tree, labels[order], probs[order])
        at_root = at_nodes(tree, labels, probs, np.array([0, 12]), [tree.root], "sum")
        assert at_root[1] == pytest.approx(0.95)


def test_many_lists_at_once_are_torn_where_each_is(tree: LabelTree) -> None:
    beliefs = [{BEAGLE: 0.3, PUG: 0.3, CAT: 0.3}, {}, {BEAGLE: 0.55, PUG: 0.35}, {CANINE: 0.6}]
    assert torn_nodes(tree, *lists(*beliefs)).tolist() == [DOG, -1, BEAGLE, CANINE]
    # Where classes do not exclude one another, a node is there where one of its classes is.
    twice = lists({CANINE: 0.9, DOG: 0.85, BEAGLE: 0.45})
    assert torn_nodes(tree, *twice, combine="max").tolist() == [BEAGLE]
    # Sigmoids can sum to more than 1: then they are shares.
    assert torn_nodes(tree, *lists({BEAGLE: 0.8, PUG: 0.8, CAT: 0.8})).tolist() == [BEAGLE]


def test_nodes_of_many_classes_are_asked_about_last(tree: LabelTree) -> None:
    belief = lists({BEAGLE: 0.25, PUG: 0.25, CAT: 0.3}, {CANINE: 0.5})
    assert torn_nodes(tree, *belief, most=2).tolist() == [CAT, CANINE]


def test_an_empty_list_is_torn_nowhere(tree: LabelTree) -> None:
    labels, probs, _ = lists({})
    with pytest.raises(ValueError, match="torn nowhere"):
        torn_node(tree, labels, probs)
