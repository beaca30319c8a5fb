"""The people behind the answers: gold, unsure answers, skips, agreement, time and cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from coyo_labeler.audit import Answer, Answers
from coyo_labeler.audit.agreement import Agreement, agreement, units_of
from coyo_labeler.audit.tables import Crowd
from coyo_labeler.em.segments import I32, I64, Bool, distinct, find
from coyo_labeler.report.metrics import rate

#: Answers that are neither unsure nor about gold say nothing of a worker's accuracy on gold.
_NOT_JUDGED = -1


def gold_hits(answers: Answers, gold_image: I64, gold_label: I64, classes: int) -> I32:
    """Whether each answer is right by gold, (answers,): 1, 0, or −1 where gold does not tell.

    gold_image: (n,) numbers of judged images, gold_label: (n,) a true class of each; an image may
    have several. An unsure answer is not judged.
    """
    known = find(distinct(gold_image), answers.image)[1]
    true = distinct(gold_image * classes + gold_label)
    named = find(true, answers.image * classes + np.maximum(answers.label, 0))[1]
    named &= answers.label >= 0
    offered = answers.offered
    owner = np.repeat(np.arange(len(answers)), np.diff(offered.offsets))
    listed = find(true, answers.image[owner] * classes + offered.label)[1]
    in_set = np.bincount(owner[listed], minlength=len(answers)) > 0
    holds = np.where(answers.label >= 0, named, in_set)
    kind = answers.answer
    right = np.select(
        [kind == Answer.CHOICE, kind == Answer.YES, kind == Answer.NO, kind == Answer.NONE],
        [named, holds, ~holds, ~in_set],
        False,
    )
    judged = known & (kind != Answer.UNSURE)
    return np.where(judged, right, _NOT_JUDGED).astype(np.int32)


def describe_workers(
    crowd: Crowd, hits: I32, skipped: Mapping[str, int] | None
) -> list[dict[str, Any]]:
    """One row per worker, those with most answers first.

    hits: of `gold_hits`. skipped: questions by worker; None: unknown.
    """
    worker, size = crowd.answers.worker, len(crowd.workers)
    answers = np.bincount(worker, minlength=size)
    unsure = np.bincount(worker[crowd.answers.answer == Answer.UNSURE], minlength=size)
    judged = np.bincount(worker[hits >= 0], minlength=size)
    right = np.bincount(worker[hits > 0], minlength=size)
    seconds = _medians(worker, crowd.seconds, size)
    rows = [
        {
            "worker_id": name,
            "answers": int(answers[w]),
            "unsure": rate(int(unsure[w]), int(answers[w])),
            "skipped": rate(0, 0)
            if skipped is None
            else rate(skipped.get(name, 0), skipped.get(name, 0) + int(answers[w])),
            "gold": rate(int(right[w]), int(judged[w])),
            "seconds": seconds[w],
        }
        for w, name in enumerate(crowd.workers)
    ]
    named = set(crowd.workers)
    rows += [
        {
            "worker_id": name,
            "answers": 0,
            "unsure": rate(0, 0),
            "skipped": rate(count, count),
            "gold": rate(0, 0),
            "seconds": None,
        }
        for name, count in (skipped or {}).items()
        if name not in named
    ]
    return sorted(rows, key=lambda row: (-row["answers"], row["worker_id"]))


#: Where nothing that was asked tells a worker's mistake from a wrong label.
_UNSEEN_MISTAKES = (
    "no image was answered by two workers, and no answer was about gold, so nothing shows how "
    "often workers are wrong. The interval rests on what is expected of workers: right in 77 % of "
    "answers in the mean, between 36 % and 95 %. Ask gold questions (select gold=), or a second "
    "worker about the same images (select overlap=2)"
)
_MUCH_FROM_WORKERS = (
    "much of the uncertainty comes from the workers: gold questions, or second answers about the "
    "same images, help most"
)


def note_on_workers(answers: Answers, gold_answers: int, of: Mapping[str, Any]) -> str:
    """What the workers' mistakes mean for an estimate; "" if they matter little.

    gold_answers: how many answers were about gold. of: the estimate, as the report has it.
    """
    sure = answers.answer != Answer.UNSURE
    pairs = np.unique(np.stack([answers.image[sure], answers.worker[sure]]), axis=1)
    several = np.unique(pairs[0], return_counts=True)[1] > 1
    if not gold_answers and not several.any():
        return _UNSEEN_MISTAKES
    return _MUCH_FROM_WORKERS if of["from_workers"] > of["deviation"] / 2 else ""


def describe_classes(
    crowd: Crowd, first: I32, skipped: Mapping[int, int] | None, classes: int
) -> list[dict[str, Any]]:
    """Classes by the lower end of their rate of unsure or skipped questions, the worst first.

    first: (images,) first label of each image. skipped: questions by class; None: unknown.
    The class of an answer is the one that was asked about, or else the image's label.
    """
    answers = crowd.answers
    asks = np.isin(answers.answer, (Answer.YES, Answer.NO, Answer.UNSURE)) & (answers.label >= 0)
    label = np.where(asks, answers.label, first[answers.image])
    inside = label >= 0
    total = np.bincount(label[inside], minlength=classes)
    unsure = np.bincount(label[inside & (answers.answer == Answer.UNSURE)], minlength=classes)
    skips = np.zeros(classes, dtype=np.int64)
    for number, count in (skipped or {}).items():
        skips[number] = count
    units, values = units_of(answers, classes)
    rows: list[dict[str, Any]] = []
    for c in np.flatnonzero(total + skips):
        asked = int(total[c] + skips[c])
        rows.append(
            {
                "label": int(c),
                "asked": asked,
                "unsure": int(unsure[c]),
                "skipped": None if skipped is None else int(skips[c]),
                "open": rate(int(unsure[c] + skips[c]), asked),
            }
        )
    rows.sort(key=lambda row: (-row["open"]["low"], -row["asked"], row["label"]))
    for row in rows[:_AGREEMENTS]:
        mine = label == row["label"]
        row["agreement"] = of_agreement(agreement(units[mine], values[mine]))
    return rows


#: Classes whose agreement is computed: the first of the list.
_AGREEMENTS = 200


def of_agreement(found: Agreement) -> dict[str, Any]:
    """As the report has it."""
    return {
        "questions": found.units,
        "answers": found.answers,
        "raw": found.raw,
        "alpha": found.alpha,
    }


def describe_agreement(answers: Answers, classes: int) -> dict[str, Any]:
    """The agreement of choices, and that of verifications."""
    unit, value = units_of(answers, classes)
    choice = np.isin(answers.answer, (Answer.CHOICE, Answer.NONE))
    return {
        "choices": of_agreement(agreement(unit[choice], value[choice])),
        "verifications": of_agreement(agreement(unit[~choice], value[~choice])),
    }


def agreement_of(answers: Answers, images: Bool, classes: int) -> dict[str, Any]:
    """The agreement about some of the images, (images,)."""
    mine = images[answers.image]
    unit, value = units_of(answers, classes)
    return of_agreement(agreement(unit[mine], value[mine]))


def describe_time(
    crowd: Crowd, answers: int, cost_per_answer: float | None, cost_per_hour: float | None
) -> dict[str, Any]:
    """Seconds per answer and what the answers cost. answers: in all, those not chosen too."""
    known = crowd.seconds[~np.isnan(crowd.seconds) & (crowd.seconds >= 0)]
    found: dict[str, Any] = {"timed": len(known)}
    if len(known):
        quartiles = np.quantile(known, (0.25, 0.5, 0.75))
        found |= {
            "mean": float(known.mean()),
            **dict(zip(("q25", "median", "q75"), map(float, quartiles), strict=True)),
            "hours": float(known.mean() * answers / 3600),
        }
    if cost_per_answer is not None:
        found["cost"] = cost_per_answer * answers
    elif cost_per_hour is not None and len(known):
        found["cost"] = cost_per_hour * found["hours"]
    if "cost" in found:
        found["cost_per_answer"] = found["cost"] / max(answers, 1)
    return found


def _medians(worker: I32, seconds: np.ndarray[Any, Any], size: int) -> list[float | None]:
    """The median of each worker's seconds, None where none are known."""
    known = ~np.isnan(seconds) & (seconds >= 0)
    order = np.lexsort((seconds[known], worker[known]))
    values, count = seconds[known][order], np.bincount(worker[known], minlength=size)
    start = np.cumsum(count) - count
    return [
        None if not n else float(np.median(values[s : s + n]))
        for s, n in zip(start, count, strict=True)
    ]
