"""The work of one process: a policy and a seed to a curve."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler.config.simulate import PAPER_POLICIES, SimulateSettings
from coyo_labeler.learn.out_of_fold import Recipe
from coyo_labeler.simulate.crowd import Crowd, structured_crowd, uniform_crowd
from coyo_labeler.simulate.curve import Budget, simulate
from coyo_labeler.simulate.inference import SkillPrior
from coyo_labeler.simulate.methods import Method, OwnMethod, PaperMethod
from coyo_labeler.simulate.world import Assignment, World

#: The seed paper holds each worker by a prior of some 200 votes, and does not pool.
_PAPER_STRENGTH, _PAPER_POOLING = 200.0, 1e6


@dataclass(frozen=True)
class Simulator:
    """What the simulations of a run have in common. crowd: None where it is drawn by seed."""

    settings: SimulateSettings
    classes: int
    crowd: Crowd | None

    def __call__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        policy: str,
        seed: int,
        progress: Callable[[int], None],
    ) -> tuple[pa.Table, str]:
        """See `processes.Work`. arrays: those of `Images.arrays`."""
        settings = self.settings
        world = World(
            arrays["image"],
            arrays["truth"],
            arrays["known"],
            self.classes,
            self.crowd or self._draw_crowd(seed),
            seed,
        )
        return simulate(
            policy,
            world,
            arrays["features"],
            self._method(policy, arrays.get("teacher")),
            Assignment(settings.assign == "greedy", settings.explore, settings.worker_quota),
            Budget(
                votes=round(settings.votes_per_image * len(world.unknown)),
                rounds=settings.rounds,
                audit=settings.audit,
                gold=settings.gold_share,
                most=settings.max_votes,
                finished_risk=settings.finished_risk,
                seconds=settings.seconds_per_vote,
                price=settings.price_per_vote,
            ),
            progress,
        )

    def _draw_crowd(self, seed: int) -> Crowd:
        settings = self.settings
        accuracy = float(settings.crowd.partition(":")[2])
        if settings.crowd_kind == "uniform":
            return uniform_crowd(settings.workers, self.classes, accuracy)
        return structured_crowd(settings.workers, self.classes, accuracy, seed)

    def _method(self, policy: str, teacher: NDArray[Any] | None) -> Method:
        settings = self.settings
        recipe = Recipe(
            ridge=settings.ridge, folds=settings.folds, per_class=settings.images_per_class
        )
        if policy in PAPER_POLICIES:
            prior = SkillPrior(_PAPER_STRENGTH, _PAPER_POOLING, settings.worker_accuracy, True)
            return PaperMethod(policy, recipe, prior, settings.finished_risk)
        prior = SkillPrior(
            settings.worker_strength, settings.pool_strength, settings.worker_accuracy
        )
        return OwnMethod(recipe, prior, settings.passes, teacher)
