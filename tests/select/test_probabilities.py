"""Every image is asked about as often as its inclusion probability says, over many seeds."""

import numpy as np
import pytest

from coyo_labeler.executor import ThreadExecutor
from coyo_labeler.select import hashes, passes
from coyo_labeler.select.choose import PURPOSES, choose
from coyo_labeler.select.index import Counted, Kind
from coyo_labeler.select.passes import Passes, find_cuts
from coyo_labeler.select.rows import Rows
from coyo_labeler.select.score import order_key

SEEDS = 200
FRESH, REPEAT, GOLD = Kind.FRESH, Kind.REPEAT, Kind.GOLD


class Serial(ThreadExecutor):
    """Tasks one after another: threads would take most of the time of so small ones."""

    def map(self, items, work):
        return [work(item) for item in items]


class Settings:
    """What `find_cuts` asks of a plan."""

    def __init__(self, audit=0.2, gold_share=0.1, max_per_class=None, max_per_pair=None):
        self.audit, self.gold_share = audit, gold_share
        self.max_per_class, self.max_per_pair = max_per_class, max_per_pair


def images(fresh=30, repeat=10, gold=8, distinct=5, classes=4):
    """Images of few different scores, so that many share the last place.

    distinct: how many scores there are; 1: all are equal, as with strategy=random.
    """
    n = fresh + repeat + gold
    random = np.random.default_rng(7)
    kind = np.repeat(np.array([FRESH, REPEAT, GOLD], dtype=np.int8), [fresh, repeat, gold])
    random.shuffle(kind)
    score = random.integers(1, distinct + 1, n).astype(np.float32)
    n_votes = np.where(kind == FRESH, 0, 1).astype(np.int32)
    n_votes[kind == GOLD] = random.integers(0, 3, gold)
    return Rows(
        ids=np.arange(n, dtype=np.int64) * 1001 - 7,
        key=order_key(score, kind == REPEAT),
        kind=kind,
        n_votes=n_votes,
        top=(top := random.integers(0, classes, n).astype(np.int32)),
        # as pair_of: a pair holds images of either of its classes
        pair=np.minimum(top, other := (top + random.integers(1, 3, n)) % classes) * classes
        + np.maximum(top, other).astype(np.int64),
        split=np.zeros(n, dtype=np.int32),
        row=np.arange(n, dtype=np.int32),
    )


def run(index, settings, questions, seed, parts, monkeypatch):
    """The chosen of all images, and the cuts, where the index lies in so many partitions."""
    part = np.arange(len(index.ids)) % parts
    fields = ("ids", "key", "kind", "n_votes", "top", "pair", "split", "row")
    pieces = [Rows(*(getattr(index, name)[part == p] for name in fields)) for p in range(parts)]
    monkeypatch.setattr(passes, "_FEW", 3)
    monkeypatch.setattr(passes, "read_rows", lambda state, partition: pieces[partition])
    salts = {stream: hashes.salt(stream, seed, 1) for stream in hashes.STREAMS}
    votes, counts = np.unique(index.n_votes[index.kind == GOLD], return_counts=True)
    counted = Counted(
        kinds=np.bincount(index.kind, minlength=3).astype(np.int64),
        gold=dict(zip(votes.tolist(), counts.tolist(), strict=True)),
    )
    cuts = find_cuts(Passes(Serial(), "", parts, salts), settings, counted, questions)
    return choose(index, cuts, salts), cuts


CASES = {
    "ties at the cut": (images(), Settings(), 20),
    "by chance": (images(distinct=1), Settings(), 20),
    "all scores differ": (images(distinct=10**6), Settings(), 20),
    "no audit": (images(), Settings(audit=0.0), 20),
    "the audit alone": (images(gold=0), Settings(audit=1.0), 12),
    "caps": (images(), Settings(max_per_class=3), 20),
    "caps by chance": (images(distinct=1), Settings(max_per_class=3), 14),
    "caps of pairs": (images(), Settings(max_per_pair=2), 20),
    "caps of both": (
        images(distinct=2),
        Settings(max_per_class=5, max_per_pair=3),
        24,
    ),
    "caps of one": (images(classes=9), Settings(max_per_class=1), 12),
    "nearly all": (images(), Settings(), 44),
    "all": (images(), Settings(), 500),
    "all but for caps": (images(), Settings(max_per_class=5), 500),
    "few without votes": (images(fresh=3, repeat=30), Settings(audit=0.5), 20),
    "much gold": (images(gold=30), Settings(gold_share=0.5), 30),
    "gold to the last": (images(gold=6), Settings(gold_share=0.9), 30),
    "one question": (images(), Settings(), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_images_are_asked_about_as_often_as_their_probability_says(case, monkeypatch):
    index, settings, questions = CASES[case]
    asked = np.zeros(len(index.ids))
    stated = None
    for seed in range(SEEDS):
        chosen, _ = run(index, settings, questions, seed, 1, monkeypatch)
        if stated is None:
            stated = chosen.probability
        np.testing.assert_array_equal(chosen.probability, stated)
        asked += chosen.is_chosen
        assert chosen.is_chosen.sum() <= questions
    assert (asked[stated == 0] == 0).all()
    assert (asked[stated == 1] == SEEDS).all()
    sigma = np.sqrt(np.maximum(stated * (1 - stated), 1e-12) * SEEDS)
    assert (np.abs(asked - stated * SEEDS) <= 4.5 * sigma + 1e-9).all()
    assert asked.sum() / SEEDS == pytest.approx(stated.sum())


def test_the_questions_are_as_many_as_the_budget_where_nothing_limits_them(monkeypatch):
    for case in ("ties at the cut", "by chance", "nearly all", "few without votes"):
        index, settings, questions = CASES[case]
        chosen, _ = run(index, settings, questions, 3, 1, monkeypatch)
        assert chosen.is_chosen.sum() == questions, case
    index, settings, questions = CASES["all"]
    assert run(index, settings, questions, 3, 1, monkeypatch)[0].is_chosen.all()


@pytest.mark.parametrize("case", CASES)
def test_partitions_change_nothing(case, monkeypatch):
    index, settings, questions = CASES[case]
    one, _ = run(index, settings, questions, 5, 1, monkeypatch)
    many, _ = run(index, settings, questions, 5, 7, monkeypatch)
    np.testing.assert_array_equal(one.is_chosen, many.is_chosen)
    np.testing.assert_array_equal(one.purpose[one.is_chosen], many.purpose[one.is_chosen])
    np.testing.assert_array_equal(one.probability, many.probability)


def test_the_audit_does_not_go_by_risk(monkeypatch):
    """It draws the share that it is to draw, of the riskiest as of all others."""
    index = images(fresh=200, repeat=0, gold=0, distinct=10**6)
    riskiest = np.argsort(index.key)[:60]
    share = np.zeros(200)
    for seed in range(200):
        chosen, cuts = run(index, Settings(audit=0.25), 80, seed, 1, monkeypatch)
        assert cuts.sizes.top >= 60
        share += chosen.is_chosen & (chosen.purpose == PURPOSES.index("audit"))
    assert share.sum() / 200 == pytest.approx(0.25 * 80, rel=0.05)
    at_top = share[riskiest].mean() / 200
    others = np.delete(share, riskiest).mean() / 200
    assert at_top == pytest.approx(others, rel=0.1)


def test_no_class_has_more_questions_than_its_cap_outside_the_audit(monkeypatch):
    index, settings, questions = CASES["caps"]
    chosen, _ = run(index, settings, questions, 1, 3, monkeypatch)
    by_score = chosen.is_chosen & (index.kind != GOLD)
    by_score &= chosen.purpose != PURPOSES.index("audit")
    assert np.bincount(index.top[by_score]).max() == 3
    index, settings, questions = CASES["caps of both"]
    chosen, _ = run(index, settings, questions, 1, 3, monkeypatch)
    by_score = chosen.is_chosen & (index.kind != GOLD)
    by_score &= chosen.purpose != PURPOSES.index("audit")
    assert np.bincount(index.top[by_score]).max() <= 5
    assert np.bincount(index.pair[by_score]).max() == 3
