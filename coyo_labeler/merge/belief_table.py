"""Rows of a table of beliefs as arrays, or what is wrong with them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.em.build import Beliefs
from coyo_labeler.em.segments import F64, I64, offsets_of, segment_sum
from coyo_labeler.errors import InputError

#: The last digit of a float32, relative to it.
_FLOAT32_DIGIT = float(np.finfo(np.float32).eps)


def to_beliefs(table: pa.Table) -> Beliefs:
    """The rows in their order; a list that is null is taken for an empty one.

    table: schemas.BELIEFS, every row with an id; or schemas.POSTERIOR, whose probabilities are
    taken as closely as they can be known.

    Raises: InputError naming an image whose two lists do not belong together.
    """
    image: I64 = table["id"].to_numpy()
    labels, probabilities = (table[name].combine_chunks() for name in ("labels", "label_probs"))
    lengths = np.asarray(pc.fill_null(pc.list_value_length(labels), 0))
    others = np.asarray(pc.fill_null(pc.list_value_length(probabilities), 0))
    unequal = np.flatnonzero(lengths != others)
    if len(unequal):
        raise InputError(
            f"beliefs: image {image[unequal[0]]} has {lengths[unequal[0]]} labels and "
            f"{others[unequal[0]]} label_probs; give as many of both"
        )
    offsets = offsets_of(lengths)
    label, probability = labels.flatten(), probabilities.flatten()
    if label.null_count or probability.null_count:
        missing = np.asarray(pc.or_(pc.is_null(label), pc.is_null(probability)))
        place = np.searchsorted(offsets, int(np.argmax(missing)), side="right") - 1
        raise InputError(
            f"beliefs: image {image[place]} misses a label or a probability within a list; fill "
            "or drop it"
        )
    values = probability.to_numpy().astype(np.float64)
    if "risk" in table.column_names:
        values = _sharpen(values, offsets, table["risk"].to_numpy().astype(np.float64))
    return Beliefs(image, offsets, label.to_numpy(), values)


def _sharpen(probability: F64, offsets: I64, risk: F64) -> F64:
    """A posterior (nnz,) in float64, of what was written of it as float32.

    Near 1 float32 tells steps of 6e-8, so there the first probability of an image, its greatest, is
    taken from its risk (n,), 1 − that probability, which has seven digits however small it is.
    What is left over for classes that are not listed is less sure than that: it is taken for no
    less than the last of these digits, for else rounding would rule those classes out.
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


def refuse_twice(image: I64) -> None:
    """See that no id (n,), sorted, occurs twice. Raises: InputError naming one that does."""
    twice = np.flatnonzero(image[1:] == image[:-1])
    if len(twice):
        raise InputError(
            f"beliefs: image {image[twice[0]]} has two rows; an id must occur once, drop one"
        )
