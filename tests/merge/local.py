"""EM without Spark: the same kernels over partitions in this process."""

import numpy as np

from coyo_labeler.merge.cells import CellSpace, describe_cells
from coyo_labeler.merge.fit import Control, State, fit, parameters_of
from coyo_labeler.merge.iteration import add_sums, infer, run_pass
from coyo_labeler.merge.model import Parameters
from coyo_labeler.merge.priors import log_prior, rule_out
from coyo_labeler.merge.support import Beliefs, Gold, Votes, build_problems
from coyo_labeler.votes.questions import order_votes

NO_BELIEFS = Beliefs(
    *(np.zeros(0, np.int64), np.zeros(1, np.int64)), np.zeros(0, np.int32), np.zeros(0)
)
NO_GOLD = Gold(np.zeros(0, np.int64), np.zeros(0, np.int32))


def votes_of(rows):
    """Votes from (image, worker, label[, response code]) rows."""
    table = np.array([(*row, 0)[:4] for row in rows], dtype=np.int64).reshape(-1, 4)
    image, worker, label, response = table.T
    columns = image, worker.astype(np.int32), label.astype(np.int32), response.astype(np.int8)
    nothing = np.zeros(len(image), np.int64)
    order = order_votes(*columns, nothing, nothing.astype(np.int32), np.arange(len(image)))
    return Votes(*(column[order] for column in columns))


def beliefs_of(rows):
    """Beliefs from {image: {class: probability}}."""
    images = sorted(rows)
    lengths = [len(rows[image]) for image in images]
    return Beliefs(
        np.array(images, np.int64),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([c for image in images for c in rows[image]], np.int32),
        np.array([p for image in images for p in rows[image].values()], np.float64),
    )


class LocalPasses:
    def __init__(self, partitions, model):
        self.partitions, self.model = partitions, model
        self.cells = np.unique(np.concatenate([part.cells for part in partitions]))
        self.places = [np.searchsorted(self.cells, part.cells) for part in partitions]
        self.table = describe_cells(CellSpace(model), self.cells)

    def run(self, parameters, last=False):
        parts = [
            run_pass(part, self.local(parameters, places), self.model, last)
            for part, places in zip(self.partitions, self.places, strict=True)
        ]
        return add_sums(parts, self.places, len(self.cells))

    def local(self, parameters, places):
        theta = None if parameters.log_theta is None else parameters.log_theta[places]
        return Parameters(
            theta, parameters.calibration, parameters.log_class_prior, parameters.true_share
        )


def build(votes, model, beliefs=NO_BELIEFS, gold=NO_GOLD, partitions=1):
    """Problems of votes (a `Votes`), dealt out over some partitions by image id."""
    parts = []
    for number in range(partitions):
        mine = votes.image % partitions == number
        chosen = Votes(
            votes.image[mine], votes.worker[mine], votes.label[mine], votes.response[mine]
        )
        kept = np.flatnonzero(beliefs.image % partitions == number)
        lengths = np.diff(beliefs.offsets)[kept]
        rows = [np.arange(beliefs.offsets[k], beliefs.offsets[k + 1]) for k in kept]
        inside = np.concatenate([*rows, np.zeros(0, np.int64)]).astype(np.int64)
        some = Beliefs(
            beliefs.image[kept],
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            beliefs.label[inside],
            beliefs.probability[inside],
        )
        true = gold.image % partitions == number
        parts.append(build_problems(chosen, some, Gold(gold.image[true], gold.label[true]), model))
    return LocalPasses(parts, model)


def run_em(passes, iterations=100, tolerance=0.0, calibration=None, criterion="objective"):
    """EM to the end; returns the state and {(image, label): posterior}, label −1 the lumped state."""
    state = State() if calibration is None else State(calibration=calibration, before=calibration)
    control = Control(iterations, tolerance, criterion)
    state = fit(passes, passes.table, passes.model, control, state, lambda _: None)
    return state, posterior_of(passes, state)


def posterior_of(passes, state):
    parameters, _ = parameters_of(state, passes.table, passes.model)
    found = {}
    for part, places in zip(passes.partitions, passes.places, strict=True):
        local = passes.local(parameters, places)
        prior = rule_out(log_prior(part, local, passes.model).log, part)
        posterior, _ = infer(part, local, prior)
        problem = np.repeat(np.arange(len(part)), np.diff(part.offsets))
        for i, label, p in zip(part.image[problem], part.label, posterior, strict=True):
            found[int(i), int(label)] = float(p)
    return found
