"""The report on workers: who guesses, who misleads, what is confused, how far all agree."""

from collections.abc import Mapping, Sequence
from typing import Any

import krippendorff
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import betaincinv

from coyo_labeler.em.model import Model
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import F64, I64
from coyo_labeler.em.tallies import AGREEING, ANSWERS, CHOICES, COMPARED
from coyo_labeler.formats.label_spaces import LabelSpace

#: A worker who is surely less than this share of the way from guessing to perfect is a spammer.
SPAMMER_SKILL = 0.2
#: Nobody is called anything on fewer votes than this.
LEAST_VOTES = 10
#: How sure "surely" is: the upper point of a worker's interval.
_SURE = 0.95
#: Confused pairs that are listed.
_PAIRS = 50
#: Up to so many values the agreement is computed in one call of the library.
_VALUES_AT_ONCE = 30


def judge_workers(
    names: Sequence[str], tally: NDArray[np.int64], right: F64, model: Model
) -> list[dict[str, Any]]:
    """One entry a worker: how much of the way from guessing to perfect, and what that makes him.

    tally: (J, 5) of `evidence`; right: (J,) expected right votes. skill: (accuracy − guessing) /
    (1 − guessing) at the 95 % point of the accuracy that his own votes alone leave open (Jeffreys'
    prior), so that nobody is judged by what others do. kind: `adversary` where he is surely worse
    than guessing, `spammer` where his skill is surely below `SPAMMER_SKILL`, else `worker`; `new`
    with fewer than `LEAST_VOTES` votes that tell; `unjudged` where workers are taken to be perfect.
    """
    perfect = model.worker_model == "perfect"
    told = tally[:, CHOICES] + tally[:, ANSWERS]
    right = np.minimum(right, told)
    share = tally[:, CHOICES] / model.classes + tally[:, ANSWERS] / 2
    guessing = np.where(told > 0, share / np.maximum(told, 1), 0.5)
    most = betaincinv(right + 0.5, told - right + 0.5, _SURE)
    skill = (most - guessing) / (1 - guessing)
    kinds = np.where(most < guessing, "adversary", np.where(skill < SPAMMER_SKILL, "spammer", ""))
    kinds = np.where(kinds == "", "worker", kinds)
    kinds = np.where(told < LEAST_VOTES, "new", kinds)
    kinds = np.where(perfect, "unjudged", kinds)
    compared, agreeing = tally[:, COMPARED], tally[:, AGREEING]
    return [
        {
            "worker_id": name,
            "n_votes": int(tally[j, :3].sum()),
            "kind": str(kinds[j]),
            "skill_at_most": None if perfect else round(float(skill[j]), 6),
            "agreement_with_machine": int(agreeing[j]) / int(compared[j]) if compared[j] else None,
        }
        for j, name in enumerate(names)
    ]


def agreement_alpha(sample: I64) -> dict[str, Any]:
    """Krippendorff's alpha (nominal) of choices per image and of answers per question.

    sample: (n, 3) image, label, response. None where no two workers judged the same thing.
    """
    response = sample[:, 2]
    chosen = sample[response == Response.CHOICE]
    answered = sample[response != Response.CHOICE]
    return {
        "choices": nominal_alpha(chosen[:, 0], chosen[:, 1]),
        "verifications": nominal_alpha(
            np.unique(answered[:, :2], axis=0, return_inverse=True)[1].ravel(), answered[:, 2]
        ),
        "votes_sampled": len(sample),
    }


def nominal_alpha(unit: I64, value: I64) -> float | None:
    """Krippendorff's alpha of judgements: unit, value (n,). Krippendorff 2004, chapter 11.

    The library's memory grows with the square of the values. With many it is asked for one value
    against the rest at a time: alpha is the mean of these, weighted by the disagreement that is
    expected of each, n_c (n − n_c).
    """
    if len(unit) == 0:
        return None
    _, row, judges = np.unique(unit, return_inverse=True, return_counts=True)
    pairable = judges[row] > 1
    if not pairable.any() or len(np.unique(value[pairable])) < 2:
        return None
    row = np.unique(row[pairable], return_inverse=True)[1]
    values, column = np.unique(value[pairable], return_inverse=True)
    if len(values) <= _VALUES_AT_ONCE:
        counts = np.zeros((row.max() + 1, len(values)), dtype=np.int64)
        np.add.at(counts, (row, column), 1)
        return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
    total = np.bincount(row)
    weight = np.bincount(column).astype(np.float64)
    weight *= len(column) - weight
    alphas = np.empty(len(values))
    for number in range(len(values)):
        named = np.bincount(row[column == number], minlength=len(total))
        counts = np.stack([named, total - named], axis=1)
        alphas[number] = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    return float((alphas * weight).sum() / weight.sum())


def confused_pairs(confusions: pa.Table, space: LabelSpace) -> list[dict[str, Any]]:
    """The pairs of classes that workers confuse most, named. confusions: as of `count_pairs`."""
    true, voted = confusions["true_label"].to_numpy(), confusions["voted_label"].to_numpy()
    wrong = true != voted
    key = true[wrong].astype(np.int64) * space.size + voted[wrong]
    pairs, place = np.unique(key, return_inverse=True)
    votes = np.bincount(place, confusions["count"].to_numpy()[wrong], len(pairs))
    # Rounded first: sums that differ in their last bit must not change places.
    top = np.lexsort((pairs, -np.round(votes, 6)))[:_PAIRS]
    return [
        {
            "true_label": int(pairs[i] // space.size),
            "voted_label": int(pairs[i] % space.size),
            "true_name": space.name_of(int(pairs[i] // space.size)),
            "voted_name": space.name_of(int(pairs[i] % space.size)),
            "votes": round(float(votes[i]), 6),
        }
        for i in top
    ]


def worker_report(
    workers: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]], sample: I64
) -> dict[str, Any]:
    """All of it: workers as of `judge_workers`, pairs as of `confused_pairs`."""
    return {
        "krippendorff_alpha": agreement_alpha(sample),
        "spammers": [one["worker_id"] for one in workers if one["kind"] == "spammer"],
        "adversaries": [one["worker_id"] for one in workers if one["kind"] == "adversary"],
        "confused_pairs": list(pairs),
        "workers": list(workers),
    }
