"""How problems are partitioned changes nothing that comes out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.em.model import Calibration
from tests.em.in_memory import build, run_em
from tests.em.test_dense import arrays, problems
from tests.merge.sharded import ShardedInMemory


@settings(max_examples=60, deadline=None)
@given(
    problems(),
    st.sampled_from(["single", "multi"]),
    st.sampled_from(["none", "votes"]),
    st.booleans(),
    st.integers(2, 5),
)
def test_not_even_a_saddle_point_tells_how_votes_were_partitioned(
    problem, truth, fitted, hard, partitions
):
    """Where EM stands between two answers, one last digit decides after some iterations."""
    images, workers, choices = problem
    if not images:
        return
    choices.hard = hard
    given = arrays(images, workers, choices, truth=truth, fit_calibration=fitted)
    start = Calibration(choices.a, choices.b) if fitted == "none" else None
    whole = build(*given)
    ways = [build(*given, partitions)]
    if choices.worker_model == "confusion":
        ways.append(ShardedInMemory(ways[0].partitions, ways[0].model, 3))
    _, expected = run_em(whole, 60, calibration=start)
    for passes in ways:
        _, posterior = run_em(passes, 60, calibration=start)
        assert posterior == pytest.approx(expected, rel=1e-9, abs=1e-9)
