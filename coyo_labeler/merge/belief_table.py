"""Rows of a table of beliefs as arrays, or what is wrong with them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.errors import InputError
from coyo_labeler.merge.arrays import I64, offsets_of
from coyo_labeler.merge.support import Beliefs


def to_beliefs(table: pa.Table) -> Beliefs:
    """The rows in their order; a list that is null is taken for an empty one.

    table: schemas.BELIEFS, every row with an id.

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
    return Beliefs(image, offsets, label.to_numpy(), probability.to_numpy().astype(np.float64))


def refuse_twice(image: I64) -> None:
    """See that no id (n,), sorted, occurs twice. Raises: InputError naming one that does."""
    twice = np.flatnonzero(image[1:] == image[:-1])
    if len(twice):
        raise InputError(
            f"beliefs: image {image[twice[0]]} has two rows; an id must occur once, drop one"
        )
