"""The files of questions get what is known elsewhere: keys of tars, gold's classes, workers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler import storage
from coyo_labeler.batches import Batch, concat_batches
from coyo_labeler.em.segments import I32, I64, Bool, find
from coyo_labeler.errors import InputError
from coyo_labeler.executor import Executor, Round
from coyo_labeler.formats import schemas
from coyo_labeler.formats.image_shards import Shard, read_index
from coyo_labeler.formats.label_lists import LabelLists, read_label_lists
from coyo_labeler.formats.tars import DamagedTarError
from coyo_labeler.select import assign, hashes
from coyo_labeler.select.answers import read_answers
from coyo_labeler.select.gather import chosen_url, file_of
from coyo_labeler.select.index import read_gold
from coyo_labeler.select.plan import Plan
from coyo_labeler.select.workers import Workers
from coyo_labeler.votes.read import VotesSplit
from coyo_labeler.written import describe_files

_KEYS = pa.schema([pa.field("id", pa.int64()), pa.field("key", pa.string())])
_ASKED = pa.schema([pa.field("image_id", pa.int64()), pa.field("worker_id", pa.string())])
_GOLD, _VOTES, _IMAGES = "gold", "votes", "images"


@dataclass(frozen=True)
class Assignment:
    """Who may be asked. greedy: by expected accuracy, else by chance. most: questions each."""

    workers: Workers
    greedy: bool
    most: int | None


@dataclass
class Written:
    """What files of questions hold.

    questions: by purpose. answers: that they ask for. assigned: by worker; unassigned: how many
    have none. keyed: how many have the
    key of a tar; shown: how many have that or a URL. files: as `written.describe_files`.
    """

    questions: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    assigned: Counter[str] = field(default_factory=Counter)
    unassigned: int = 0
    keyed: int = 0
    shown: int = 0
    gold_labels: int = 0
    files: dict[str, Any] = field(default_factory=dict)

    def __add__(self, other: "Written") -> "Written":
        return Written(
            self.questions + other.questions,
            self.answers + other.answers,
            self.assigned + other.assigned,
            self.unassigned + other.unassigned,
            self.keyed + other.keyed,
            self.shown + other.shown,
            self.gold_labels + other.gold_labels,
            {**self.files, **other.files},
        )

    def count_workers(self, names: Sequence[str | None]) -> None:
        """Count the workers of answers that are wanted."""
        self.assigned = Counter(name for name in names if name is not None)
        self.unassigned = len(names) - self.assigned.total()


def finish_files(
    executor: Executor,
    state: str,
    output: str,
    plan: Plan,
    files: int,
    assignment: Assignment | None,
) -> Written:
    """Write questions/ and gold_key/. assignment: None: anybody may answer.

    Raises: InputError where a tar or a row of gold cannot be used.
    """
    asked = plan.votes if assignment is not None else ()
    items: list[Any] = [*plan.images, *asked, *((part,) for part in plan.gold)]
    send = partial(_send_known, state=state, plan=plan, files=files)
    with executor.share(assignment) as shared:
        finish = partial(
            _finish,
            state=state,
            output=output,
            plan=plan,
            files=files,
            shared=shared,
        )
        with executor.watch("select: writing questions"):
            return sum(executor.exchange(items, send, Round(files, finish)), Written())


def _send_known(item: Any, state: str, plan: Plan, files: int) -> Iterator[tuple[int, Batch]]:
    """What a tar, votes or gold say of the chosen images, to their files."""
    chosen = _chosen_ids(state, files)
    if isinstance(item, Shard):
        kind, column, tables = _IMAGES, "id", [_keys_of(item)]
    elif isinstance(item, VotesSplit):
        kind, column = _VOTES, "image_id"
        tables = [read_answers(item, plan.space).select(_ASKED.names)]
    else:
        kind, column, tables = _GOLD, "image_id", list(read_gold(item[0], plan))
    for table in tables:
        known = table.filter(pa.array(find(chosen, table[column].to_numpy())[1]))
        ids = known[column].to_numpy()
        file = file_of(ids, plan, files)
        for each in np.unique(file).tolist():
            yield each, Batch.of(kind, known.filter(pa.array(file == each)))


def _chosen_ids(state: str, files: int) -> I64:
    """The ids of all questions, sorted."""
    ids = [np.zeros(0, dtype=np.int64)]
    for file in range(files):
        with storage.open_parquet("select", chosen_url(state, file)) as parquet:
            ids.append(parquet.read(columns=["image_id"])["image_id"].to_numpy())
    return np.sort(np.concatenate(ids))


def _keys_of(shard: Shard) -> pa.Table:
    try:
        pairs = read_index(shard)
    except DamagedTarError as error:
        raise InputError(
            f"images: {error}; fetch or repair that tar, or leave images out"
        ) from None
    keys = pa.array([key for key, _ in pairs], pa.string())
    return pa.table([pa.array([image for _, image in pairs], pa.int64()), keys], schema=_KEYS)


def _finish(
    file: int,
    arrived: Sequence[Batch],
    state: str,
    output: str,
    plan: Plan,
    files: int,
    shared: Any,
) -> Iterator[Written]:
    with storage.open_parquet("select", chosen_url(state, file)) as parquet:
        questions = parquet.read().cast(schemas.QUESTIONS)
    by_id = [("id", "ascending"), ("key", "ascending")]
    keys = concat_batches(arrived, _IMAGES, _KEYS).sort_by(by_id)
    questions = _with_column(questions, "key", _look_up(keys, questions["image_id"].to_numpy()))
    gold = concat_batches(arrived, _GOLD, schemas.GOLD)
    key = _gold_key(questions, gold)
    written = _count(questions, len(key))
    assignment: Assignment | None = shared.value
    if assignment is not None:
        votes = concat_batches(arrived, _VOTES, _ASKED)
        questions = _with_workers(questions, votes, assignment, plan, file, files)
        written.count_workers(questions["worker_id"].to_pylist())
    for folder, table in (("questions", questions), ("gold_key", key)):
        name = f"{folder}/{file:05d}.parquet"
        storage.write_parquet(storage.join(output, name), table)
        written.files |= describe_files(output, [name])
    yield written


def _with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)


def _look_up(keys: pa.Table, ids: I64) -> pa.Array:
    """The key of each image; of several the first, null without one."""
    known, first = np.unique(keys["id"].to_numpy(), return_index=True)
    index, is_known = find(known, ids)
    rows = first[index] if len(first) else index
    return keys["key"].combine_chunks().take(pa.array(rows, mask=~is_known))


def _with_workers(
    questions: pa.Table,
    votes: pa.Table,
    assignment: Assignment,
    plan: Plan,
    file: int,
    files: int,
) -> pa.Table:
    """Each question once per answer that is wanted, with its worker. votes: earlier ones."""
    names = [*assignment.workers.names]
    overlap = questions["overlap"].to_numpy()
    answers = int(overlap.sum())
    quota = assign.quotas(len(names), answers, assignment.most, file, files)
    barred = _barred(questions["image_id"].to_numpy(), votes, assignment.workers)
    rows, workers = [], []
    for number in range(int(overlap.max(initial=0))):
        chosen = _assign(questions, overlap > number, barred, quota, assignment, plan)
        quota = quota - assign.used_of(chosen, len(names))
        for question in np.flatnonzero(chosen >= 0).tolist():
            barred.setdefault(question, set()).add(int(chosen[question]))
        asked = np.flatnonzero(overlap > number)
        rows.append(asked)
        workers.append(chosen[asked])
    row = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    worker = np.concatenate([np.zeros(0, dtype=np.int32), *workers])
    order = np.argsort(row, kind="stable")
    assigned = pa.array(names, pa.string()).take(pa.array(worker[order], mask=worker[order] < 0))
    each = _with_column(questions.take(pa.array(row[order])), "worker_id", assigned)
    return _with_column(each, "overlap", pa.array(np.ones(len(row), dtype=np.int32)))


def _assign(
    questions: pa.Table,
    wanted: Bool,
    barred: dict[int, set[int]],
    quota: I64,
    assignment: Assignment,
    plan: Plan,
) -> I32:
    """The worker of each wanted question; gold is drawn: it is to meet all and not only the best.

    barred: by question, who has answered or will.
    """
    workers = assignment.workers
    random = hashes.draw(questions["image_id"].to_numpy(), plan.salt(hashes.WORKER))
    by_chance = wanted & np.asarray(pc.equal(questions["purpose"], "gold"))
    if not assignment.greedy:
        by_chance = wanted
    chosen = np.full(len(questions), assign.NOBODY, dtype=np.int32)
    drawn = np.flatnonzero(by_chance)
    barred_drawn = {i: barred[q] for i, q in enumerate(drawn.tolist()) if q in barred}
    chosen[drawn] = assign.assign_randomly(random[drawn], barred_drawn, quota)
    others = np.flatnonzero(wanted & ~by_chance)
    if len(others) == 0:
        return chosen
    left = quota - assign.used_of(chosen, len(workers.names))
    risk = questions["risk"].to_numpy()[others]
    # Those that fewest may answer come first, then the riskiest: they get the best of who is left.
    fewest = np.array([-len(barred.get(question, ())) for question in others.tolist()])
    order = others[np.lexsort((random[others], -risk, fewest))]
    lists = _lists_of(questions)
    greedily = assign.assign_greedily(lists, order, barred, left, workers)
    return np.where(by_chance, chosen, greedily)


def _lists_of(questions: pa.Table) -> LabelLists:
    """The classes that a question offers or is about; the one that it asks for is certain."""
    label = questions["label"].combine_chunks()
    one = pa.array(np.asarray(label.is_valid()).astype(np.int32))
    ends = pa.array(np.append(0, np.cumsum(one)), pa.int32())
    certain = pa.array(np.ones(len(label) - label.null_count, dtype=np.float32))
    rows = {"id": questions["image_id"]}
    for name, column, values in (
        ("labels", "candidates", label.drop_null()),
        ("label_probs", "candidate_probs", certain),
    ):
        asked = pa.ListArray.from_arrays(ends, values)
        rows[name] = pc.if_else(label.is_valid(), asked, questions[column].combine_chunks())
    return read_label_lists(pa.table(rows), "labels")


def _barred(ids: I64, votes: pa.Table, workers: Workers) -> dict[int, set[int]]:
    """By question, the workers who have answered about its image before.

    A worker who is named without a tool is whoever has that name in any: `ann` is `file:ann` too.
    """
    code = {name: number for number, name in enumerate(workers.names)}
    question = {image: number for number, image in enumerate(ids.tolist())}
    barred: dict[int, set[int]] = {}
    for image, name in zip(
        votes["image_id"].to_pylist(), votes["worker_id"].to_pylist(), strict=True
    ):
        worker = code.get(name, code.get(name.partition(":")[2]))
        if worker is not None and image in question:
            barred.setdefault(question[image], set()).add(worker)
    return barred


def _gold_key(questions: pa.Table, gold: pa.Table) -> pa.Table:
    """The true classes of the gold questions, in the order of the questions."""
    asked = questions.filter(pc.equal(questions["purpose"], "gold"))
    ids = asked["image_id"].to_numpy()
    order = np.argsort(ids)
    pairs = np.unique(
        np.stack([gold["image_id"].to_numpy(), gold["label"].to_numpy().astype(np.int64)], axis=1),
        axis=0,
    ).reshape(-1, 2)
    index, is_asked = find(ids[order], pairs[:, 0])
    rows = order[index[is_asked]] if len(order) else index[is_asked]
    by_question = np.lexsort((pairs[is_asked, 1], rows))
    taken = asked.take(pa.array(rows[by_question]))
    label = pa.array(pairs[is_asked, 1][by_question], pa.int32())
    return pa.table([taken["question_id"], taken["image_id"], label], schema=schemas.GOLD_KEY)


def _count(questions: pa.Table, gold_labels: int) -> Written:
    keyed = questions["key"].is_valid()
    shown = pc.or_(keyed, questions["url"].is_valid())
    return Written(
        Counter(questions["purpose"].to_pylist()),
        int(pc.sum(questions["overlap"]).as_py() or 0),
        keyed=int(pc.sum(keyed).as_py() or 0),
        shown=int(pc.sum(shown).as_py() or 0),
        gold_labels=gold_labels,
    )
