"""What earlier votes say of an image: how many there are, and whether they can all be right."""

from enum import IntEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler.em.segments import I64, Bool
from coyo_labeler.em.sets import set_hashes
from coyo_labeler.formats.class_names import classes_or_null
from coyo_labeler.formats.columns import whole_or_null
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.votes import read as votes_files
from coyo_labeler.votes.candidates import read_sets
from coyo_labeler.votes.read import VotesSplit

#: Votes on their way to their images. label: -1 where none is named, below that a number for the
#: set that a verification is about. answer: of `Answer`.
ANSWERS = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("worker_id", pa.string()),
        pa.field("label", pa.int32()),
        pa.field("answer", pa.int8()),
    ]
)


class Answer(IntEnum):
    """What a vote says: the class is `label`; it is `label` or it is not; none of those shown."""

    CHOICE = 0
    YES = 1
    NO = 2
    NONE = 3
    OTHER = 4  # unsure, about a set, or nothing that is known: somebody was asked, that is all


_WORDS = {"yes": Answer.YES, "no": Answer.NO, "none": Answer.NONE}


def read_answers(split: VotesSplit, space: LabelSpace) -> pa.Table:
    """The votes of a split that name an image and a worker, as ANSWERS.

    merge says what is wrong with the others; here they are left out.
    """
    tables = [_answers(table, space) for _, table in votes_files.read(split)]
    return pa.concat_tables(tables or [ANSWERS.empty_table()]).combine_chunks()


def _answers(table: pa.Table, space: LabelSpace) -> pa.Table:
    image = whole_or_null(table["image_id"])
    worker = table["worker_id"].combine_chunks().cast(pa.string())
    label = classes_or_null(table["label"], space)
    within = pc.and_(pc.greater_equal(label, 0), pc.less(label, space.size))
    label = pc.fill_null(pc.if_else(within, label, -1), -1).cast(pa.int32())
    if "response" in table.column_names:
        response = table["response"].combine_chunks().cast(pa.string())
    else:
        response = pa.nulls(len(table), pa.string())
    words = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(response, "")))
    answer = np.full(len(table), Answer.OTHER, dtype=np.int8)
    for word, code in (("", Answer.CHOICE), *_WORDS.items()):
        answer[np.asarray(pc.equal(words, word))] = code
    answer[(answer != Answer.NONE) & (np.asarray(label) < 0)] = Answer.OTHER
    label = _with_sets(table, label, answer, space)
    columns = [image, worker, label, pa.array(answer)]
    known = pc.and_(image.is_valid(), pc.not_equal(pc.fill_null(worker, ""), ""))
    return pa.table(columns, schema=ANSWERS).filter(known)


def _with_sets(
    table: pa.Table, label: pa.Array, answer: NDArray[np.int8], space: LabelSpace
) -> pa.Array:
    """The labels, with a number for each set, so that answers to two of them count as two."""
    asked = (answer == Answer.OTHER) & (np.asarray(label) < 0)
    if "candidates" not in table.column_names or not asked.any():
        return label
    asked &= np.asarray(table["candidates"].is_valid()).astype(bool)
    sets = read_sets(table["candidates"], asked, space).classes
    known = np.flatnonzero(np.asarray(sets.is_valid()))
    lists = sets.take(pa.array(known))
    offsets = np.append(0, np.cumsum(pc.list_value_length(lists).to_numpy())).astype(np.int64)
    numbers = set_hashes(offsets, pc.list_flatten(lists).to_numpy()) >> np.uint64(34)
    numbered = np.asarray(label).copy()
    numbered[known] = -2 - numbers.astype(np.int32)
    return pa.array(numbered, pa.int32())


def count_answers(
    image: I64, worker: I64, label: NDArray[np.int32], answer: NDArray[np.int8]
) -> tuple[I64, I64, Bool]:
    """The images (n,) in order, how many answers each has, and whether these disagree.

    All arguments are (votes,), in any order; worker: a number for each. A worker counts once for
    each question of an image: a choice, or the verification of one class or set.

    Answers disagree where no class can be behind all of them: two classes are named, or one that
    somebody else denies, or one although somebody was shown others and said that it is none.
    """
    if len(image) == 0:
        return image, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    is_choice = (answer == Answer.CHOICE) | (answer == Answer.NONE)
    asked = np.where(is_choice, -1, label)
    order = np.lexsort((answer, label, asked, worker, image))
    image, worker, asked = image[order], worker[order], asked[order]
    label, answer = label[order], answer[order]
    first = _starts(image)
    new = first | _starts(worker) | _starts(asked)
    position = np.cumsum(first) - 1
    images, total = image[first], int(position[-1]) + 1
    counts = np.bincount(position[new], minlength=total)

    named = (answer == Answer.CHOICE) | (answer == Answer.YES)
    lowest = np.full(total, np.iinfo(np.int32).max, dtype=np.int32)
    highest = np.full(total, -1, dtype=np.int32)
    np.minimum.at(lowest, position[named], label[named])
    np.maximum.at(highest, position[named], label[named])
    some = highest >= 0
    disagree = some & (lowest != highest)
    denied = (answer == Answer.NO) & (label == highest[position])
    denied |= (answer == Answer.NONE) & some[position]
    disagree[position[denied]] = True
    return images, counts.astype(np.int64), disagree


def _starts(values: NDArray[np.generic]) -> Bool:
    """(n,) whether each value differs from the one before it."""
    starts = np.ones(len(values), dtype=bool)
    starts[1:] = values[1:] != values[:-1]
    return starts
