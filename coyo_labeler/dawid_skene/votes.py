"""Which rows of a table are usable votes, by the same checks as the stage's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from coyo_labeler.dawid_skene.columns import (
    LABEL,
    OPTIONAL,
    TASK,
    WORKER,
    column_name,
    label_index,
    plain,
)
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.votes.checks import Checked, Reason, check, remedy, response_words


def check_votes(
    votes: pa.Table, labels: int | Sequence[Any] | None, on_bad_vote: Literal["stop", "reject"]
) -> tuple[pa.Table, pd.DataFrame]:
    """The votes that can be used, and the rejected ones with `row`, `reason` and `detail`.

    Usable votes keep their columns. `response` and `timestamp`, if present, are as the stage reads
    them: yes, no, unsure or null, and microseconds since 1970.

    Raises: InputError where a column is missing, for the first bad vote where on_bad_vote is stop,
    and where no vote can be used.
    """
    columns = [column_name(votes.column_names, names, "votes") for names in (TASK, WORKER, LABEL)]
    classes = None if labels is None else label_index(labels)
    checked = _check(votes, columns, classes)
    row = checked.rejects["row"].to_numpy()
    rejects = votes.select(columns).take(pa.array(row - 1))
    rejects = rejects.to_pandas(integer_object_nulls=True)
    reasons = [Reason(word) for word in checked.rejects["reason"].to_pylist()]
    details = checked.rejects["detail"].to_pylist()
    rejects["reason"] = list(map(str, reasons))
    rejects["detail"] = [
        f"label {plain(label)!r} is not among the {0 if classes is None else len(classes):,} labels"
        if reason == Reason.LABEL_OUTSIDE
        else detail.replace("image_id", "task").replace("worker_id", "worker")
        for reason, detail, label in zip(reasons, details, rejects[columns[2]], strict=True)
    ]
    rejects.insert(0, "row", row)
    if len(row) and on_bad_vote == "stop":
        detail = rejects["detail"].iloc[0]
        raise InputError(f"votes: row {row[0]}: {detail}; {_remedy(reasons[0])}")
    if checked.votes.num_rows == 0:
        raise InputError("votes: there is not one vote to use; give votes")
    return _usable(votes, checked), rejects


def _check(votes: pa.Table, columns: Sequence[str], classes: pd.Index[Any] | None) -> Checked:
    """The stage's check, on positions instead of names. columns: of task, worker and label."""
    task, label = (
        # Whole numbers beside a null would become floats.
        votes[name].to_pandas(integer_object_nulls=True)
        for name in (columns[0], columns[2])
    )
    # Without a given label space every label is inside.
    position = np.zeros(len(label), np.int64)
    if classes is not None:
        position = classes.get_indexer(pd.Index(label))
    table = {
        "image_id": pa.array(np.arange(len(task)), mask=task.isna().to_numpy()),
        "worker_id": votes[columns[1]],
        "label": pa.array(position, mask=label.isna().to_numpy()),
    }
    table |= {name: votes[name] for name in OPTIONAL if name in votes.column_names}
    size = 1 if classes is None else len(classes)
    return check(pa.table(table), 0, 0, LabelSpace("labels", size))


def _usable(votes: pa.Table, checked: Checked) -> pa.Table:
    usable = votes.take(pa.array(checked.votes["row"].to_numpy() - 1))
    as_read = {
        "response": response_words(checked.votes["response"]),
        "timestamp": checked.votes["timestamp"],
    }
    for name in OPTIONAL:
        if name in votes.column_names:
            usable = usable.set_column(usable.column_names.index(name), name, as_read[name])
    return usable


def _remedy(reason: Reason) -> str:
    if reason == Reason.LABEL_OUTSIDE:
        return "drop the row, set labels, or set on_bad_vote='reject' to leave such rows out"
    return remedy(reason).replace("on_bad_vote=reject", "on_bad_vote='reject'")
