"""Settings, as a user writes them, become a model (what EM computes) and a plan (what is done).

That happens once, at the top of the stage: no other module of merge takes `MergeSettings`.
"""

import logging
import sys
from dataclasses import dataclass, replace
from typing import Literal

from coyo_labeler import storage
from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.em.loop import StoppingRule
from coyo_labeler.em.model import CalibratedOn, Calibration, Model, WorkerModel
from coyo_labeler.em.model_choice import Wanted, named_model
from coyo_labeler.em.priors import LEAST_POSTERIOR
from coyo_labeler.em.segments import I64
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import LabelSpace, load_label_space
from coyo_labeler.formats.label_tree import read_label_tree
from coyo_labeler.formats.pairs import plan_gold
from coyo_labeler.formats.parquet_splits import Split, plan_splits
from coyo_labeler.merge.earlier import Earlier
from coyo_labeler.votes.questions import Duplicates

logger = logging.getLogger(__name__)

#: Rows that one task reads.
ROWS_PER_SPLIT = 500_000
#: `support: all` keeps every class of every image; more than this is a mistake.
_LARGEST_FULL_SUPPORT = 2_000


@dataclass(frozen=True)
class Plan:
    """All that the stage needs to know of its settings, but for the model.

    votes: their URL. tree: the classes whose tree counts, or None. beliefs, gold: the splits to
    read. earlier: the merge to begin from.
    incremental: whether the votes are added to those of the earlier merge. worker_model: as wanted;
    `auto` is settled by the votes. wanted: what they are to settle.
    class_prior_as_earlier: whether an increment has the class prior of the earlier merge.
    partitions: of the voted images; None: by cores and votes.
    accuracy_on_gold: whether the prior accuracy of workers is estimated from gold. calibration: the
    one to begin from. broadcast_bytes: skills larger than this are sharded.
    """

    votes: str
    tree: LabelSpace | None
    beliefs: tuple[Split, ...]
    gold: tuple[Split, ...]
    earlier: Earlier | None
    incremental: bool
    worker_model: WorkerModel | Literal["auto"]
    wanted: Wanted
    class_prior_as_earlier: bool
    partitions: int | None
    duplicate_votes: Duplicates
    reject_bad_votes: bool
    accuracy_on_gold: bool
    min_calibration_votes: int
    calibration: Calibration
    broadcast_bytes: float
    stopping_rule: StoppingRule

    @property
    def add_to(self) -> Earlier | None:
        """The merge that the votes are added to, if they are."""
        return self.earlier if self.incremental else None


def require_tree(settings: MergeSettings) -> None:
    """Raises: InputError where the tree of classes is to be used, and they have none."""
    if settings.tree:
        read_label_tree(load_label_space(settings.label_space))


def make_plan(settings: MergeSettings, space: LabelSpace, earlier: Earlier | None) -> Plan:
    """The plan; earlier: the merge at `settings.warm_start`.

    Raises: InputError where an input cannot be read, or votes cannot be added to the earlier merge.
    """
    if earlier is not None and settings.incremental:
        earlier.check_increment(space)
        beliefs = _plan_posterior(earlier)
    else:
        beliefs = _plan_beliefs(settings.beliefs)
    worker_model = settings.worker_model if earlier is None else earlier.worker_model
    return Plan(
        votes=settings.votes,
        tree=space if settings.tree else None,
        beliefs=beliefs,
        gold=_plan_gold(settings.gold),
        earlier=earlier,
        incremental=settings.incremental,
        worker_model=worker_model,
        wanted=wanted_choices(settings, worker_model),
        class_prior_as_earlier=settings.class_prior == "auto",
        partitions=settings.partitions,
        duplicate_votes=settings.duplicate_votes,
        reject_bad_votes=settings.on_bad_vote == "reject",
        accuracy_on_gold=settings.prior_accuracy == "gold",
        min_calibration_votes=settings.min_calibration_votes,
        calibration=Calibration() if settings.incremental else given_calibration(settings),
        broadcast_bytes=settings.max_broadcast_mb * 1e6,
        stopping_rule=StoppingRule(settings.max_iterations, settings.tolerance, settings.criterion),
    )


def wanted_choices(settings: MergeSettings, worker_model: WorkerModel | Literal["auto"]) -> Wanted:
    """What the votes are to settle. worker_model: as wanted, or as of an earlier merge."""
    return Wanted(
        worker_model=worker_model == "auto",
        class_prior=settings.class_prior == "auto" and not settings.incremental,
        calibration=_calibrate_on(settings) == "votes" and not settings.incremental,
    )


def _plan_beliefs(url: str | None) -> tuple[Split, ...]:
    """The beliefs; the posterior of an earlier merge is taken too, in the folder that it wrote.

    Its files of voted images have the names of those that this merge will write: then all splits
    are renamed.
    """
    if url is None:
        return ()
    located = storage.locate(url, "posterior")
    splits = plan_splits(
        "beliefs", located, schemas.BELIEFS, ROWS_PER_SPLIT, optional=schemas.CARRIED
    )
    if any(split.name.startswith("voted-") for split in splits):
        splits = [replace(split, name=f"beliefs-{split.name}") for split in splits]
    return tuple(splits)


def _plan_gold(url: str | None) -> tuple[Split, ...]:
    return () if url is None else tuple(plan_gold("gold", url, ROWS_PER_SPLIT))


def _plan_posterior(earlier: Earlier) -> tuple[Split, ...]:
    """Whole files, for those without new votes are copied; named anew, for new rows are written
    under the earlier names."""
    splits = plan_splits("warm_start", earlier.posterior_url, schemas.POSTERIOR, sys.maxsize)
    return tuple(replace(split, name=f"kept-{n:05d}") for n, split in enumerate(splits))


def make_model(settings: MergeSettings, space: LabelSpace) -> Model:
    """What EM is to compute, as far as the settings tell.

    What the votes tell is put in when they have been read: how many workers there are, the worker
    model where it is `auto`, an accuracy estimated from gold (0.8 until then), and whether there is
    enough to calibrate on (`enough_to_calibrate`).

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
    model = Model(
        classes=space.size,
        workers=0,
        truth=settings.truth,
        beliefs_are=settings.beliefs_are,
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
    if settings.worker_model != "auto":
        model = named_model(model, settings.worker_model)
    if model.shared_mistakes > 0 and model.truth == "multi":
        raise InputError(
            "worker_model: shared_mistakes needs truth=single; or use worker_model=one_coin"
        )
    if model.shared_skill and model.pooling_strength is None:
        raise InputError("worker_model: pooled needs pooling=global; or use worker_model=one_coin")
    if settings.incremental:
        # The beliefs are the earlier posterior. What it left to the classes that it does not list
        # is known: nothing is added to that, and nothing that it lists is lumped.
        return replace(
            model,
            beliefs_are="posterior",
            fit_calibration="none",
            prior_floor=LEAST_POSTERIOR,
            support_mass=1.0,
        )
    return model


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

    evidence: (2,) as of `calibration_evidence`. least: how much of the wanted kind is needed.
    """
    if wanted == "none":
        return wanted
    count, kind = (evidence[0], "votes") if wanted == "votes" else (evidence[1], "gold images")
    if count >= least:
        return wanted
    logger.warning(
        "merge: calibration none: %d %s with a belief are too few to fit it on (%d are needed, "
        "min_calibration_votes)",
        count,
        kind,
        least,
    )
    return "none"


def given_calibration(settings: MergeSettings) -> Calibration:
    """The calibration to begin from: the one given, or none.

    Raises: InputError where it does not fit the kind of beliefs.
    """
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
