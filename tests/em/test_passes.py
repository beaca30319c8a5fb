"""The compiled passes against plain NumPy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.em.cells import CellSpace, describe_cells
from coyo_labeler.em.model import Model
from coyo_labeler.em.passes import BLOCK, add_pass, e_step_pass
from coyo_labeler.em.segments import offsets_of, segment_argmax
from coyo_labeler.em.skill import estimate_skill

UNIT = 2.0**-40


def random_problems(seed, problems, most_votes=4, most_states=6):
    """offsets, n_votes, pair_cell, log_theta and log_prior of random problems over 50 cells."""
    random = np.random.default_rng(seed)
    states = random.integers(1, most_states, problems)
    n_votes = random.integers(0, most_votes, problems).astype(np.int32)
    pair_cell = random.integers(0, 50, int(n_votes @ states)).astype(np.uint32)
    log_prior = np.log(random.random(states.sum()))
    return offsets_of(states), n_votes, pair_cell, np.log(random.random(50)), log_prior


def walk(offsets, n_votes, pair_cell, log_theta, log_prior, hard=False, cells=50):
    posterior, evidence = np.empty(len(log_prior)), np.empty(len(n_votes))
    top, counts = np.empty(len(n_votes), dtype=np.int64), np.zeros(cells)
    e_step_pass(
        offsets, n_votes, pair_cell, log_theta, log_prior, hard, UNIT,
        posterior, evidence, top, counts,
    )  # fmt: skip
    return posterior, evidence, top, counts


def slow_walk(offsets, n_votes, pair_cell, log_theta, log_prior, hard=False):
    """Problem by problem, with a table of votes by states."""
    posterior, evidence, counts, pair = [], [], np.zeros(50), 0
    for problem, votes in enumerate(n_votes):
        states = slice(offsets[problem], offsets[problem + 1])
        width = states.stop - states.start
        cells = pair_cell[pair : pair + votes * width].reshape(votes, width)
        pair += votes * width
        likelihood = log_theta[cells].sum(axis=0) if len(log_theta) else 0.0
        joint = np.exp(log_prior[states] + likelihood)
        posterior.append(joint / joint.sum())
        evidence.append(np.log(joint.sum()))
        weights = np.eye(width)[posterior[-1].argmax()] if hard else posterior[-1]
        np.add.at(counts, cells.ravel(), np.tile(weights, votes))
    return np.concatenate(posterior), np.array(evidence), counts


@settings(deadline=None)  # the first example compiles
@given(st.integers(0, 2**32), st.integers(1, 40), st.booleans(), st.booleans())
def test_the_e_step_is_bayes_rule_and_its_sums(seed, problems, hard, silent):
    offsets, n_votes, pair_cell, log_theta, log_prior = random_problems(seed, problems)
    given = (offsets, n_votes, pair_cell, np.zeros(0) if silent else log_theta, log_prior, hard)
    posterior, evidence, top, counts = walk(*given)
    expected, expected_evidence, expected_counts = slow_walk(*given)
    np.testing.assert_allclose(posterior, expected, rtol=1e-12)
    np.testing.assert_allclose(evidence, expected_evidence, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(top, segment_argmax(posterior, offsets))
    np.testing.assert_allclose(counts, expected_counts, atol=1e-9)


def test_problems_of_several_blocks_and_one_larger_than_a_block():
    given = random_problems(3, 2000, most_votes=9, most_states=40)
    offsets, n_votes, pair_cell, log_theta, log_prior = given
    assert len(pair_cell) > 5 * BLOCK
    large = np.random.default_rng(4).integers(0, 50, 3 * BLOCK * 2).astype(np.int32)
    given = (
        np.append(offsets, offsets[-1] + 3),
        np.append(n_votes, np.int32(2 * BLOCK)),
        np.concatenate([pair_cell, large]),
        log_theta / 1000,  # as many votes as these would leave nothing else
        np.append(log_prior, [-1.0, -2.0, -3.0]),
    )
    posterior, _, _, counts = walk(*given)
    expected, _, expected_counts = slow_walk(*given)
    np.testing.assert_allclose(posterior, expected, rtol=1e-9)
    np.testing.assert_allclose(counts, expected_counts, rtol=1e-9)


def test_votes_that_are_impossible_everywhere_are_left_out():
    impossible = np.full(50, -np.inf)
    posterior, evidence, top, _ = walk(
        np.array([0, 2]), np.array([1], np.int32), np.array([0, 1], np.int32), impossible,
        np.log([0.25, 0.75]),
    )  # fmt: skip
    np.testing.assert_allclose(posterior, [0.25, 0.75])
    np.testing.assert_allclose(evidence, [0.0], atol=1e-12)
    assert top.tolist() == [1]


def slow_skill(table, counts, model):
    """The formulas of `skill`, array by array."""
    beta, alpha = model.pooling_strength, model.prior_strength
    rows = np.zeros(table.row.max() + 1)
    np.add.at(rows, table.row, counts)
    pooled = np.zeros(len(table.pooled_key))
    np.add.at(pooled, table.pooled, counts)
    pooled_rows = np.zeros(table.pooled_row.max() + 1)
    np.add.at(pooled_rows, table.pooled_row, pooled)
    g = (beta * table.prior + pooled) / (beta + pooled_rows[table.pooled_row])
    g = g[table.pooled]
    theta = (alpha * g + counts) / (alpha + rows[table.row])
    log_prior = (alpha * g * np.log1p(counts / (alpha * g))).sum()
    return np.log(theta), log_prior - (alpha * np.log1p(rows / alpha)).sum()


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([0.1, 10.0]))
def test_skills_are_the_formulas_in_any_number_of_threads(seed, threads, alpha):
    random = np.random.default_rng(seed)
    model = Model(classes=7, workers=5, prior_strength=alpha)
    keys = np.flatnonzero(random.random(CellSpace(model).choices) < 0.3)
    table = describe_cells(CellSpace(model), keys)
    counts = np.where(random.random(len(keys)) < 0.5, 3 * random.random(len(keys)), 0.0)
    skill = estimate_skill(table, counts, model, threads=threads)
    expected, log_prior = slow_skill(table, counts, model)
    np.testing.assert_allclose(skill.log_theta, expected, rtol=1e-12)
    np.testing.assert_allclose(float(skill.log_prior.total()), log_prior, rtol=1e-9, atol=1e-9)
    alone = estimate_skill(table, counts, model)
    np.testing.assert_array_equal(skill.log_theta, alone.log_theta)


def test_sums_are_added_where_their_index_says():
    sums = np.zeros(4)
    add_pass(np.array([3, 1], np.uint32), np.array([2.0, 5.0]), 0, 2, sums)
    assert sums.tolist() == [0.0, 5.0, 0.0, 2.0]
