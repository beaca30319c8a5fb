"""Tables from pandas or Arrow as arrays: names of tasks, workers and labels become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler.dawid_skene.columns import (
    LABEL,
    TASK,
    WORKER,
    alike,
    column_name,
    label_index,
    plain,
)
from coyo_labeler.em.inputs import Beliefs, Gold, Inclusion, Inputs, SetVotes, Votes
from coyo_labeler.em.model import Truth
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import I32, I64, offsets_of
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_lists import LabelLists, check_label_lists
from coyo_labeler.votes.questions import NO_TIME, Duplicates, as_answers, order_votes, superseded

_RESPONSES = {None: Response.CHOICE, "yes": Response.YES}
_RESPONSES |= {"no": Response.NO, "unsure": Response.UNSURE}


#: What messages call a column, and the column.
Named = tuple[str, pa.ChunkedArray]


@dataclass(frozen=True)
class Encoded:
    """Arrays for the kernels, and the names behind their numbers.

    An image id, a worker and a label are positions in tasks, workers and classes.
    """

    votes: Votes
    beliefs: Beliefs
    gold: Gold
    tasks: pd.Index[Any]
    workers: pd.Index[Any]
    classes: pd.Index[Any]

    @property
    def inputs(self) -> Inputs:
        """What problems are built from. There are no answers about sets here."""
        no_probability = Inclusion(np.zeros(0, dtype=np.int64), np.zeros(0))
        return Inputs(self.votes, SetVotes.none(), self.beliefs, self.gold, no_probability)

    def unvoted(self, inferred: I64) -> pa.Table:
        """The beliefs (schemas.BELIEFS) of images without a problem. inferred: images with one."""
        unvoted = ~np.isin(self.beliefs.image, inferred)
        table = pa.table(
            {
                "id": self.beliefs.image,
                "labels": pa.ListArray.from_arrays(
                    pa.array(self.beliefs.offsets, pa.int32()), pa.array(self.beliefs.label)
                ),
                "label_probs": pa.ListArray.from_arrays(
                    pa.array(self.beliefs.offsets, pa.int32()),
                    pa.array(self.beliefs.probability.astype(np.float32)),
                ),
            }
        ).filter(pa.array(unvoted))
        for name in ("url", "imagehash", "width", "height"):
            kind = schemas.BELIEFS.field(name).type
            table = table.append_column(name, pa.nulls(table.num_rows, kind))
        return table.select(schemas.BELIEFS.names).cast(schemas.BELIEFS)


def encode(
    votes: pa.Table,
    beliefs: pa.Table | None,
    gold: pa.Table | None,
    labels: int | Sequence[Any] | None,
    duplicate_votes: Duplicates,
    truth: Truth,
) -> Encoded:
    """Number tasks, workers and labels in sorted order, and drop superseded votes.

    votes: as `check_votes` returns them.

    Raises: InputError naming the column or value at fault.
    """
    task, belief_task, gold_task = _alike(
        _column(votes, TASK, "votes"),
        None if beliefs is None else _column(beliefs, ("id", *TASK), "beliefs"),
        None if gold is None else _column(gold, TASK, "gold"),
    )
    (worker,) = _alike(_column(votes, WORKER, "votes"))
    label_columns = (
        _column(votes, LABEL, "votes"),
        None if beliefs is None else ("beliefs: column 'labels'", _flat(beliefs, "labels")),
        None if gold is None else _column(gold, LABEL, "gold"),
    )
    if labels is None:
        label, believed, gold_label = _alike(*label_columns)
    else:  # each is compared with them
        label, believed, gold_label = (_series(column) for column in label_columns)
    assert task is not None and worker is not None and label is not None
    tasks = _sorted_names([task, belief_task, gold_task])
    workers = _sorted_names([worker])
    classes = _classes(labels, [label, believed, gold_label])
    every = Votes(
        _positions(tasks, task),
        _positions(workers, worker).astype(np.int32),
        _labels(classes, label, "votes"),
        as_answers(_responses(votes), truth),
    )
    return Encoded(
        _one_per_question(every, _times(votes), duplicate_votes, tasks, workers),
        _beliefs(beliefs, belief_task, believed, tasks, classes),
        _gold(gold_task, gold_label, tasks, classes, truth),
        tasks,
        workers,
        classes,
    )


def _column(table: pa.Table, names: Sequence[str], what: str) -> Named:
    """A column, and what messages call it. Raises: InputError where a value is missing."""
    name = column_name(table.column_names, names, what)
    column = table[name]
    missing = np.flatnonzero(np.asarray(pc.is_null(column, nan_is_null=True)))
    if len(missing):
        raise InputError(f"{what}: row {missing[0] + 1}: {name} is missing; fill or drop it")
    return f"{what}: column '{name}'", column


def _series(named: Named | None) -> pd.Series[Any] | None:
    return None if named is None else named[1].to_pandas()


def _alike(*named: Named | None) -> list[pd.Series[Any] | None]:
    """Columns that name the same things, in one type."""
    columns = iter(alike(dict(each for each in named if each is not None)))
    return [None if each is None else next(columns).to_pandas() for each in named]


def _flat(table: pa.Table, name: str) -> pa.ChunkedArray:
    return pa.chunked_array([pc.list_flatten(table[name].combine_chunks())])


def _sorted_names(columns: Sequence[pd.Series[Any] | None]) -> pd.Index[Any]:
    every = pd.concat([column for column in columns if column is not None], ignore_index=True)
    sorted_names: pd.Index[Any] = pd.Index(np.sort(np.asarray(every.unique())))
    return sorted_names


def _classes(
    labels: int | Sequence[Any] | None, columns: Sequence[pd.Series[Any] | None]
) -> pd.Index[Any]:
    """The label space: the given one, or the labels that occur in the columns."""
    if labels is not None:
        return label_index(labels)
    names = _sorted_names(columns)
    # A single label leaves nothing to infer: a second one stands for any other.
    return names if len(names) > 1 else pd.Index([*names, "(any other)"], dtype=object)


def _positions(index: pd.Index[Any], column: pd.Series[Any]) -> I64:
    """The position of each value in the index; −1: not in it."""
    return np.asarray(index.get_indexer(pd.Index(column)), dtype=np.int64)


def _labels(classes: pd.Index[Any], column: pd.Series[Any], what: str) -> I32:
    positions = _positions(classes, column)
    unknown = np.flatnonzero(positions < 0)
    if len(unknown):
        raise InputError(
            f"{what}: row {unknown[0] + 1}: label {plain(column.iloc[unknown[0]])!r} is not among "
            f"the {len(classes)} labels; set labels, or drop the row"
        )
    return positions.astype(np.int32)


def _responses(votes: pa.Table) -> NDArray[np.int8]:
    if "response" not in votes.column_names:
        return np.full(votes.num_rows, Response.CHOICE, dtype=np.int8)
    return np.array([_RESPONSES[word] for word in votes["response"].to_pylist()], dtype=np.int8)


def _times(votes: pa.Table) -> I64:
    """Microseconds since 1970, (votes,); `NO_TIME` where no time is known."""
    if "timestamp" not in votes.column_names:
        return np.full(votes.num_rows, NO_TIME)
    return np.asarray(pc.fill_null(votes["timestamp"], NO_TIME).to_numpy())


def _one_per_question(
    votes: Votes,
    times: I64,
    duplicate_votes: Duplicates,
    tasks: pd.Index[Any],
    workers: pd.Index[Any],
) -> Votes:
    """The votes that count, in the order in which the stage sums them. times: (votes,)."""
    rows = np.arange(len(times))
    one_file = np.zeros(len(rows), np.int32)
    order = order_votes(
        votes.image, votes.worker, votes.label, votes.response, times, one_file, rows
    )
    image, worker = votes.image[order], votes.worker[order]
    label, response = votes.label[order], votes.response[order]
    dropped = superseded(image, worker, label, response, duplicate_votes)
    if duplicate_votes == "error" and dropped.any():
        first = int(np.flatnonzero(dropped)[0])
        raise InputError(
            f"votes: worker {workers[worker[first]]} voted twice on task {tasks[image[first]]}; "
            "drop one, or set duplicate_votes to last or first"
        )
    return Votes(image[~dropped], worker[~dropped], label[~dropped], response[~dropped])


def _beliefs(
    table: pa.Table | None,
    task: pd.Series[Any] | None,
    labels: pd.Series[Any] | None,
    tasks: pd.Index[Any],
    classes: pd.Index[Any],
) -> Beliefs:
    if table is None or task is None or labels is None:
        empty = np.zeros(0, dtype=np.int64)
        return Beliefs(empty, np.zeros(1, np.int64), empty.astype(np.int32), np.zeros(0))
    probability = _flat(table, "label_probs").to_numpy()
    lengths, probabilities = (
        np.asarray(pc.fill_null(pc.list_value_length(table[name]), 0))
        for name in ("labels", "label_probs")
    )
    if (lengths != probabilities).any():
        raise InputError("beliefs: labels and label_probs must have as many values in every row")
    label, image = _labels(classes, labels, "beliefs"), _positions(tasks, task)
    order = np.argsort(image, kind="stable")
    repeated = np.flatnonzero(np.diff(image[order]) == 0)
    if len(repeated):
        raise InputError(
            f"beliefs: task {tasks[image[order][repeated[0] + 1]]} has two rows; drop one"
        )
    offsets = offsets_of(lengths)
    sorted_offsets = offsets_of(lengths[order])
    entry = np.repeat(offsets[:-1][order] - sorted_offsets[:-1], lengths[order])
    entry = entry + np.arange(sorted_offsets[-1])
    names = np.asarray(tasks)[image[order]]
    lists = LabelLists(names, sorted_offsets, label[entry], probability[entry])
    check_label_lists(lists, "beliefs", distinct=True)
    return Beliefs(image[order], sorted_offsets, lists.label, lists.probability)


def _gold(
    task: pd.Series[Any] | None,
    label: pd.Series[Any] | None,
    tasks: pd.Index[Any],
    classes: pd.Index[Any],
    truth: Truth,
) -> Gold:
    if task is None or label is None:
        return Gold(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32))
    columns = (_positions(tasks, task), _labels(classes, label, "gold").astype(np.int64))
    pairs: I64 = np.stack(columns, axis=1)
    unique = np.unique(pairs, axis=0)
    repeated = np.flatnonzero(unique[1:, 0] == unique[:-1, 0])
    if truth == "single" and len(repeated):
        raise InputError(
            f"gold: task {tasks[unique[repeated[0], 0]]} has two labels; drop one, or set "
            "truth='multi'"
        )
    return Gold(unique[:, 0].astype(np.int64), unique[:, 1].astype(np.int32))
