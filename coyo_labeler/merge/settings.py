"""From settings, as a user writes them, to the model that EM computes."""

import logging
from typing import Any

from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.errors import InputError
from coyo_labeler.label_spaces import LabelSpace
from coyo_labeler.merge.model import Calibration, Model, WorkerModel

logger = logging.getLogger(__name__)

#: `support: all` keeps every class of every image; more than this is a mistake.
_LARGEST_FULL_SUPPORT = 2_000


def make_model(
    settings: MergeSettings, space: LabelSpace, worker_model: WorkerModel, workers: int, votes: int
) -> Model:
    """What EM is to compute; worker_model: `auto` resolved.

    A prior accuracy that gold is to tell is 0.8 until it does.

    Raises: InputError where the settings do not fit the label space or each other.
    """
    if settings.support == "all" and space.size > _LARGEST_FULL_SUPPORT:
        raise InputError(
            f"support: all keeps {space.size:,} classes for every image; use candidates, which is "
            f"made for more than {_LARGEST_FULL_SUPPORT:,}"
        )
    accuracy = settings.prior_accuracy
    if accuracy == "gold" and settings.gold is None:
        raise InputError("prior_accuracy: gold needs gold=PATH; or give a number")
    return Model(
        classes=space.size,
        workers=workers,
        truth=settings.truth,
        beliefs_are=settings.beliefs_are,
        worker_model=worker_model,
        prior_strength=settings.prior_strength,
        pooling_strength=None if settings.pooling == "none" else settings.pooling_strength,
        prior_accuracy=0.8 if isinstance(accuracy, str) else accuracy,
        prior_floor=settings.prior_floor,
        hard_counts=settings.counts == "hard",
        estimate_class_prior=settings.class_prior == "estimated",
        support_all=settings.support == "all",
        support_mass=settings.support_mass,
        fit_calibration=_calibrate_on(settings, votes),
        start=settings.start,
    )


def _calibrate_on(settings: MergeSettings, votes: int) -> Any:
    fitted = settings.calibration if settings.calibration in ("votes", "gold") else "none"
    if settings.beliefs is None:
        return "none"
    if fitted == "gold" and settings.gold is None:
        raise InputError("calibration: gold needs gold=PATH; or use calibration=votes or none")
    if fitted == "votes" and votes < settings.min_calibration_votes:
        logger.warning(
            "merge: %d votes are too few to calibrate on (%d are needed): calibration none",
            votes,
            settings.min_calibration_votes,
        )
        return "none"
    return fitted


def given_calibration(settings: MergeSettings) -> Calibration:
    """The calibration to start from: the one given, or none."""
    if settings.calibration in ("votes", "gold", "none"):
        return Calibration()
    numbers = [float(part) for part in settings.calibration.split(",")]
    if settings.beliefs_are == "categorical":
        if len(numbers) > 1:
            raise InputError(
                "calibration: categorical beliefs have one number, a temperature: calibration=T"
            )
        return Calibration(1.0 / numbers[0], 0.0)
    return Calibration(numbers[0], numbers[1] if len(numbers) > 1 else 0.0)
