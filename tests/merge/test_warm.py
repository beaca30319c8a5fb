"""An earlier merge's skills are where the next one begins."""

import json

import numpy as np
import pytest

from coyo_labeler.errors import InputError
from tests.merge.tables import posterior, read_rows
from tests.merge.test_stage import merge, write_beliefs, write_votes


def write_crowd(path, images, votes_each=3):
    """Choices and yes-or-no answers of eight workers, right in 6 to 9 of 10."""
    random = np.random.default_rng(5)
    lines = ["image_id,worker_id,label,response"]
    for image in range(images):
        for worker in random.choice(8, votes_each, replace=False):
            right = random.random() < 0.6 + 0.04 * worker
            label = image % 3 if right else (image + random.integers(1, 3)) % 3
            lines.append(f"{image},w{worker},{label},")
            asked = random.integers(0, 3)
            truly = (asked == image % 3) == (random.random() < 0.6 + 0.04 * worker)
            lines.append(f"{image},w{worker},{asked},{'yes' if truly else 'no'}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def iterations(folder):
    return len(json.loads((folder / "history.json").read_text())["iterations"])


@pytest.mark.parametrize(
    ("worker_model", "max_broadcast_mb"), [("confusion", 32), ("confusion", 0), ("one_coin", 32)]
)
def test_a_warm_start_finds_the_same_in_fewer_iterations(
    spark, tmp_path, worker_model, max_broadcast_mb
):
    given = {
        "votes": write_crowd(tmp_path / "votes.csv", 60),
        "beliefs": write_beliefs(tmp_path / "beliefs"),
        "worker_model": worker_model,
        "max_broadcast_mb": max_broadcast_mb,
        "tolerance": 1e-12,
        "calibration": "none",
    }
    # The 91 iterations of the cold one take seconds in threads, which write what Spark writes.
    merge(None, tmp_path, "cold", **given)
    merge(spark, tmp_path, "warm", warm_start=tmp_path / "cold", **given)
    assert iterations(tmp_path / "warm") < iterations(tmp_path / "cold") / 2
    cold, warm = posterior(tmp_path / "cold"), posterior(tmp_path / "warm")
    assert cold.keys() == warm.keys()
    for image, row in cold.items():
        assert warm[image]["label_probs"] == pytest.approx(row["label_probs"], abs=1e-5)


def test_a_warm_start_needs_a_merge_of_the_same_worker_model(spark, tmp_path):
    votes = write_crowd(tmp_path / "votes.csv", 10)
    merge(spark, tmp_path, "cold", votes=votes, worker_model="one_coin", max_iterations=2)
    with pytest.raises(InputError, match="workers of the model one_coin, not confusion; set"):
        merge(spark, tmp_path, "warm", votes=votes, warm_start=tmp_path / "cold")
    with pytest.raises(InputError, match="is no finished output of merge"):
        beliefs = write_beliefs(tmp_path / "beliefs")
        merge(spark, tmp_path, "other", votes=votes, warm_start=beliefs)


def test_a_warm_start_begins_with_the_shares_of_classes_that_were_found(spark, tmp_path):
    """And leaves a class that was not seen then a chance to be seen now."""
    old = [(image, worker, 0 if image < 6 else 1) for image in range(8) for worker in "ab"]
    new = [*old, *((9, worker, 2) for worker in "ab")]
    given = {"prior_accuracy": 0.9, "support": "all"}
    votes = write_votes(tmp_path / "old.csv", old)
    merge(spark, tmp_path, "cold", votes=votes, prior_strength=0, pooling="none", **given)
    shares = [row["share"] for row in read_rows(tmp_path / "cold", "classes")]
    assert shares == pytest.approx([6 / 8, 2 / 8, 0])
    votes = write_votes(tmp_path / "new.csv", new)
    merge(spark, tmp_path, "warm", votes=votes, warm_start=tmp_path / "cold", **given)
    assert posterior(tmp_path / "warm")[9]["labels"][0] == 2


def test_later_merges_keep_mistakes_that_are_shared_with_the_machine(tmp_path):
    given = {"votes": write_crowd(tmp_path / "votes.csv", 30), "max_iterations": 2}
    beliefs = {"beliefs": write_beliefs(tmp_path / "beliefs"), "calibration": "none"}
    merge(None, tmp_path, "even", worker_model="one_coin", **given, **beliefs)
    merge(None, tmp_path, "cold", worker_model="shared_mistakes", **given, **beliefs)
    assert posterior(tmp_path / "cold") != posterior(tmp_path / "even")
    later = {"warm_start": tmp_path / "cold", "worker_model": "auto"}
    new = write_votes(tmp_path / "new.csv", [(1, "w8", 0), (40, "w1", 1)])
    warm = merge(None, tmp_path, "warm", **given, **beliefs, **later)
    added = merge(None, tmp_path, "added", votes=new, incremental=True, calibration="none", **later)
    assert [each.details["worker_model"] for each in (warm, added)] == ["shared_mistakes"] * 2
    with pytest.raises(InputError, match="shared_mistakes needs truth=single"):
        merge(None, tmp_path, "multi", worker_model="shared_mistakes", truth="multi", **given)
