"""What a task does with a split of votes, gold or beliefs: read, check and partition its rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler import storage
from coyo_labeler.batches import (
    BELIEFS,
    GOLD,
    VOTES,
    Batch,
    concat_batches,
    partition_rows,
)
from coyo_labeler.em.model import Model
from coyo_labeler.em.segments import I64, find
from coyo_labeler.errors import InputError
from coyo_labeler.executor import Executor, Round
from coyo_labeler.formats import pairs, parquet_splits, schemas
from coyo_labeler.formats.label_lists import (
    check_label_lists,
    check_unique_images,
    read_ids,
    read_label_lists,
)
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.merge.voted_filter import VotedFilter
from coyo_labeler.votes import checks
from coyo_labeler.votes import read as votes_files
from coyo_labeler.votes.nodes import Nodes
from coyo_labeler.votes.read import VotesSplit

#: Votes that are checked at once where each may become a set of up to 21,841 classes.
_ROWS_WITH_NODES = 50_000
#: Rows that are checked at a time: with 50 entries each, arrays stay in a core's cache.
_BLOCK_ROWS = 2048
#: Rows of voted images that are partitioned at a time.
_SENT_ROWS = 65_536


@dataclass(frozen=True)
class VotesSummary:
    """What a split of votes holds.

    rows: all of them. used: those that passed the checks. workers: their names, sorted.
    rejected: rows by reason. error: the message about
    the first bad row, where that stops the run.
    """

    rows: int
    used: int
    workers: tuple[str, ...]
    rejected: dict[str, int] = field(default_factory=dict)
    error: str | None = None


def read_votes(
    split: VotesSplit,
    space: LabelSpace,
    partitions: int,
    rejects: str | None,
    nodes: Nodes | None = None,
) -> Iterator[VotesSummary | tuple[int, Batch]]:
    """Check a split of votes: batches with their partitions, and at the end the summary.

    rejects: the file that bad votes are written to, or None: the first one ends the split, and the
    summary has the message. nodes: as of `checks.check`.
    """
    used = rows = 0
    workers: set[str] = set()
    rejected: list[pa.Table] = []
    error = None
    for first_row, table in _batches(split, nodes):
        checked = checks.check(table, split.file, first_row, space, nodes)
        rows += table.num_rows
        used += checked.votes.num_rows
        workers.update(checked.votes["worker_id"].unique().to_pylist())
        if checked.rejects.num_rows:
            if rejects is None:
                error = _message(split, checked.rejects.slice(0, 1).to_pylist()[0])
                break
            rejected.append(checked.rejects)
        yield from partition_rows(checked.votes, "image_id", VOTES, partitions)
    by_reason: dict[str, int] = {}
    if rejected and rejects is not None:
        table = pa.concat_tables(rejected)
        storage.write_parquet(rejects, table)
        by_reason = {
            entry["values"]: entry["counts"]
            for entry in pc.value_counts(table["reason"]).to_pylist()
        }
    yield VotesSummary(rows, used, tuple(sorted(workers)), by_reason, error)


def _batches(split: VotesSplit, nodes: Nodes | None) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a split, with those before them; few at once where each may be about a set."""
    for first_row, table in votes_files.read(split):
        rows = max(table.num_rows, 1) if nodes is None else _ROWS_WITH_NODES
        for start in range(0, table.num_rows, rows):
            yield first_row + start, table.slice(start, rows)


def partition_votes(
    executor: Executor,
    state: StateFolder,
    splits: Sequence[VotesSplit],
    space: LabelSpace,
    partitions: int,
    keep_rejects: bool,
    nodes: Nodes | None,
) -> list[VotesSummary]:
    """Read and check all votes, once; the state then holds those of each partition.

    keep_rejects: whether bad votes are written to files of their own, see `read_votes`. nodes:
    as of `checks.check`. Returns the summary of each split, in their order.
    """
    output = state.output if keep_rejects else None
    send = partial(_send_votes, space=space, partitions=partitions, output=output, nodes=nodes)
    store = partial(_store_votes, state=state)
    summaries = executor.exchange(list(enumerate(splits)), send, Round(partitions, store))
    return [summary for _, summary in sorted(summaries, key=lambda numbered: numbered[0])]


def reject_name(split: int) -> str:
    """The file of the bad votes of a split, below the output."""
    return f"rejects/votes-{split:05d}.parquet"


def _send_votes(
    numbered: tuple[int, VotesSplit],
    space: LabelSpace,
    partitions: int,
    output: str | None,
    nodes: Nodes | None,
) -> Iterator[tuple[int, Batch | tuple[int, VotesSummary]]]:
    number, split = numbered
    url = None if output is None else storage.join(output, reject_name(number))
    for item in read_votes(split, space, partitions, url, nodes):
        if isinstance(item, VotesSummary):
            yield number % partitions, (number, item)  # any partition hands it to the driver
        else:
            yield item


def _store_votes(
    partition: int, arrived: Sequence[Batch | tuple[int, VotesSummary]], state: StateFolder
) -> list[tuple[int, VotesSummary]]:
    batches = [item for item in arrived if isinstance(item, Batch)]
    state.write_votes(concat_batches(batches, VOTES, schemas.VOTES_CHECKED), partition)
    return [item for item in arrived if not isinstance(item, Batch)]


def _message(split: VotesSplit, reject: dict[str, str]) -> str:
    return (
        f"votes: row {reject['row']} of {split.name}: {reject['detail']}; "
        f"{checks.remedy(reject['reason'])}"
    )


def read_beliefs(
    split: Split, voted: VotedFilter, partitions: int, model: Model
) -> Iterator[tuple[int, Batch]]:
    """The beliefs of images that may be voted on, as batches with their partitions.

    All beliefs of the split are checked now, so that a bad one is not found only after EM.

    Raises: InputError naming an image whose belief cannot be used.
    """
    source = f"{split.key}: {split.url}"
    seen = [np.zeros(0, dtype=np.int64)]
    sent: list[pa.Table] = []
    rows = 0
    for table in parquet_splits.read_split(split, batch_rows=_BLOCK_ROWS):
        lists = read_label_lists(table, source)
        check_label_lists(lists, source, classes=model.classes, distinct=True)
        seen.append(lists.image)
        may_have = voted.may_have(lists.image)
        if may_have.any():
            sent.append(table.filter(pa.array(may_have)))
            rows += sent[-1].num_rows
        if rows >= _SENT_ROWS:
            yield from partition_rows(pa.concat_tables(sent), "id", BELIEFS, partitions)
            sent, rows = [], 0
    if sent:
        yield from partition_rows(pa.concat_tables(sent), "id", BELIEFS, partitions)
    check_unique_images(np.sort(np.concatenate(seen)), source)


def is_copied_whole(split: Split, voted: VotedFilter, state: StateFolder) -> bool:
    """Whether a split is of an earlier posterior, and none of its images has a new vote or gold.

    Only the ids are read. Those that pass the filter are looked up among the ids that the state
    keeps, for beside many votes many of them are false positives.
    """
    if split.schema != schemas.POSTERIOR:
        return False
    for table in parquet_splits.read_split(split, ["id"]):
        image = image_ids(table, split)
        image = image[voted.may_have(image)]
        for number in range(voted.id_files):
            if find(state.map_voted_ids(number), image)[1].any():
                return False
    return True


def image_ids(table: pa.Table, split: Split) -> I64:
    """The ids of a table of beliefs. Raises: InputError where one is missing."""
    return read_ids(table["id"], f"{split.key}: {split.url}")


def read_gold(split: Split, space: LabelSpace, partitions: int) -> Iterator[tuple[int, Batch]]:
    """Gold rows as batches with their partitions. Raises: InputError where one is not usable."""
    for table in pairs.read_gold(split, space):
        if table["image_id"].null_count or table["label"].null_count:
            raise InputError(f"gold: {split.url} has a row without image_id or label; drop it")
        label = table["label"].to_numpy()
        outside = (label < 0) | (label >= space.size)
        if outside.any():
            raise InputError(
                f"gold: {split.url}: label {label[outside][0]} is outside {space.describe()}; "
                "drop the row or set label_space"
            )
        yield from partition_rows(table, "image_id", GOLD, partitions)
