"""Rows of CSV, TSV, JSON lines and Parquet, with the columns of each tool, to answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coyo_labeler.collect.answers import LONGEST_ID, Answer, clean, text_or_none, worker_or_none
from coyo_labeler.collect.reasons import Reason
from coyo_labeler.collect.times import parse_time, seconds_of
from coyo_labeler.errors import one_line
from coyo_labeler.formats.image_ids import whole_number

#: What a column can be: our name of it, and what it holds.
ROLES = {
    "question_id": "the question, as send gave it",
    "image_id": "the image's id, instead of a question_id",
    "image": "name of the image's file, or its URL, instead of an image_id",
    "label": "the class that a verification asks about, beside image_id",
    "worker_id": "who answered",
    "answer": "what was answered",
    "answer_id": "the tool's id of the answer",
    "timestamp": "when: ISO 8601, or seconds since 1970",
    "started": "when the worker began, for seconds",
    "seconds": "seconds spent on the answer",
    "status": "whether it was accepted, rejected or skipped",
}

#: Words in the column `status` that make an answer no vote.
_STATUSES = {
    "rejected": Reason.REJECTED_ASSIGNMENT,
    "reject": Reason.REJECTED_ASSIGNMENT,
    "skipped": Reason.SKIPPED,
    "expired": Reason.SKIPPED,
    "returned": Reason.SKIPPED,
    "abandoned": Reason.SKIPPED,
    "cancelled": Reason.SKIPPED,
    "canceled": Reason.SKIPPED,
}


@dataclass(frozen=True)
class Layout:
    """Which column of a table plays which role.

    tool: in front of the ids of workers and answers. columns: names by role; a dot leads into a
    nested object. prefix: of the columns that hold answers, where there is no column `answer`:
    `Answer.category.label`, or `Answer.category.yes` with the value true. answers: what the
    tool's words mean, such as {"accept": "yes"}. options: the column with a list of the options
    that were chosen, where the answer says only whether there are some.
    """

    tool: str
    columns: Mapping[str, str]
    prefix: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    options: str = ""


MTURK = Layout(
    "mturk",
    {
        "question_id": "Input.question_id",
        "image_id": "Input.image_id",
        "image": "Input.image_url",
        "label": "Input.label",
        "worker_id": "WorkerId",
        "answer_id": "AssignmentId",
        "timestamp": "SubmitTime",
        "seconds": "WorkTimeInSeconds",
        "status": "AssignmentStatus",
    },
    prefix="Answer.",
)
CROWDKIT = Layout("crowdkit", {"question_id": "task", "worker_id": "worker", "answer": "label"})
TOLOKA = Layout(
    "toloka",
    {
        "question_id": "INPUT:question_id",
        "image_id": "INPUT:image_id",
        "image": "INPUT:image",
        "label": "INPUT:label",
        "worker_id": "ASSIGNMENT:worker_id",
        "timestamp": "ASSIGNMENT:submitted",
        "started": "ASSIGNMENT:started",
        "status": "ASSIGNMENT:status",
    },
    prefix="OUTPUT:",
)
PRODIGY = Layout(
    "prodigy",
    {
        "question_id": "meta.question_id",
        "image_id": "meta.image_id",
        "image": "image",
        "worker_id": "_annotator_id",
        "answer": "answer",
        "timestamp": "_timestamp",
    },
    answers={"accept": "yes", "reject": "no"},
    options="accept",  # of its interface for choices
)
#: A table with our own names; a setting gives others.
PLAIN = Layout("file", {role: role for role in ROLES})

LAYOUTS = {
    "mturk": MTURK,
    "crowdkit": CROWDKIT,
    "toloka": TOLOKA,
    "prodigy": PRODIGY,
    "columns": PLAIN,
}


def read_row(row: Any, layout: Layout, origin: str) -> Answer:
    """The answer of a row. origin: where the row stands, unique."""
    if not isinstance(row, dict):
        return Answer(
            origin, source=origin, status=Reason.MALFORMED, detail="the row is not an object"
        )
    cells = {role: _cell(row, column) for role, column in layout.columns.items()}
    own_id = text_or_none(cells.get("answer_id"), LONGEST_ID)
    question_id = text_or_none(cells.get("question_id"), LONGEST_ID)
    label = whole_number(cells.get("label"))
    # An assignment of several tasks has one id and a row for each.
    name = origin if own_id is None else f"{layout.tool}:{own_id} {question_id or ''}".rstrip()
    status = detail = value = timestamp = started = None
    try:
        timestamp, started = parse_time(cells.get("timestamp")), parse_time(cells.get("started"))
        value = _value(row, cells, layout)
    except ValueError as error:
        status, detail = Reason.MALFORMED, clean(one_line(error))
    word = text_or_none(cells.get("status"))
    if status is None and word is not None and word.lower() in _STATUSES:
        status, detail = _STATUSES[word.lower()], f"status is {word}"
    elif status is None and value is None:
        status, detail = Reason.SKIPPED, "there is no answer"
    seconds = seconds_of(cells.get("seconds"))
    if seconds is None and timestamp is not None and started is not None:
        seconds = seconds_of((timestamp - started) / 1_000_000)
    return Answer(
        name,
        question_id=question_id,
        image_id=whole_number(cells.get("image_id")),
        image=text_or_none(cells.get("image")),
        asks=label if label is not None and abs(label) < 2**31 else None,
        worker=worker_or_none(cells.get("worker_id")),
        value=value,
        created=timestamp,
        updated=timestamp,
        seconds=seconds,
        source=name,
        status=status,
        detail=detail,
    )


def _cell(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column; a dot in its name leads into a nested object."""
    if column in row:
        return row[column]
    first, _, rest = column.partition(".")
    inner = row.get(first)
    return _cell(inner, rest) if rest and isinstance(inner, dict) else None


def _value(row: Mapping[str, Any], cells: Mapping[str, Any], layout: Layout) -> str | None:
    """The answer; None where the worker gave none. Raises: ValueError where there are several."""
    if "answer" in layout.columns:
        given = cells["answer"]
        chosen = row.get(layout.options) if layout.options else None
        if given == "accept" and isinstance(chosen, list):
            if len(chosen) != 1:
                raise ValueError(f"{len(chosen)} options are chosen, not one")
            given = chosen[0]
        values = [given]
    else:
        values = _answers_by_prefix(row, layout.prefix)
    texts = {text for value in values if (text := text_or_none(value)) is not None}
    if len(texts) > 1:
        raise ValueError(
            f"{len(texts)} columns hold different answers; name the right one: columns.answer=NAME"
        )
    if not texts:
        if any(value not in (None, "") for value in values):
            raise ValueError("the answer is neither a text nor a whole number")
        return None
    text = texts.pop()
    return layout.answers.get(text, text)


def _answers_by_prefix(row: Mapping[str, Any], prefix: str) -> list[Any]:
    """The cells of all answer columns; of those that hold true, the end of the column's name."""
    values: list[Any] = []
    for column, cell in row.items():
        if not column.startswith(prefix) or cell is None:
            continue
        word = str(cell).strip().lower() if isinstance(cell, str | bool) else ""
        if word == "true":
            values.append(column.rpartition(".")[2])
        elif word != "false":
            values.append(cell)
    return values
