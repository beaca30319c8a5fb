"""The reasons to stop, each in the words that say it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from coyo_labeler import storage
from coyo_labeler.config.round import RoundSettings
from coyo_labeler.formats.label_spaces import load_label_space
from coyo_labeler.round.gain import mean_gain

#: Of workers about whom nothing is known yet, as merge's `prior_accuracy`.
_ACCURACY = 0.8


def by_accuracy(settings: RoundSettings, audit: Mapping[str, Any] | None) -> str | None:
    """Why the labels are good enough; None if they are not, or nobody knows.

    audit: accuracy, low, high and answers, of report.
    """
    wanted = settings.wanted_accuracy
    if wanted is None or audit is None or not wanted < audit["low"]:
        return None
    return (
        f"the labels' accuracy is {audit['accuracy']:.3f} (95 % interval {audit['low']:.3f} to "
        f"{audit['high']:.3f}, from {audit['answers']:,} answers), above the {wanted:g} wanted"
    )


def by_budget(settings: RoundSettings, spent: int) -> str | None:
    """Why there is nothing left to spend; None if there is."""
    if settings.budget is None or spent < settings.budget:
        return None
    return f"{spent:,} answers are collected, and the budget is {settings.budget:,}"


def by_gain(settings: RoundSettings, questions: str, labels: str) -> str | None:
    """Why the next answers would gain too little; None if they would not."""
    if settings.min_gain is None:
        return None
    classes = load_label_space(settings.label_space).size
    gain = mean_gain(storage.join(questions, "questions"), _mean_accuracy(labels), classes)
    if gain >= settings.min_gain:
        return None
    return (
        f"an answer of the next round is expected to gain {gain:.4f}, less than min_gain="
        f"{settings.min_gain:g}"
    )


def _mean_accuracy(labels: str) -> float:
    """The mean accuracy of the workers of a merge, weighted by their votes."""
    folder = storage.join(labels, "workers")
    files = storage.files_of(folder) if storage.exists(folder) else {}
    accuracy, votes = [np.zeros(0)], [np.zeros(0)]
    for url in files:
        with storage.open_parquet("labels", url) as parquet:
            table = parquet.read(columns=["accuracy", "n_votes"]).drop_null()
        accuracy.append(table["accuracy"].to_numpy())
        votes.append(table["n_votes"].to_numpy())
    weight = np.concatenate(votes)
    return (
        float(np.average(np.concatenate(accuracy), weights=weight)) if weight.sum() else _ACCURACY
    )
