"""The accuracy of a labels table from answers to questions that were drawn by chance."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from coyo_labeler.audit.draws import Draws, draw
from coyo_labeler.audit.fit import fit
from coyo_labeler.audit.inputs import Answers, Judged, Population
from coyo_labeler.audit.no_mistake import may_have_no_mistake
from coyo_labeler.audit.states import build
from coyo_labeler.em.segments import F64, I64, Bool
from coyo_labeler.errors import InputError

#: Draws by default, most and least: the ends of the interval then move by some 4 % of its width,
#: or 8 %. Of many images the interval is so narrow that the latter does not matter.
MOST_DRAWS, LEAST_DRAWS = 1000, 250
#: Images times draws up to which there are most of them: some six seconds.
_WORK = 25_000_000
#: Answers that the slope of the regression on the table's probability is shrunk by.
_SLOPE_ANSWERS = 15.0
#: Quantiles of the draws that make an interval of 95 %: a little further out than 2.5 %, for the
#: spread of the skills is taken as known, and the mode as the middle. Chosen by measured coverage.
_TAILS = (0.02, 0.98)
#: Right or wrong labels, whichever there are fewer of, at which the added images are halved.
_RARE = 4.0


@dataclass(frozen=True)
class Estimate:
    """An accuracy with its 95 % interval.

    images: that were drawn by chance. answers: about them. deviation: standard deviation.
    from_workers: the part of it that comes from not knowing how good the workers are.
    """

    accuracy: float
    low: float
    high: float
    answers: int
    images: int
    deviation: float
    from_workers: float


@dataclass(frozen=True)
class Frame:
    """Part of the judged images, and the population that it stands for.

    images: (n,) indices. population: of the table, or of a slice of it. round: only the images
    drawn in this round stand for others; None: those of all rounds.
    """

    images: I64
    population: Population
    round: int | None = None


def estimate(
    judged: Judged,
    answers: Answers,
    population: Population,
    classes: int,
    workers: int,
    *,
    draws: int | None = None,
    seed: int = 0,
) -> Estimate:
    """The accuracy of all labels of a table.

    population: the whole table. classes, workers: how many there are. draws: None: `draws_for`.

    Raises: InputError where no image has an inclusion probability, or a value cannot be.
    """
    frames = {"": Frame(np.arange(len(judged)), population)}
    audit = estimate_frames(judged, answers, frames, classes, workers, draws=draws, seed=seed)
    if "" not in audit.estimates:
        raise InputError(NO_CHANCE)
    return audit.estimates[""]


def draws_for(images: int) -> int:
    """How many draws an estimate takes by default."""
    return int(np.clip(_WORK // max(images, 1), LEAST_DRAWS, MOST_DRAWS))


@dataclass(frozen=True)
class Audit:
    """estimates: of each frame that has one. base_right, label_right: (images,) the probability
    that `Judged.base` and `label` are right, given all answers.
    """

    estimates: dict[str, Estimate]
    base_right: F64
    label_right: F64


def estimate_frames(
    judged: Judged,
    answers: Answers,
    frames: Mapping[str, Frame],
    classes: int,
    workers: int,
    *,
    draws: int | None = None,
    seed: int = 0,
) -> Audit:
    """The accuracy of several parts of a table, with one fit of all workers.

    A frame without an image drawn by chance has no estimate.

    Raises: as `estimate`.
    """
    judged.check(classes)
    if np.isnan(judged.inclusion).all():
        raise InputError(NO_PROBABILITY)
    draws = draws_for(len(judged)) if draws is None else draws
    model = build(judged, answers, classes, workers)
    fitted = fit(model)
    random = np.random.default_rng(seed)
    totals: dict[str, list[_Accuracies]] = {name: [] for name in frames}
    log_weights, base_right, label_right = [], [], []
    for block in draw(model, judged, fitted, draws, random):
        log_weights.append(block.log_weight)
        base_right.append(block.base_right.mean(axis=1) * len(block.log_weight))
        label_right.append(block.label_right.mean(axis=1) * len(block.log_weight))
        for name, frame in frames.items():
            accuracy = _accuracies(judged, frame, block, random)
            if accuracy is not None:
                totals[name].append(accuracy)
    weight = importance(np.concatenate(log_weights))
    drawn = ~np.isnan(judged.inclusion[answers.image])
    per_image = np.bincount(answers.image[drawn], minlength=len(judged))
    estimates = {
        name: _summarise(parts, weight, per_image[_of_round(judged, frames[name])])
        for name, parts in totals.items()
        if parts
    }
    if may_have_no_mistake(judged, answers, classes, workers, model, fitted):
        estimates = {
            name: replace(found, high=max(found.high, _without_mistakes(judged, frames[name])))
            for name, found in estimates.items()
        }
    return Audit(estimates, np.sum(base_right, axis=0) / draws, np.sum(label_right, axis=0) / draws)


def _without_mistakes(judged: Judged, frame: Frame) -> float:
    """The accuracy of a frame if every `base` is right."""
    people, index = frame.population, frame.images
    changed = float((judged.label[index] != judged.base[index]).mean()) if len(index) else 0.0
    return 1.0 - changed * people.asked / people.images


def _of_round(judged: Judged, frame: Frame) -> I64:
    """The images of a frame that stand for others."""
    if frame.round is None:
        return frame.images
    of_round = judged.round[frame.images] == frame.round
    return np.asarray(frame.images[of_round])


NO_PROBABILITY = (
    "votes: no vote has an inclusion_probability, so nothing is known of how the images were "
    "chosen, and no accuracy can be estimated from them; ask questions made by select, and give "
    "collect's output"
)
NO_CHANCE = (
    "votes: every image that was asked about was chosen for sure, so none stands for the images "
    "that nobody was asked about, and no accuracy can be estimated; give select an audit above 0"
)


@dataclass(frozen=True)
class _Accuracies:
    """Of a frame. value: (draws,). sampling: standard deviation if workers never erred."""

    value: F64
    sampling: float


def _accuracies(
    judged: Judged, frame: Frame, block: Draws, random: np.random.Generator
) -> _Accuracies | None:
    """The accuracy of a frame in each draw; None if no image was drawn by chance.

    Images of a round stand for those that were not asked about until its end, each for 1 / its
    inclusion probability − 1 of them. Images that were asked about stand for themselves (Des Raj
    1956). The rounds' totals are weighted by the numbers of images that they are worth.
    """
    index, people = frame.images, frame.population
    inclusion, rounds = judged.inclusion[index], judged.round[index]
    by_chance = ~np.isnan(inclusion)
    if not by_chance.any():
        return None
    base, label, chance = block.base_right[index], block.label_right[index], block.chance[index]
    confidence = np.clip(judged.probability[index], 0.0, 1.0)
    weight = np.where(by_chance, 1.0 / np.where(by_chance, inclusion, 1.0) - 1.0, 0.0)
    scale = people.asked / len(index)  # above 1 where a sample of the asked images is judged
    drawing = by_chance & (weight > 0)
    if frame.round is not None:
        drawing &= rounds == frame.round
    numbers = np.unique(rounds[drawing])
    totals, precisions, variances = [], [], []
    for number in numbers:
        mine = drawing & (rounds == number)
        until = ~by_chance | (rounds <= number)
        rest = people.images - people.asked + scale * float((~until).sum())
        sample = _Sample(base[mine], chance[mine], weight[mine], confidence[mine])
        mean = sample.mean(0.5 / len(numbers), random)
        if people.confidence is not None:
            unasked = (people.images - people.asked) * people.confidence
            goal = (unasked + scale * confidence[~until].sum()) / max(rest, 1.0)
            mean = mean + sample.slope() * (goal - sample.drawn_confidence())
        total, variance = _of_rest(np.clip(mean, 0.0, 1.0), rest, sample.effective, random)
        totals.append(scale * base[until].sum(axis=0) + total)
        variances.append(variance)
        precisions.append(sample.effective / max(rest, 1.0) ** 2)
    gain = scale * (label.sum(axis=0) - base.sum(axis=0))
    if people.images == people.asked:
        return _Accuracies(label.mean(axis=0), 0.0)
    if not totals:  # the images stand for nobody but themselves
        return None
    share = np.array(precisions) / np.sum(precisions)
    total = np.tensordot(share, np.stack(totals), axes=1)
    sampling = float(np.sqrt(share**2 @ np.array(variances))) / people.images
    return _Accuracies(np.clip((total + gain) / people.images, 0.0, 1.0), sampling)


def _of_rest(
    mean: F64, rest: float, effective: float, random: np.random.Generator
) -> tuple[F64, float]:
    """The right labels of `rest` images with the mean in each draw, (draws,), and their variance.

    effective: the number of images that the mean comes from.
    """
    noise = np.sqrt(rest * mean * (1 - mean)) * random.standard_normal(len(mean))
    middle = float(mean.mean())
    variance = middle * (1 - middle) * (rest**2 / effective + rest)
    return np.asarray(np.clip(rest * mean + noise, 0.0, rest)), variance


@dataclass(frozen=True)
class _Sample:
    """Images of a round; right, chance: (n, draws), weight, confidence: (n,)."""

    right: Bool
    chance: F64
    weight: F64
    confidence: F64

    @property
    def effective(self) -> float:
        """The number of images of equal weight that these are worth."""
        return float(self.weight.sum() ** 2 / (self.weight**2).sum())

    def mean(self, prior: float, random: np.random.Generator) -> F64:
        """The weighted share of right labels in each draw of weights, (draws,).

        prior: images of average weight, right and wrong each, that are added (Jeffreys: 1/2), so
        that a sample without a wrong label does not prove that there is none. Where there are many
        of both, fewer are added, for they would only draw the mean towards one half.
        """
        draws = self.right.shape[1]
        weight = self.weight[:, None] * self.chance
        unit = self.weight.sum() / self.effective
        share = float(self.weight @ self.right.mean(axis=1) / self.weight.sum())
        rare = self.effective * min(share, 1 - share)
        prior = prior / (1 + rare / _RARE)
        added = unit * random.standard_gamma(prior, (2, draws))
        return np.asarray(
            ((weight * self.right).sum(axis=0) + added[0])
            / (weight.sum(axis=0) + added.sum(axis=0))
        )

    def drawn_confidence(self) -> F64:
        """The weighted mean of the table's probability in each draw, (draws,)."""
        weight = self.weight[:, None] * self.chance
        return np.asarray((weight * self.confidence[:, None]).sum(axis=0) / weight.sum(axis=0))

    def slope(self) -> F64:
        """The slope of right on the table's probability in each draw, (draws,), shrunk."""
        weight = self.weight[:, None] * self.chance
        total = weight.sum(axis=0)
        away = self.confidence[:, None] - self.drawn_confidence()
        right = self.right - (weight * self.right).sum(axis=0) / total
        squares = (weight * away**2).sum(axis=0)
        shrunk = self.effective / (self.effective + _SLOPE_ANSWERS)
        products = (weight * away * right).sum(axis=0)
        return np.asarray(shrunk * products / np.maximum(squares, 1e-9 * total))


def importance(log_weight: F64) -> F64:
    """Weights of draws that sum to 1, (draws,); none above the mean · √draws (Ionides 2008)."""
    weight = np.exp(log_weight - log_weight.max())
    weight = np.minimum(weight, weight.mean() * np.sqrt(len(weight)))
    return np.asarray(weight / weight.sum())


def _summarise(parts: list[_Accuracies], weight: F64, answers: I64) -> Estimate:
    """Mean and interval of all draws. answers: of each image that was drawn by chance."""
    values = np.concatenate([part.value for part in parts])
    order = np.argsort(values)
    below = np.cumsum(weight[order]) - weight[order] / 2
    low, high = np.interp(_TAILS, below, values[order])
    mean = float(weight @ values)
    deviation = float(np.sqrt(weight @ (values - mean) ** 2))
    sampling = float(np.mean([part.sampling for part in parts]))
    return Estimate(
        accuracy=mean,
        low=float(low),
        high=float(high),
        answers=int(answers.sum()),
        images=int((answers > 0).sum()),
        deviation=deviation,
        from_workers=float(np.sqrt(max(deviation**2 - sampling**2, 0.0))),
    )
