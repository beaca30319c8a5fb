"""Votes about nodes of the label tree."""

import pyarrow as pa
import pytest

from coyo_labeler.em.responses import Response
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.votes.checks import check
from coyo_labeler.votes.nodes import Nodes

#: dog, hunting dog, hound, cat, car; carnivore stands above the first four, and is no class.
SPACE = LabelSpace("pets.txt", 5, ("n02084071", "n02087122", "n02087551", "n02121620", "n02958343"))
CARNIVORE = "n02075296"


def checked(votes, truth="single", nodes=True):
    """The votes (label, response, candidates) as (label, response, set), and the rejects."""
    table = pa.table(
        {
            "image_id": [*range(len(votes))],
            "worker_id": ["ann"] * len(votes),
            "label": pa.array([label for label, _, _ in votes], pa.string()),
            "response": pa.array([response for _, response, _ in votes], pa.string()),
            "candidates": pa.array([candidates for *_, candidates in votes], pa.string()),
        }
    )
    given = check(table, 0, 0, SPACE, Nodes(SPACE, truth) if nodes else None)
    rows = given.votes.to_pylist()
    usable = [(row["label"], Response(row["response"]).name, row["candidates"]) for row in rows]
    return usable, given.rejects.to_pylist()


VOTES = [
    ("n02084071", "yes", None),  # a class with others below it
    ("1", "no", None),
    ("n02087551", "yes", None),  # a leaf
    (CARNIVORE, "no", None),
    ("carnivore", "unsure", None),
    (None, "yes", f"{CARNIVORE} 4"),
    (None, "none", "0 3"),
    (None, "yes", "2 1 0"),  # all dogs
    ("n02084071", None, None),  # a choice
]
DOGS, CARNIVORES = [0, 1, 2], [0, 1, 2, 3]


def test_a_verification_is_about_all_classes_at_or_below_its_node():
    usable, rejects = checked(VOTES)
    assert usable == [
        (-1, "YES", DOGS),
        (-1, "NO", [1, 2]),
        (2, "YES", None),
        (-1, "NO", CARNIVORES),
        (-1, "UNSURE", CARNIVORES),
        (-1, "YES", [0, 1, 2, 3, 4]),
        (-1, "NO", CARNIVORES),
        (-1, "YES", DOGS),
        (0, "CHOICE", None),
    ]
    assert rejects == []


def test_where_classes_imply_those_above_a_class_stays_the_question():
    usable, _ = checked(VOTES, "multi")
    assert usable == [
        (0, "YES", None),
        (1, "NO", None),
        (2, "YES", None),
        (-1, "NO", CARNIVORES),
        (-1, "UNSURE", CARNIVORES),
        (-1, "YES", [0, 1, 2, 3, 4]),
        (-1, "NO", CARNIVORES),
        (0, "YES", None),
        (0, "CHOICE", None),
    ]


def test_what_is_no_node_is_rejected_and_a_choice_names_a_class():
    votes = [
        (CARNIVORE, None, None),
        ("n99999999", "yes", None),
        ("5", "yes", None),
        (None, "yes", "5"),
        (None, "yes", "n99999999"),
        (None, "yes", None),
    ]
    usable, rejects = checked(votes)
    assert usable == []
    reasons = ["bad_label", "bad_label", "label_outside", "candidate_outside", "bad_candidates"]
    assert [row["reason"] for row in rejects] == [*reasons, "missing_label"]
    assert "tree=true" in rejects[0]["detail"]
    assert "tree=true" not in rejects[1]["detail"]


def test_without_nodes_votes_are_about_the_classes_that_they_name():
    usable, rejects = checked(VOTES, nodes=False)
    assert usable[:2] == [(0, "YES", None), (1, "NO", None)]
    assert "tree=true" in rejects[0]["detail"]


def test_classes_without_a_tree_have_no_nodes():
    digits = LabelSpace("digits.txt", 2, ("zero", "one"))
    table = pa.table({"image_id": [1], "worker_id": ["ann"], "label": ["7x"], "response": ["yes"]})
    with pytest.raises(InputError, match="has no tree"):
        check(table, 0, 0, digits, Nodes(digits, "single"))
