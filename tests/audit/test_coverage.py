"""The promise of the audit: of 100 intervals about 95 have the truth in them."""

import logging

import numpy as np
import pytest

from coyo_labeler.audit import estimate
from coyo_labeler.em import model_choice
from tests.audit.crowds import Crowd, random_crowd, simulate

CROWDS = 200


def test_on_200_random_crowds_the_interval_covers_the_truth_in_92_to_98_percent(
    caplog, capsys, monkeypatch
):
    monkeypatch.setattr(model_choice, "_HELD_OUT", 60)  # a third of the votes or so: faster
    caplog.set_level(logging.ERROR)  # merges of few votes say so
    hits = {"machine": 0, "merged": 0}
    for seed in range(CROWDS):
        crowd = random_crowd(np.random.default_rng(seed), small=True)
        audit = simulate(crowd, seed)
        for name in hits:
            judged, people = getattr(audit, name), getattr(audit, f"{name}_people")
            found = estimate(
                judged, audit.answers, people, crowd.classes, crowd.workers, draws=200, seed=seed
            )
            hits[name] += found.low <= getattr(audit, f"{name}_accuracy") <= found.high
    shares = {name: n / CROWDS for name, n in hits.items()}
    with capsys.disabled():
        print(f"\ncoverage of 95 % intervals on {CROWDS} simulated crowds: {shares}")
    assert all(0.92 <= share <= 0.98 for share in shares.values()), shares


def test_the_mean_of_many_estimates_is_near_the_truth():
    """Nor is the coverage bought by intervals that are too wide: they shrink with the answers."""
    widths = []
    for audit_size in (50, 800):
        found = []
        crowd = Crowd(audit=audit_size, votes=2.0)
        for seed in range(6):
            audit = simulate(crowd, seed, merge=False)
            e = estimate(audit.machine, audit.answers, audit.machine_people, 10, 10, draws=100)
            found.append((e.accuracy - audit.machine_accuracy, e.high - e.low))
        widths.append(np.mean([width for _, width in found]))
        assert np.mean([error for error, _ in found]) == pytest.approx(0.0, abs=0.04)
    assert widths[1] < 0.45 * widths[0]
