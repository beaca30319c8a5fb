"""The one check of label lists: the labels of images and their probabilities, as flat arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import cast_column

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelLists:
    """The labels of n images, flattened: image i has the entries [offsets[i], offsets[i + 1]).

    image: (n,) id, whole numbers where they come from a file. offsets: (n + 1,).
    label: (nnz,) class. probability: (nnz,).
    """

    image: npt.NDArray[Any]
    offsets: I64
    label: I32
    probability: F64

    @property
    def lengths(self) -> I64:
        """(n,) how many labels each image has."""
        return np.diff(self.offsets)


def read_label_lists(
    rows: pa.Table | pa.RecordBatch,
    source: str,
    labels: str = "labels",
    probabilities: str = "label_probs",
) -> LabelLists:
    """The lists of beliefs or of a posterior, in the order of the rows; a null list is empty.

    rows: the columns `id` and the two that are named, lists of any kind, of types that can be cast
    to those of schemas.BELIEFS. source: the setting, and the file where it is known, for messages.

    Raises: InputError naming a row without an id, a value that cannot be cast, or an image whose
    two lists do not belong together.
    """
    image = read_ids(rows["id"], source)
    label_lists = _cast(rows[labels], "labels", f"{source}: column '{labels}'")
    probability_lists = _cast(rows[probabilities], "label_probs", f"{source}: '{probabilities}'")
    lengths, others = _lengths(label_lists), _lengths(probability_lists)
    unequal = np.flatnonzero(lengths != others)
    if len(unequal):
        row = unequal[0]
        raise InputError(
            f"{source}: id {image[row]} has {lengths[row]} labels but {others[row]} probabilities; "
            "give as many of both"
        )
    offsets = np.append(0, np.cumsum(lengths))
    label, probability = label_lists.flatten(), probability_lists.flatten()
    if label.null_count or probability.null_count:
        missing = np.asarray(pc.or_(label.is_null(), probability.is_null()))
        raise InputError(
            f"{source}: id {image[_first_row(offsets, missing)]} has a list with a null label or "
            "probability; fill or drop it"
        )
    values = probability.to_numpy().astype(np.float64)
    return LabelLists(image, offsets, label.to_numpy(), values)


def read_ids(column: pa.Array | pa.ChunkedArray, source: str) -> I64:
    """A column of ids, (n,). Raises: InputError where one is missing or no whole number."""
    if column.null_count:
        raise InputError(f"{source} has a row without an id; drop it")
    ids = cast_column(column, pa.int64(), f"{source}: column 'id'")
    return np.asarray(ids.to_numpy(zero_copy_only=False))


def _cast(column: pa.Array | pa.ChunkedArray, name: str, where: str) -> pa.ListArray:
    lists = cast_column(column, schemas.BELIEFS.field(name).type, where)
    if isinstance(lists, pa.ChunkedArray):
        return lists.combine_chunks()
    return lists


def _lengths(column: pa.ListArray) -> I64:
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False)).astype(np.int64)


def check_label_lists(
    lists: LabelLists,
    source: str,
    *,
    classes: int | None = None,
    distinct: bool = False,
    falling: bool = False,
) -> None:
    """See that probabilities are such, and further what a reader of the lists relies on.

    source: see `read_label_lists`. classes: size of the label space, where labels must lie in it.
    distinct: no list may name a class twice. falling: lists must be sorted by falling probability.

    Raises: InputError naming the first image whose list is not as it must be.
    """
    if classes is not None:
        outside = (lists.label < 0) | (lists.label >= classes)
        if outside.any():
            raise InputError(
                f"{source}: id {_first_image(lists, outside)} has the label "
                f"{lists.label[outside][0]}, which is outside label_space (0..{classes - 1}); set "
                "label_space to the one that these labels index"
            )
    improbable = ~((lists.probability >= 0) & (lists.probability <= 1))  # NaN is in no range
    if improbable.any():
        raise InputError(
            f"{source}: id {_first_image(lists, improbable)} has the probability "
            f"{lists.probability[improbable][0]:g}, which is not between 0 and 1; label_probs must "
            "be probabilities"
        )
    if distinct:
        repeated = _repeated(lists)
        if repeated.any():
            raise InputError(f"{source}: id {lists.image[repeated][0]} has a class twice; drop one")
    if falling:
        rising = _rising(lists)
        if rising.any():
            raise InputError(
                f"{source}: id {_first_image(lists, rising)} has labels that are not sorted by "
                "falling probability; sort them first"
            )


def check_unique_images(image: I64, source: str) -> None:
    """See that no id (n,), sorted, occurs twice. Raises: InputError naming one that does."""
    twice = np.flatnonzero(image[1:] == image[:-1])
    if len(twice):
        raise InputError(
            f"{source}: id {image[twice[0]]} has two rows; an id must occur once, drop one"
        )


def _repeated(lists: LabelLists) -> Mask:
    """(n,) which images name a class twice."""
    lengths = lists.lengths
    repeated = np.zeros(len(lengths), dtype=bool)
    # Length by length: lists of one length are sorted all at once, and most have the same.
    for length in np.unique(lengths[lengths > 1]):
        images = np.flatnonzero(lengths == length)
        if len(images) == len(lengths):
            rows = lists.label.reshape(-1, length)
        else:
            rows = lists.label[lists.offsets[images][:, None] + np.arange(length)]
        rows = np.sort(rows, axis=1)
        repeated[images] = (rows[:, 1:] == rows[:, :-1]).any(axis=1)
    return repeated


def _rising(lists: LabelLists) -> Mask:
    """(nnz,) which entries are more probable than the one before them in their list."""
    rising = np.append(False, np.diff(lists.probability) > 0)[: len(lists.probability)]
    first = lists.offsets[:-1]
    rising[first[first < len(rising)]] = False
    return rising


def _first_image(lists: LabelLists, entries: Mask) -> Any:
    """The id of the image that the first of these entries belongs to."""
    return lists.image[_first_row(lists.offsets, entries)]


def _first_row(offsets: I64, entries: Mask) -> int:
    return int(np.searchsorted(offsets, int(np.argmax(entries)), side="right")) - 1
