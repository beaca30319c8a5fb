"""The passes over all votes and over all cells, compiled: all that grows with votes times states.

A pass walks its arrays once, in their order. It releases the interpreter's lock: partitions, or
ranges of cells, run in threads.

An index that may be negative costs a test at each access, for Python counts those from the end. So
loops begin at 0, over slices, and indices that were read are unsigned: this halves the time.
"""

import numpy as np

from coyo_labeler.compiled import compiled
from coyo_labeler.em.exact_sum import UNIT
from coyo_labeler.em.segments import F64, I32, I64, U32

_SHIFT = 1.0 / UNIT
_SMALL = 0.1

#: Pairs whose log θ is gathered at a time. The loads of a loop that does nothing else overlap: a
#: pass that gathers what each problem needs as it goes waits for memory several times as long.
BLOCK = 2048


@compiled
def e_step_pass(
    offsets: I64,
    n_votes: I32,
    pair_cell: U32,
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
        cells = pair_cell[first_pair : first_pair + pairs]
        if votes_speak:
            for pair in range(len(cells)):
                buffer[pair] = log_theta[cells[pair]]
        pair = 0
        for at in range(problem, stop):
            begin, end = offsets[at], offsets[at + 1]
            next_pair = pair + n_votes[at] * (end - begin)
            best, evidence[at] = _bayes_rule(
                log_prior[begin:end], n_votes[at], hard, unit, votes_speak, counted,
                buffer[pair:next_pair], posterior[begin:end],
            )  # fmt: skip
            top[at] = begin + best
            pair = next_pair
        if counted:
            for pair in range(len(cells)):
                counts[cells[pair]] += buffer[pair]
        first_pair += pairs
        problem = stop


@compiled
def _bayes_rule(
    log_prior: F64,
    votes: int,
    hard: bool,
    unit: float,
    votes_speak: bool,
    counted: bool,
    pairs: F64,
    posterior: F64,
) -> tuple[int, float]:
    """The posterior of one problem; returns its most probable entry, and the evidence.

    log_prior: (states,). pairs: (votes · states,) log θ, which is replaced by what each pair
    counts. Written: posterior (states,).
    """
    states = len(log_prior)
    for entry in range(states):
        posterior[entry] = log_prior[entry]
    if votes_speak:
        for vote in range(votes):
            of_vote = pairs[vote * states : (vote + 1) * states]
            for entry in range(states):
                posterior[entry] += of_vote[entry]
    best = _greatest(posterior)
    if posterior[best] == -np.inf:
        for entry in range(states):
            posterior[entry] = log_prior[entry]
        best = _greatest(posterior)
    peak, total = posterior[best], 0.0
    for entry in range(states):
        weight = np.exp(posterior[entry] - peak)
        posterior[entry] = weight
        total += weight
    for entry in range(states):
        posterior[entry] /= total
    if counted and votes > 0:
        _count(posterior, best if hard else -1, unit, votes, pairs)
    return best, peak + np.log(total)


@compiled
def _count(posterior: F64, hard: int, unit: float, votes: int, pairs: F64) -> None:
    """Write what each pair counts, (votes · states,); hard: the entry that counts alone, or −1."""
    states, scale = len(posterior), 1.0 / unit
    weights = pairs[:states]
    for entry in range(states):
        weights[entry] = np.rint(posterior[entry] * scale) * unit
    if hard >= 0:
        weights[:] = 0.0
        weights[hard] = 1.0
    for vote in range(1, votes):
        of_vote = pairs[vote * states : (vote + 1) * states]
        for entry in range(states):
            of_vote[entry] = weights[entry]


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
def _greatest(values: F64) -> int:
    """The index of the greatest value, the first of equals."""
    best = 0
    for index in range(1, len(values)):
        if values[index] > values[best]:
            best = index
    return best


@compiled
def pooled_pass(pooled: U32, counts: F64, begin: int, end: int, sums: F64) -> None:
    """Add up the counts of the cells [begin, end) by pooled cell.

    pooled: (cells,) as of `CellTable`. counts: (cells,). sums: (2, pooled cells), added to:
    multiples of 2^-20 and the remainders (`exact_sum`).
    """
    pooled, counts = pooled[begin:end], counts[begin:end]
    for cell in range(len(pooled)):
        multiple = np.rint(counts[cell] * _SHIFT) * UNIT
        sums[0, pooled[cell]] += multiple
        sums[1, pooled[cell]] += counts[cell] - multiple


@compiled
def skill_pass(
    row: I32,
    pooled: U32,
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
    row, pooled = row[begin:end], pooled[begin:end]
    counts, log_theta = counts[begin:end], log_theta[begin:end]
    first, row_count = 0, 0.0
    for cell in range(len(row)):
        row_count += counts[cell]
        if cell + 1 < len(row) and row[cell + 1] == row[cell]:
            continue
        # The row ends here.
        log_denominator = np.log(alpha + row_count)
        of_row, pooled_of_row = counts[first : cell + 1], pooled[first : cell + 1]
        written = log_theta[first : cell + 1]
        for at in range(len(of_row)):
            index, count = pooled_of_row[at], of_row[at]
            if alpha == 0.0:
                theta = np.log(count) - log_denominator if row_count > 0 else log_prior[index]
                written[at] = theta + log_share[index]
                continue
            log_numerator = log_prior[index]
            if count > 0.0:
                log_numerator = np.log(prior[index] + count)
                if prior[index] > 0.0:
                    # log(1 + n / (α g)); the difference loses the digits of a small ratio.
                    ratio = count / prior[index]
                    small = ratio < _SMALL
                    growth = np.log1p(ratio) if small else log_numerator - log_prior[index]
                    term = prior[index] * growth
                    multiple = np.rint(term * _SHIFT) * UNIT
                    multiples += multiple
                    remainders += term - multiple
            written[at] = log_numerator - log_denominator + log_share[index]
        if alpha > 0.0 and row_count > 0.0:
            term = alpha * np.log1p(row_count / alpha)
            multiple = np.rint(term * _SHIFT) * UNIT
            multiples -= multiple
            remainders -= term - multiple
        first, row_count = cell + 1, 0.0
    return multiples, remainders


@compiled
def add_pass(index: U32, values: F64, begin: int, end: int, sums: F64) -> None:
    """sums[index[i]] += values[i] for i in [begin, end)."""
    index, values = index[begin:end], values[begin:end]
    for at in range(len(index)):
        sums[index[at]] += values[at]


def load_numba() -> None:
    """Make numba load all that compiled code needs, which takes a third of a second once.

    Beside other work, in a thread, that costs less.
    """
    add_pass(np.zeros(1, dtype=np.uint32), np.zeros(1), 0, 0, np.zeros(1))
