"""The report's section about the votes: the estimated accuracy, and the people who answered."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from coyo_labeler import audit
from coyo_labeler.audit.estimate import NO_CHANCE, NO_PROBABILITY, Audit, Frame
from coyo_labeler.audit.inputs import Judged, Population
from coyo_labeler.audit.nodes import about_sets
from coyo_labeler.audit.tables import Crowd, LabelRows, first_labels, judge
from coyo_labeler.em.segments import F64, I32, I64, Bool, find
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import LabelTree
from coyo_labeler.report import crowd as people

#: Equal bins of probability in the reliability of voted and unvoted images.
_BINS = 10
#: Slices whose accuracy is estimated: those with most images.
_SLICES = 200


@dataclass(frozen=True)
class Series:
    """A labels table: its own rows of chosen images, and those made without these answers.

    rows, before: by id; before is None where the answers are to be divided out. images, asked: in
    the table. confidence: mean of the first probability in `before` over images that nobody was
    asked about, None if unknown. own: whether `before` is the table itself. note: what `before` is.
    slices: images, images asked about and confidence of each slice. accuracies: of a merge, by
    worker.
    """

    rows: LabelRows
    before: LabelRows | None
    images: int
    asked: int
    confidence: float | None
    own: bool
    note: str
    slices: Mapping[str, tuple[int, int, float | None]] = field(default_factory=dict)
    accuracies: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Votes:
    """The votes, and what else is known of them.

    crowd: answers about chosen images. answers, images: in all; share: of the images, that are
    chosen. truth: (images,) of `crowd.image`, the class where gold has one. gold: numbers of images
    and their true classes, several per image where gold has several. slices: names of each image's
    slices. skipped_workers, skipped_classes: questions that were skipped; None: unknown.
    tree: where a verification of a class is about all classes below it too.
    """

    crowd: Crowd
    answers: int
    images: int
    share: float
    truth: I32
    gold: tuple[I64, I64]
    slices: Mapping[str, I64] = field(default_factory=dict)
    skipped_workers: Mapping[str, int] | None = None
    skipped_classes: Mapping[int, int] | None = None
    tree: LabelTree | None = None


def describe_audit(
    votes: Votes,
    own: Series,
    other: Series | None,
    space: LabelSpace,
    *,
    wanted: float,
    top: int,
    cost_per_answer: float | None = None,
    cost_per_hour: float | None = None,
) -> dict[str, Any]:
    """All figures of the section. wanted: half the width of the interval that is wanted."""
    crowd, classes = votes.crowd, space.size
    by_chance = ~np.isnan(crowd.inclusion)
    document: dict[str, Any] = {
        "answers": votes.answers,
        "images": votes.images,
        "images_by_chance": int(by_chance.sum()),
        "share_examined": votes.share,
        "wanted_interval": wanted,
        "purposes": _purposes(crowd),
    }
    for name, series in (("labels", own), ("compare", other)):
        if series is not None:
            estimates, reason = _estimate(votes, series, classes, wanted)
            document |= {name: estimates} if estimates else {}
            document[name + "_note"] = reason or series.note
    document["rounds"] = _side_by_side(document, "rounds", "round")
    document["slices"] = _side_by_side(document, "slices", "slice")
    hits = people.gold_hits(crowd.answers, *votes.gold, classes)
    document["workers"] = people.describe_workers(crowd, hits, votes.skipped_workers)
    document["gold_answers"] = gold_answers = int((hits >= 0).sum())
    if estimate := document.get("labels") or document.get("compare"):
        note = people.note_on_workers(crowd.answers, gold_answers, estimate)
        document["workers_note"] = note
    first, _ = first_labels(own.rows.of(crowd.image))
    rows = people.describe_classes(crowd, first, votes.skipped_classes, classes)
    document["classes"] = [row | {"name": space.display_name(row["label"])} for row in rows[:top]]
    document["agreement"] = people.describe_agreement(crowd.answers, classes)
    for row in document["slices"]:
        images = np.zeros(len(crowd.image), dtype=bool)
        images[votes.slices[row["slice"]]] = True
        row["agreement"] = people.agreement_of(crowd.answers, images, classes)
    document["time"] = people.describe_time(crowd, votes.answers, cost_per_answer, cost_per_hour)
    return document


def _purposes(crowd: Crowd) -> dict[str, int]:
    names, counts = np.unique(crowd.purpose, return_counts=True)
    return {str(name) or "unknown": int(n) for name, n in zip(names, counts, strict=True)}


def _estimate(
    votes: Votes, series: Series, classes: int, wanted: float
) -> tuple[dict[str, Any] | None, str]:
    """The estimates of one table, or None and why there is none."""
    crowd = replace(votes.crowd, answers=about_sets(votes.crowd.answers, votes.tree))
    inside = find(series.rows.image, crowd.image)[1]
    if np.isnan(crowd.inclusion).all():
        return None, NO_PROBABILITY
    if not inside.any() or np.isnan(crowd.inclusion[inside]).all():
        return None, (
            "votes: none of the images that were drawn by chance is in this table; give the "
            "labels that the questions were made from, or a merge of them"
        )
    accuracies = np.array([series.accuracies.get(name, np.nan) for name in crowd.workers])
    judged, answers = judge(
        crowd, inside, series.rows, series.before, votes.truth, accuracies, classes
    )
    frames = _frames(votes, series, judged, inside)
    found = audit.estimate_frames(judged, answers, frames, classes, len(crowd.workers))
    if "all" not in found.estimates:
        return None, NO_CHANCE
    named = {
        name: _of_estimate(e, wanted, frames[name].population.images)
        for name, e in found.estimates.items()
    }
    document = named["all"] | {
        "rounds": {name[6:]: e for name, e in named.items() if name.startswith("round:")},
        "slices": {name[6:]: e for name, e in named.items() if name.startswith("slice:")},
        "calibration": _calibration(judged, series, found, crowd.image[inside]),
        "not_in_labels": int((~inside).sum()),
    }
    return document, ""


def _of_estimate(estimate: audit.Estimate, wanted: float, images: int) -> dict[str, Any]:
    return {
        "accuracy": estimate.accuracy,
        "low": estimate.low,
        "high": estimate.high,
        "answers": estimate.answers,
        "images": estimate.images,
        "deviation": estimate.deviation,
        "from_workers": estimate.from_workers,
        "further_answers": audit.further_answers(estimate, wanted, images),
    }


def _frames(votes: Votes, series: Series, judged: Judged, inside: Bool) -> dict[str, Frame]:
    """All judged images; those of each round; those of each slice."""
    whole = Population(series.images, series.asked, series.confidence)
    everything = np.arange(len(judged))
    frames = {"all": Frame(everything, whole)}
    drawn = np.unique(judged.round[~np.isnan(judged.inclusion)])
    if len(drawn) > 1:
        for number in drawn:
            name = votes.crowd.rounds[number]
            frames[f"round:{name}"] = Frame(everything, whole, int(number))
    position = np.cumsum(inside) - 1
    largest = sorted(series.slices, key=lambda name: (-series.slices[name][0], name))[:_SLICES]
    for name in largest:
        images = votes.slices.get(name, np.zeros(0, dtype=np.int64))
        images = position[images[inside[images]]]
        if len(images):
            frames[f"slice:{name}"] = Frame(images, Population(*series.slices[name]))
    return frames


def _calibration(judged: Judged, series: Series, found: Audit, ids: I64) -> dict[str, Any]:
    """Reliability of images that were asked about, and of those that nobody was asked about.

    The latter are stood for by images that were drawn by chance, with the probability that the
    table gives without their answers. None where that is another table.
    """
    _, stated = first_labels(series.rows.of(ids))
    voted = _bins(stated, found.label_right, np.ones(len(stated)))
    if not series.own and series.before is not None:
        return {"voted": voted, "unvoted": None}
    weight = np.nan_to_num(1.0 / judged.inclusion - 1.0)
    return {"voted": voted, "unvoted": _bins(judged.probability, found.base_right, weight)}


def _bins(stated: F64, right: F64, weight: F64) -> dict[str, Any]:
    """Mean stated probability and share right in equal bins of it, and the calibration error."""
    index = np.minimum((np.clip(stated, 0, 1) * _BINS).astype(np.int64), _BINS - 1)
    mass = np.bincount(index, weight, _BINS)
    images = np.bincount(index[weight > 0], minlength=_BINS)
    used = np.flatnonzero(mass)
    said = np.bincount(index, weight * stated, _BINS)[used] / mass[used]
    true = np.bincount(index, weight * right, _BINS)[used] / mass[used]
    bins = [
        {
            "low": int(b) / _BINS,
            "high": (int(b) + 1) / _BINS,
            "images": int(images[b]),
            "share": float(mass[b] / mass.sum()),
            "confidence": float(s),
            "correct": float(t),
        }
        for b, s, t in zip(used, said, true, strict=True)
    ]
    ece = float((mass[used] * np.abs(true - said)).sum() / mass.sum()) if len(used) else None
    return {"bins": bins, "ece": ece, "images": int(images.sum())}


def _side_by_side(document: dict[str, Any], parts: str, name: str) -> list[dict[str, Any]]:
    """The estimates of rounds or slices, of both tables in one row each; taken out of theirs."""
    rows: dict[str, dict[str, Any]] = {}
    for series in ("labels", "compare"):
        for key, estimate in document.get(series, {}).pop(parts, {}).items():
            rows.setdefault(key, {name: key})[series] = estimate
    return list(rows.values())
