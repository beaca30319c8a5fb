"""Rows of the posterior table: from problems, and from the beliefs of images without votes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler.em.class_bias import shift_of
from coyo_labeler.em.hierarchy import Hierarchy
from coyo_labeler.em.model import Calibration, Model
from coyo_labeler.em.priors import belief_prior, belief_value, calibrated_logit, sigmoid
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import (
    F64,
    I64,
    Bool,
    bin_sum,
    distinct,
    falling_order,
    find,
    offsets_of,
    segment_sum,
)
from coyo_labeler.formats import schemas
from coyo_labeler.merge.implied import imply


def voted_rows(problems: Problems, posterior: F64, carried: pa.Table, model: Model) -> pa.Table:
    """Posterior rows of the images of `problems`, by id; posterior: (nnz,) of their entries.

    carried: id and `schemas.CARRIED` of those images that have a belief, sorted by id; in an
    increment also n_votes of the earlier merge, to which new votes were added. A class that
    `support_mass` lumped is not listed.
    """
    listed = problems.label >= 0
    problem = np.repeat(np.arange(len(problems)), np.diff(problems.offsets))
    images = distinct(problems.image)
    row = np.searchsorted(images, problems.image)
    image = row[problem][listed]
    probability, label = posterior[listed], problems.label[listed]
    if model.truth == "single":
        terms = _entropy_terms(posterior, problems.multiplicity())
    else:
        terms = _entropy_terms(posterior, np.ones(len(posterior)))
    entropy = bin_sum(row[problem], terms, len(images))
    n_votes = bin_sum(row, problems.n_votes + problems.n_set_votes, len(images))
    order = _by_probability(image, probability, label)
    offsets = offsets_of(np.bincount(image, minlength=len(images)))
    index, believed = find(carried["id"].to_numpy(), images)
    belief_row = pa.array(index, mask=~believed)
    columns = {name: carried[name].take(belief_row) for name in schemas.CARRIED}
    if "n_votes" in carried.column_names:
        n_votes += pc.fill_null(carried["n_votes"].take(belief_row), 0).to_numpy()
    return _rows(
        images, columns, offsets, label[order], probability[order], n_votes, entropy, model
    )


def believed_rows(
    beliefs: pa.Table,
    calibration: Calibration,
    model: Model,
    hierarchy: Hierarchy | None = None,
    kept: Bool | None = None,
) -> pa.Table:
    """Posterior rows of images without votes: their calibrated beliefs.

    beliefs: schemas.BELIEFS; or schemas.POSTERIOR of an earlier merge, whose rows stay as they are.
    hierarchy: which classes imply which. kept: (n,) which of the rows; None: all.
    """
    if kept is not None and kept.all():
        kept = None
    if beliefs.schema.equals(schemas.POSTERIOR):
        return beliefs if kept is None else beliefs.filter(pa.array(kept))
    beliefs = beliefs.combine_chunks()
    lists = beliefs["labels"].combine_chunks()
    label = lists.flatten().to_numpy()
    probability = beliefs["label_probs"].combine_chunks().flatten().to_numpy()
    lengths = np.asarray(lists.value_lengths().fill_null(0))
    if kept is not None:  # several times faster than Arrow filters lists
        entries = np.repeat(kept, lengths)
        label, probability, lengths = label[entries], probability[entries], lengths[kept]
        beliefs = beliefs.select(["id", *schemas.CARRIED]).filter(pa.array(kept))
    probability = probability.astype(np.float64)
    offsets = offsets_of(lengths)
    filled = lengths > 0
    segments = offsets_of(lengths[filled])
    value = belief_value(probability, model)
    entropy = np.zeros(len(lengths))
    if model.truth == "single":
        full = lengths[filled] >= model.classes
        inside = np.ones(len(value), dtype=bool)
        shift = shift_of(calibration.bias, label)
        prior = belief_prior(value, inside, segments, full, calibration, model, shift=shift)
        probability = prior.probability
        others = np.maximum(model.classes - lengths[filled], 1)
        entropy[:] = np.log(model.classes)
        entropy[filled] = segment_sum(
            _entropy_terms(probability, np.ones(len(probability))), segments
        ) + _entropy_terms(prior.rest, others)
    else:
        probability = sigmoid(calibrated_logit(value, calibration))
        of_entry = np.repeat(np.arange(len(lengths)), lengths)
        probability = imply(of_entry, label, probability, hierarchy, model.classes)
        both = _entropy_terms(probability, np.ones(len(probability)))
        both += _entropy_terms(1 - probability, np.ones(len(probability)))
        entropy[filled] = segment_sum(both, segments)
    columns = {name: beliefs[name] for name in schemas.CARRIED}
    image = np.repeat(np.arange(len(lengths)), lengths)
    order = _by_probability(image, probability, label)
    n_votes = np.zeros(len(lengths))
    return _rows(
        beliefs["id"], columns, offsets, label[order], probability[order], n_votes, entropy, model
    )


def _by_probability(image: I64, probability: F64, label: NDArray[np.int32]) -> I64:
    """The order by image, falling probability (as it is written) and label; all (nnz,).

    image is sorted, from 0. Most beliefs are in this order already, and calibration keeps it: only
    the others are sorted.
    """
    written = probability.astype(np.float32)
    follows = (written[1:] < written[:-1]) | (image[1:] != image[:-1])
    follows |= (written[1:] == written[:-1]) & (label[1:] > label[:-1])
    order = np.arange(len(image), dtype=np.int64)
    if not follows.all():
        unsorted = np.zeros(image[-1] + 1, dtype=bool)
        unsorted[image[1:][~follows]] = True
        entries = np.flatnonzero(unsorted[image])
        order[entries] = entries[_sorted(image[entries], written[entries], label[entries])]
    return order


def _sorted(image: I64, written: NDArray[np.float32], label: NDArray[np.int32]) -> I64:
    if ((image[1:] != image[:-1]) | (label[1:] > label[:-1])).all():
        return falling_order(image, written)
    by_label = np.argsort((image << 32) | label)
    return by_label[falling_order(image, written[by_label])]


def _entropy_terms(probability: F64, multiplicity: F64 | I64) -> F64:
    """−p log(p / k) of mass p spread evenly over k states; 0 for p = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = -probability * np.log(probability / multiplicity)
    return np.where(probability > 0, terms, 0.0)


def _rows(
    image: I64 | pa.ChunkedArray,
    columns: dict[str, pa.ChunkedArray],
    offsets: I64,
    label: np.ndarray,
    probability: F64,
    n_votes: F64,
    entropy: F64,
    model: Model,
) -> pa.Table:
    lengths = np.diff(offsets)
    unknown = 1.0 / model.classes if model.truth == "single" else 0.0
    top = np.full(len(lengths), unknown)
    filled = lengths > 0
    top[filled] = probability[offsets[:-1][filled]]
    list_offsets = pa.array(offsets, pa.int32())
    arrays = {
        "id": image,
        **columns,
        "labels": pa.ListArray.from_arrays(list_offsets, pa.array(label, pa.int32())),
        "label_probs": pa.ListArray.from_arrays(
            list_offsets, pa.array(probability.astype(np.float32))
        ),
        "n_votes": pa.array(n_votes.astype(np.int32)),
        "risk": pa.array(np.maximum(1.0 - top, 0.0).astype(np.float32)),
        "entropy": pa.array(np.maximum(entropy, 0.0).astype(np.float32)),
    }
    return pa.table([arrays[name] for name in schemas.POSTERIOR.names], schema=schemas.POSTERIOR)
