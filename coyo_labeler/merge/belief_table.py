"""Rows of a table of beliefs, or of an earlier posterior, as the arrays of EM."""

import numpy as np
import pyarrow as pa

from coyo_labeler.em.inputs import Beliefs
from coyo_labeler.em.segments import F64, I64, segment_sum
from coyo_labeler.formats.label_lists import read_label_lists

#: The last digit of a float32, relative to it.
_FLOAT32_DIGIT = float(np.finfo(np.float32).eps)


def to_beliefs(table: pa.Table, source: str = "beliefs") -> Beliefs:
    """The rows in their order; a null list counts as an empty one.

    table: schemas.BELIEFS, every row with an id; or schemas.POSTERIOR, whose probabilities are
    restored to as many digits as the row has. source: see `read_label_lists`.

    Raises: InputError naming an image whose two lists do not belong together.
    """
    lists = read_label_lists(table, source)
    probability = lists.probability
    if "risk" in table.column_names:
        risk = table["risk"].to_numpy().astype(np.float64)
        probability = _sharpen(probability, lists.offsets, risk)
    return Beliefs(lists.image, lists.offsets, lists.label, probability)


def _sharpen(probability: F64, offsets: I64, risk: F64) -> F64:
    """A posterior (nnz,) in float64, from the float32 numbers that were written.

    Near 1, float32 has steps of 6e-8. So the first probability of an image, which is its greatest,
    is computed from the risk (n,), 1 − that probability, which has seven digits however small it
    is. The probability that is left to unlisted classes is less certain. It is at least one unit of
    the last of these digits: a rounded 0 would rule those classes out.
    """
    filled = np.diff(offsets) > 0
    first, risk = offsets[:-1][filled], risk[filled]
    sharp = probability.copy()
    sharp[first] = 0.0
    others = segment_sum(sharp, offsets[np.append(filled, True)])
    risk = np.where(risk < 0.5, risk, 1.0 - probability[first])
    missing = np.maximum(_FLOAT32_DIGIT * risk - (risk - others), 0.0)
    sharp[first] = 1.0 - risk - missing
    return sharp
