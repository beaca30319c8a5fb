from dataclasses import replace
from math import ceil

import numpy as np
import pytest

from coyo_labeler.audit import (
    Answer,
    Answers,
    Frame,
    Judged,
    Lists,
    Population,
    answer_gain,
    estimate,
    estimate_frames,
    further_answers,
    is_reached,
)
from coyo_labeler.audit.fit import _derivatives, fit
from coyo_labeler.audit.states import build
from coyo_labeler.errors import InputError
from tests.audit.crowds import Crowd, simulate


def known(right, inclusion, rounds=None):
    """Judged images whose truth is known; nobody need answer."""
    n = len(right)
    zeros = np.zeros(n, dtype=np.int32)
    judged = Judged(
        label=zeros,
        base=zeros,
        probability=np.full(n, 0.7),
        believed=Lists(np.arange(n + 1), zeros, np.full(n, 0.7)),
        inclusion=np.asarray(inclusion, dtype=float),
        round=zeros if rounds is None else np.asarray(rounds, dtype=np.int32),
        truth=np.where(right, 0, 1).astype(np.int32),
    )
    answers = Answers(np.arange(n), zeros, np.zeros(n, dtype=np.int8), judged.truth, Lists.empty(n))
    return judged, answers


def test_images_count_with_the_inverse_of_their_probability():
    """10 certain ones, all wrong; of 990 others 99 are drawn, two thirds of them right."""
    right = np.concatenate([np.zeros(10, dtype=bool), np.arange(99) % 3 > 0])
    judged, answers = known(right, [1.0] * 10 + [0.1] * 99)
    found = estimate(judged, answers, Population(1000, 109), 3, 1)
    assert found.accuracy == pytest.approx(0.66, abs=0.005)
    half = 1.96 * np.sqrt(2 / 9 / 99 * 0.9) * 0.99
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert (found.answers, found.images) == (109, 109)


def test_an_accuracy_of_images_that_were_all_asked_about_has_no_sampling_error():
    judged, answers = known(np.arange(50) % 5 > 0, np.full(50, 0.5))
    found = estimate(judged, answers, Population(50, 50), 3, 1)
    assert (found.low, found.accuracy, found.high) == pytest.approx((0.8, 0.8, 0.8))


def test_a_sample_without_a_mistake_does_not_prove_that_there_is_none():
    judged, answers = known(np.ones(30, dtype=bool), np.full(30, 0.01))
    found = estimate(judged, answers, Population(3000, 30), 3, 1)
    assert found.high > 0.995
    assert 0.88 < found.low < 0.95  # Jeffreys' interval: 0.920


def test_votes_on_asked_images_do_not_count_for_the_others():
    """All 100 asked images became right by the votes; without them half would be."""
    judged, answers = known(np.arange(100) % 2 == 0, np.full(100, 0.1))
    merged = replace(judged, label=judged.truth)
    found = estimate(merged, answers, Population(1000, 100), 3, 1)
    assert found.accuracy == pytest.approx(0.1 + 0.9 * 0.5, abs=0.01)


def test_images_of_a_later_round_stand_for_those_that_no_earlier_one_asked():
    """First all bad images are asked (certainly), then a tenth of the good ones."""
    right = np.concatenate([np.zeros(100, dtype=bool), np.ones(90, dtype=bool)])
    judged, answers = known(right, [1.0] * 100 + [0.1] * 90, [0] * 100 + [1] * 90)
    found = estimate(judged, answers, Population(1000, 190), 3, 1)
    assert found.accuracy == pytest.approx(0.9, abs=0.01)


def test_a_round_and_a_slice_have_estimates_of_their_own():
    right = np.arange(200) < 100
    judged, answers = known(right, np.full(200, 0.1), np.arange(200) % 2)
    whole = Population(2000, 200)
    frames = {
        "all": Frame(np.arange(200), whole),
        "first round": Frame(np.arange(200), whole, 0),
        "right slice": Frame(np.arange(100), Population(1000, 100)),
        "certain": Frame(np.arange(0), Population(10, 0)),
    }
    found = estimate_frames(judged, answers, frames, 3, 1)
    assert found.estimates.keys() == {"all", "first round", "right slice"}
    assert found.estimates["first round"].answers == 100
    assert found.estimates["right slice"].low > 0.95
    assert found.base_right.tolist() == right.astype(float).tolist()


def test_what_cannot_be_estimated_says_why():
    judged, answers = known(np.ones(3, dtype=bool), np.full(3, np.nan))
    with pytest.raises(InputError, match="no vote has an inclusion_probability"):
        estimate(judged, answers, Population(9, 3), 3, 1)
    judged, answers = known(np.ones(3, dtype=bool), np.ones(3))
    with pytest.raises(InputError, match="chosen for sure"):
        estimate(judged, answers, Population(9, 3), 3, 1)
    judged, answers = known(np.ones(3, dtype=bool), [0.5, 1.5, 0.5])
    with pytest.raises(InputError, match=r"inclusion_probability 1\.5 is not in \(0, 1\]"):
        estimate(judged, answers, Population(9, 3), 3, 1)


def test_the_same_answers_give_the_same_estimate():
    audit = simulate(Crowd(images=300, audit=60, votes=2.0), 3, merge=False)
    found = [
        estimate(audit.machine, audit.answers, audit.machine_people, 10, 10, draws=50)
        for _ in range(2)
    ]
    assert found[0] == found[1]


KINDS = [
    Crowd(images=200, audit=60, votes=2.0),
    Crowd(images=200, audit=60, votes=2.0, verify=0.6, unsure=0.3),
    Crowd(images=200, audit=60, votes=2.0, candidates=4, gold=0.2),
    Crowd(images=200, audit=60, votes=2.0, classes=2, accuracy=0.8),
]


@pytest.mark.parametrize("crowd", KINDS, ids=["choices", "verifications", "none", "two classes"])
def test_derivatives_are_those_of_the_likelihood(crowd):
    audit = simulate(crowd, 5, merge=False)
    model = build(audit.machine, audit.answers, crowd.classes, crowd.workers)
    at = fit(model).parameters + 0.3
    _, gradient, information, _ = _derivatives(model, at)
    step = 1e-5
    for column in range(0, len(at), 3):
        up, down = at.copy(), at.copy()
        up[column] += step
        down[column] -= step
        (high, rising, *_), (low, falling, *_) = _derivatives(model, up), _derivatives(model, down)
        assert gradient[column] == pytest.approx((high - low) / (2 * step), abs=1e-4)
        assert information[column] == pytest.approx((falling - rising) / (2 * step), abs=1e-3)


def test_the_answers_to_a_question_have_probabilities_that_sum_to_one():
    """Over all choices of one worker for one image: the model is a distribution."""
    classes, said = 6, np.arange(6, dtype=np.int32)
    n = len(said)
    listed = np.tile(np.array([0, 3, 4], dtype=np.int32), n)
    judged = Judged(
        label=np.zeros(n, dtype=np.int32),
        base=np.zeros(n, dtype=np.int32),
        probability=np.full(n, 0.6),
        believed=Lists(3 * np.arange(n + 1), listed, np.tile([0.6, 0.2, 0.1], n)),
        inclusion=np.full(n, 0.5),
        round=np.zeros(n, dtype=np.int32),
        truth=np.full(n, -1, dtype=np.int32),
    )
    answers = Answers(
        np.arange(n),
        np.zeros(n, np.int32),
        np.full(n, Answer.CHOICE, np.int8),
        said,
        Lists.empty(n),
    )
    model = build(judged, answers, classes, 1)
    at = np.linspace(-0.5, 0.5, model.design.shape[1])
    total, *_ = _derivatives(model, at)
    each = [
        _derivatives(
            build(
                Judged(
                    **{
                        k: v[:1]
                        if k != "believed"
                        else Lists(v.offsets[:2], v.label[:3], v.value[:3])
                        for k, v in vars(judged).items()
                    }
                ),
                Answers(
                    np.zeros(1, np.int64),
                    np.zeros(1, np.int32),
                    np.zeros(1, np.int8),
                    np.array([z], np.int32),
                    Lists.empty(1),
                ),
                classes,
                1,
            ),
            at,
        )[0]
        for z in said
    ]
    assert sum(each) == pytest.approx(total)
    assert np.exp(each).sum() == pytest.approx(1.0, abs=1e-6)


def test_a_choice_among_all_classes_needs_no_list_of_them():
    """Nobody who is offered all classes means "none of these", so that no mistake is one."""
    crowd = Crowd(images=400, classes=3, audit=150, workers=4, skill=(0.7, 0.8))
    audit = simulate(crowd, 3, merge=False)
    n = len(audit.answers)
    offered = Lists(3 * np.arange(n + 1), np.tile(np.arange(3, dtype=np.int32), n))
    found = [
        estimate(audit.machine, answers, audit.machine_people, 3, 4, draws=200)
        for answers in (audit.answers, replace(audit.answers, offered=offered))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(("wrong", "reaches"), [(0, True), (60, False)])
def test_an_interval_reaches_up_to_no_mistake_where_no_answer_speaks_against_it(wrong, reaches):
    """Workers of 70 % disagree with right labels too; merged labels changed two of them."""
    audit = simulate(Crowd(images=600, audit=150, workers=5, skill=(0.65, 0.75)), 2, merge=False)
    truth = audit.truth[audit.asked].astype(np.int32)
    base = np.where(np.arange(len(truth)) < wrong, (truth + 1) % 10, truth).astype(np.int32)
    label = base.copy()
    label[-2:] = (label[-2:] + 1) % 10
    lists = Lists(np.arange(len(base) + 1), base, np.full(len(base), 0.9))
    for changed, judged in ((0, base), (2, label)):
        table = replace(audit.machine, base=base, label=judged, believed=lists)
        found = estimate(table, audit.answers, audit.machine_people, 10, 5, draws=200)
        assert (found.high == pytest.approx(1 - changed / 600, abs=1e-9)) == reaches
    gold = replace(table, truth=np.append((base[:1] + 1) % 10, np.full(len(base) - 1, -1)))
    found = estimate(gold, audit.answers, audit.machine_people, 10, 5, draws=200)
    assert found.high < 1 - 2 / 600


def test_an_interval_half_as_wide_takes_four_times_the_answers():
    audit = simulate(Crowd(images=500, audit=80, votes=2.0), 1, merge=False)
    found = estimate(audit.machine, audit.answers, audit.machine_people, 10, 10, draws=100)
    half = (found.high - found.low) / 2
    assert further_answers(found, half / 2) == 3 * found.answers
    assert further_answers(found, half) == further_answers(found, 1.5 * half) == 0
    # No more than it takes to ask about all 500 images.
    per_image = found.answers / found.images
    assert further_answers(found, 1e-4, 500) == ceil(per_image * (500 - found.images) - 1e-9)
    assert further_answers(found, half / 2, 10**9) == 3 * found.answers
    assert is_reached(found, found.low - 0.01)
    assert not is_reached(found, found.low)
    with pytest.raises(InputError, match="not above 0"):
        further_answers(found, 0.0)


def test_the_gain_of_an_answer_is_what_enumeration_finds():
    random = np.random.default_rng(0)
    classes, accuracy = 5, 0.7
    for size in (1, 2, 3, 5):
        p = random.dirichlet(np.ones(classes))[:size]
        p = np.sort(p)[::-1]
        theta = np.full((classes, classes), (1 - accuracy) / (classes - 1))
        np.fill_diagonal(theta, accuracy)
        joint = theta[:size] * p[:, None]  # (true, vote)
        wanted = joint.max(axis=0).sum() - p.max()
        found = answer_gain(np.array([0, size]), p, accuracy, classes)
        assert found[0] == pytest.approx(max(wanted, 0.0), abs=1e-12)


def test_a_thousand_workers_share_parameters():
    audit = simulate(Crowd(images=900, audit=800, votes=1.0, workers=1000), 1, merge=False)
    model = build(audit.machine, audit.answers, 10, 1000)
    assert model.design.shape[1] < 600
    found = estimate(audit.machine, audit.answers, audit.machine_people, 10, 1000, draws=50)
    assert found.low - 0.02 < audit.machine_accuracy < found.high + 0.02
