"""The one check of label lists: the labels of images and their probabilities, as flat arrays."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.errors import InputError

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelLists:
    """The labels of n images, flattened: image i has the entries [offsets[i], offsets[i + 1]).

    image: (n,) id. offsets: (n + 1,). label: (nnz,) class. probability: (nnz,).
    """

    image: I64
    offsets: I64
    label: I32
    probability: F64


def read_label_lists(table: pa.Table, source: str) -> LabelLists:
    """The lists of a table of beliefs or of a posterior, in its order; a null list is an empty one.

    table: as schemas.BELIEFS, every row with an id. source: the setting, and the file where it is
    known, for messages.

    Raises: InputError naming an image whose two lists do not belong together.
    """
    image: I64 = table["id"].to_numpy()
    labels, probabilities = (table[name].combine_chunks() for name in ("labels", "label_probs"))
    lengths = np.asarray(pc.fill_null(pc.list_value_length(labels), 0))
    others = np.asarray(pc.fill_null(pc.list_value_length(probabilities), 0))
    unequal = np.flatnonzero(lengths != others)
    if len(unequal):
        raise InputError(
            f"{source}: image {image[unequal[0]]} has {lengths[unequal[0]]} labels and "
            f"{others[unequal[0]]} label_probs; give as many of both"
        )
    offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
    label, probability = labels.flatten(), probabilities.flatten()
    if label.null_count or probability.null_count:
        missing = np.asarray(pc.or_(pc.is_null(label), pc.is_null(probability)))
        row = np.searchsorted(offsets, int(np.argmax(missing)), side="right") - 1
        raise InputError(
            f"{source}: image {image[row]} misses a label or a probability within a list; fill "
            "or drop it"
        )
    return LabelLists(image, offsets, label.to_numpy(), probability.to_numpy().astype(np.float64))


def check_unique_images(image: I64, source: str) -> None:
    """See that no id (n,), sorted, occurs twice. Raises: InputError naming one that does."""
    twice = np.flatnonzero(image[1:] == image[:-1])
    if len(twice):
        raise InputError(
            f"{source}: image {image[twice[0]]} has two rows; an id must occur once, drop one"
        )
