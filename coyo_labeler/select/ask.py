"""Questions about the chosen images, from their lists of classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64, I32, I64, offsets_of
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_lists import LabelLists
from coyo_labeler.select.choose import PURPOSES

_CANDIDATES = schemas.QUESTIONS.field("candidates").type
_PROBS = schemas.QUESTIONS.field("candidate_probs").type


@dataclass(frozen=True)
class Asked:
    """What images are asked about, (n,) each.

    names: what the ids of the questions end in, "" for nothing. kind: choice or verify. label: the
    class of a verification. candidates: the classes that are offered, or the set that a
    verification is about; probs: of each of them.
    """

    names: Sequence[str]
    kind: str
    label: pa.Array
    candidates: pa.Array
    probs: pa.Array


def ask_class(label: I32) -> Asked:
    """Is it this class? label: (n,)."""
    n = len(label)
    nothing = pa.nulls(n, _CANDIDATES), pa.nulls(n, _PROBS)
    return Asked([str(c) for c in label.tolist()], "verify", pa.array(label), *nothing)


def ask_choice(lists: LabelLists, most: int) -> Asked:
    """Which class is it? most: how many a choice offers at most."""
    n = len(lists.image)
    offsets, entries = first_classes(lists, most)
    ends = pa.array(offsets, pa.int32())
    none = pa.array(np.diff(offsets) == 0)  # without a list all classes may be chosen
    probs = pa.array(lists.probability[entries].astype(np.float32))
    return Asked(
        [""] * n,
        "choice",
        pa.nulls(n, pa.int32()),
        pa.ListArray.from_arrays(ends, pa.array(lists.label[entries]), mask=none),
        pa.ListArray.from_arrays(ends, probs, mask=none),
    )


def question_table(
    lists: LabelLists,
    risk: NDArray[np.float32],
    url: pa.Array,
    purpose: NDArray[np.int8],
    probability: F64,
    overlap: I32,
    number: int,
    asked: Asked,
) -> pa.Table:
    """One question per image, as schemas.QUESTIONS, without keys and workers.

    lists: of the images, (n,). risk, purpose (index into PURPOSES), probability, overlap: (n,).
    number: of the round.
    """
    n = len(lists.image)
    ids = [
        f"{number}:{image}{':' * bool(name)}{name}"
        for image, name in zip(lists.image.tolist(), asked.names, strict=True)
    ]
    columns = [
        pa.array(ids, pa.string()),
        pa.array(lists.image),
        pa.nulls(n, pa.string()),
        url,
        pa.array([asked.kind] * n, pa.string()),
        asked.label,
        asked.candidates,
        asked.probs,
        pa.array(PURPOSES, pa.string()).take(pa.array(purpose)),
        pa.array(probability),
        pa.array(overlap),
        pa.array(risk),
        pa.nulls(n, pa.string()),
    ]
    return pa.table(columns, schema=schemas.QUESTIONS)


def first_classes(lists: LabelLists, most: int) -> tuple[I64, I64]:
    """The most probable classes of each image: their offsets (n + 1,), and their entries (k,).

    They are sorted by falling probability; of equals the lower class comes first.
    """
    lengths = lists.lengths
    image = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((lists.label, -lists.probability, image))
    rank = np.arange(len(order)) - np.repeat(lists.offsets[:-1], lengths)
    return offsets_of(np.minimum(lengths, most)), order[rank < most].astype(np.int64)
