"""The index: of every image that may be asked about, what the choice goes by, in partitions.

Labels are read once, and only the columns that the choice needs. Their rows meet the votes and the
gold of the same image, and then their near twins; what is left is written partition by partition.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.batches import Batch, concat_batches, partition_rows
from coyo_labeler.em.segments import I64, Bool, find, offsets_of
from coyo_labeler.errors import InputError
from coyo_labeler.executor import Executor, Round
from coyo_labeler.formats import pairs, parquet_splits, schemas
from coyo_labeler.formats.label_lists import (
    LabelLists,
    check_label_lists,
    read_ids,
    read_label_lists,
)
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.select import score
from coyo_labeler.select.answers import ANSWERS, count_answers, read_answers
from coyo_labeler.select.plan import Plan
from coyo_labeler.select.rows import index_url
from coyo_labeler.select.twins import group_of, representatives
from coyo_labeler.votes.read import VotesSplit


class Kind(IntEnum):
    """What an image of the index may be asked for."""

    FRESH = 0  # nobody has been asked about it
    REPEAT = 1  # it has votes that leave it open
    GOLD = 2  # its class is known


#: Rows of labels that are read at a time.
_BATCH_ROWS = 131_072

#: Why an image is not in the index.
TWIN, MAX_VOTES, ASKED_BEFORE, NO_CLASS = "near_twin", "max_votes", "asked_before", "no_class"

#: An image on its way into the index. group: of near twins. uncertain: whether votes would leave it
#: open. top: its most probable class, pair: a number for its two most probable ones; -1 where these
#: are not needed. split and row: where it stands in the labels.
_ROWS = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("group", pa.int64()),
        pa.field("score", pa.float32()),
        pa.field("uncertain", pa.bool_()),
        pa.field("n_votes", pa.int32()),
        pa.field("top", pa.int32()),
        pa.field("pair", pa.int64()),
        pa.field("split", pa.int32()),
        pa.field("row", pa.int32()),
    ]
)
_JOINED = pa.schema([*_ROWS, pa.field("disagree", pa.bool_()), pa.field("gold", pa.bool_())])

#: A row of the index. key: see `score.order_key`. kind: of `Kind`.
INDEX = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("key", pa.uint64()),
        pa.field("kind", pa.int8()),
        pa.field("n_votes", pa.int32()),
        pa.field("top", pa.int32()),
        pa.field("pair", pa.int64()),
        pa.field("split", pa.int32()),
        pa.field("row", pa.int32()),
    ]
)

_IMAGES, _VOTES, _GOLD = "images", "votes", "gold"


@dataclass
class Counted:
    """What partitions of the index hold.

    images: rows of the labels. kinds: how many there are of each `Kind`. gold: of gold, by their
    number of votes. left_out: rows of the labels that are not in the index, by reason. gold_known:
    images of gold that are in the labels. answered, answered_known: images with votes, and those of
    them that are in the labels.
    """

    images: int = 0
    kinds: I64 = field(default_factory=lambda: np.zeros(len(Kind), dtype=np.int64))
    gold: dict[int, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    gold_images: int = 0
    gold_known: int = 0
    answered: int = 0
    answered_known: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(
            self.images + other.images,
            self.kinds + other.kinds,
            _add(self.gold, other.gold),
            _add(self.left_out, other.left_out),
            self.gold_images + other.gold_images,
            self.gold_known + other.gold_known,
            self.answered + other.answered,
            self.answered_known + other.answered_known,
        )


def _add(one: dict[Any, int], other: dict[Any, int]) -> dict[Any, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}


def write_index(executor: Executor, state: str, plan: Plan, partitions: int) -> Counted:
    """Read labels, votes and gold once, and write the index; returns what it holds.

    Raises: InputError naming the file, row, column or value that cannot be used.
    """
    items: list[Any] = [*enumerate(plan.labels), *plan.votes, *((part,) for part in plan.gold)]
    join = bool(plan.votes or plan.gold)
    send = partial(_send, plan=plan, partitions=partitions, by_id=join)
    rounds = [Round(partitions, partial(_write, state=state, plan=plan))]
    if join:
        rounds.insert(0, Round(partitions, partial(_join, partitions=partitions)))
    with executor.watch("select: reading labels"):
        return sum(executor.exchange(items, send, *rounds), Counted())


def _send(
    item: Any, plan: Plan, partitions: int, by_id: bool
) -> Iterator[tuple[int, Batch | Counted]]:
    if isinstance(item, VotesSplit):
        answers = read_answers(item, plan.space)
        yield from partition_rows(answers, "image_id", _VOTES, partitions)
        return
    if len(item) == 1:
        yield from _send_gold(item[0], plan, partitions)
        return
    number, split = item
    column = "id" if by_id else "group"
    for rows in read_images(number, split, plan):
        yield from partition_rows(rows, column, _IMAGES, partitions)


def _send_gold(part: Any, plan: Plan, partitions: int) -> Iterator[tuple[int, Batch]]:
    for table in read_gold(part, plan):
        yield from partition_rows(table.select(["image_id"]), "image_id", _GOLD, partitions)


def read_gold(part: Split | str, plan: Plan) -> Iterator[pa.Table]:
    """The rows of a part of gold, as schemas.GOLD. Raises: InputError where one is not usable."""
    url = part.url if isinstance(part, Split) else part
    for table in pairs.read_pairs("gold", part, schemas.GOLD, plan.space):
        if table["image_id"].null_count or table["label"].null_count:
            raise InputError(f"gold: {url} has a row without image_id or label; drop it")
        label = table["label"].to_numpy()
        outside = (label < 0) | (label >= plan.space.size)
        if outside.any():
            raise InputError(
                f"gold: {url}: label {label[outside][0]} is outside {plan.space.describe()}; drop "
                "the row or set label_space"
            )
        yield table


def read_images(number: int, split: Split, plan: Plan) -> Iterator[pa.Table]:
    """The images of a split of the labels, as `_ROWS`. number: of the split."""
    source = f"labels: {split.url}"
    row = 0
    for table in parquet_splits.read_split(split, plan.columns, _BATCH_ROWS):
        ids = read_ids(table["id"], source)
        lists = _lists(table, source, plan) if plan.reads_lists else None
        risk = _risk(table, lists, ids, source, plan)
        values = _score(table, lists, risk, ids, source, plan)
        n = len(ids)
        votes = table["n_votes"].to_numpy() if plan.has_votes else np.zeros(n, dtype=np.int32)
        top, pair = np.full(n, -1, dtype=np.int32), np.full(n, -1, dtype=np.int64)
        if lists is not None and plan.reads_labels:
            top = score.question_class(lists) if plan.kind == "verify" else score.top_of(lists)
            if plan.max_per_pair is not None:
                pair = score.pair_of(lists, plan.space.size)
        hashes = table["imagehash"] if plan.has_hashes else None
        yield pa.table(
            [
                ids,
                group_of(ids, hashes),
                values.astype(np.float32),
                risk >= plan.repeat_risk if risk is not None else np.zeros(n, dtype=bool),
                np.nan_to_num(votes).astype(np.int32),
                top,
                pair,
                np.full(n, number, dtype=np.int32),
                np.arange(row, row + n, dtype=np.int32),
            ],
            schema=_ROWS,
        )
        row += n


def _lists(table: pa.Table, source: str, plan: Plan) -> LabelLists:
    """The lists of each image; without their classes, where these are not needed."""
    if plan.reads_labels:
        lists = read_label_lists(table, source)
        check_label_lists(lists, source, classes=plan.space.size)
        return lists
    column = table["label_probs"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    probability = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    nothing = np.zeros(len(probability), dtype=np.int32)
    ids = read_ids(table["id"], source)
    lists = LabelLists(ids, offsets_of(lengths), nothing, probability)
    check_label_lists(lists, source)
    return lists


def _risk(
    table: pa.Table, lists: LabelLists | None, ids: I64, source: str, plan: Plan
) -> NDArray[Any] | None:
    """The risk of each image; None where the choice does not need it."""
    if plan.reads_risk:
        return _column(table, "risk", ids, source)
    return score.risk_of(lists, plan.space.size) if lists is not None else None


def _score(
    table: pa.Table,
    lists: LabelLists | None,
    risk: NDArray[Any] | None,
    ids: I64,
    source: str,
    plan: Plan,
) -> NDArray[Any]:
    if plan.strategy == "random":
        return np.zeros(len(ids))
    if plan.strategy == "entropy" and plan.has_entropy:
        return _column(table, "entropy", ids, source)
    if plan.strategy == "risk":
        assert risk is not None
        return risk
    assert lists is not None
    if plan.strategy == "entropy":
        return score.entropy_of(lists, plan.space.size)
    return score.margin_of(lists)


def _column(table: pa.Table, name: str, ids: I64, source: str) -> NDArray[Any]:
    values = table[name].to_numpy()
    bad = ~(values >= 0)  # NaN, and what was null, is in no range
    if bad.any():
        raise InputError(
            f"{source}: id {ids[bad][0]} has the {name} {values[bad][0]:g}; it must be a number "
            "from 0 on: write these labels again with merge, or drop the column"
        )
    return np.asarray(values)


def _join(
    partition: int, arrived: Sequence[Batch], partitions: int
) -> Iterator[tuple[int, Batch | Counted]]:
    """Images with their votes and gold, all of one partition of ids, on to their near twins."""
    rows = concat_batches(arrived, _IMAGES, _ROWS)
    votes = concat_batches(arrived, _VOTES, ANSWERS)
    gold = concat_batches(arrived, _GOLD, pa.schema([schemas.GOLD.field("image_id")]))
    ids = rows["id"].to_numpy()
    _check_once(ids)
    codes = votes["worker_id"].combine_chunks().dictionary_encode()
    images, answers, disagree = count_answers(
        votes["image_id"].to_numpy(),
        np.asarray(codes.indices).astype(np.int64),
        votes["label"].to_numpy(),
        votes["answer"].to_numpy(),
    )
    index, answered = find(images, ids)
    n_votes = rows["n_votes"].to_numpy().copy()
    given = np.zeros(len(ids), dtype=np.int64)
    given[answered] = answers[index[answered]]
    # Of votes that are in the labels alone nobody knows who gave them: these are not asked again.
    is_known = given >= n_votes
    n_votes = np.maximum(n_votes, given)
    known = np.unique(gold["image_id"].to_numpy())
    is_gold = find(known, ids)[1]
    joined = rows.set_column(
        rows.schema.get_field_index("n_votes"), "n_votes", pa.array(n_votes.astype(np.int32))
    )
    flags = np.zeros(len(ids), dtype=bool)
    flags[answered] = disagree[index[answered]]
    uncertain = pa.array(_flags(rows, "uncertain") & is_known)
    joined = joined.set_column(joined.schema.get_field_index("uncertain"), "uncertain", uncertain)
    joined = joined.append_column("disagree", pa.array(flags & is_known))
    joined = joined.append_column("gold", pa.array(is_gold)).cast(_JOINED)
    yield from partition_rows(joined, "group", _IMAGES, partitions)
    counted = Counted(
        gold_images=len(known),
        gold_known=int(is_gold.sum()),
        answered=len(images),
        answered_known=int(answered.sum()),
    )
    yield partition, counted


def _check_once(ids: I64) -> None:
    ordered = np.sort(ids)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise InputError(f"labels: id {ordered[twice[0]]} has two rows; drop one")


def _write(
    partition: int, arrived: Sequence[Batch | Counted], state: str, plan: Plan
) -> Iterator[Counted]:
    batches = [item for item in arrived if isinstance(item, Batch)]
    yield from (item for item in arrived if isinstance(item, Counted))
    joined = bool(plan.votes or plan.gold)
    rows = concat_batches(batches, _IMAGES, _JOINED if joined else _ROWS)
    if not joined:
        nothing = pa.array(np.zeros(len(rows), dtype=bool))
        rows = rows.append_column("disagree", nothing).append_column("gold", nothing)
    index, counted = index_rows(rows, plan)
    storage.write_parquet(index_url(state, partition), index)
    yield counted


def index_rows(rows: pa.Table, plan: Plan) -> tuple[pa.Table, Counted]:
    """The rows of the index among whole groups of near twins, and why the others are not.

    rows: as `_JOINED`.

    Raises: InputError naming an id that occurs twice.
    """
    ids, n_votes = rows["id"].to_numpy(), rows["n_votes"].to_numpy()
    _check_once(ids)
    is_gold = _flags(rows, "gold")
    first = representatives(rows["group"].to_numpy(), ids, n_votes, is_gold)
    kind, left_out = _kinds(rows, n_votes, is_gold, first, plan)
    kept = np.flatnonzero(kind >= 0)
    values = rows["score"].to_numpy()[kept]
    table = pa.table(
        [
            ids[kept],
            score.order_key(values, kind[kept] == Kind.REPEAT),
            kind[kept],
            n_votes[kept],
            *(rows[name].to_numpy()[kept] for name in ("top", "pair", "split", "row")),
        ],
        schema=INDEX,
    )
    gold_votes, gold_counts = np.unique(n_votes[kind == Kind.GOLD], return_counts=True)
    return table, Counted(
        images=len(ids),
        kinds=np.bincount(kind[kept], minlength=len(Kind)).astype(np.int64),
        gold=dict(zip(gold_votes.tolist(), gold_counts.tolist(), strict=True)),
        left_out=left_out,
    )


def _kinds(
    rows: pa.Table, n_votes: NDArray[np.int32], is_gold: Bool, first: Bool, plan: Plan
) -> tuple[NDArray[np.int8], dict[str, int]]:
    """The `Kind` of each image, -1 where it is not asked about, and how often for which reason."""
    open_again = _flags(rows, "disagree") | (_flags(rows, "uncertain") & plan.has_risk)
    kind = np.full(len(rows), Kind.FRESH, dtype=np.int8)
    kind[n_votes > 0] = Kind.REPEAT
    kind[is_gold] = Kind.GOLD
    reason = np.full(len(rows), "", dtype=object)
    settled = (kind == Kind.REPEAT) & ~(open_again & bool(plan.votes))
    reason[settled] = ASKED_BEFORE
    if plan.kind != "choice":
        reason[rows["top"].to_numpy() < 0] = NO_CLASS
    reason[n_votes >= plan.max_votes] = MAX_VOTES
    reason[~first] = TWIN
    kind[reason != ""] = -1
    names, counts = np.unique(reason[reason != ""].astype(str), return_counts=True)
    return kind, dict(zip(names.tolist(), counts.tolist(), strict=True))


def _flags(rows: pa.Table, name: str) -> Bool:
    return np.asarray(rows[name].to_numpy(zero_copy_only=False)).astype(bool)
