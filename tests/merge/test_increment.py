"""New votes added to an earlier merge: what is exact, what is left alone, what is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import parquet_splits
from coyo_labeler.merge.voted_filter import VotedFilter
from coyo_labeler.storage import read_json, remove
from tests.em.in_memory import never_falls
from tests.merge.kills import kill_once
from tests.merge.tables import assert_same_tables, posterior, read_rows
from tests.merge.test_stage import merge, write_beliefs, write_votes

CLASSES = 3


def votes_on(images, workers, seed, before=()):
    """Two votes on each image, of workers who have not voted on it before."""
    random = np.random.default_rng(seed)
    voted = {(image, worker) for image, worker, _ in before}
    return [
        (image, worker, int(image if random.random() < 0.8 else random.integers(9)) % CLASSES)
        for image in images
        for worker in random.choice([w for w in workers if (image, w) not in voted], 2, False)
    ]


#: Images 0 to 119 have beliefs, in 40 files; 500 and 600 have none. Workers 8 and 9 come later.
EARLIER = votes_on([*range(60), 500], [f"w{n}" for n in range(8)], 1)
LATER = votes_on([*range(10), *range(60, 65), 600], [f"w{n}" for n in range(4, 10)], 2, EARLIER)
TOUCHED = {image for image, _, _ in LATER}


@pytest.fixture
def inputs(tmp_path):
    random = np.random.default_rng(0)
    beliefs = {
        image: dict(zip(range(CLASSES), map(float, random.dirichlet([2] * CLASSES)), strict=True))
        for image in range(120)
    }
    return {
        "beliefs": write_beliefs(tmp_path / "beliefs", beliefs, 40),
        "beliefs_are": "categorical",
        "calibration": "none",
        "votes": write_votes(tmp_path / "earlier.csv", EARLIER),
    }


def increment(session, tmp_path, output="later", earlier="earlier", **settings):
    later = tmp_path / "later.csv"
    if not later.exists():
        write_votes(later, LATER)
    given = {"votes": later, "warm_start": tmp_path / earlier, "incremental": True}
    return merge(session, tmp_path, output, **given, **settings)


def test_all_images_stay_and_those_without_a_new_vote_stay_as_they_are(tmp_path, inputs):
    merge(None, tmp_path, "earlier", **inputs)
    manifest = increment(None, tmp_path)
    before, after = posterior(tmp_path / "earlier"), posterior(tmp_path / "later")
    files = list(Path(tmp_path / "later" / "posterior").glob("*.parquet"))
    assert len(after) == manifest.rows.rows_out == 122
    assert sum(pq.read_table(file).num_rows for file in files) == 122
    assert set(after) - set(before) == {600}
    assert {image for image in before if before[image] != after[image]} == TOUCHED - {600}
    assert after[3]["n_votes"] == before[3]["n_votes"] + 2
    assert after[600]["n_votes"] == after[60]["n_votes"] == 2


def test_what_was_counted_of_workers_is_added_to(tmp_path, inputs):
    merge(None, tmp_path, "earlier", **inputs)
    increment(None, tmp_path)
    workers = {row["worker_id"]: row["n_votes"] for row in read_rows(tmp_path / "later", "workers")}
    names = [worker for _, worker, _ in EARLIER + LATER]
    assert workers == {name: names.count(name) for name in set(names)}
    before, after = (confusions(tmp_path / output) for output in ("earlier", "later"))
    assert all(after[cell] >= count for cell, count in before.items())
    # Votes on what is none of the classes in play are in no cell: a few.
    assert len(LATER) - 1 < sum(after.values()) - sum(before.values()) <= len(LATER) + 1e-9
    # Once more, upon the increment.
    increment(None, tmp_path, "third", "later")
    again = read_rows(tmp_path / "third", "workers")
    assert sum(row["n_votes"] for row in again) == len(names) + len(LATER)


def confusions(output):
    keys = ("worker_id", "true_label", "voted_label")
    return {tuple(row[k] for k in keys): row["count"] for row in read_rows(output, "confusions")}


@pytest.mark.parametrize("class_prior", ["uniform", "estimated"])
def test_with_skills_that_do_not_move_it_is_the_merge_of_all_votes(tmp_path, inputs, class_prior):
    """Bayes' rule takes evidence in any order; only the skills of earlier votes are not revised."""
    fixed = {"prior_strength": 1e12, "pooling": "none", "prior_floor": 1e-9, "support_mass": 1}
    fixed["class_prior"] = class_prior
    together = inputs | {"votes": write_votes(tmp_path / "all.csv", EARLIER + LATER)}
    merge(None, tmp_path, "earlier", **inputs, **fixed)
    increment(None, tmp_path, **fixed)
    merge(None, tmp_path, "together", **together, **fixed)
    whole, added = posterior(tmp_path / "together"), posterior(tmp_path / "later")
    believed = [image for image in whole if image < 500]
    for image in believed if class_prior == "estimated" else whole:
        expected = dict(zip(whole[image]["labels"], whole[image]["label_probs"], strict=True))
        probabilities = dict(zip(added[image]["labels"], added[image]["label_probs"], strict=True))
        assert probabilities == pytest.approx(expected, abs=1e-5), image
        assert added[image]["n_votes"] == whole[image]["n_votes"]


def by_turns(tmp_path, earlier, later, **settings):
    """The posterior of an earlier merge, of all votes merged together, and of later ones added."""
    given = {"beliefs_are": "categorical", "calibration": "none", "prior_strength": 1e12}
    given |= {"pooling": "none", "class_prior": "uniform"}
    given["label_space"] = tmp_path / "six.txt"
    given["label_space"].write_text("\n".join("abcdef"))
    beliefs = {"beliefs": settings.pop("beliefs")}
    for name, votes in (("earlier", earlier), ("together", earlier + later)):
        path = write_votes(tmp_path / f"{name}.csv", votes)
        merge(None, tmp_path, name, votes=path, **beliefs, **given, **settings)
    write_votes(tmp_path / "later.csv", later)
    increment(None, tmp_path, **given)
    return [posterior(tmp_path / name) for name in ("earlier", "together", "later")]


def crowd(image, *votes, prefix="w"):
    """(label, how many workers say so) as votes on one image, each of another worker."""
    labels = [label for label, count in votes for _ in range(count)]
    return [(image, f"{prefix}{n}", label) for n, label in enumerate(labels)]


def test_under_the_default_settings_too_evidence_is_taken_in_any_order(tmp_path):
    beliefs = {3: {0: 0.5, 1: 0.3}, 4: {0: 0.7, 1: 0.2}, 5: {2: 0.9}, 6: {1: 1.0}}
    earlier = crowd(1, (0, 4)) + crowd(2, (0, 8)) + crowd(3, (0, 2), (1, 1)) + crowd(4, (1, 3))
    later = [
        *crowd(1, (1, 3), prefix="n"),  # no belief; its posterior is 1 to five digits
        *crowd(2, (1, 7), prefix="n"),  # to ten, more than float32 has
        *crowd(3, (5, 4), prefix="n"),  # a class that neither belief nor earlier votes name
        *crowd(4, (0, 2), prefix="n"),
        *crowd(5, (3, 2), prefix="n"),  # not voted on before
    ]
    folder = write_beliefs(tmp_path / "beliefs", beliefs, 2)
    _, whole, added = by_turns(tmp_path, earlier, later, beliefs=folder)
    for image in whole:
        expected = dict(zip(whole[image]["labels"], whole[image]["label_probs"], strict=True))
        probabilities = dict(zip(added[image]["labels"], added[image]["label_probs"], strict=True))
        assert probabilities == pytest.approx(expected, rel=1e-4, abs=1e-6), image
        assert added[image]["risk"] == pytest.approx(whole[image]["risk"], rel=1e-4), image


def test_what_gold_said_then_stands_against_later_votes(tmp_path):
    gold = pa.table({"image_id": [1], "label": pa.array([2], pa.int32())})
    pq.write_table(gold, tmp_path / "gold.parquet")
    beliefs = write_beliefs(tmp_path / "beliefs", {1: {0: 0.5, 1: 0.3}, 2: {0: 0.9}}, 1)
    before, _, added = by_turns(
        tmp_path, crowd(1, (0, 1)), crowd(1, (1, 30), prefix="n"),
        beliefs=beliefs, gold=tmp_path / "gold.parquet",
    )  # fmt: skip
    for rows in before, added:
        assert (rows[1]["labels"][0], rows[1]["label_probs"][0], rows[1]["risk"]) == (2, 1.0, 0.0)


def test_a_class_that_float32_has_lost_can_still_be_voted_in(tmp_path):
    """Of two classes that share an image nearly nothing is left over: rounding must not say 0."""
    beliefs = write_beliefs(tmp_path / "beliefs", {1: {0: 0.5, 1: 0.5}}, 1)
    later = crowd(1, (5, 30), prefix="n")
    _, whole, added = by_turns(tmp_path, crowd(1, (0, 9), (1, 9)), later, beliefs=beliefs)
    assert whole[1]["labels"][0] == added[1]["labels"][0] == 5


def test_it_comes_near_the_merge_of_all_votes_in_fewer_iterations(tmp_path, inputs):
    together = inputs | {"votes": write_votes(tmp_path / "all.csv", EARLIER + LATER)}
    merge(None, tmp_path, "earlier", **inputs)
    few = increment(None, tmp_path).details["iterations"]
    many = merge(None, tmp_path, "together", **together).details["iterations"]
    whole, added = posterior(tmp_path / "together"), posterior(tmp_path / "later")
    same = [whole[image]["labels"][0] == added[image]["labels"][0] for image in whole]
    assert np.mean(same) > 0.95
    assert few < many


@pytest.mark.parametrize("passes_all", [False, True])
def test_of_files_without_a_new_vote_only_the_ids_are_read(
    tmp_path, inputs, monkeypatch, passes_all
):
    """Beside many votes some images pass the filter that have none: at worst, all."""
    merge(None, tmp_path, "earlier", **inputs)
    if passes_all:
        every = lambda _, images: np.ones(len(images), dtype=bool)  # noqa: E731
        monkeypatch.setattr(VotedFilter, "may_have", every)
    read, untouched = parquet_splits.read_split, set()
    for file in Path(tmp_path / "earlier" / "posterior").glob("*.parquet"):
        if not TOUCHED & set(pq.read_table(file)["id"].to_pylist()):
            untouched.add(file)
    assert len(untouched) > 20

    def watched(split, columns=None, batch_rows=None):
        whole = columns != ["id"]
        assert not (whole and Path(split.url.removeprefix("file://")) in untouched), split.url
        return read(split, columns, batch_rows)

    monkeypatch.setattr(parquet_splits, "read_split", watched)
    increment(None, tmp_path)
    monkeypatch.undo()
    kept = [file.read_bytes() for file in Path(tmp_path / "later" / "posterior").glob("kept-*")]
    for file in untouched:
        assert file.read_bytes() in kept


def test_the_objective_does_not_fall(tmp_path, inputs):
    alone = {"pooling": "none", "tolerance": 0, "max_iterations": 30}
    merge(None, tmp_path, "earlier", **inputs, **alone)
    increment(None, tmp_path, **alone)
    history = read_json(str(tmp_path / "later" / "history.json"))["iterations"]
    assert never_falls(history)
    assert history[-1]["objective"] > history[0]["objective"]


@pytest.mark.parametrize("worker_model", ["confusion", "one_coin"])
def test_spark_finds_the_same_and_goes_on_after_a_kill(
    spark, tmp_path, inputs, monkeypatch, worker_model
):
    workers = {"worker_model": worker_model, "max_iterations": 4, "tolerance": 0}
    merge(None, tmp_path, "earlier", **inputs, **workers)
    gold = pa.table({"image_id": [61, 80], "label": pa.array([2, 1], pa.int32())})
    pq.write_table(gold, tmp_path / "gold.parquet")
    workers["gold"] = tmp_path / "gold.parquet"
    increment(None, tmp_path, "here", **workers)
    saved = kill_once(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        increment(spark, tmp_path, "spark", **workers)
    increment(spark, tmp_path, "spark", **workers)
    assert len(saved) == len(set(saved))
    assert_same_tables(tmp_path / "here", tmp_path / "spark")
    assert posterior(tmp_path / "here")[80]["labels"][0] == 1


def test_what_it_cannot_add_to_is_refused_in_one_line(tmp_path, inputs):
    for wrong, message in (
        ({}, "needs warm_start"),
        ({"warm_start": "x", "beliefs": "y"}, "leave beliefs out"),
        ({"warm_start": "x", "truth": "multi"}, "truth=single"),
    ):
        with pytest.raises(ValidationError, match=message):
            MergeSettings(votes="v", output="o", incremental=True, **wrong)
    merge(None, tmp_path, "earlier", **inputs)
    other = tmp_path / "other.txt"
    other.write_text("a\nb\nc\nd\n")
    with pytest.raises(InputError, match="label space"):
        merge(
            None, tmp_path, "later", votes=inputs["votes"], warm_start=tmp_path / "earlier",
            incremental=True, label_space=other,
        )  # fmt: skip
    remove(str(tmp_path / "earlier" / "tally" / "part-00000.parquet"))
    with pytest.raises(InputError, match=r"part-00000\.parquet is missing"):
        increment(None, tmp_path)
