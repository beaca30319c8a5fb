"""Tables of anybody's making as arrays: names of tasks, workers and labels become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler.em.inputs import Beliefs, Gold, Votes
from coyo_labeler.em.model import Truth
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import I32, I64, offsets_of
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_lists import LabelLists, check_label_lists
from coyo_labeler.votes.questions import NO_TIME, Duplicates, as_answers, order_votes, superseded

#: The names under which a column is looked for, crowd-kit's first.
TASK, WORKER, LABEL = ("task", "image_id", "id"), ("worker", "worker_id"), ("label",)

_RESPONSES = {None: Response.CHOICE, "yes": Response.YES}
_RESPONSES |= {"no": Response.NO, "unsure": Response.UNSURE}


def is_spark(table: Any) -> bool:
    """Whether it is a Spark DataFrame, told without importing Spark."""
    return type(table).__module__.startswith("pyspark.sql")


def to_arrow(table: Any) -> pa.Table:
    """A pandas DataFrame or Arrow table as an Arrow table.

    Raises: InputError for anything else.
    """
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, pd.DataFrame):
        return pa.Table.from_pandas(table, preserve_index=False)
    raise InputError(
        f"DawidSkene: {type(table).__name__} is no pandas DataFrame, Arrow table or Spark DataFrame"
    )


def column_name(present: Sequence[str], names: Sequence[str], what: str) -> str:
    """Which of `names` is there. Raises: InputError where none is."""
    found = [name for name in names if name in present]
    if not found:
        raise InputError(
            f"{what}: no column '{names[0]}' (its columns: {', '.join(map(str, present))})"
        )
    return found[0]


@dataclass(frozen=True)
class Encoded:
    """Arrays for the kernels, and what their numbers stand for.

    An image id, a worker and a label are places in tasks, workers and classes.
    """

    votes: Votes
    beliefs: Beliefs
    gold: Gold
    tasks: pd.Index[Any]
    workers: pd.Index[Any]
    classes: pd.Index[Any]

    def unvoted(self, taking_part: I64) -> pa.Table:
        """The beliefs (schemas.BELIEFS) of images that have no problem."""
        left = ~np.isin(self.beliefs.image, taking_part)
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
        ).filter(pa.array(left))
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
    """Number tasks, workers and labels, in sorted order, and drop votes that do not count.

    votes: as `frames_votes.sort_out_votes` leaves them.

    Raises: InputError naming the column or value at fault.
    """
    task = _column(votes, TASK, "votes")
    worker = _column(votes, WORKER, "votes")
    label = _column(votes, LABEL, "votes")
    belief_task = None if beliefs is None else _column(beliefs, ("id", *TASK), "beliefs")
    believed = None if beliefs is None else _flat(beliefs, "labels")
    gold_task = None if gold is None else _column(gold, TASK, "gold")
    gold_label = None if gold is None else _column(gold, LABEL, "gold")
    tasks = _numbering([task, belief_task, gold_task])
    workers = _numbering([worker])
    classes = _classes(labels, [label, believed, gold_label])
    response = as_answers(_responses(votes), truth)

    image, who = _places(tasks, task), _places(workers, worker).astype(np.int32)
    voted = _labels(classes, label, "votes")
    moment = _moments(votes)
    order, out = _count_once(image, who, voted, response, moment, duplicate_votes, tasks, workers)
    kept = order[~out]
    arranged = Votes(image[kept], who[kept], voted[kept], response[kept])
    return Encoded(
        arranged,
        _beliefs(beliefs, belief_task, believed, tasks, classes),
        _gold(gold_task, gold_label, tasks, classes, truth),
        tasks,
        workers,
        classes,
    )


def _column(table: pa.Table, names: Sequence[str], what: str) -> pd.Series[Any]:
    name = column_name(table.column_names, names, what)
    column: pd.Series[Any] = table[name].to_pandas()
    missing = np.flatnonzero(column.isna())
    if len(missing):
        raise InputError(f"{what}: row {missing[0] + 1}: {name} is missing; fill or drop it")
    return column


def _flat(table: pa.Table, name: str) -> pd.Series[Any]:
    column_name(table.column_names, [name], "beliefs")
    flat: pd.Series[Any] = pa.chunked_array([pc.list_flatten(table[name])]).to_pandas()
    return flat


def _numbering(columns: Sequence[pd.Series[Any] | None]) -> pd.Index[Any]:
    every = pd.concat([column for column in columns if column is not None], ignore_index=True)
    sorted_names: pd.Index[Any] = pd.Index(np.sort(np.asarray(every.unique())))
    return sorted_names


def _classes(
    labels: int | Sequence[Any] | None, columns: Sequence[pd.Series[Any] | None]
) -> pd.Index[Any]:
    if labels is None:
        found = _numbering(columns)
        # With one label there is nothing to choose between: whatever else there is joins it.
        return found if len(found) > 1 else pd.Index([*found, "(any other)"], dtype=object)
    return label_index(labels)


def label_index(labels: int | Sequence[Any]) -> pd.Index[Any]:
    """The labels that were given, by place."""
    return pd.RangeIndex(labels) if isinstance(labels, int) else pd.Index(labels)


def _places(index: pd.Index[Any], column: pd.Series[Any]) -> I64:
    """The place of each value in the index; −1: not there."""
    return np.asarray(index.get_indexer(pd.Index(column)), dtype=np.int64)


def _labels(classes: pd.Index[Any], column: pd.Series[Any], what: str) -> I32:
    places = _places(classes, column)
    unknown = np.flatnonzero(places < 0)
    if len(unknown):
        raise InputError(
            f"{what}: row {unknown[0] + 1}: label {column.iloc[unknown[0]]!r} is not among the "
            f"{len(classes)} labels; set labels, or drop the row"
        )
    return places.astype(np.int32)


def _responses(votes: pa.Table) -> NDArray[np.int8]:
    if "response" not in votes.column_names:
        return np.full(votes.num_rows, Response.CHOICE, dtype=np.int8)
    return np.array([_RESPONSES[word] for word in votes["response"].to_pylist()], dtype=np.int8)


def _moments(votes: pa.Table) -> I64:
    """Microseconds since 1970, before every time where none is known, (votes,)."""
    if "timestamp" not in votes.column_names:
        return np.full(votes.num_rows, NO_TIME)
    return np.asarray(pc.fill_null(votes["timestamp"], NO_TIME).to_numpy())


def _count_once(
    image: I64,
    worker: I32,
    label: I32,
    response: NDArray[np.int8],
    moment: I64,
    duplicate_votes: Duplicates,
    tasks: pd.Index[Any],
    workers: pd.Index[Any],
) -> tuple[I64, NDArray[np.bool_]]:
    row = np.arange(len(image))
    file = np.zeros(len(row), np.int32)
    order = order_votes(image, worker, label, response, moment, file, row)
    arranged = (image[order], worker[order], label[order], response[order])
    out = superseded(*arranged, duplicate_votes)
    if duplicate_votes == "error" and out.any():
        first = int(np.flatnonzero(out)[0])
        raise InputError(
            f"votes: worker {workers[arranged[1][first]]} voted twice on task "
            f"{tasks[arranged[0][first]]}; drop one, or set duplicate_votes to last or first"
        )
    return order, out


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
    probability = _flat(table, "label_probs").to_numpy(dtype=np.float64)
    lengths, others = (
        np.asarray(pc.fill_null(pc.list_value_length(table[name]), 0))
        for name in ("labels", "label_probs")
    )
    if (lengths != others).any():
        raise InputError("beliefs: labels and label_probs must have as many values in every row")
    label, image = _labels(classes, labels, "beliefs"), _places(tasks, task)
    order = np.argsort(image, kind="stable")
    if (np.diff(image[order]) == 0).any():
        twice = tasks[image[order][1:][np.diff(image[order]) == 0][0]]
        raise InputError(f"beliefs: task {twice} has two rows; drop one")
    offsets = offsets_of(lengths)
    sorted_offsets = offsets_of(lengths[order])
    flat = np.repeat(offsets[:-1][order] - sorted_offsets[:-1], lengths[order])
    flat = flat + np.arange(sorted_offsets[-1])
    named = np.asarray(tasks)[image[order]]
    lists = LabelLists(named, sorted_offsets, label[flat], probability[flat])
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
    places = (_places(tasks, task), _labels(classes, label, "gold").astype(np.int64))
    pairs: I64 = np.stack(places, axis=1)
    unique = np.unique(pairs, axis=0)
    twice = np.flatnonzero(unique[1:, 0] == unique[:-1, 0])
    if truth == "single" and len(twice):
        raise InputError(
            f"gold: task {tasks[unique[twice[0], 0]]} has two labels; drop one, or set "
            "truth='multi'"
        )
    return Gold(unique[:, 0].astype(np.int64), unique[:, 1].astype(np.int32))
