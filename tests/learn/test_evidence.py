"""Held-out votes say by the workers' accuracies whether a learner helps a teacher."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.config.learn import LearnSettings
from coyo_labeler.config.read import check_settings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.learn.evidence import WorkerAccuracies, read_evidence, weigh
from coyo_labeler.learn.pool import ByPosteriors, ByVotes, fit_pool
from coyo_labeler.stages import STAGES, run_stage
from tests.learn.blobs import blobs, one_hot, write_classes, write_embeddings, write_posterior

CREW = WorkerAccuracies(pa.array(["ann", "bob"]), np.array([0.9, 0.6]), 0.7)


def checked(rows):
    """Votes as (image, worker, label, response, candidates, timestamp)."""
    names = ["image_id", "worker_id", "label", "response", "candidates", "timestamp"]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    n = len(rows)
    columns |= {"inclusion_probability": [None] * n, "file": [0] * n, "row": list(range(1, n + 1))}
    columns["offered"] = [0] * n
    return pa.table(columns, schema=schemas.VOTES_CHECKED)


def test_votes_weigh_as_the_formula_says():
    votes = checked(
        [
            (7, "ann", 2, 0, None, None),  # a choice
            (7, "bob", 1, 2, None, None),  # no, it is not 1
            (3, "cat", -1, 1, [0, 4], None),  # yes, it is one of these
            (3, "ann", 3, 3, None, None),  # unsure
            (9, "bob", 5, 0, None, None),  # a class that nobody learned
        ]
    )
    evidence = weigh(votes, CREW, np.array([0, 1, 2, 4]), 6)
    assert evidence.image.tolist() == [3, 7, 9]
    assert evidence.votes == 4
    expected = [
        [0.7, 0.3, 0.3, 0.7],
        [0.02 * 0.6, 0.02 * 0.4, 0.9 * 0.6, 0.02 * 0.6],
        [0.4 / 5] * 4,
    ]
    assert np.exp(evidence.log_likelihood) == pytest.approx(np.array(expected), rel=1e-5)


def test_a_wrong_choice_is_even_over_what_was_offered():
    """Of a hundred classes, two were offered; bob's choice does not say."""
    votes = checked([(1, "ann", 0, 0, None, 1), (1, "bob", 1, 0, None, 2)])
    offered = votes.schema.get_field_index("offered")
    votes = votes.set_column(offered, votes.schema.field(offered), pa.array([2, 0], pa.int32()))
    likelihood = np.exp(weigh(votes, CREW, np.arange(3), 100).log_likelihood)
    expected = [0.9 * 0.4 / 99, 0.1 / 2 * 0.6, 0.1 / 2 * 0.4 / 99]
    assert likelihood[0] == pytest.approx(expected, rel=1e-5)


def test_the_last_of_a_worker_s_answers_counts():
    votes = checked(
        [(1, "ann", 0, 0, None, 5), (1, "ann", 1, 0, None, 9), (1, "ann", 0, 0, None, 7)]
    )
    once = checked([(1, "ann", 1, 0, None, 9)])
    both = [weigh(table, CREW, np.arange(3), 3).log_likelihood for table in (votes, once)]
    assert (both[0] == both[1]).all()


def test_votes_of_other_images_and_bad_ones_are_left_out(tmp_path):
    (tmp_path / "votes.csv").write_text(
        "image_id,worker_id,label\n1,ann,0\n2,ann,1\n1,bob,77\n1,zoe,2\n"
    )
    evidence = read_evidence(
        str(tmp_path / "votes.csv"), CREW, np.array([1]), np.arange(3), LabelSpace("x", 3), map
    )
    assert evidence.image.tolist() == [1]
    assert evidence.votes == 2


IMAGES, CLASSES = 600, 4
IDS = np.arange(IMAGES, dtype=np.int64) * 13 + 1


def simulated(seed=0):
    """A teacher who is surely right in 45 %, its posteriors, a learner, votes right in 70 %."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, IMAGES)

    def named(right):
        other = (truth + rng.integers(1, CLASSES, IMAGES)) % CLASSES
        return np.where(rng.random(IMAGES) < right, truth, other)

    teacher = np.log(0.02 + 0.92 * one_hot(named(0.45), CLASSES))
    learner = np.log(0.08 + 0.68 * one_hot(named(0.85), CLASSES))
    votes = np.log(0.1 + 0.6 * one_hot(named(0.7), CLASSES))
    return truth, teacher, learner, votes


def test_votes_see_through_a_teacher_that_posteriors_agree_with():
    truth, teacher, learner, votes = simulated()
    posterior = np.exp(teacher + votes)
    posterior /= posterior.sum(axis=1, keepdims=True)
    by_posteriors = fit_pool(teacher, learner, ByPosteriors(posterior), IDS)
    by_votes = fit_pool(teacher, learner, ByVotes(votes), IDS)

    def right(pool):
        return (pool.apply(teacher, learner).argmax(axis=1) == truth).mean()

    assert right(by_votes) > right(by_posteriors) + 0.1
    assert by_votes.learner > by_votes.teacher


def test_votes_leave_a_learner_of_noise_out():
    _, teacher, _, _ = simulated()
    rng = np.random.default_rng(1)
    drawn = (rng.random(IMAGES)[:, None] > np.exp(teacher).cumsum(axis=1)).sum(axis=1)
    votes = np.log(0.1 + 0.6 * one_hot(drawn.clip(0, CLASSES - 1), CLASSES))
    noise = np.log(0.08 + 0.68 * one_hot(rng.integers(0, CLASSES, IMAGES), CLASSES))
    pool = fit_pool(teacher, noise, ByVotes(votes), IDS)
    assert pool.learner < 0.05
    assert pool.teacher > 0.9


@pytest.fixture
def make(tmp_path):
    """Settings of a run that is given votes, with files."""
    features, truth = blobs(IMAGES, CLASSES, 10)
    rng = np.random.default_rng(0)
    named = np.where(rng.random(IMAGES) < 0.45, truth, rng.integers(0, CLASSES, IMAGES))
    voted = np.where(rng.random(IMAGES) < 0.7, truth, rng.integers(0, CLASSES, IMAGES))
    teacher = 0.02 + 0.92 * one_hot(named, CLASSES)
    posterior = teacher * (0.1 + 0.6 * one_hot(voted, CLASSES))
    posterior /= posterior.sum(axis=1, keepdims=True)
    merged = tmp_path / "merged"
    write_posterior(merged / "posterior/0.parquet", IDS, posterior, np.ones(IMAGES, np.int32))
    votes = pa.table({"image_id": IDS, "worker_id": ["ann"] * IMAGES, "label": voted})
    pq.write_table(votes, tmp_path / "votes.parquet")
    workers = [{"worker_id": "ann", "n_votes": IMAGES, "accuracy": 0.77}]
    (merged / "workers").mkdir()
    pq.write_table(pa.Table.from_pylist(workers, schemas.WORKERS), merged / "workers/0.parquet")
    keys = {
        "embeddings": write_embeddings(tmp_path / "features", IDS, features),
        "labels": str(merged),
        "beliefs": write_posterior(tmp_path / "teacher.parquet", IDS, teacher),
        "label_space": write_classes(tmp_path / "classes.txt", CLASSES),
        "engine": "local",
        "votes": str(tmp_path / "votes.parquet"),
    }

    def settings(output, **changes):
        given = keys | {"output": str(tmp_path / output)} | changes
        return check_settings(LearnSettings, "learn", given), truth

    return settings


def accuracy(settings, truth):
    files = sorted(Path(settings.output).glob("*.parquet"))
    rows = pa.concat_tables([pq.read_table(file) for file in files]).sort_by("id")
    return np.mean(
        [row[0] == label for row, label in zip(rows["labels"].to_pylist(), truth, strict=True)]
    )


def test_the_manifest_says_what_judged_and_votes_judge_better(make):
    (with_votes, truth), (without, _) = make("a"), make("b", votes=None)
    details = run_stage(STAGES["learn"], with_votes)[0].details
    assert details["pool"]["judged_by"] == "votes"
    assert details["pool"]["votes"] == details["pool"]["images"] == IMAGES
    likelihood = details["votes_log_likelihood"]
    assert likelihood["teacher_and_learner"] >= max(likelihood["teacher"], likelihood["learner"])
    other = run_stage(STAGES["learn"], without)[0].details
    assert other["pool"]["judged_by"] == "posteriors"
    assert accuracy(with_votes, truth) > accuracy(without, truth) + 0.05


def test_votes_without_workers_are_explained(make, tmp_path):
    settings, _ = make("a", labels=str(tmp_path / "merged/posterior"))
    with pytest.raises(InputError, match=r"votes: .*posterior has no workers/"):
        run_stage(STAGES["learn"], settings)
