"""Votes in a table of anybody's making: checked as the stage checks those that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from coyo_labeler.dawid_skene.tables import LABEL, TASK, WORKER, column_name, label_index
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.votes.checks import Checked, Reason, check, remedy, response_words

_OPTIONAL = ("response", "timestamp")


def sort_out_votes(
    votes: pa.Table, labels: int | Sequence[Any] | None, on_bad_vote: Literal["stop", "reject"]
) -> tuple[pa.Table, pd.DataFrame]:
    """The votes that can be used, and the others with `row`, `reason` and `detail`.

    The first keep their columns; where there are `response` and `timestamp`, these are as the
    stage reads them: yes, no, unsure or null, and microseconds since 1970.

    Raises: InputError where a column is missing, for the first bad vote where on_bad_vote is stop,
    and where no vote is left.
    """
    columns = [column_name(votes.column_names, names, "votes") for names in (TASK, WORKER, LABEL)]
    space = None if labels is None else label_index(labels)
    checked = _check(votes, columns, space)
    row = checked.rejects["row"].to_numpy()
    rejects = votes.select(columns).take(pa.array(row - 1)).to_pandas()
    reasons = [Reason(word) for word in checked.rejects["reason"].to_pylist()]
    said = checked.rejects["detail"].to_pylist()
    rejects["reason"] = list(map(str, reasons))
    rejects["detail"] = [
        f"label {label!r} is not among the {len(space if space is not None else ()):,} labels"
        if reason == Reason.LABEL_OUTSIDE
        else detail.replace("image_id", "task").replace("worker_id", "worker")
        for reason, detail, label in zip(reasons, said, rejects[columns[2]], strict=True)
    ]
    rejects.insert(0, "row", row)
    if len(row) and on_bad_vote == "stop":
        detail = rejects["detail"].iloc[0]
        raise InputError(f"votes: row {row[0]}: {detail}; {_mend(reasons[0])}")
    if checked.votes.num_rows == 0:
        raise InputError("votes: there is not one vote to use; give votes")
    return _kept(votes, checked), rejects


def _check(votes: pa.Table, columns: Sequence[str], space: pd.Index[Any] | None) -> Checked:
    """The stage's own check, of places instead of names."""
    task, label = (votes[name].to_pandas() for name in (columns[0], columns[2]))
    place = np.zeros(len(label), np.int64) if space is None else space.get_indexer(pd.Index(label))
    table = {
        "image_id": pa.array(np.arange(len(task)), mask=task.isna().to_numpy()),
        "worker_id": votes[columns[1]],
        "label": pa.array(place, mask=label.isna().to_numpy()),
    }
    table |= {name: votes[name] for name in _OPTIONAL if name in votes.column_names}
    size = 1 if space is None else len(space)
    return check(pa.table(table), 0, 0, LabelSpace("labels", size))


def _kept(votes: pa.Table, checked: Checked) -> pa.Table:
    kept = votes.take(pa.array(checked.votes["row"].to_numpy() - 1))
    read = {
        "response": response_words(checked.votes["response"]),
        "timestamp": checked.votes["timestamp"],
    }
    for name in _OPTIONAL:
        if name in votes.column_names:
            kept = kept.set_column(kept.column_names.index(name), name, read[name])
    return kept


def _mend(reason: Reason) -> str:
    if reason == Reason.LABEL_OUTSIDE:
        return "drop the row, set labels, or set on_bad_vote='reject' to leave such rows out"
    return remedy(reason).replace("on_bad_vote=reject", "on_bad_vote='reject'")
