"""The parameters of `DawidSkene` as settings of the stage: read and checked by the same code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from coyo_labeler.stages import STAGES, read_stage_settings

if TYPE_CHECKING:
    from coyo_labeler.config.merge import MergeSettings
    from coyo_labeler.dawid_skene.estimator import DawidSkene

#: Parameters that are called as the stage's keys are.
_KEYS = (
    "worker_model",
    "truth",
    "beliefs_are",
    "pooling",
    "counts",
    "prior_strength",
    "pooling_strength",
    "prior_accuracy",
    "prior_floor",
    "class_prior",
    "support",
    "support_mass",
    "duplicate_votes",
    "on_bad_vote",
    "min_calibration_votes",
    "start",
)


def stage_settings(model: DawidSkene, **more: Any) -> MergeSettings:
    """What the stage would be told; more: further keys of it, for one votes and output.

    Raises: InputError naming the parameter at fault, by the stage's key.
    """
    given = {key: getattr(model, key) for key in _KEYS}
    fitted = model.calibration
    numbers = fitted if isinstance(fitted, tuple | list) else (fitted,)
    given |= {"calibration": ",".join(map(str, numbers))}
    given |= {"max_iterations": model.n_iter, "tolerance": model.tol}
    words = [f"{key}={value}" for key, value in (given | more).items()]
    return cast("MergeSettings", read_stage_settings(STAGES["merge"], words))
