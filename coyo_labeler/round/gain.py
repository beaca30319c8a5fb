"""What an answer is expected to gain: by how much it raises the probability of the best label."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler import storage
from coyo_labeler.audit.stop import answer_gain
from coyo_labeler.em.segments import F64, I64, offsets_of, segment_max, segment_sum

#: Questions that are read at a time.
_BATCH_ROWS = 65_536
#: By how much probabilities of a distribution that are stored as float32 may sum to more than 1.
_ROUNDING = 1e-3


def verification_gain(probability: F64, accuracy: float) -> F64:
    """The gain of one more yes or no about a class, in the certainty about that class, (images,).

    probability: of the class. The answer is right with probability `accuracy`.
    """
    yes = np.maximum(accuracy * probability, (1 - accuracy) * (1 - probability))
    no = np.maximum((1 - accuracy) * probability, accuracy * (1 - probability))
    return np.asarray(yes + no - np.maximum(probability, 1 - probability))


def mean_gain(questions: str, accuracy: float, classes: int) -> float:
    """The mean gain of the questions in a folder; gold gains nothing and does not count."""
    total, count = 0.0, 0
    for batch in _read(questions):
        gains = _gains(batch.filter(pc.not_equal(batch["purpose"], "gold")), accuracy, classes)
        total, count = total + float(gains.sum()), count + len(gains)
    return total / count if count else 0.0


def _gains(batch: pa.Table, accuracy: float, classes: int) -> F64:
    yes = 1.0 - batch["risk"].to_numpy().astype(np.float64)
    listed = np.flatnonzero(batch["candidate_probs"].is_valid())
    if len(listed) == 0:
        return verification_gain(yes, accuracy)
    lists = batch["candidate_probs"].drop_null().combine_chunks()
    offsets = offsets_of(np.asarray(lists.value_lengths()).astype(np.int64))
    probability = lists.flatten().to_numpy().astype(np.float64)
    yes[listed] = _of_sets(offsets, probability)
    gains = verification_gain(yes, accuracy)
    is_choice = np.asarray(pc.equal(batch["kind"], "choice"))[listed]
    of_choices = answer_gain(offsets, probability, accuracy, classes)
    gains[listed[is_choice]] = of_choices[is_choice]
    return gains


def _of_sets(offsets: I64, probability: F64) -> F64:
    """How probable each set of classes is; of independent probabilities, the greatest in it."""
    total = segment_sum(probability, offsets)
    greatest = segment_max(probability, offsets)
    return np.where(total > 1.0 + _ROUNDING, greatest, np.minimum(total, 1.0))


def _read(questions: str) -> Iterator[pa.Table]:
    for url in storage.files_of(questions):
        with storage.open_parquet("questions", url) as parquet:
            names = ["purpose", "kind", "risk", "candidate_probs"]
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=names):
                yield pa.Table.from_batches([batch])
