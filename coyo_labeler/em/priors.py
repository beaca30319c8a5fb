"""The prior of each problem: the calibrated belief, else the class prior; and its slope by (a, b).

The belief of image i gives each of its classes a calibrated probability. What it leaves over, ρ, is
spread evenly over all other classes. In `truth: multi` every class has its own calibrated sigmoid.
"""

from dataclasses import dataclass, replace

import numpy as np

from coyo_labeler.em.class_bias import BiasSlope, shift_of
from coyo_labeler.em.curve import basis, confidence_of, local_map
from coyo_labeler.em.model import Calibration, Model, Parameters
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import (
    F64,
    I64,
    Bool,
    bin_sum,
    find,
    offsets_of,
    segment_sum,
    spread,
)
from coyo_labeler.em.tails import Tails

#: Probabilities are clipped to these: closer to 0 or 1, float16 cannot tell.
_LEAST = 1e-8
_MOST = 1 - 1e-7
#: Stands for a posterior of 0, of what gold has ruled out: no number of votes outweighs it.
LEAST_POSTERIOR = 1e-300
#: The least log of a probability: e^−700 can still be divided by.
_LEAST_LOG = -700.0


def belief_value(probability: F64, model: Model) -> F64:
    """What calibration maps: the logit of a sigmoid, the log of a categorical probability, (nnz,).

    In `truth: multi` each class is a question of its own, so its probability always has a logit.
    """
    if model.beliefs_are == "posterior":
        return np.log(np.maximum(probability, LEAST_POSTERIOR))
    p = np.clip(probability, _LEAST, _MOST)
    binary = model.beliefs_are == "sigmoid" or model.truth == "multi"
    return np.log(p) - np.log1p(-p) if binary else np.log(p)


def sigmoid(x: F64) -> F64:
    """1 / (1 + e^−x), with full relative precision however small; never 0."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.maximum(x, _LEAST_LOG))))


@dataclass(frozen=True)
class BeliefPrior:
    """Beliefs as distributions, flat over images.

    probability: (nnz,) of the classes of the belief; they sum to 1 − ρ. rest: (n,) ρ, what is left
    for all other classes. slope: (nnz, 2), rest_slope: (n, 2): of their logs by (a, b), or None.
    basis: (n, knots) `curve.basis`; None where the calibration has no curve. of_tail: (n,) what of
    the rest are classes of the belief that are no entries. bias: slopes by the biases of classes.
    """

    probability: F64
    rest: F64
    slope: F64 | None = None
    rest_slope: F64 | None = None
    basis: F64 | None = None
    of_tail: F64 | None = None
    bias: BiasSlope | None = None


def belief_prior(
    value: F64,
    inside: Bool,
    offsets: np.ndarray,
    full: Bool,
    calibration: Calibration,
    model: Model,
    slopes: bool = False,
    tails: Tails | None = None,
    shift: F64 | None = None,
) -> BeliefPrior:
    """A distribution over all classes from each belief (`truth: single`).

        sigmoid      q = sigmoid(a · logit p + b + s)    ρ = max(floor, 1 − Σ q)
        categorical  q = p^a e^s                         ρ = max(floor, 1 − Σ p)
        probability  q (1 − ρ) / (Σ q + T)               rest  ρ + T (1 − ρ) / (Σ q + T)

    value: (nnz,) `belief_value`; any value where not inside. inside: (nnz,) whether the belief has
    the entry's class. full: (n,) whether the belief has all classes: then ρ = 0. slopes: compute
    them too. shift: (nnz,) s, the bias of each entry's class (`class_bias`); None: 0.
    """
    bends = None
    a, b = np.full(len(full), calibration.a), np.full(len(full), calibration.b)
    if calibration.curve is not None:
        confidence = confidence_of(value, inside, offsets, model.beliefs_are == "sigmoid")
        bends = basis(confidence, calibration.curve) if slopes else None
        a, b = local_map(calibration, confidence)
    value = np.where(inside, value, 0.0)
    if model.beliefs_are == "sigmoid":
        prior = _sigmoid_prior(value, inside, offsets, full, a, b, shift, model.prior_floor, slopes)
    else:
        tails = Tails.none(len(full)) if tails is None else tails
        prior = _categorical_prior(
            value, inside, offsets, full, a, shift, tails, model.prior_floor, slopes
        )
    return replace(prior, basis=bends)


def _sigmoid_prior(
    value: F64,
    inside: Bool,
    offsets: np.ndarray,
    full: Bool,
    a: F64,
    b: F64,
    shift: F64 | None,
    floor: float,
    slopes: bool,
) -> BeliefPrior:
    """a, b: (n,). shift: (nnz,)."""
    logit = spread(a, offsets) * value + spread(b, offsets)
    q = np.where(inside, sigmoid(logit if shift is None else logit + shift), 0.0)
    total = segment_sum(q, offsets)
    left_over = 1.0 - total
    loose = (left_over > floor) & ~full
    rest = np.where(full, 0.0, np.maximum(floor, left_over))
    total = np.maximum(total, np.finfo(float).tiny)  # no belief
    probability = q * spread((1.0 - rest) / total, offsets)
    if not slopes:
        return BeliefPrior(probability, rest)
    log_slope = (1.0 - q)[:, None] * np.stack([value, np.ones_like(value)], axis=1)
    mean = np.stack([segment_sum(q * log_slope[:, k], offsets) / total for k in range(2)], axis=1)
    # Where 1 − ρ = Σ q, the probabilities are the q, and ρ moves with them. Else ρ is fixed.
    slope = log_slope - np.where(spread(loose, offsets)[:, None], 0.0, spread_rows(mean, offsets))
    moved = np.where(loose, total / np.where(loose, rest, 1.0), 0.0)
    slope = np.where(inside[:, None], slope, 0.0)
    if shift is None:
        return BeliefPrior(probability, rest, slope, -mean * moved[:, None])
    bias = BiasSlope(
        own=np.where(inside, 1.0 - q, 0.0),
        pull=q * (1.0 - q) / spread(np.where(loose, rest, total), offsets),
        falls=np.where(inside == spread(loose, offsets), 0.0, 1.0),
    )
    return BeliefPrior(probability, rest, slope, -mean * moved[:, None], bias=bias)


def _categorical_prior(
    value: F64,
    inside: Bool,
    offsets: np.ndarray,
    full: Bool,
    a: F64,
    shift: F64 | None,
    tails: Tails,
    floor: float,
    slopes: bool,
) -> BeliefPrior:
    """a: (n,). shift: (nnz,). ρ does not depend on it."""
    log = spread(a, offsets) * value
    log = log if shift is None else log + shift
    q = np.where(inside, np.exp(np.maximum(log, _LEAST_LOG)), 0.0)
    tail, tail_slope = tails.mass(a)
    # No belief: the sum is 0.
    total = np.maximum(segment_sum(q, offsets) + tail, np.finfo(float).tiny)
    listed = segment_sum(np.where(inside, np.exp(value), 0.0), offsets) + tails.whole
    unlisted = np.where(full, 0.0, np.maximum(floor, 1.0 - listed))
    probability = q * spread((1.0 - unlisted) / total, offsets)
    of_tail = tail * (1.0 - unlisted) / total
    rest = unlisted + of_tail
    if not slopes:
        return BeliefPrior(probability, rest, of_tail=of_tail)
    mean = (segment_sum(q * value, offsets) + tail * tail_slope) / total
    slope = np.where(inside, value - spread(mean, offsets), 0.0)
    rest_slope = of_tail * (tail_slope - mean) / np.where(of_tail > 0, rest, 1.0)
    both, rest_both = (
        np.stack([each, np.zeros_like(each)], axis=1) for each in (slope, rest_slope)
    )
    if shift is None:
        return BeliefPrior(probability, rest, both, rest_both, of_tail=of_tail)
    bias = BiasSlope(
        own=inside.astype(np.float64),
        pull=q / spread(total, offsets),
        falls=np.where(inside, 1.0, spread(of_tail / np.where(rest > 0, rest, 1.0), offsets)),
    )
    return BeliefPrior(probability, rest, both, rest_both, of_tail=of_tail, bias=bias)


def spread_rows(values: F64, offsets: np.ndarray) -> F64:
    """Rows (n, k), each repeated for the elements of its segment, (nnz, k)."""
    return np.repeat(values, np.diff(offsets), axis=0)


@dataclass(frozen=True)
class Prior:
    """log: (nnz,) natural log, without gold. slope: (nnz, 2) of it by the image's (a, b), or None.

    basis: (n, knots) how these depend on a curve's; None where the calibration has none. bias: how
    it depends on the biases of classes; None where these are not fitted.
    """

    log: F64
    slope: F64 | None = None
    basis: F64 | None = None
    bias: BiasSlope | None = None


def log_prior(
    problems: Problems, parameters: Parameters, model: Model, slopes: bool = False
) -> Prior:
    """The prior of every entry of every problem. slopes: compute them too."""
    if model.truth == "multi":
        return _question_prior(problems, parameters, slopes)
    return _image_prior(problems, parameters, model, slopes)


def _image_prior(problems: Problems, parameters: Parameters, model: Model, slopes: bool) -> Prior:
    """`truth: single`. Without a belief: the class prior, or uniform over all C classes."""
    offsets, c = problems.offsets, model.classes
    multiplicity = problems.multiplicity()
    unbelieved = entry_share(problems, parameters.log_class_prior, c)
    believed = problems.belief_size > 0
    if not believed.any():
        with np.errstate(divide="ignore"):
            return Prior(np.log(unbelieved), np.zeros((len(unbelieved), 2)) if slopes else None)
    inside = ~np.isnan(problems.belief)
    tails = problems.tails
    full = problems.belief_size + tails.count >= c
    prior = belief_prior(
        problems.belief,
        inside,
        offsets,
        full,
        parameters.calibration,
        model,
        slopes,
        tails,
        shift_of(parameters.calibration.bias, problems.label),
    )
    # Few entries are no class of the belief.
    rest = np.flatnonzero(spread(believed, offsets) & ~inside)
    share, steep = _rest_shares(problems, prior, multiplicity, c, rest)
    probability = np.where(inside, prior.probability, unbelieved)
    probability[rest] = share
    with np.errstate(divide="ignore"):
        log = np.log(probability, out=probability)
    if prior.slope is None or prior.rest_slope is None:
        return Prior(log)
    problem = _problem_of(problems, rest)
    slope = np.where(inside[:, None], prior.slope, 0.0)
    slope[rest] = prior.rest_slope[problem] * steep[:, None]
    bias = None
    if model.fits_bias and prior.bias is not None:
        own, pull = (np.where(inside, each, 0.0) for each in (prior.bias.own, prior.bias.pull))
        falls = np.where(inside, prior.bias.falls, 0.0)
        falls[rest] = prior.bias.falls[rest] * steep
        bias = BiasSlope(own, pull, falls)
    return Prior(log, slope, prior.basis, bias)


def _problem_of(problems: Problems, entry: I64) -> I64:
    """The problem of each entry, (n,)."""
    return np.searchsorted(problems.offsets, entry, side="right") - 1


def _rest_shares(
    problems: Problems, prior: BeliefPrior, multiplicity: I64, classes: int, rest: I64
) -> tuple[F64, F64]:
    """How much of what beliefs leave over each entry has, (n,).

    rest: (n,) the entries that are no class of their image's belief. The rest is spread evenly over
    all classes that the belief does not have. Classes that it has, but that are no entries, are in
    lumped entries alone. Also what the slope of the log of the rest is to be multiplied by for that
    of the share.
    """
    tails, problem = problems.tails, _problem_of(problems, rest)
    outside = np.maximum(classes - problems.belief_size, 1)
    size = multiplicity[rest]
    share = (prior.rest / outside)[problem] * size
    if prior.of_tail is None or not (tails.count > 0).any():
        return share, np.ones(len(rest))
    n = len(problems)
    even = (prior.rest - prior.of_tail) / np.maximum(outside - tails.count, 1)
    lumped = problems.label[rest] < 0
    named = np.bincount(problem[~lumped], minlength=n)
    of_lumped = prior.rest - even * named
    lumps = bin_sum(problem[lumped], size[lumped], n)
    has_tail = (tails.count > 0)[problem]
    per_class = (of_lumped / np.maximum(lumps, 1))[problem]
    share = np.where(has_tail, np.where(lumped, per_class * size, even[problem]), share)
    steeper = (prior.rest / np.maximum(of_lumped, np.finfo(float).tiny))[problem]
    return share, np.where(has_tail, np.where(lumped, steeper, 0.0), 1.0)


def entry_share(problems: Problems, log_class_prior: F64 | None, classes: int) -> F64:
    """The class prior's share of each entry, (nnz,): of its class, or of all that it lumps.

    Groups of images with a belief have none, for they are not needed.
    """
    if log_class_prior is None:
        return problems.multiplicity() / classes
    groups, class_prior = problems.groups, np.exp(log_class_prior)
    share = np.where(problems.label < 0, 0.0, class_prior[np.maximum(problems.label, 0)])
    if len(groups.entry):
        share[groups.entry] = _group_share(problems, class_prior)
    last = problems.offsets[1:] - 1
    outside = last[problems.others > 0]
    left_over = 1.0 - segment_sum(share, problems.offsets)
    share[outside] = np.maximum(left_over[problems.others > 0], 0.0)
    return share


def _group_share(problems: Problems, class_prior: F64) -> F64:
    """The share of the classes that each group lumps: its region's but for those listed."""
    groups = problems.groups
    needed = np.flatnonzero(groups.region >= 0)
    listed = listed_in_groups(problems)
    whole = np.zeros(len(groups.entry))
    whole[needed] = segment_sum(class_prior[groups.label], groups.region_offsets)[
        groups.region[needed]
    ]
    share = bin_sum(listed.group, class_prior[problems.label[listed.entry]], len(groups.entry))
    return np.where(groups.region >= 0, np.maximum(whole - share, 0.0), 0.0)


@dataclass(frozen=True)
class ListedInGroups:
    """Listed entries whose class is in the region of a group: entry (n,), group (n,) index."""

    entry: I64
    group: I64


def listed_in_groups(problems: Problems) -> ListedInGroups:
    """All of them, for groups that have a region."""
    groups = problems.groups
    needed = np.flatnonzero(groups.region >= 0)
    problem = np.searchsorted(problems.offsets, groups.entry[needed], side="right") - 1
    lengths = np.diff(problems.offsets)[problem]
    pair_offsets = offsets_of(lengths)
    group = np.repeat(needed, lengths)
    first = problems.offsets[problem] - pair_offsets[:-1]
    entry = np.arange(pair_offsets[-1]) + np.repeat(first, lengths)
    listed = problems.label[entry] >= 0
    entry, group = entry[listed], group[listed]
    width = np.int64(max(int(groups.label.max(initial=0)) + 1, int(problems.label.max()) + 1))
    region = np.repeat(np.arange(len(groups.region_offsets) - 1), np.diff(groups.region_offsets))
    inside = find(
        region * width + groups.label, groups.region[group] * width + problems.label[entry]
    )[1]
    return ListedInGroups(entry[inside], group[inside])


def calibrated_logit(value: F64, calibration: Calibration) -> F64:
    """The calibrated logit of classes that are questions of their own, (n,); value: their logit."""
    a, b = local_map(calibration, value)
    return a * value + b


def _question_prior(problems: Problems, parameters: Parameters, slopes: bool) -> Prior:
    """`truth: multi`: the calibrated probability of the class; without a belief, `true_share`."""
    value = problems.belief[::2]
    known = ~np.isnan(value)
    value = np.where(known, value, 0.0)
    logit = calibrated_logit(value, parameters.calibration)
    share = parameters.true_share
    q = np.where(known, sigmoid(logit), share)
    not_q = np.where(known, sigmoid(-logit), 1.0 - share)
    log = np.empty(2 * len(q))
    with np.errstate(divide="ignore"):
        log[::2], log[1::2] = np.log(q), np.log(not_q)
    if not slopes:
        return Prior(log)
    slope = np.zeros((2 * len(q), 2))
    direction = np.stack([value, np.ones_like(value)], axis=1) * known[:, None]
    slope[::2], slope[1::2] = not_q[:, None] * direction, -q[:, None] * direction
    curve = parameters.calibration.curve
    return Prior(log, slope, None if curve is None else basis(value, curve))


def rule_out(log: F64, problems: Problems) -> F64:
    """The log prior (nnz,), with −inf for the entries that gold rules out."""
    return np.where(problems.allowed, log, -np.inf)
