"""What the votes on held-out images say of their classes, by the accuracy of each worker.

    log P(votes of i | y) = Σ_v log P(v | y)
    a choice of z by worker j:      a_j if z = y, else (1 − a_j) / m
    an answer about a set S:        a_j if it agrees with y ∈ S, else 1 − a_j

m is the number of other answers: of the classes that were offered and "none of these", or of all
other classes where that is not known (`em.choices`). a_j is what `merge` wrote to workers/. A
posterior was made with the teacher as its prior, and so agrees with it more than the truth does;
votes were not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.em.choices import other_answers
from coyo_labeler.em.responses import Response
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import check_types
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import read_footers
from coyo_labeler.learn.softmax import F32, F64, Map
from coyo_labeler.votes import checks
from coyo_labeler.votes import read as votes_files
from coyo_labeler.votes.questions import NO_TIME, asked_about, order_votes, superseded
from coyo_labeler.votes.read import VotesSplit

I64 = NDArray[np.int64]

_ROWS_PER_SPLIT = 1_000_000
#: A worker is neither taken to be perfect nor to be always wrong.
_LEAST, _MOST = 0.01, 0.99


@dataclass(frozen=True)
class Evidence:
    """Votes as likelihoods.

    image: (m,) ids of images with a vote, sorted. log_likelihood: (m, C) of the votes of each,
    by class. votes: how many there are.
    """

    image: I64
    log_likelihood: F32
    votes: int


@dataclass(frozen=True)
class WorkerAccuracies:
    """name: sorted. accuracy: (J,). others: of a worker who is not among them."""

    name: pa.Array
    accuracy: F64
    others: float

    def of(self, worker: pa.ChunkedArray | pa.Array) -> F64:
        """The accuracy of the worker of each vote, (votes,)."""
        number = pc.fill_null(pc.index_in(worker, value_set=self.name), -1).to_numpy()
        return np.where(number >= 0, self.accuracy[number], self.others)


def read_accuracies(labels: str) -> WorkerAccuracies:
    """What a merge found out about its workers.

    Raises: InputError where `labels` has no table of workers.
    """
    folder = storage.join(labels, "workers")
    files = sorted(storage.files_of(folder)) if storage.exists(folder) else []
    if not files:
        raise InputError(
            f"votes: {labels} has no workers/, by whose accuracies votes are weighed; give the "
            "output of merge as labels, or leave votes out"
        )
    columns = ["worker_id", "n_votes", "accuracy"]
    wanted = pa.schema([schemas.WORKERS.field(name) for name in columns])
    tables = []
    for file, metadata in zip(files, read_footers("labels", files), strict=True):
        check_types("labels", file, metadata.schema.to_arrow_schema(), wanted)
        with (
            storage.open_parquet("labels", file) as parquet,
            storage.parsing_parquet("labels", file),
        ):
            tables.append(parquet.read(columns=columns).cast(wanted))
    table = pa.concat_tables(tables).sort_by("worker_id").combine_chunks()
    # A worker who was taken to be perfect has no accuracy.
    accuracy = np.clip(pc.fill_null(table["accuracy"], _MOST).to_numpy(), _LEAST, _MOST)
    votes = table["n_votes"].to_numpy()
    others = float(np.average(accuracy, weights=votes)) if votes.sum() else 0.7
    return WorkerAccuracies(table["worker_id"].combine_chunks(), accuracy, others)


def read_evidence(
    url: str,
    accuracies: WorkerAccuracies,
    image: I64,
    classes: I64,
    space: LabelSpace,
    run: Map,
) -> Evidence:
    """The votes on some images.

    image: (n,) ids. classes: (C,) labels that beliefs are about. A vote that `merge` would reject
    is left out; of several answers of one worker to one question the last one counts.

    Raises: InputError where there are no votes files, or one lacks a column.
    """
    wanted = np.unique(image)

    def read(split: VotesSplit) -> list[pa.Table]:
        return [
            votes.filter(pa.array(np.isin(votes["image_id"].to_numpy(), wanted)))
            for first_row, table in votes_files.read(split)
            for votes in [checks.check(table, split.file, first_row, space).votes]
        ]

    parts: Sequence[list[pa.Table]] = list(run(read, votes_files.plan(url, _ROWS_PER_SPLIT)))
    tables = [schemas.VOTES_CHECKED.empty_table(), *(table for part in parts for table in part)]
    return weigh(pa.concat_tables(tables).combine_chunks(), accuracies, classes, space.size)


def weigh(votes: pa.Table, accuracies: WorkerAccuracies, classes: I64, of_classes: int) -> Evidence:
    """The likelihood of votes (schemas.VOTES_CHECKED) under each of some classes (C,)."""
    votes = _that_count(votes)
    image, row = np.unique(votes["image_id"].to_numpy(), return_inverse=True)
    right = accuracies.of(votes["worker_id"])
    response = votes["response"].to_numpy()
    choice = response == Response.CHOICE
    # Of classes that a vote names, and of all others: P(vote | class).
    others = other_answers(votes["offered"].to_numpy(), of_classes)
    wrong = np.where(choice, (1 - right) / others, 1 - right)
    denied = response == Response.NO
    named = np.log(np.where(denied, wrong, right))
    other = np.log(np.where(denied, right, wrong))
    vote, label = _named_classes(votes)
    column = np.full(of_classes, -1, np.int64)
    column[classes] = np.arange(len(classes))
    vote, position = vote[column[label] >= 0], column[label][column[label] >= 0]
    total = np.repeat(np.bincount(row, other, len(image))[:, np.newaxis], len(classes), axis=1)
    np.add.at(total, (row[vote], position), (named - other)[vote])
    return Evidence(image, total.astype(np.float32), len(votes))


def _that_count(votes: pa.Table) -> pa.Table:
    """In one order, whatever the files; without repeated answers, and without `unsure`."""
    names = pc.unique(votes["worker_id"]).sort()
    worker = pc.index_in(votes["worker_id"], value_set=names).to_numpy().astype(np.int32)
    image, label = votes["image_id"].to_numpy(), votes["label"].to_numpy()
    response = votes["response"].to_numpy()
    asked = asked_about(votes, label)
    moment = pc.fill_null(votes["timestamp"], NO_TIME).to_numpy()
    file, row = votes["file"].to_numpy(), votes["row"].to_numpy()
    order = order_votes(image, worker, asked, response, moment, file, row)
    out = superseded(image[order], worker[order], asked[order], response[order], "last")
    out |= response[order] == Response.UNSURE
    return votes.take(pa.array(order[~out]))


def _named_classes(votes: pa.Table) -> tuple[I64, I64]:
    """The votes and the classes that they are about, an entry per class: both (entries,)."""
    label = votes["label"].to_numpy().astype(np.int64)
    single, several = np.flatnonzero(label >= 0), np.flatnonzero(label < 0)
    lists = votes["candidates"].combine_chunks().take(pa.array(several))
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    classes = lists.flatten().to_numpy().astype(np.int64)
    return (
        np.concatenate([single, np.repeat(several, lengths)]),
        np.concatenate([label[single], classes]),
    )
