"""What the tree adds to the report, on five classes that can be checked by eye."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.report.page import render
from coyo_labeler.report.sums import Aggregates
from coyo_labeler.report.tally import Tally
from coyo_labeler.report.tree_section import describe_tree
from coyo_labeler.report.tree_tally import TreeTally
from tests.report.test_page import a_document

# canine > dog > (beagle, pug); cat is another carnivore.
CANINE, DOG, BEAGLE, PUG, CAT = range(5)
SPACE = LabelSpace("pets.txt", 5, ("n02083346", "n02084071", "n02088364", "n02110958", "n02121620"))
TREE = TreeTally(SPACE, nodes=("n02084071", "n02075296"), levels=(0, 4, 99))

# labels, probabilities, true classes, the other folder's labels
ROWS: list[tuple[list[int], list[float], list[int], list[int]]] = [
    ([BEAGLE, PUG, CAT], [0.375, 0.25, 0.125], [PUG], [CAT]),  # the sum says dog
    ([BEAGLE, DOG], [0.5, 0.25], [BEAGLE], [BEAGLE]),  # parent and child
    ([CAT, PUG], [0.75, 0.125], [CAT], [DOG]),
    ([CAT], [0.5], [BEAGLE], [PUG]),
    ([], [], [DOG], []),
    ([CANINE, PUG], [0.5, 0.0625], [], [CANINE]),  # no truth
    ([PUG], [0.5], [CAT, PUG], [CAT]),  # two true classes
]


@pytest.fixture(scope="module")
def section() -> dict[str, Any]:
    labels, probs, gold, other = (list(column) for column in zip(*ROWS, strict=True))
    n = len(ROWS)
    batch = pa.record_batch(
        {
            "id": pa.array(range(n), pa.int64()),
            "labels": pa.array(labels, pa.list_(pa.int32())),
            "label_probs": pa.array(probs, pa.list_(pa.float32())),
            "width": pa.array([10] * n, pa.int32()),
            "height": pa.array([10] * n, pa.int32()),
            "gold": pa.array([g or None for g in gold], pa.list_(pa.int32())),
            "other_labels": pa.array(other, pa.list_(pa.int32())),
            "other_probs": pa.array([[0.5] * len(o) for o in other], pa.list_(pa.float32())),
        }
    )
    tally = Tally(5, tree=TREE)
    for part in (batch.slice(0, 3), batch.slice(3)):
        tally.add(part)
    return describe_tree(Aggregates.of(tally.total()), TREE, 2)


def test_mistakes_are_counted_by_their_distance(section: dict[str, Any]) -> None:
    # pug for beagle: 2 steps over the dog… in WordNet a pug is a dog, a beagle a hound.
    tree = TREE.tree
    far = int(tree.distance([BEAGLE], [CAT])[0])
    near = int(tree.distance([PUG], [BEAGLE])[0])
    assert 0 < near < far
    assert section["accuracy"]["distances"] == [[0, 2], [near, 1], [far, 1]]
    assert section["accuracy"]["mean_distance_of_mistakes"] == (near + far) / 2
    assert sum(n for _, n in section["other_accuracy"]["distances"]) == 4


def test_levels_go_from_all_alike_to_top_1(section: dict[str, Any]) -> None:
    root, _, leaf = section["accuracy"]["levels"]
    assert (root["depth"], root["value"], root["n"]) == (0, 4 / 5, 5)  # one has no label
    assert (leaf["value"], leaf["n"]) == (2 / 5, 5)


def test_at_each_level_it_says_what_is_taken_for_what(section: dict[str, Any]) -> None:
    root, _, leaf = section["accuracy"]["levels"]
    assert root["confused"] == []
    pug, beagle, cat = SPACE.given[PUG], SPACE.given[BEAGLE], SPACE.given[CAT]  # type: ignore[index]
    pairs = [(row["from"], row["to"], row["count"]) for row in leaf["confused"]]
    assert pairs == [(beagle, cat, 1), (pug, beagle, 1)]
    assert leaf["confused"][0]["from_name"] == f"beagle ({beagle})"


def test_dog_or_not_by_the_first_label_and_by_the_sum(section: dict[str, Any]) -> None:
    dog, carnivore = section["accuracy"]["nodes"]
    assert dog["name"] == "dog, domestic dog, Canis familiaris (n02084071)"
    assert (dog["images"], dog["true"]) == (6, 5)
    first = dog["first"]
    assert (first["given"], first["hits"], first["accuracy"]["value"]) == (3, 3, 4 / 6)
    assert (first["precision"]["value"], first["recall"]["value"]) == (1.0, 3 / 5)
    total = dog["sum"]
    assert (total["given"], total["hits"], total["recall"]["value"]) == (3, 3, 3 / 5)
    assert (carnivore["true"], carnivore["first"]["hits"], carnivore["sum"]["hits"]) == (6, 5, 5)


def test_lists_with_a_class_and_one_below_it(section: dict[str, Any]) -> None:
    rows = {row["threshold"]: row for row in section["parent_and_child"]}
    assert 0.0 not in rows
    assert (rows[0.05]["n"], rows[0.05]["value"]) == (6, 2 / 6)
    assert rows[0.1]["value"] == 1 / 6  # the pug below the canine has 0.0625


def test_branches_name_the_largest_and_add_up_the_rest(section: dict[str, Any]) -> None:
    assert [row["first"] for row in section["branches"]] == [6]
    assert section["branches"][0]["name"].startswith("living thing")
    things = LabelSpace("x", 3, ("n02084071", "n04380533", "n07697537"))
    tally = TreeTally(things, (), ())
    counted = Tally(3, tree=tally)
    n = 6
    counted.add(
        pa.record_batch(
            {
                "id": pa.array(range(n), pa.int64()),
                "labels": pa.array([[0], [0], [0], [1], [1], [2]], pa.list_(pa.int32())),
                "label_probs": pa.array([[0.5]] * n, pa.list_(pa.float32())),
                "width": pa.array([1] * n, pa.int32()),
                "height": pa.array([1] * n, pa.int32()),
            }
        )
    )
    section = describe_tree(Aggregates.of(counted.total()), tally, 1)
    assert [(row["node"], row["first"]) for row in section["branches"]] == [
        ("n00004258", 3),
        (None, 3),
    ]
    assert "accuracy" not in section


def test_the_order_of_rows_does_not_matter() -> None:
    first, second = np.array([PUG, BEAGLE]), np.array([CAT, BEAGLE])
    assert TREE._distance(first, second).tolist() == [
        int(TREE.tree.distance([PUG], [CAT])[0]),
        0,
    ]


def test_the_page_shows_the_tree_where_there_is_one(section: dict[str, Any]) -> None:
    document = a_document()
    without = render(document, {})
    page = render({**document, "tree": section}, {})
    assert 'id="tree"' not in without
    assert 'href="#tree"' in page
    assert "Mistakes by distance" in page
    assert page.count("sum ≥ 0.5") == 4  # two nodes, both folders
    figures = ("First labels by branch", "Accuracy by level", "What is taken for what")
    for figure in (*figures, "dog, domestic dog"):
        assert figure in page
