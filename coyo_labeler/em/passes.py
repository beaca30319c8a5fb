"""The passes over all votes and over all cells, compiled: all that grows with votes times states.

A pass walks its arrays once, in their order. It releases the interpreter's lock: partitions, or
ranges of cells, run in threads.
"""

import numpy as np

from coyo_labeler.compiled import compiled
from coyo_labeler.em.exact_sum import UNIT
from coyo_labeler.em.segments import F64, I32, I64

_SHIFT = 1.0 / UNIT
_SMALL = 0.1

#: Pairs whose log θ is gathered at a time. The loads of a loop that does nothing else overlap: a
#: pass that gathers what each problem needs as it goes waits for memory several times as long.
BLOCK = 2048


@compiled
def e_step_pass(
    offsets: I64,
    n_votes: I32,
    pair_cell: I32,
    log_theta: F64,
    log_prior: F64,
    hard: bool,
    unit: float,
    posterior: F64,
    evidence: F64,
    top: I64,
    counts: F64,
) -> None:
    """Bayes' rule for every problem, and what it adds to the expected counts of the cells.

        p(y) ∝ π(y) Π_votes θ_j(z | y)               Liao, Kar & Fidler 2021, eq. 2
        n(cell) = Σ_votes Σ_y w(y) [cell of (vote, y)]    Dawid & Skene 1979, eq. 2.3

    w is the posterior p; hard: 1 for the most probable entry, else 0. It is rounded to a multiple
    of `unit`.

    offsets, n_votes, pair_cell: as of `Problems`. log_theta: (cells,); empty: votes say nothing of
    the posterior. log_prior: (nnz,), −inf for what cannot be. Written: posterior (nnz,), which sums
    to 1 per problem; evidence (n,), natural log; top (n,), the most probable entry, the first of
    equals; counts (cells,), added to; empty: nothing is counted.

    Where the votes of a problem are impossible in every state that its prior allows (only with
    `prior_strength: 0`), they are left out of its posterior.
    """
    votes_speak, counted = len(log_theta) > 0, len(counts) > 0
    buffer = np.empty(_largest_block(offsets, n_votes))
    first_pair, problem = 0, 0
    while problem < len(n_votes):
        stop = _end_of_block(offsets, n_votes, problem)
        pairs = _pairs_of(offsets, n_votes, problem, stop)
        if votes_speak:
            for pair in range(pairs):
                buffer[pair] = log_theta[pair_cell[first_pair + pair]]
        pair = 0
        for at in range(problem, stop):
            pair = _bayes_rule(
                offsets[at], offsets[at + 1], n_votes[at], log_prior, hard, unit,
                votes_speak, counted, buffer, pair, posterior, evidence, top, at,
            )  # fmt: skip
        if counted:
            for pair in range(pairs):
                counts[pair_cell[first_pair + pair]] += buffer[pair]
        first_pair += pairs
        problem = stop


@compiled
def _bayes_rule(
    begin: int,
    end: int,
    votes: int,
    log_prior: F64,
    hard: bool,
    unit: float,
    votes_speak: bool,
    counted: bool,
    buffer: F64,
    first: int,
    posterior: F64,
    evidence: F64,
    top: I64,
    problem: int,
) -> int:
    """The posterior of one problem, with the entries [begin, end).

    buffer: from `first` on, log θ of its pairs, which is replaced by what each counts. Returns the
    first pair of the next problem.
    """
    states, scale = end - begin, 1.0 / unit
    stop = first + votes * states
    for entry in range(begin, end):
        total = log_prior[entry]
        if votes_speak:
            pair = first + entry - begin
            while pair < stop:
                total += buffer[pair]
                pair += states
        posterior[entry] = total
    best = _greatest(posterior, begin, end)
    if posterior[best] == -np.inf:
        for entry in range(begin, end):
            posterior[entry] = log_prior[entry]
        best = _greatest(posterior, begin, end)
    peak, total = posterior[best], 0.0
    for entry in range(begin, end):
        weight = np.exp(posterior[entry] - peak)
        posterior[entry] = weight
        total += weight
    evidence[problem] = peak + np.log(total)
    top[problem] = best
    for entry in range(begin, end):
        posterior[entry] /= total
        if counted:
            weight = np.rint(posterior[entry] * scale) * unit
            if hard:
                weight = 1.0 if entry == best else 0.0
            pair = first + entry - begin
            while pair < stop:
                buffer[pair] = weight
                pair += states
    return stop


@compiled
def _pairs_of(offsets: I64, n_votes: I32, begin: int, end: int) -> int:
    """How many pairs of a vote and an entry the problems [begin, end) have."""
    pairs = 0
    for problem in range(begin, end):
        pairs += n_votes[problem] * (offsets[problem + 1] - offsets[problem])
    return pairs


@compiled
def _end_of_block(offsets: I64, n_votes: I32, begin: int) -> int:
    """The end of the block of problems that begins at `begin`: some thousand pairs."""
    pairs, end = 0, begin
    while end < len(n_votes) and pairs < BLOCK:
        pairs += n_votes[end] * (offsets[end + 1] - offsets[end])
        end += 1
    return end


@compiled
def _largest_block(offsets: I64, n_votes: I32) -> int:
    """No block has more pairs."""
    most = 0
    for problem in range(len(n_votes)):
        most = max(most, n_votes[problem] * (offsets[problem + 1] - offsets[problem]))
    return BLOCK + most


@compiled
def _greatest(values: F64, begin: int, end: int) -> int:
    """The index of the greatest value in [begin, end), the first of equals."""
    best = begin
    for index in range(begin + 1, end):
        if values[index] > values[best]:
            best = index
    return best


@compiled
def pooled_pass(pooled: I32, counts: F64, begin: int, end: int, sums: F64) -> None:
    """Add up the counts of the cells [begin, end) by pooled cell.

    pooled: (cells,) as of `CellTable`. counts: (cells,). sums: (2, pooled cells), added to:
    multiples of 2^-20 and the remainders (`exact_sum`).
    """
    for cell in range(begin, end):
        multiple = np.rint(counts[cell] * _SHIFT) * UNIT
        sums[0, pooled[cell]] += multiple
        sums[1, pooled[cell]] += counts[cell] - multiple


@compiled
def skill_pass(
    row: I32,
    pooled: I32,
    counts: F64,
    alpha: float,
    prior: F64,
    log_prior: F64,
    log_share: F64,
    begin: int,
    end: int,
    log_theta: F64,
) -> tuple[float, float]:
    """θ of the cells [begin, end), whole rows, and the log of its prior (`skill`).

    row, pooled: (cells,) as of `CellTable`; counts: (cells,) expected. prior, log_prior, log_share:
    (pooled cells,) α g and its log (where α is 0, g and its log), and what is added to log θ.
    Written: log_theta (cells,). Returns the log prior as multiples of 2^-20 and the remainder.
    """
    multiples, remainders = 0.0, 0.0
    cell = begin
    while cell < end:
        stop, row_count = cell, 0.0
        while stop < end and row[stop] == row[cell]:
            row_count += counts[stop]
            stop += 1
        log_denominator = np.log(alpha + row_count)
        for at in range(cell, stop):
            index = pooled[at]
            if alpha == 0.0:
                theta = np.log(counts[at]) - log_denominator if row_count > 0 else log_prior[index]
                log_theta[at] = theta + log_share[index]
                continue
            log_numerator = log_prior[index]
            if counts[at] > 0.0:
                log_numerator = np.log(prior[index] + counts[at])
                if prior[index] > 0.0:
                    # log(1 + n / (α g)); the difference loses the digits of a small ratio.
                    ratio = counts[at] / prior[index]
                    small = ratio < _SMALL
                    growth = np.log1p(ratio) if small else log_numerator - log_prior[index]
                    term = prior[index] * growth
                    multiple = np.rint(term * _SHIFT) * UNIT
                    multiples += multiple
                    remainders += term - multiple
            log_theta[at] = log_numerator - log_denominator + log_share[index]
        if alpha > 0.0 and row_count > 0.0:
            term = alpha * np.log1p(row_count / alpha)
            multiple = np.rint(term * _SHIFT) * UNIT
            multiples -= multiple
            remainders -= term - multiple
        cell = stop
    return multiples, remainders


@compiled
def add_pass(index: I32, values: F64, begin: int, end: int, sums: F64) -> None:
    """sums[index[i]] += values[i] for i in [begin, end)."""
    for at in range(begin, end):
        sums[index[at]] += values[at]


def load_numba() -> None:
    """Make numba load all that compiled code needs, which takes a third of a second once.

    Beside other work, in a thread, that costs less.
    """
    add_pass(np.zeros(1, dtype=np.int32), np.zeros(1), 0, 0, np.zeros(1))
