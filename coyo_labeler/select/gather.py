"""The chosen rows of the labels become questions, in files that do not tell why they are asked.

Which file a question is in, and where in it, goes by a hash of its image alone: it does not depend
on how the work was divided either.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.batches import Batch, concat_batches
from coyo_labeler.em.segments import I64
from coyo_labeler.errors import InputError
from coyo_labeler.executor import Round
from coyo_labeler.formats import parquet_splits, schemas
from coyo_labeler.formats.label_lists import LabelLists, check_label_lists, read_label_lists
from coyo_labeler.formats.parquet_splits import Split
from coyo_labeler.select import hashes, score
from coyo_labeler.select.ask import Asked, ask_choice, ask_class, question_table
from coyo_labeler.select.choose import Cuts, choose
from coyo_labeler.select.nodes import ask_nodes
from coyo_labeler.select.passes import Passes
from coyo_labeler.select.plan import Plan
from coyo_labeler.select.rows import read_rows

#: Questions of a file, about.
_PER_FILE = 50_000

#: Rows of labels that are read at a time: with fifty classes each, some 30 MB.
_BATCH_ROWS = 65_536

#: Rows of labels that were chosen, on their way to the task that reads them.
_CHOSEN = pa.schema(
    [
        pa.field("row", pa.int32()),
        pa.field("purpose", pa.int8()),
        pa.field("probability", pa.float64()),
        pa.field("n_votes", pa.int32()),
    ]
)
_ROWS, _QUESTIONS = "rows", "questions"


def files_for(questions: int) -> int:
    """How many files so many questions are divided among."""
    return max(1, -(-questions // _PER_FILE))


def file_of(ids: I64, plan: Plan, files: int) -> I64:
    """The file of questions that each image is asked about in, (n,)."""
    return hashes.slot_of(hashes.draw(ids, plan.salt(hashes.ORDER)), files)


def write_chosen(passes: Passes, plan: Plan, cuts: Cuts, files: int) -> int:
    """Bring the chosen images to their files of questions, in the state; returns how many.

    Raises: InputError naming an image whose lists cannot be used.
    """
    send = partial(_send_rows, state=passes.state, cuts=cuts, salts=passes.salts)
    read = partial(_read_rows, plan=plan, files=files)
    store = partial(_store_questions, state=passes.state, plan=plan)
    rounds = [Round(len(plan.labels), read), Round(files, store)]
    with passes.executor.watch("select: reading chosen images"):
        return sum(passes.executor.exchange(range(passes.partitions), send, *rounds))


def _send_rows(
    partition: int, state: str, cuts: Cuts, salts: dict[str, int]
) -> Iterator[tuple[int, Batch]]:
    index = read_rows(state, partition)
    chosen = choose(index, cuts, salts)
    row = np.flatnonzero(chosen.is_chosen)
    if len(row) == 0:
        return
    rows = row[np.argsort(index.split[row], kind="stable")]
    columns = [index.row[rows], chosen.purpose[rows], chosen.probability[rows]]
    table = pa.table([*columns, index.n_votes[rows]], schema=_CHOSEN)
    splits, starts = np.unique(index.split[rows], return_index=True)
    ends = np.append(starts[1:], len(rows))
    for number, begin, end in zip(splits.tolist(), starts.tolist(), ends.tolist(), strict=True):
        yield number, Batch.of(_ROWS, table.slice(begin, end - begin))


def _read_rows(
    number: int, arrived: Sequence[Batch], plan: Plan, files: int
) -> Iterator[tuple[int, Batch]]:
    """The chosen rows of a split, as questions."""
    chosen = concat_batches(arrived, _ROWS, _CHOSEN).sort_by("row")
    if len(chosen) == 0:
        return
    row = chosen["row"].to_numpy()
    for first, table in _row_groups(plan.labels[number], row, plan):
        begin, end = np.searchsorted(row, [first, first + len(table)])
        if begin == end:
            continue
        rows = table.take(pa.array(row[begin:end] - first))
        questions = _questions(rows, chosen.slice(begin, end - begin), plan, number)
        ids = questions["image_id"].to_numpy()
        file = file_of(ids, plan, files)
        for each in np.unique(file).tolist():
            yield each, Batch.of(_QUESTIONS, questions.filter(pa.array(file == each)))


def _row_groups(split: Split, row: NDArray[np.int32], plan: Plan) -> Iterator[tuple[int, pa.Table]]:
    """The row groups of a split that hold some of the rows, each with the rows before it."""
    names = ["id", "labels", "label_probs"]
    names += [name for name, has in (("url", plan.has_url), ("risk", plan.has_risk)) if has]
    metadata = storage.read_footer(split.key, split.url)
    first = 0
    for group in split.row_groups:
        rows = metadata.row_group(group).num_rows
        begin, end = np.searchsorted(row, [first, first + rows])
        if end > begin:
            only = replace(split, row_groups=(group,), first_row=split.first_row + first)
            row_of_batch = first
            for table in parquet_splits.read_split(only, names, _BATCH_ROWS):
                yield row_of_batch, table
                row_of_batch += len(table)
        first += rows


def _questions(rows: pa.Table, chosen: pa.Table, plan: Plan, number: int) -> pa.Table:
    source = f"labels: {plan.labels[number].url}"
    lists = read_label_lists(rows, source)
    check_label_lists(lists, source, classes=plan.space.size, distinct=True)
    if plan.has_risk:
        risk = rows["risk"].to_numpy()
    else:
        risk = score.risk_of(lists, plan.space.size).astype(np.float32)
    url = rows["url"].combine_chunks() if plan.has_url else pa.nulls(len(rows), pa.string())
    overlap = np.minimum(plan.overlap, plan.max_votes - chosen["n_votes"].to_numpy())
    return question_table(
        lists,
        risk,
        url,
        chosen["purpose"].to_numpy(),
        chosen["probability"].to_numpy(),
        overlap.astype(np.int32),
        plan.round,
        _ask(lists, plan),
    )


def _ask(lists: LabelLists, plan: Plan) -> Asked:
    if plan.kind == "choice":
        return ask_choice(lists, plan.candidates)
    if plan.node_rule is not None:
        return ask_nodes(lists, plan.node_rule)
    return ask_class(score.question_class(lists))


def chosen_url(state: str, file: int) -> str:
    """The file of the state that holds the questions of a file."""
    return storage.join(state, "chosen", f"{file:05d}.parquet")


def _store_questions(file: int, arrived: Sequence[Batch], state: str, plan: Plan) -> Iterator[int]:
    questions = concat_batches(arrived, _QUESTIONS, schemas.QUESTIONS)
    ids = questions["image_id"].to_numpy()
    order = np.argsort(hashes.draw(ids, plan.salt(hashes.ORDER)))
    ordered = ids[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise InputError(f"labels: id {ordered[twice[0]]} has two rows; drop one")
    storage.write_parquet(chosen_url(state, file), questions.take(pa.array(order)))
    yield len(ids)
