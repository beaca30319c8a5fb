"""What a fit of `DawidSkene` returns, on either engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Results:
    """The attributes that `DawidSkene.fit` sets, each under its name with an underscore.

    posterior, rejects: a table; Spark DataFrames where the votes were one. labels: None where they
    are not collected yet. workers: by worker. priors: the share of each label among tasks without a
    belief. loss_history: the objective by iteration. calibration: (a, b).
    expected_calibration_error: before and after calibration.
    """

    classes: pd.Index[Any]
    labels: pd.Series[Any] | None
    posterior: Any
    workers: pd.DataFrame
    rejects: Any
    priors: pd.Series[Any]
    loss_history: list[float]
    calibration: tuple[float, float]
    expected_calibration_error: tuple[float | None, ...]
    n_iter: int
    worker_model: str
