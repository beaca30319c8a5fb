"""How frequent the classes are, in a merge that adds new votes to an earlier one."""

import json

import numpy as np
import pytest

from coyo_labeler.merge.earlier import read_earlier
from tests.em.in_memory import never_falls
from tests.merge.tables import read_rows
from tests.merge.test_stage import merge, write_votes


def write_crowd(path, seed, workers):
    random = np.random.default_rng(seed)
    rows = [
        (100 * seed + image, f"w{worker}", image % 5 if random.random() < 0.6 else 7)
        for image in range(25)
        for worker in random.choice(workers, 2, replace=False)
    ]
    return write_votes(path, rows)


def test_an_increment_has_an_objective_that_never_falls_and_counts_every_image(tmp_path):
    space = tmp_path / "twelve.txt"
    space.write_text("\n".join(map(str, range(12))))
    given = {"pooling": "none", "tolerance": 0, "label_space": space}
    votes = write_crowd(tmp_path / "one.csv", 1, range(6))
    merge(None, tmp_path, "earlier", votes=votes, max_iterations=8, **given)
    votes = write_crowd(tmp_path / "two.csv", 2, range(3, 9))
    more = {"warm_start": tmp_path / "earlier", "incremental": True, "max_iterations": 20}
    merge(None, tmp_path, "later", votes=votes, **more, **given)
    history = json.loads((tmp_path / "later" / "history.json").read_text())["iterations"]
    assert never_falls(history)
    for name, images in (("earlier", 25), ("later", 50)):
        rows = read_rows(tmp_path / name, "classes")
        assert sum(row["images"] for row in rows) == pytest.approx(images, abs=1e-9)
        assert sum(row["share"] for row in rows) == pytest.approx(1, abs=1e-12)
    # Classes that nobody named get a little, and the shares are shares still.
    begun = read_earlier(str(tmp_path / "earlier"), "confusion").log_class_prior(12)
    assert np.isfinite(begun).all()
    assert np.exp(begun).sum() == pytest.approx(1, abs=1e-12)


def test_the_objective_of_an_increment_counts_what_the_earlier_merge_counted(tmp_path):
    """With skills held: Σ log evidence + Σ images · log π + Σ votes · log θ."""
    given = {"pooling": "none", "prior_strength": 1e12, "tolerance": 0, "max_iterations": 1}
    votes = [(image, worker, image % 3) for image in range(7) for worker in "ab"]
    votes = write_votes(tmp_path / "one.csv", [*votes, (1, "c", 2), (2, "c", 0)])
    merge(None, tmp_path, "earlier", votes=votes, **given)
    votes = write_votes(tmp_path / "two.csv", [(9, "a", 0)])
    more = {"warm_start": tmp_path / "earlier", "incremental": True}
    manifest = merge(None, tmp_path, "later", votes=votes, **more, **given)
    classes = read_rows(tmp_path / "earlier", "classes")
    share = [row["share"] for row in classes]
    expected = np.log(share[0] * 0.8 + (1 - share[0]) * 0.1)
    expected += sum(row["images"] * np.log(row["share"]) for row in classes)
    for row in read_rows(tmp_path / "earlier", "confusions"):
        right = row["true_label"] == row["voted_label"]
        expected += row["count"] * np.log(0.8 if right else 0.1)
    assert manifest.details["objective"] == pytest.approx(expected, rel=1e-6)
