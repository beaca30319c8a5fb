"""From settings, as a user writes them, to the model that EM computes."""

import logging

from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.em.model import CalibratedOn, Calibration, Model, WorkerModel
from coyo_labeler.em.segments import I64
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LabelSpace

logger = logging.getLogger(__name__)

#: `support: all` keeps every class of every image; more than this is a mistake.
_LARGEST_FULL_SUPPORT = 2_000


def make_model(
    settings: MergeSettings, space: LabelSpace, worker_model: WorkerModel, workers: int
) -> Model:
    """What EM is to compute; worker_model: `auto` resolved.

    A prior accuracy that gold is to tell is 0.8 until it does. Whether there is enough to calibrate
    on is seen later: `enough_to_calibrate`.

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
        # What new votes of an increment meet is the earlier posterior.
        beliefs_are="posterior" if settings.incremental else settings.beliefs_are,
        worker_model=worker_model,
        prior_strength=settings.prior_strength,
        pooling_strength=None if settings.pooling == "none" else settings.pooling_strength,
        prior_accuracy=0.8 if isinstance(accuracy, str) else accuracy,
        prior_floor=settings.prior_floor,
        hard_counts=settings.counts == "hard",
        estimate_class_prior=settings.class_prior == "estimated",
        support_all=settings.support == "all",
        support_mass=settings.support_mass,
        fit_calibration=_calibrate_on(settings),
        start=settings.start,
    )


def _calibrate_on(settings: MergeSettings) -> CalibratedOn:
    if settings.beliefs is None:
        return "none"
    if settings.calibration == "gold":
        if settings.gold is None:
            raise InputError("calibration: gold needs gold=PATH; or use calibration=votes or none")
        return "gold"
    return "votes" if settings.calibration == "votes" else "none"


def enough_to_calibrate(wanted: CalibratedOn, evidence: I64, least: int) -> CalibratedOn:
    """What calibration is fitted on in the end: none, with a warning, where there is too little.

    evidence: (2,) as of `calibration_evidence`. least: of what is wanted.
    """
    if wanted == "none":
        return wanted
    found, what = (evidence[0], "votes") if wanted == "votes" else (evidence[1], "gold images")
    if found >= least:
        return wanted
    logger.warning(
        "merge: calibration none: %d %s with a belief are too few to fit it on (%d are needed, "
        "min_calibration_votes)",
        found,
        what,
        least,
    )
    return "none"


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
