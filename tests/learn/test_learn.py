"""The stage: what it believes, of whom it learned, and what it says of bad input."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.config.learn import LearnSettings
from coyo_labeler.config.read import check_settings
from coyo_labeler.errors import InputError
from coyo_labeler.learn import train
from coyo_labeler.stages import STAGES, run_stage
from tests.learn.blobs import blobs, one_hot, write_classes, write_embeddings, write_posterior

IMAGES, CLASSES, FEATURES = 240, 4, 10
IDS = np.arange(IMAGES) * 11 + 2
VECTORS, TRUTH = blobs(IMAGES, CLASSES, FEATURES, spread=1.1)
VOTES = (np.arange(IMAGES) % 2).astype(np.int32)  # every other image has a vote

POSTERIOR = 0.05 + 0.8 * one_hot(TRUTH, CLASSES)


@pytest.fixture
def make(tmp_path):
    """Settings, and files of what is given."""
    write_classes(tmp_path / "classes.txt", CLASSES)

    def settings(output="out", ids=IDS, posterior=POSTERIOR, votes=VOTES, **changes):
        keys = {
            "embeddings": write_embeddings(tmp_path / "features", IDS, VECTORS),
            "labels": write_posterior(tmp_path / "labels.parquet", ids, posterior, votes),
            "label_space": str(tmp_path / "classes.txt"),
            "output": str(tmp_path / output),
            "engine": "local",
        }
        return check_settings(LearnSettings, "learn", keys | changes)

    return settings


def rows_of(settings):
    """The beliefs that were written, by id."""
    files = [f"{settings.output}/{number:05d}.parquet" for number in (0, 1)]
    table = pa.concat_tables([pq.read_table(file) for file in files])
    return {row["id"]: row for row in table.to_pylist()}


def accuracy(rows):
    return np.mean(
        [rows[image]["labels"][0] == label for image, label in zip(IDS, TRUTH, strict=True)]
    )


def test_every_image_gets_a_belief_in_the_schema_of_beliefs(make):
    settings = make()
    manifest, _ = run_stage(STAGES["learn"], settings)
    rows = rows_of(settings)
    assert rows.keys() == set(IDS.tolist())
    assert accuracy(rows) > 0.85
    for row in rows.values():
        assert sum(row["label_probs"]) == pytest.approx(1, abs=1e-5)
        assert row["label_probs"] == sorted(row["label_probs"], reverse=True)
    assert manifest.rows.rows_in == manifest.rows.rows_out == IMAGES
    assert manifest.details["training_images"] == manifest.details["out_of_fold"] == IMAGES // 2
    metadata = pq.read_metadata(f"{settings.output}/00000.parquet").metadata
    assert metadata[b"beliefs_are"] == b"categorical"
    assert metadata[b"learner.fingerprint"].decode() == manifest.fingerprint
    assert json.loads(Path(settings.output, "metrics.json").read_text())["solver"] == "lbfgs"


def test_an_image_s_own_posterior_does_not_come_back(make):
    settings = make()
    run_stage(STAGES["learn"], settings)
    flipped = POSTERIOR.copy()
    flipped[1] = 0.05 + 0.8 * one_hot((TRUTH[[1]] + 1) % CLASSES, CLASSES)[0]
    other = make("other", posterior=flipped)
    run_stage(STAGES["learn"], other)
    own, others = int(IDS[1]), int(IDS[0])
    before, after = rows_of(settings), rows_of(other)
    assert before[own] == after[own]
    assert before[others] != after[others]


def test_a_run_that_broke_off_trains_once_and_writes_what_is_missing(make, tmp_path):
    settings = make()
    run_stage(STAGES["learn"], settings)
    out = tmp_path / "out"
    whole = {file.name: file.read_bytes() for file in out.glob("*.parquet")}
    weights = (out / "weights.safetensors").stat().st_mtime_ns
    kept = (out / "00001.parquet").stat().st_mtime_ns
    for name in ("00000.parquet", "_receipts/00000.json", "_manifest.json"):
        (out / name).unlink()
    run_stage(STAGES["learn"], settings)
    assert {file.name: file.read_bytes() for file in out.glob("*.parquet")} == whole
    assert (out / "weights.safetensors").stat().st_mtime_ns == weights
    assert (out / "00001.parquet").stat().st_mtime_ns == kept
    assert run_stage(STAGES["learn"], settings)[1] is False


def test_spark_writes_what_threads_write(make, spark):
    here, there = make(), make("spark", engine="spark")
    run_stage(STAGES["learn"], here)
    run_stage(STAGES["learn"], there, spark)
    assert rows_of(here) == rows_of(there)


def test_minibatches_end_near_full_batches(make):
    full, small = make(), make("small", solver="minibatch", epochs=30, minibatch=32)
    likelihood = []
    for settings in (full, small):
        manifest, _ = run_stage(STAGES["learn"], settings)
        likelihood.append(manifest.details["learner"]["log_likelihood"])
    assert likelihood[0] == pytest.approx(likelihood[1], abs=0.06)
    again = make("again", solver="minibatch", epochs=30, minibatch=32)
    run_stage(STAGES["learn"], again)
    assert rows_of(small) == rows_of(again)


def test_teacher_and_learner_become_one_belief(make, tmp_path):
    rng = np.random.default_rng(0)
    named = np.where(rng.random(IMAGES) < 0.7, TRUTH, rng.integers(0, CLASSES, IMAGES))
    teacher = write_posterior(
        tmp_path / "teacher.parquet", IDS, 0.1 + 0.6 * one_hot(named, CLASSES)
    )
    settings = make(beliefs=teacher)
    pq.write_table(pq.read_table(teacher).drop(["width", "height", "imagehash"]), teacher)
    manifest, _ = run_stage(STAGES["learn"], settings)
    pool = manifest.details["pool"]
    assert pool["learner"] > 0
    assert pool["gain"] > 0
    rows = rows_of(settings)
    assert accuracy(rows) > max(0.85, (named == TRUTH).mean())
    assert rows[int(IDS[3])]["url"] == f"u{IDS[3]}"
    assert rows[int(IDS[3])]["width"] is None


def test_a_learner_of_noise_leaves_the_teacher_s_beliefs(make, tmp_path):
    noise = np.random.default_rng(0).normal(size=VECTORS.shape).astype(np.float32)
    teacher = write_posterior(tmp_path / "teacher.parquet", IDS, POSTERIOR)
    settings = make(beliefs=teacher, embeddings=write_embeddings(tmp_path / "noise", IDS, noise))
    manifest, _ = run_stage(STAGES["learn"], settings)
    assert manifest.details["pool"] | {"gain": 0} == {
        "judged_by": "posteriors", "teacher": 1.0, "learner": 0.0, "gain": 0,
        "images": IMAGES // 2,
    }  # fmt: skip
    for image, row in rows_of(settings).items():
        at = np.flatnonzero(image == IDS)[0]
        expected = POSTERIOR[at] / POSTERIOR[at].sum()
        assert row["label_probs"] == pytest.approx(sorted(expected, reverse=True), abs=2e-4)
        assert row["labels"][0] == TRUTH[at]


def test_classes_without_an_image_keep_what_the_teacher_believes(make, tmp_path, caplog):
    rare = TRUTH == 3
    votes = np.where(rare, 0, VOTES).astype(np.int32)
    known = POSTERIOR.copy()
    known[~rare, 3] = 0.0
    teacher = write_posterior(tmp_path / "teacher.parquet", IDS, POSTERIOR)
    settings = make(posterior=known, votes=votes, beliefs=teacher)
    run_stage(STAGES["learn"], settings)
    assert "1 of 4 classes have no training image (class 3)" in caplog.text
    rows = rows_of(settings)
    image = int(IDS[rare][0])
    assert rows[image]["labels"][0] == 3
    assert sum(rows[image]["label_probs"]) == pytest.approx(1, abs=1e-3)


def test_confident_images_teach_without_votes(make):
    settings = make(votes=None, train_on="confident", confidence=0.8)
    manifest, _ = run_stage(STAGES["learn"], settings)
    assert manifest.details["training_images"] == IMAGES


def test_images_without_features_are_as_if_they_had_no_posterior(make, tmp_path):
    some = np.flatnonzero(np.arange(IMAGES) % 5 != 1)
    features = write_embeddings(tmp_path / "some", IDS[some], VECTORS[some])
    without = make("without", embeddings=features)
    manifest, _ = run_stage(STAGES["learn"], without)
    assert manifest.details["posteriors_without_features"] == IMAGES // 10
    fewer = make(
        "fewer", ids=IDS[some], posterior=POSTERIOR[some], votes=VOTES[some], embeddings=features
    )
    run_stage(STAGES["learn"], fewer)
    assert rows_of(without) == rows_of(fewer)


def test_many_images_of_some_classes_go_by_minibatches(make, monkeypatch):
    monkeypatch.setattr(train, "_FULL_BATCH_PRODUCTS", 5_000)
    manifest, _ = run_stage(STAGES["learn"], make())
    assert manifest.details["solver"] == "minibatch"


def test_the_largest_training_set_is_a_bound(make):
    manifest, _ = run_stage(STAGES["learn"], make(max_training_images=50))
    assert manifest.details["training_images"] == 50
    assert manifest.details["posteriors_that_pass"] == 120


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"votes": np.zeros(IMAGES, np.int32)}, r"no image of .* has a vote"),
        ({"votes": None}, r"no column 'n_votes'.*set train_on=confident"),
        ({"ids": IDS + 1}, r"none of the 120 images to learn from has features"),
        ({"posterior": np.full((IMAGES, 5), 0.2)}, r"has the label 4, which is outside"),
        ({"train_on": "confident", "confidence": 0.99}, r"top probability of 0\.99 or more"),
    ],
)
def test_labels_that_teach_nothing_are_explained(make, changes, message):
    with pytest.raises(InputError, match=message):
        run_stage(STAGES["learn"], make(**changes))


def vectors(tmp_path, ids, rows):
    table = pa.table({"id": ids, "embedding": pa.array(rows, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "wrong.parquet")
    return str(tmp_path / "wrong.parquet")


@pytest.mark.parametrize(
    ("ids", "rows", "message"),
    [
        ([2, 13], [[1.0, 2.0], [1.0]], r"id 13 has 1 features, the images before have 2"),
        ([2, 13], [[1.0, 2.0], None], r"id 13 has no embedding"),
        ([2, 13], [[1.0, 2.0], [1.0, float("inf")]], r"id 13 has a feature that is not finite"),
        ([13, 13], [[1.0, 2.0], [1.0, 3.0]], r"id 13 has two rows"),
        ([2, None], [[1.0, 2.0], [1.0, 3.0]], r"has a row without an id"),
        ([2], [[]], r"embeddings are empty lists"),
    ],
)
def test_wrong_features_are_named(make, tmp_path, ids, rows, message):
    wrong = vectors(tmp_path, ids, rows)
    with pytest.raises(InputError, match=message):
        run_stage(STAGES["learn"], make(embeddings=wrong))


def test_files_of_other_lengths_are_named(make, tmp_path):
    folder = tmp_path / "mixed"
    write_embeddings(folder, IDS, VECTORS, files=1)
    write_embeddings(tmp_path / "short", IDS, VECTORS[:, :3], files=1)
    (tmp_path / "short" / "00000.parquet").rename(folder / "00001.parquet")
    with pytest.raises(
        InputError, match=r"00001\.parquet has 3 features, the images before have 10"
    ):
        run_stage(STAGES["learn"], make(embeddings=str(folder)))


def test_a_column_of_another_kind_is_named(make, tmp_path):
    table = pa.table({"id": [1], "embedding": ["words"]})
    pq.write_table(table, tmp_path / "words.parquet")
    with pytest.raises(InputError, match=r"column 'embedding' is string"):
        run_stage(STAGES["learn"], make(embeddings=str(tmp_path / "words.parquet")))
