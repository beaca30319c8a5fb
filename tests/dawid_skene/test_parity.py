"""The model equals the classics where it says that it generalises them."""

import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import DawidSkene as CrowdKitDawidSkene
from crowdkit.aggregation import OneCoinDawidSkene as CrowdKitOneCoin

from coyo_labeler import DawidSkene
from coyo_labeler.em.model import Model
from tests.em import anaesthetists
from tests.em.in_memory import build, run_em, votes_of

#: crowd-kit stops when the loss grows by less than this: never.
NEVER = -1.0


def simulate(classes, tasks=150, workers=8, per_task=5, seed=0):
    """Votes by workers who are right in 45 to 90 of 100, and err to any other class."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, tasks)
    skill = random.uniform(0.45, 0.9, workers)
    rows = []
    for task, true in enumerate(truth):
        for worker in random.choice(workers, per_task, replace=False):
            right = random.random() < skill[worker]
            wrong = random.choice([c for c in range(classes) if c != true])
            rows.append((f"t{task:03d}", f"w{worker}", int(true if right else wrong)))
    return pd.DataFrame(rows, columns=["task", "worker", "label"])


def largest_difference(ours, theirs):
    return np.abs(ours - theirs.loc[ours.index, ours.columns]).to_numpy().max()


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (3, 0), (3, 1), (5, 0)])
def test_dawid_skene_equals_crowd_kits_at_convergence(classes, seed):
    votes = simulate(classes, seed=seed)
    ours = DawidSkene.classic(n_iter=600, tol=0).fit_predict_proba(votes)
    theirs = CrowdKitDawidSkene(n_iter=600, tol=NEVER).fit_predict_proba(votes)
    assert largest_difference(ours, theirs) < 1e-6


@pytest.mark.parametrize("classes", [2, 4])
def test_one_coin_equals_crowd_kits_at_convergence(classes):
    votes = simulate(classes, seed=3)
    classic = DawidSkene.classic(worker_model="one_coin", n_iter=200, tol=0)
    theirs = CrowdKitOneCoin(n_iter=200, tol=NEVER).fit_predict_proba(votes)
    assert largest_difference(classic.fit_predict_proba(votes), theirs) < 1e-6


def test_the_anaesthetists_of_1979_converge_to_the_published_error_rates():
    """Dawid & Skene 1979: the class marginals and the error rates of the first two observers."""
    model = Model(
        classes=4,
        workers=5,
        prior_strength=0,
        pooling_strength=None,
        estimate_class_prior=True,
        support_all=True,
    )
    passes = build(votes_of(anaesthetists.votes()), model)
    state, _ = run_em(passes, 500)
    assert np.exp(state.log_class_prior).round(2).tolist() == [0.40, 0.42, 0.11, 0.07]
    theta = np.zeros((5, 4, 4))
    cells = passes.table.decode()
    theta[cells.worker, cells.truth, cells.voted] = np.exp(passes.parameters_of(state)[0].log_theta)
    assert theta[0].round(2).tolist() == [
        [0.89, 0.11, 0.00, 0.00],
        [0.07, 0.88, 0.05, 0.00],
        [0.00, 0.34, 0.66, 0.00],
        [0.00, 0.00, 0.56, 0.44],
    ]
    assert theta[1].round(2).tolist() == [
        [0.83, 0.17, 0.00, 0.00],
        [0.05, 0.63, 0.31, 0.00],
        [0.00, 0.00, 1.00, 0.00],
        [0.00, 0.00, 0.00, 1.00],
    ]


def test_verifications_of_label_sets_are_binary_dawid_skene():
    """`truth: multi` without beliefs: each question is a task with the classes false and true."""
    votes = simulate(2, seed=5)
    binary = DawidSkene.classic(n_iter=400, tol=0).fit_predict_proba(votes)
    questions = votes.assign(label=3, response=np.where(votes["label"] == 1, "yes", "no"))
    multi = DawidSkene.classic(labels=5, truth="multi", support="candidates", n_iter=400, tol=0)
    true = multi.fit_predict_proba(questions)[3]
    assert np.abs(true - binary[1]).max() < 1e-6


def test_the_share_of_true_questions_is_estimated():
    """9 of 10 questions are false: with a fixed share of one half more would be called true."""
    random = np.random.default_rng(1)
    truth = random.random(400) < 0.1
    rows = [
        (task, worker, 0, "yes" if (random.random() < 0.75) == truth[task] else "no")
        for task in range(400)
        for worker in random.choice(20, 3, replace=False)
    ]
    votes = pd.DataFrame(rows, columns=["task", "worker", "label", "response"])
    model = DawidSkene(labels=2, truth="multi", n_iter=300, tol=1e-9)
    found = model.fit_predict_proba(votes)[0]
    assert found.mean() == pytest.approx(truth.mean(), abs=0.05)
    # The majority of three answers that are right in 3 of 4 errs in 10 of 64 questions.
    assert ((found > 0.5) == truth).mean() > 0.88


def test_with_no_votes_the_belief_stands_and_with_perfect_workers_the_vote_does():
    beliefs = pd.DataFrame(
        {"task": [1, 2], "labels": [[0, 2], [1]], "label_probs": [[0.5, 0.25], [0.75]]}
    )
    votes = pd.DataFrame({"task": [2], "worker": ["a"], "label": [0]})
    perfect = DawidSkene(labels=3, worker_model="perfect", calibration="none")
    probability = perfect.fit_predict_proba(votes, beliefs)
    assert probability.loc[1].to_list() == pytest.approx([0.5, 0.0, 0.25])
    assert probability.loc[2].to_list() == pytest.approx([1.0, 0.0, 0.0], abs=1e-12)
