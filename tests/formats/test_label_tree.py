"""The tree above ImageNet's classes, against the published facts and a slow twin."""

import gzip
import json

import numpy as np
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LabelSpace, load_label_space, read_timm_synsets
from coyo_labeler.formats.label_tree import LabelTree, node_names, read_label_tree
from coyo_labeler.formats.wordnet import DATA, NOTICE, read_classes, read_nodes
from coyo_labeler.write_wordnet import read_data_noun

DOG, CAT, CANINE, CARNIVORE = "n02084071", "n02121620", "n02083346", "n02075296"


@pytest.fixture(scope="module")
def tree() -> LabelTree:
    return read_label_tree("imagenet21k")


def slow_above(tree: LabelTree, node: int) -> dict[int, int]:
    """Everything at or above a node, with the shortest way to it."""
    steps, level, count = {node: 0}, {node}, 0
    while level := {p for n in level for p in tree.parents[n]} - set(steps):
        count += 1
        steps |= dict.fromkeys(level, count)
    return steps


def test_the_facts_of_wordnet_3_0_above_the_21841_classes(tree: LabelTree) -> None:
    offsets, _ = tree.class_ancestors()
    assert (tree.classes, tree.nodes) == (21_841, 23_546)
    assert [tree.synsets[n] for n in range(tree.nodes) if not tree.parents[n]] == ["n00001740"]
    assert sum(len(parents) > 1 for parents in tree.parents[:21_841]) == 453
    assert tree.depth[:21_841].max() == tree.depth.max() == 19
    assert tree.depth[:21_841].mean() == pytest.approx(10.118, abs=1e-3)
    assert len(tree.leaves) == 17_253
    assert int((np.diff(offsets) > 1).sum()) == 21_374


def test_the_first_nodes_are_the_classes_and_the_file_agrees_with_timm(tree: LabelTree) -> None:
    assert tree.synsets[:21_841] == load_label_space("imagenet21k").synsets
    for space in ("imagenet21k", "imagenet1k"):
        assert read_classes(space) == read_timm_synsets(space)
    assert tree.synsets[21_841:] == tuple(sorted(tree.synsets[21_841:]))


def test_the_notice_of_wordnet_is_at_the_top_of_the_file() -> None:
    head = gzip.decompress(DATA.read_bytes()).decode().partition("synset\t")[0]
    assert [line[2:] for line in head.splitlines()] == NOTICE.read_text().splitlines()


def test_ancestors_distances_and_meeting_points_equal_a_slow_twin(tree: LabelTree) -> None:
    nodes = np.random.default_rng(7).integers(0, tree.nodes, 300)
    a, b = nodes[:150], nodes[150:]
    meeting, steps = tree.lowest_common_ancestors(a, b), tree.distance(a, b)
    for x, y, node, distance in zip(a, b, meeting, steps, strict=True):
        above, other = slow_above(tree, x), slow_above(tree, y)
        assert set(tree.ancestors(x)) == set(above) - {x}
        near = [above[n] for n in tree.ancestors(x)]
        assert near == sorted(near)
        common = above.keys() & other.keys()
        assert distance == min(above[n] + other[n] for n in common)
        assert node == min(common, key=lambda n: (-tree.depth[n], above[n] + other[n], n))


def test_dog_is_a_canine_and_a_domestic_animal(tree: LabelTree) -> None:
    dog, cat = tree.node(DOG), tree.node(CAT)
    assert len(tree.parents[dog]) == 2
    assert tree.synsets[tree.ancestors(dog)[0]] == CANINE
    assert tree.synsets[tree.ancestors(dog)[-1]] == tree.synsets[tree.root] == "n00001740"
    assert tree.synsets[tree.lowest_common_ancestor(dog, cat)] == CARNIVORE
    assert tree.lowest_common_ancestor(dog, dog) == dog
    assert tree.distance([dog, dog], [cat, dog]).tolist() == [4, 0]
    assert node_names(tree, [dog]) == ["dog, domestic dog, Canis familiaris (n02084071)"]


def test_descendants_are_those_whose_ancestor_the_node_is(tree: LabelTree) -> None:
    dog = tree.node(DOG)
    below = [n for n in range(tree.nodes) if dog in slow_above(tree, n) and n != dog]
    assert tree.descendants(dog).tolist() == below
    assert tree.node_set(dog).tolist() == sorted([dog, *(n for n in below if n < tree.classes)])
    assert len(tree.node_set(tree.root)) == tree.classes
    leaf = int(tree.leaves[0])
    assert (tree.descendants(leaf).tolist(), tree.node_set(leaf).tolist()) == ([], [leaf])
    assert tree.is_at_or_below(np.array([dog, below[0], tree.node(CAT)]), dog).tolist() == [
        True,
        True,
        False,
    ]


def test_each_class_comes_first_among_its_class_ancestors(tree: LabelTree) -> None:
    offsets, above = tree.class_ancestors()
    assert above[offsets[:-1]].tolist() == list(range(tree.classes))
    for c in (0, 8087, 11_054, 21_840):
        mine = above[offsets[c] : offsets[c + 1]].tolist()
        assert set(mine) == {n for n in slow_above(tree, c) if n < tree.classes}
    assert above.max() < tree.classes


def test_a_target_of_the_semantic_softmax_belongs_to_its_level(tree: LabelTree) -> None:
    level, targets = tree.semantic_levels()
    assert targets.shape == (tree.classes, level.max() + 1)
    c = np.arange(tree.classes)
    assert (targets[c, level] == c).all()
    image, column = np.nonzero(targets >= 0)
    assert (level[targets[image, column]] == column).all()
    assert ((targets >= 0).sum(axis=1) == level + 1).all()
    # the chain of a class continues that of the class right above it
    inner = np.flatnonzero(level > 0)
    above = targets[inner, level[inner] - 1]
    before = np.where(np.arange(targets.shape[1]) < level[inner][:, None], targets[inner], -1)
    assert (before == targets[above]).all()


def test_nodes_at_a_depth_are_above_their_classes(tree: LabelTree) -> None:
    nodes = tree.at_depth(4)
    for c in (5, 8087, 20_000):
        assert nodes[c] in slow_above(tree, c)
    assert (tree.at_depth(0) == tree.root).all()
    assert (tree.at_depth(99) == np.arange(tree.classes)).all()


def test_other_spaces_have_trees_where_their_classes_are_synsets() -> None:
    small = read_label_tree(LabelSpace("pets.txt", 3, (DOG, CAT, CANINE)))
    assert (small.classes, small.synsets[:3]) == (3, (DOG, CAT, CANINE))
    assert small.node_set(small.node(CANINE)).tolist() == [0, 2]
    assert small.synsets[small.lowest_common_ancestor(0, 1)] == CARNIVORE
    assert small.leaves.tolist() == [0, 1]
    assert read_label_tree("imagenet1k").classes == 1_000
    with pytest.raises(InputError, match=r"digits\.txt has no tree; imagenet21k and imagenet1k"):
        read_label_tree(LabelSpace("digits.txt", 2, ("zero", "one")))
    with pytest.raises(InputError, match="n99999999 is no synset of the tree above 3 classes"):
        small.node("n99999999")


def test_the_tree_is_plain_json(tree: LabelTree) -> None:
    document = json.loads(json.dumps(tree.to_json()))
    nodes = document["nodes"]
    assert (document["classes"], len(nodes)) == (21_841, 23_546)
    assert nodes[8087]["name"] == "lamp"
    assert nodes[nodes[8087]["parents"][0]]["synset"] == "n03405725"


def test_a_line_of_data_noun_is_read_as_wordnet_writes_it() -> None:
    lines = [
        "  1 This software and database is being provided to you, the LICENSEE, by  \n",
        "02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 003 @ 02083346 n 0000 @ 01317541 "
        "n 0000 ~ 01322604 n 0000 | a member of the genus Canis; occurs in many breeds; "
        '"the dog barked all night"  \n',
        "09203827 17 n 01 Abila 0 001 @i 08524735 n 0000 | a city; in Syria  \n",
    ]
    assert read_data_noun(lines) == {
        DOG: (
            (CANINE, "n01317541"),
            "dog, domestic dog, Canis familiaris",
            "a member of the genus Canis; occurs in many breeds",
        ),
        "n09203827": (("n08524735",), "Abila", "a city; in Syria"),
    }


def test_names_that_two_classes_share_are_shown_with_their_synsets() -> None:
    space = load_label_space("imagenet21k")
    shown = [space.display_name(c) for c in range(space.size)]
    assert len(set(shown)) == space.size
    assert sum(name.endswith(")") and "(n" in name for name in shown) == 1_128
    assert space.display_name(8087) == "lamp (n03636649)"
    assert (space.definitions or ())[8087] == (
        "a piece of furniture holding one or more electric light bulbs"
    )
    own = LabelSpace("birds.txt", 3, ("crane", "heron", "crane"))
    assert [own.display_name(c) for c in range(3)] == ["crane (0)", "heron", "crane (2)"]
    assert own.definitions is None
    assert LabelSpace("x", 2).display_name(1) == "class 1"


def test_every_node_has_a_name_and_a_definition() -> None:
    for node in read_nodes().values():
        assert node.lemmas and node.definition
        assert '"' not in node.definition[-1:] or node.definition.count('"') % 2 == 0
