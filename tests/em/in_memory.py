"""EM over partitions in this process's memory, from votes given as rows."""

from dataclasses import astuple

import numpy as np

from coyo_labeler.em.build import build_problems
from coyo_labeler.em.e_step import posterior_of
from coyo_labeler.em.inputs import Beliefs, Gold, SetVotes, Votes
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.partitions import InMemory, PartitionedEStep
from coyo_labeler.votes.questions import order_votes

NO_BELIEFS = Beliefs(
    *(np.zeros(0, np.int64), np.zeros(1, np.int64)), np.zeros(0, np.int32), np.zeros(0)
)
NO_GOLD = Gold(np.zeros(0, np.int64), np.zeros(0, np.int32))


class InMemoryEStep(PartitionedEStep):
    """The E-step over partitions in memory, and what tests ask of it besides."""

    def __init__(self, partitions, model):
        super().__init__(InMemory(partitions), model)
        self.partitions = partitions

    def posteriors(self, state):
        """The posterior of each partition's entries under the parameters of a state."""
        return self.map(self._posterior_of, state)

    def _posterior_of(self, _, problems, parameters):
        return posterior_of(problems, parameters, self.model)


def never_falls(history):
    """Whether EM's objective never falls, but for rounding. history: entries of iterations."""
    objective = np.array([entry["objective"] for entry in history])
    return (np.diff(objective) >= -1e-9 * np.abs(objective[:-1])).all()


def votes_of(rows):
    """Votes from (image, worker, label[, response code]) rows."""
    table = np.array([(*row, 0)[:4] for row in rows], dtype=np.int64).reshape(-1, 4)
    image, worker, label, response = table.T
    columns = image, worker.astype(np.int32), label.astype(np.int32), response.astype(np.int8)
    nothing = np.zeros(len(image), np.int64)
    order = order_votes(*columns, nothing, nothing.astype(np.int32), np.arange(len(image)))
    return Votes(*(column[order] for column in columns))


def set_votes_of(rows):
    """Answers about sets from (image, worker, classes, response code) rows, sorted by them."""
    rows = sorted((image, worker, sorted(classes), code) for image, worker, classes, code in rows)
    lengths = [len(classes) for _, _, classes, _ in rows]
    return SetVotes(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int32),
        np.array([row[3] for row in rows], np.int8),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([c for row in rows for c in row[2]], np.int32),
    )


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


def build(votes, model, beliefs=NO_BELIEFS, gold=NO_GOLD, partitions=1, sets=(), hierarchy=None):
    """Problems of votes (a `Votes`), partitioned by image id; sets: rows of `set_votes_of`."""
    parts = []
    for number in range(partitions):
        own = votes.image % partitions == number
        chosen = Votes(*(each[own] for each in astuple(votes)))
        rows = np.flatnonzero(beliefs.image % partitions == number)
        lengths = np.diff(beliefs.offsets)[rows]
        entries = [np.arange(beliefs.offsets[k], beliefs.offsets[k + 1]) for k in rows]
        inside = np.concatenate([*entries, np.zeros(0, np.int64)]).astype(np.int64)
        some = Beliefs(
            beliefs.image[rows],
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            beliefs.label[inside],
            beliefs.probability[inside],
        )
        true = gold.image % partitions == number
        known = Gold(gold.image[true], gold.label[true])
        asked = set_votes_of(row for row in sets if row[0] % partitions == number)
        parts.append(build_problems(chosen, some, known, model, asked, None, hierarchy))
    return InMemoryEStep(parts, model)


def run_em(passes, iterations=100, tolerance=0.0, calibration=None, criterion="objective"):
    """EM to the end; returns the state and {(image, label): posterior}, −1 the lumped state."""
    state = State() if calibration is None else State(calibration=calibration)
    control = StoppingRule(iterations, tolerance, criterion)
    state = fit(passes, passes.model, control, state, lambda _: None)
    return state, posterior_by_label(passes, state)


def posterior_by_label(passes, state):
    """{(image, label): posterior}, −1 the lumped state."""
    by_label = {}
    for part, posterior in zip(passes.partitions, passes.posteriors(state), strict=True):
        problem = np.repeat(np.arange(len(part)), np.diff(part.offsets))
        for i, label, p in zip(part.image[problem], part.label, posterior, strict=True):
            by_label[int(i), int(label)] = float(p)
    return by_label
