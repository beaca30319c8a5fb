"""Worker model, class prior and form of the calibration are chosen by votes that were held out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from coyo_labeler import DawidSkene
from coyo_labeler.em.inputs import Gold, Inclusion, Inputs, SetVotes, concatenate_inputs
from coyo_labeler.em.model import Calibration, Model
from coyo_labeler.em.model_choice import Wanted, choose_model, is_sampled, name_of
from tests.em.in_memory import NO_BELIEFS, NO_GOLD, beliefs_of, set_votes_of, votes_of

CLASSES, WORKERS = 4, 6
NO_PROBABILITY = Inclusion(np.zeros(0, np.int64), np.zeros(0))


def crowd(images, per_image, confusions, seed=0, shares=None, beliefs=False):
    """Votes on images by workers with these confusion matrices (workers, classes, classes)."""
    random = np.random.default_rng(seed)
    truth = random.choice(CLASSES, images, p=shares)
    rows, believed = [], {}
    for image, true in enumerate(truth):
        for worker in random.permutation(WORKERS)[:per_image]:
            label = random.choice(CLASSES, p=confusions[worker, true])
            rows.append((image, int(worker), int(label)))
        if beliefs:
            top = true if random.random() < 0.7 else random.integers(CLASSES)
            believed[image] = {c: 0.7 if c == top else 0.1 for c in range(CLASSES)}
    given = beliefs_of(believed) if beliefs else NO_BELIEFS
    return Inputs(votes_of(rows), SetVotes.none(), given, NO_GOLD, NO_PROBABILITY)


def even(accuracy):
    """Errors spread evenly over the other classes; accuracy: (workers,)."""
    wrong = (1 - np.asarray(accuracy)) / (CLASSES - 1)
    matrices = np.repeat(np.repeat(wrong[:, None, None], CLASSES, 1), CLASSES, 2)
    for c in range(CLASSES):
        matrices[:, c, c] = accuracy
    return matrices


def alike():
    """All take class 0 for 1 and 2 for 3 half of the time."""
    matrix = np.full((CLASSES, CLASSES), 0.02)
    for true, other in ((0, 1), (2, 3)):
        matrix[true, [true, other]] = 0.5, 0.46
        matrix[other, other] = 0.94
    return np.repeat((matrix / matrix.sum(1, keepdims=True))[None], WORKERS, 0)


def of_their_own():
    """Every worker confuses other classes."""
    matrices = np.full((WORKERS, CLASSES, CLASSES), 0.03)
    for worker in range(WORKERS):
        for true in range(CLASSES):
            matrices[worker, true, true] = 0.5
            matrices[worker, true, (true + 1 + worker % 3) % CLASSES] = 0.44
    return matrices / matrices.sum(2, keepdims=True)


def choose(sample, wanted=None, **model):
    given = {"classes": CLASSES, "workers": WORKERS, "beliefs_are": "categorical"}
    wanted = wanted or Wanted(worker_model=True)
    return choose_model(sample, Model(**given | model), wanted, Calibration(), 200)


@pytest.mark.parametrize(
    ("confusions", "per_image", "expected"),
    [
        (even([0.5, 0.6, 0.7, 0.8, 0.9, 0.6]), 3, "one_coin"),
        (alike(), 3, "pooled"),
        (of_their_own(), 4, "confusion"),
        (alike(), 1, "one_coin"),  # single votes cannot tell a confusion from another class
    ],
)
def test_the_worker_model_is_that_of_the_crowd(confusions, per_image, expected, caplog):
    with caplog.at_level("INFO", logger="coyo_labeler"):
        choice = choose(crowd(600, per_image, confusions))
    assert f"worker_model={expected}: log likelihood per held-out vote: one_coin -" in caplog.text
    assert name_of(choice.model) == expected
    document = choice.document["worker_model"]
    assert document["chosen"] == expected
    assert document["log_likelihood_per_vote"].keys() == {"one_coin", "pooled", "confusion"}


def test_the_class_prior_is_estimated_where_classes_are_not_equally_frequent():
    wanted = Wanted(class_prior=True)
    workers = even([0.7] * WORKERS)
    skewed = choose(crowd(500, 3, workers, shares=[0.7, 0.1, 0.1, 0.1]), wanted)
    equal = choose(crowd(500, 3, workers), wanted)
    believed = choose(crowd(300, 2, workers, beliefs=True), wanted)
    assert skewed.model.estimate_class_prior
    assert not equal.model.estimate_class_prior
    assert not believed.model.estimate_class_prior
    assert believed.document["class_prior"] == {"chosen": "uniform"}


def test_the_choice_does_not_depend_on_partitions():
    sample = crowd(300, 2, alike(), beliefs=True)
    sets = set_votes_of([(5, 1, {0, 2}, 1), (4, 1, {1}, 2)])
    gold = Gold(np.array([3, 8]), np.array([1, 2], np.int32))
    known = Inclusion(np.array([2, 5]), np.array([0.5, 1.0]))
    sample = Inputs(sample.votes, sets, sample.beliefs, gold, known)
    parts = [sample.where(lambda image, n=n: image % 3 == n) for n in range(3)]
    together = concatenate_inputs(parts)
    for name in ("votes", "set_votes", "beliefs", "gold", "inclusion"):
        for column, value in vars(getattr(sample, name)).items():
            assert (getattr(getattr(together, name), column) == value).all(), (name, column)
    assert choose(together).document == choose(sample).document


def test_few_votes_leave_the_simplest_model():
    choice = choose(crowd(20, 2, alike()), Wanted(worker_model=True, class_prior=True))
    assert name_of(choice.model) == "one_coin"
    assert not choice.model.estimate_class_prior
    answers = Inputs(votes_of([(0, 0, 1, 1)]), SetVotes.none(), NO_BELIEFS, NO_GOLD, NO_PROBABILITY)
    assert name_of(choose(answers).model) == "confusion"


def test_a_share_of_the_images_is_sampled():
    images = np.arange(20_000)
    chosen = is_sampled(images, 0.25)
    assert chosen.mean() == pytest.approx(0.25, abs=0.02)
    assert (is_sampled(images[::-1], 0.25)[::-1] == chosen).all()
    assert is_sampled(images, 1.0).all()


@pytest.mark.parametrize("probability", [None, 0.25])
def test_without_probabilities_the_calibration_does_not_reach_beyond_the_votes(probability):
    sample = crowd(400, 2, even([0.8] * WORKERS), beliefs=True)
    images = np.arange(400)
    known = NO_PROBABILITY
    if probability is not None:
        known = Inclusion(images, np.where(images % 2, probability, 1.0))
    sample = Inputs(sample.votes, sample.set_votes, sample.beliefs, sample.gold, known)
    choice = choose(sample, Wanted(calibration=True), fit_calibration="votes")
    document = choice.document["calibration"]
    assert document["log_likelihood_per_vote"]["none"] != 0
    # Biases speak of all images, so they are tried only where probabilities are known.
    assert document["gain"].keys() == {"flat", "curve"} | ({"class_bias"} if probability else set())
    assert choice.model.fit_calibration == ("none" if document["chosen"] == "none" else "votes")


@pytest.mark.parametrize(
    ("power", "probability", "chosen"),
    [(1.0, 0.25, "none"), (3.0, 0.25, "flat curve"), (3.0, None, "flat curve")],
)
def test_a_machine_that_is_right_is_left_alone_and_one_that_is_too_sure_is_not(
    power, probability, chosen
):
    """Beliefs in ten classes, true as often as they say; then to a power."""
    random = np.random.default_rng(2)
    images, classes = 1_500, 10
    p = random.dirichlet(np.full(classes, 0.3), images)
    truth = (p.cumsum(axis=1) > random.random((images, 1))).argmax(axis=1)
    wrong = (truth + random.integers(1, classes, images)) % classes
    label = np.where(random.random(images) < 0.9, truth, wrong)
    said = p**power + 1e-6
    said /= said.sum(axis=1, keepdims=True)
    known = NO_PROBABILITY
    if probability is not None:
        known = Inclusion(np.arange(images), np.full(images, probability))
    sample = Inputs(
        votes_of(list(zip(range(images), random.integers(0, 4, images), label, strict=True))),
        SetVotes.none(),
        beliefs_of({i: dict(enumerate(said[i])) for i in range(images)}),
        NO_GOLD,
        known,
    )
    model = Model(classes=classes, workers=4, worker_model="one_coin", beliefs_are="categorical")
    model = replace(model, fit_calibration="votes")
    choice = choose_model(sample, model, Wanted(calibration=True), Calibration(), 200)
    assert choice.document["calibration"]["chosen"] in chosen.split()
    assert choice.model.fades == (choice.model.fit_calibration == "votes" and probability is None)


@pytest.mark.parametrize("classes", [10, 1_000])
def test_a_third_of_a_vote_per_image_improves_the_machine(classes):
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
