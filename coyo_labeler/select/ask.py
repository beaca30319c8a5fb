"""Questions about the chosen images, from their lists of classes."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64, I32, I64, offsets_of
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_lists import LabelLists
from coyo_labeler.select import score
from coyo_labeler.select.choose import PURPOSES


def question_table(
    lists: LabelLists,
    risk: NDArray[np.float32],
    url: pa.Array,
    purpose: NDArray[np.int8],
    probability: F64,
    overlap: I32,
    number: int,
    verify: bool,
    candidates: int,
) -> pa.Table:
    """One question per image, as schemas.QUESTIONS, without keys and workers.

    lists: of the images, (n,). risk, purpose (index into PURPOSES), probability, overlap: (n,).
    number: of the round. candidates: how many classes a choice offers at most.
    """
    n = len(lists.image)
    label = pa.nulls(n, pa.int32())
    offered = pa.nulls(n, schemas.QUESTIONS.field("candidates").type)
    offered_probs = pa.nulls(n, schemas.QUESTIONS.field("candidate_probs").type)
    names = [f"{number}:{image}" for image in lists.image.tolist()]
    if verify:
        classes = score.question_class(lists)
        label = pa.array(classes)
        names = [f"{name}:{c}" for name, c in zip(names, classes.tolist(), strict=True)]
    else:
        offsets, entries = first_classes(lists, candidates)
        ends = pa.array(offsets, pa.int32())
        none = pa.array(np.diff(offsets) == 0)  # without a list all classes may be chosen
        offered = pa.ListArray.from_arrays(ends, pa.array(lists.label[entries]), mask=none)
        probs = lists.probability[entries].astype(np.float32)
        offered_probs = pa.ListArray.from_arrays(ends, pa.array(probs), mask=none)
    columns = [
        pa.array(names, pa.string()),
        pa.array(lists.image),
        pa.nulls(n, pa.string()),
        url,
        pa.array(["verify" if verify else "choice"] * n, pa.string()),
        label,
        offered,
        offered_probs,
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
