"""The worker model is chosen by how much the votes can tell."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coyo_labeler import DawidSkene
from coyo_labeler.em.responses import Response
from coyo_labeler.em.worker_model import ChoiceSummary, resolve_worker_model


def crowd(images, labels=0, response=Response.CHOICE):
    images = np.asarray(images, np.int64)
    full = np.broadcast_to
    return ChoiceSummary.of(
        images, full(np.int32(labels), images.shape), full(np.int8(response), images.shape)
    )


@given(st.lists(st.integers(0, 9_000), max_size=60), st.integers(0, 60))
def test_crowds_add_up(images, cut):
    added = crowd(images[:cut]) + crowd(images[cut:])
    whole = crowd(images)
    assert added.choices == whole.choices
    assert added.images == whole.images == len(set(images))
    assert (added.hashes == whole.hashes).all()
    assert (added.classes == whole.classes).all()


def test_many_images_are_estimated_whatever_the_order():
    images = np.arange(100_000).repeat(2)
    whole = crowd(images)
    parts = np.array_split(np.random.default_rng(0).permutation(images), 7)
    assert whole.images == pytest.approx(100_000, rel=0.05)
    assert sum(map(crowd, parts), ChoiceSummary()).images == whole.images
    assert len(whole.hashes) == 4_096


@pytest.mark.parametrize(
    ("images", "per_image", "classes", "model"),
    [
        (2_000, 2, 2, "confusion"),
        (2_000, 1, 1, "one_coin"),  # single votes cannot tell a mistake from another class
        (1_000, 2, 2, "one_coin"),  # 1,000 choices a class
        (10, 300, 1, "confusion"),
    ],
)
def test_confusion_takes_two_votes_an_image_and_two_thousand_a_class(
    images, per_image, classes, model
):
    shape = (per_image, images)
    labels = np.broadcast_to(np.arange(images) % classes, shape).ravel().astype(np.int32)
    images = np.broadcast_to(np.arange(images), shape).ravel()
    votes = ChoiceSummary.of(images, labels, np.zeros(len(images), np.int8))
    assert resolve_worker_model("auto", "single", [votes]) == model


def test_what_is_wanted_is_taken_and_questions_have_two_rates():
    votes, answers = crowd([1, 2]), crowd([1, 2], response=Response.YES)
    assert resolve_worker_model("perfect", "single", [votes]) == "perfect"
    assert resolve_worker_model("auto", "single", [votes]) == "one_coin"
    assert resolve_worker_model("auto", "single", [answers]) == "confusion"
    assert resolve_worker_model("auto", "multi", [votes]) == "confusion"


@pytest.mark.parametrize("classes", [10, 1_000])
def test_a_third_of_a_vote_an_image_mends_the_machine(classes):
    """Were confusions learned of so few votes, EM would talk itself into the machine's opinion."""
    random = np.random.default_rng(5)
    images, votes = 3_000, 1_050
    truth = random.integers(0, classes, images)
    other = (truth + random.integers(1, classes, images)) % classes
    right = random.random(images) < 0.6
    top = np.where(right, truth, other)
    second = np.where(right, other, truth)
    beliefs = pd.DataFrame(
        {
            "task": np.arange(images),
            "labels": list(np.stack([top, second], 1)),
            "label_probs": [[0.7, 0.2]] * images,
        }
    )
    task = random.choice(images, votes, replace=False)
    skilled = random.random(votes) < 0.8
    label = np.where(skilled, truth[task], random.integers(0, classes, votes))
    worker = random.integers(0, 20, votes)
    model = DawidSkene(labels=classes)
    labels = model.fit_predict(
        pd.DataFrame({"task": task, "worker": worker, "label": label}), beliefs
    )
    assert model.worker_model_ == "one_coin"
    merged = (labels.loc[task].to_numpy() == truth[task]).mean()
    alone = max((top[task] == truth[task]).mean(), (label == truth[task]).mean())
    assert merged > alone + 0.03
