"""Each worker has one answer to each question: which one counts where there are several."""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler.em.responses import Response
from coyo_labeler.em.sets import set_questions

#: Where no time is known: before every time.
NO_TIME = np.iinfo(np.int64).min

#: Which vote of a worker on one question counts.
Duplicates = Literal["last", "first", "error"]


def as_answers(response: NDArray[np.int8], truth: Literal["single", "multi"]) -> NDArray[np.int8]:
    """The responses (votes,) as EM uses them; to be called before duplicates are looked for.

    With truth multi every class of an image is a question of its own: a choice is a yes to its
    class, and says nothing about the others.
    """
    if truth == "single":
        return response
    yes = np.int8(Response.YES)
    return np.where(response == Response.CHOICE, yes, response)


def asked_about(table: pa.Table, label: NDArray[np.int32]) -> NDArray[np.integer[Any]]:
    """What each vote is about, (votes,): its label, or the number of its set of classes.

    table: schemas.VOTES_CHECKED. label: its labels, −1 where a vote is about a set.
    """
    about_set = label < 0
    if not about_set.any():
        return label
    lists = table["candidates"].combine_chunks().filter(pa.array(about_set))
    offsets = np.append(0, np.cumsum(pc.list_value_length(lists).to_numpy())).astype(np.int64)
    asked = label.astype(np.int64)
    asked[about_set] = set_questions(offsets, lists.flatten().to_numpy())
    return asked


def order_votes(
    image: NDArray[np.int64],
    worker: NDArray[np.int32],
    label: NDArray[np.integer[Any]],
    response: NDArray[np.int8],
    moment: NDArray[np.int64],
    file: NDArray[np.int32],
    row: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The order in which votes are added up, whatever order they were given in.

    By image, worker, kind (choice before verification), the label asked about, then time, file and
    row. All arrays are (votes,); moment is `NO_TIME` where none is known. label: of a vote about a
    set of classes, the number of that set (`em.sets.set_questions`).
    """
    verification = response != Response.CHOICE
    asked = np.where(verification, label, -1)
    return np.lexsort((row, file, moment, asked, verification, worker, image))


def superseded(
    image: NDArray[np.int64],
    worker: NDArray[np.int32],
    label: NDArray[np.integer[Any]],
    response: NDArray[np.int8],
    keep: Duplicates,
) -> NDArray[np.bool_]:
    """Which of the votes, ordered by `order_votes`, do not count; all arrays are (votes,).

    A question is an image and, for a verification, a label or set; a worker's last (or first)
    answer to it counts. keep = error marks all but the first, for the caller to raise an error.
    """
    if len(image) == 0:
        return np.zeros(0, dtype=bool)
    verification = response != Response.CHOICE
    asked = np.where(verification, label, -1)
    same = (
        (image[1:] == image[:-1])
        & (worker[1:] == worker[:-1])
        & (verification[1:] == verification[:-1])
        & (asked[1:] == asked[:-1])
    )
    edge = np.zeros(1, dtype=bool)
    return np.concatenate([same, edge]) if keep == "last" else np.concatenate([edge, same])
