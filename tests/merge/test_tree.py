"""The label tree in merge: what a node says of its classes, and classes that imply others."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from tests.merge.tables import assert_same_tables, posterior
from tests.merge.test_stage import merge, write_beliefs

#: dog, hunting dog, hound, cat, car. Carnivore is above the first four and no class.
SYNSETS = ("n02084071", "n02087122", "n02087551", "n02121620", "n02958343")
DOG, CARNIVORE = SYNSETS[0], "n02075296"
BELIEFS = {1: {0: 0.2, 2: 0.3, 3: 0.2, 4: 0.2}, 2: {0: 0.1, 2: 0.6, 3: 0.5}, 3: {2: 0.5, 4: 0.5}}
#: Workers of accuracy 0.8, who are not learned about.
KNOWN = {"pooling": "none", "prior_strength": 1e6, "calibration": "none", "class_prior": "uniform"}


@pytest.fixture
def given(tmp_path):
    space = tmp_path / "pets.txt"
    space.write_text("\n".join(SYNSETS) + "\n")
    beliefs = write_beliefs(tmp_path / "beliefs", BELIEFS)
    return KNOWN | {"label_space": str(space), "beliefs": beliefs, "tree": "true"}


def write_votes(tmp_path, *votes):
    """votes: (image, label, response)."""
    path = tmp_path / f"votes-{len(list(tmp_path.iterdir()))}.csv"
    lines = [f"{image},ann,{label},{response}" for image, label, response in votes]
    path.write_text("\n".join(["image_id,worker_id,label,response", *lines]) + "\n")
    return str(path)


def by_class(tmp_path, output, image):
    row = posterior(tmp_path / output)[image]
    return dict(zip(row["labels"], row["label_probs"], strict=True))


def test_an_answer_about_a_node_speaks_for_the_classes_below_it(tmp_path, given):
    """By hand: 0.5 of dogs times 0.8, 0.4 of others times 0.1; what is left over is no dog either.

    The hunting dog is not listed: it has its share of what the belief leaves over.
    """
    given |= {"beliefs_are": "categorical"}
    merge(None, tmp_path, votes=write_votes(tmp_path, (1, DOG, "yes")), **given)
    found = by_class(tmp_path, "out", 1)
    total = 0.6 * 0.8 + 0.4 * 0.1
    assert found[2] == pytest.approx(0.3 * 0.8 / total, rel=1e-3)
    assert found[4] == pytest.approx(0.2 * 0.1 / total, rel=1e-3)
    merge(None, tmp_path, "no", votes=write_votes(tmp_path, (1, CARNIVORE, "no")), **given)
    assert by_class(tmp_path, "no", 1)[4] == pytest.approx(
        0.2 * 0.8 / (0.2 * 0.8 + 0.8 * 0.1), rel=1e-3
    )


def test_a_class_is_there_wherever_one_below_it_is(tmp_path, given):
    """Of image 1 a hound is seen, image 2 has no dog; nobody was asked about image 3."""
    votes = write_votes(tmp_path, (1, 2, "yes"), (2, DOG, "no"))
    merge(None, tmp_path, truth="multi", votes=votes, **given)
    hound, dog = (by_class(tmp_path, "out", 1)[c] for c in (2, 0))
    assert hound == pytest.approx(0.3 * 0.8 / (0.3 * 0.8 + 0.7 * 0.1), rel=1e-4)
    assert dog == pytest.approx(1 - 0.8 * (1 - hound), rel=1e-4)
    no = by_class(tmp_path, "out", 2)
    before = 1 - 0.9 * 0.4
    after = before * 0.1 / (before * 0.1 + (1 - before) * 0.8)
    assert no[0] == pytest.approx(after, rel=1e-4)
    assert no[2] == pytest.approx(0.6 * after / before, rel=1e-4)
    assert no[3] == pytest.approx(0.5, rel=1e-4)
    assert by_class(tmp_path, "out", 3) == pytest.approx({2: 0.5, 4: 0.5})


def test_lists_without_votes_agree_with_the_tree(tmp_path, given):
    merge(None, tmp_path, truth="multi", votes=write_votes(tmp_path, (3, 4, "yes")), **given)
    assert by_class(tmp_path, "out", 2)[0] == pytest.approx(1 - 0.9 * 0.4, rel=1e-4)


def test_partitions_change_nothing(tmp_path, given):
    labels = [*range(5), DOG, CARNIVORE]
    votes = [(i, labels[i % 7], ("yes", "no")[i % 3 == 0]) for i in range(1, 40)]
    given |= {"truth": "multi", "votes": write_votes(tmp_path, *votes), "calibration": "votes"}
    given |= {"min_calibration_votes": 2, "worker_model": "auto", "prior_strength": 10}
    merge(None, tmp_path, "one", partitions=1, **given)
    merge(None, tmp_path, "three", partitions=3, **given)
    assert_same_tables(tmp_path / "one", tmp_path / "three")


def test_classes_without_a_tree_are_refused(tmp_path, given):
    given |= {"label_space": str(tmp_path / "plain.txt"), "votes": write_votes(tmp_path)}
    (tmp_path / "plain.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"plain.txt has no tree"):
        merge(None, tmp_path, "claimed", **given)
    assert not (tmp_path / "claimed").exists()


def test_votes_about_a_set_that_is_a_node_are_about_the_node(tmp_path, given):
    rows = {"image_id": [1], "worker_id": ["ann"], "label": pa.array([None], pa.int32())}
    rows |= {"response": ["yes"], "candidates": [[0, 1, 2]]}
    pq.write_table(pa.table(rows), tmp_path / "set.parquet")
    merge(None, tmp_path, "set", truth="multi", votes=str(tmp_path / "set.parquet"), **given)
    votes = write_votes(tmp_path, (1, 0, "yes"))
    merge(None, tmp_path, "node", truth="multi", votes=votes, **given)
    assert_same_tables(tmp_path / "set", tmp_path / "node")
