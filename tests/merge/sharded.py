"""The sharded E-step in memory: shards and partitions exchange what they exchange in the stage."""

from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np

from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.e_step import e_step, posterior_of
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.model import Parameters, SkillCheckpoint
from coyo_labeler.em.segments import distinct
from coyo_labeler.merge.cell_shards import (
    add_class_counts,
    class_counts,
    gather_cells,
    plan_shards,
    sample_cells,
    shard_skill,
    shared_classes,
)


class ShardedInMemory:
    """`PartitionedEStep`, but the skills are computed shard by shard."""

    def __init__(self, partitions, model, shards):
        self.partitions, self.model, self.space = partitions, model, CellSpace(model)
        cells = [part.cells for part in partitions]
        samples = [sample_cells(own) for own in cells]
        self.shards = plan_shards(samples, list(map(len, cells)), self.space, shards)
        self.shared = shared_classes(self.shards, self.space)
        self.cuts = [self.shards.cut(own) for own in cells]
        self.shard_cells = [
            gather_cells(
                [own[cut[s] : cut[s + 1]] for own, cut in zip(cells, self.cuts, strict=True)],
                self.space,
            )
            for s in range(len(self.shards))
        ]
        self.skills = {}

    def run(self, parameters, reliability=False):
        parts = [
            e_step(part, self.own(parameters, number), self.model, reliability)
            for number, part in enumerate(self.partitions)
        ]
        version = 1 if parameters.checkpoint is None else parameters.checkpoint.version + 1
        log_prior = ExactSum.zeros()
        for shard, shard_cells in enumerate(self.shard_cells):
            counts = np.zeros(len(shard_cells.cells))
            for number, sums in enumerate(parts):
                cut = self.cuts[number]
                counts[shard_cells.index_of(number)] += sums.counts[cut[shard] : cut[shard + 1]]
            pieces = [
                class_counts(part.cells, sums.counts, int(truth), self.space)
                for part, sums in zip(self.partitions, parts, strict=True)
                for truth in self.shared[shard]
            ]
            shared = add_class_counts(pieces, self.model.classes)
            skill = shard_skill(shard_cells.table(self.space), counts, shared, self.model)
            self.skills[version, shard] = skill.log_theta
            log_prior = log_prior + skill.log_prior
        sums = reduce(add, [sums.without_counts() for sums in parts])
        return replace(sums, checkpoint=SkillCheckpoint(version, float(log_prior.total())))

    def own(self, parameters, number):
        if parameters.checkpoint is None:
            return parameters
        pieces = [
            self.skills[parameters.checkpoint.version, shard][shard_cells.index_of(number)]
            for shard, shard_cells in enumerate(self.shard_cells)
        ]
        return replace(parameters, log_theta=np.concatenate(pieces))

    def parameters_of(self, state):
        parameters = Parameters(
            None, state.calibration, state.log_class_prior, state.true_share, state.checkpoint
        )
        return parameters, 0.0 if state.checkpoint is None else state.checkpoint.log_prior

    def posteriors(self, state):
        parameters = self.parameters_of(state)[0]
        return [
            posterior_of(part, self.own(parameters, number), self.model)
            for number, part in enumerate(self.partitions)
        ]

    @property
    def cells(self):
        return distinct(np.sort(np.concatenate([each.cells for each in self.shard_cells])))
