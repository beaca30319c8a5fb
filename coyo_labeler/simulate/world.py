"""The images, the crowd and the votes so far of one simulation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.learn.softmax import F32, F64
from coyo_labeler.simulate.choose import assign_at_random, assign_greedily, most_wanted
from coyo_labeler.simulate.crowd import Crowd, uniform

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

#: Pairs of an image and a worker that are looked at together.
_PAIRS = 20_000_000

#: Streams of random numbers.
_AUDIT, _WORKER, _SCORE, _EXPLORE, _GOLD = 1_000_003, 1_000_033, 1_000_037, 1_000_039, 1_000_081


@dataclass(frozen=True)
class Assignment:
    """Who is asked. greedy: by expected accuracy, but for a share `explore`. quota: per round."""

    greedy: bool = False
    explore: float = 0.1
    quota: int | None = None


class World:
    """Images with a hidden truth, workers, and what was asked.

    Of all images (n): image ids, truth, known (at the start), votes so far. Of all votes (v):
    row (index of the image), worker, voted, audited (whether chance alone chose the image).
    """

    def __init__(self, image: I64, truth: I64, known: Bool, classes: int, crowd: Crowd, seed: int):
        self.image, self.truth, self.known, self.classes = image, truth, known, classes
        self.crowd, self.seed = crowd, seed
        self.unknown: I64 = np.flatnonzero(~known)
        self.known_rows: I64 = np.flatnonzero(known)
        self.votes = np.zeros(len(image), np.int64)
        self.row = np.zeros(0, np.int64)
        self.worker = np.zeros(0, np.int64)
        self.voted = np.zeros(0, np.int64)
        self.audited = np.zeros(0, dtype=bool)
        self._asked_by: I32 = np.full((len(image), 1), -1, np.int32)

    def __len__(self) -> int:
        return len(self.image)

    def draw(self, rows: I64, round_: int, stream: int) -> F64:
        """A number in [0, 1) for each image, that depends on nothing but id, seed and round."""
        return uniform(self.image[rows], self.seed, stream + 7919 * round_)

    def scores_draw(self, rows: I64, round_: int) -> F64:
        """The draws of policies."""
        return self.draw(rows, round_, _SCORE)

    def choose_audit(self, number: int, round_: int) -> I64:
        """Images drawn by chance alone among all that are not known, whatever their votes."""
        open_ = self.unknown[self.votes[self.unknown] < self.crowd.workers]
        draw = self.draw(open_, round_, _AUDIT)
        return open_[most_wanted(draw, draw, number)]

    def choose_gold(self, number: int, round_: int) -> I64:
        """Images that are known, to see how right the workers are; the least asked first."""
        open_ = self.known_rows[self.votes[self.known_rows] < self.crowd.workers]
        draw = self.draw(open_, round_, _GOLD)
        return open_[most_wanted(draw - self.votes[open_], draw, number)]

    def ask(
        self,
        rows: I64,
        audited: Bool,
        assignment: Assignment,
        round_: int,
        posterior: F32,
        accuracy: F64,
    ) -> int:
        """Ask about images, each once; returns how many answered.

        rows: (n,) indices of images, the most wanted first. posterior: of all images. accuracy:
        (workers, C) expected, for greedy assignment.
        """
        worker = self._assign(rows, assignment, round_, posterior, accuracy)
        answered = worker >= 0
        rows, worker, audited = rows[answered], worker[answered], audited[answered]
        voted = self.crowd.answer(self.image[rows], worker, self.truth[rows], self.seed)
        self._record(rows, worker)
        self.row = np.concatenate([self.row, rows])
        self.worker = np.concatenate([self.worker, worker])
        self.voted = np.concatenate([self.voted, voted])
        self.audited = np.concatenate([self.audited, audited])
        return len(rows)

    def _assign(
        self, rows: I64, assignment: Assignment, round_: int, posterior: F32, accuracy: F64
    ) -> I64:
        load = np.zeros(self.crowd.workers, np.int64)
        block = max(1, _PAIRS // self.crowd.workers)
        chosen = np.full(len(rows), -1, np.int64)
        explored = self.draw(rows, round_, _EXPLORE) < assignment.explore
        quota = assignment.quota
        if assignment.greedy and quota is None:  # nobody does all the work
            quota = max(1, int(np.ceil(2 * len(rows) / self.crowd.workers)))
        for first in range(0, len(rows), block):
            own = rows[first : first + block]
            asked = self._asked(own)
            draws = self.draw(own, round_, _WORKER)
            if not assignment.greedy:
                chosen[first : first + block] = assign_at_random(draws, asked, load, quota)
                continue
            random = explored[first : first + block]
            part = np.full(len(own), -1, np.int64)
            part[random] = assign_at_random(draws[random], asked[random], load, quota)
            assert quota is not None
            part[~random] = assign_greedily(
                posterior[own[~random]], accuracy, asked[~random], load, quota
            )
            chosen[first : first + block] = part
        return chosen

    def _asked(self, rows: I64) -> Bool:
        """(rows, workers) who has answered about the image."""
        asked = np.zeros((len(rows), self.crowd.workers), dtype=bool)
        by = self._asked_by[rows]
        index, column = np.nonzero(by >= 0)
        asked[index, by[index, column]] = True
        return asked

    def _record(self, rows: I64, worker: I64) -> None:
        """Remember who answered; no image is twice in `rows`."""
        if len(rows) and int(self.votes[rows].max()) >= self._asked_by.shape[1]:
            more = np.full((len(self), self._asked_by.shape[1]), -1, np.int32)
            self._asked_by = np.concatenate([self._asked_by, more], axis=1)
        self._asked_by[rows, self.votes[rows]] = worker
        self.votes[rows] += 1
