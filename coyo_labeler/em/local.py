"""Passes in this process, for data that fits in memory: the kernels of the stage, no Spark."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coyo_labeler.em.cells import CellSpace, describe_cells
from coyo_labeler.em.e_step import add_sums, infer, run_pass
from coyo_labeler.em.loop import State, parameters_of
from coyo_labeler.em.model import Model, Parameters, Sums
from coyo_labeler.em.priors import log_prior, rule_out
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import F64, I64, distinct


class LocalPasses:
    """Runs passes over partitions that lie in this process's memory."""

    def __init__(self, partitions: Sequence[Problems], model: Model) -> None:
        self.partitions, self.model = partitions, model
        self.cells = distinct(np.concatenate([part.cells for part in partitions]))
        self.places = [np.searchsorted(self.cells, part.cells) for part in partitions]
        self.table = describe_cells(CellSpace(model), self.cells)

    def run(self, parameters: Parameters, last: bool = False) -> Sums:
        """The sums of all partitions."""
        parts = [
            run_pass(part, local_parameters(parameters, places), self.model, last)
            for part, places in zip(self.partitions, self.places, strict=True)
        ]
        return add_sums(parts, self.places, len(self.cells))

    def skilled(self, state: State) -> tuple[Parameters, float]:
        """The parameters that a state stands for, and the log prior of its skills."""
        return parameters_of(state, self.table, self.model)

    def parameters(self, state: State) -> Parameters:
        """The parameters that a state stands for."""
        return self.skilled(state)[0]

    def posteriors(self, state: State) -> list[F64]:
        """The posterior of each partition's entries under the parameters of a state."""
        parameters = self.parameters(state)
        return [
            final_posterior(part, local_parameters(parameters, places), self.model)
            for part, places in zip(self.partitions, self.places, strict=True)
        ]


def local_parameters(parameters: Parameters, places: I64) -> Parameters:
    """The parameters of a partition's own cells; places: where they are among all."""
    if parameters.log_theta is None:
        return parameters
    return replace(parameters, log_theta=parameters.log_theta[places])


def final_posterior(problems: Problems, parameters: Parameters, model: Model) -> F64:
    """The posterior of every entry (nnz,) under a partition's own parameters."""
    prior = rule_out(log_prior(problems, parameters, model).log, problems)
    return infer(problems, parameters, prior)[0]
