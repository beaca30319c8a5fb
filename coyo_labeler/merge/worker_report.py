"""The report on workers: who guesses, who misleads, what they confuse, how far they agree."""

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

#: A worker whose skill is surely below this is a spammer: 0 is guessing, 1 is perfect.
SPAMMER_SKILL = 0.2
#: With fewer votes than this a worker is not judged.
LEAST_VOTES = 10
#: How sure "surely" is: the upper point of a worker's interval.
_SURE = 0.95
#: How many confused pairs are listed.
_PAIRS = 50
#: Up to so many values, the agreement is computed in one call of the library.
_VALUES_AT_ONCE = 30


def judge_workers(
    names: Sequence[str], tally: NDArray[np.int64], right: F64, model: Model
) -> list[dict[str, Any]]:
    """One entry per worker: the skill that is possible at most, and what kind of worker that is.

    tally: (J, 5) `em.tallies.Tallies`; right: (J,) expected right votes. skill_at_most: (accuracy −
    guessing) / (1 − guessing) at the 95 % point of the accuracy, by the worker's own votes alone
    (with Jeffreys' prior), so that nobody is judged by what others do. kind: `adversary` if surely
    worse than guessing, `spammer` if the skill is surely below `SPAMMER_SKILL`, else `worker`;
    `new` with fewer than `LEAST_VOTES` votes (unsure ones do not count); `unjudged` where workers
    are taken to be perfect.
    """
    perfect = model.worker_model == "perfect"
    judged = tally[:, CHOICES] + tally[:, ANSWERS]
    right = np.minimum(right, judged)
    share = tally[:, CHOICES] / model.classes + tally[:, ANSWERS] / 2
    guessing = np.where(judged > 0, share / np.maximum(judged, 1), 0.5)
    most = betaincinv(right + 0.5, judged - right + 0.5, _SURE)
    skill = (most - guessing) / (1 - guessing)
    kinds = np.where(most < guessing, "adversary", np.where(skill < SPAMMER_SKILL, "spammer", ""))
    kinds = np.where(kinds == "", "worker", kinds)
    kinds = np.where(judged < LEAST_VOTES, "new", kinds)
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

    The library's memory grows with the square of the number of values. With many values it is
    called for each value against all others: alpha is the mean of the results, weighted by the
    expected disagreement of each, n_c (n − n_c).
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
    """The pairs of classes that workers confuse most, with names; confusions: `count_pairs`."""
    true, voted = confusions["true_label"].to_numpy(), confusions["voted_label"].to_numpy()
    wrong = true != voted
    key = true[wrong].astype(np.int64) * space.size + voted[wrong]
    pairs, index = np.unique(key, return_inverse=True)
    votes = np.bincount(index, confusions["count"].to_numpy()[wrong], len(pairs))
    # Rounded first: sums that differ in their last bit must not change the order.
    top = np.lexsort((pairs, -np.round(votes, 6)))[:_PAIRS]
    return [
        {
            "true_label": int(pairs[i] // space.size),
            "voted_label": int(pairs[i] % space.size),
            "true_name": space.display_name(int(pairs[i] // space.size)),
            "voted_name": space.display_name(int(pairs[i] % space.size)),
            "votes": round(float(votes[i]), 6),
        }
        for i in top
    ]


def worker_report(
    workers: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]], sample: I64
) -> dict[str, Any]:
    """The whole report; workers: as of `judge_workers`, pairs: as of `confused_pairs`."""
    return {
        "krippendorff_alpha": agreement_alpha(sample),
        "spammers": [each["worker_id"] for each in workers if each["kind"] == "spammer"],
        "adversaries": [each["worker_id"] for each in workers if each["kind"] == "adversary"],
        "confused_pairs": list(pairs),
        "workers": list(workers),
    }
