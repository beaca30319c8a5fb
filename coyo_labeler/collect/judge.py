"""Answers to votes and rejects: which question, which worker, what response, and what is wrong."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.annotation_tools.questions import CHOICE, VERIFY, Question, QuestionIndex
from coyo_labeler.annotation_tools.records import SERVERS
from coyo_labeler.collect.answers import LONGEST_ID
from coyo_labeler.collect.reasons import Reason
from coyo_labeler.collect.tables import LAYOUTS
from coyo_labeler.collect.worker_names import WorkerNames
from coyo_labeler.errors import one_line
from coyo_labeler.formats import schemas
from coyo_labeler.formats.image_ids import whole_number
from coyo_labeler.formats.label_spaces import LabelSpace

#: What stands in front of the ids of workers.
_TOOLS = frozenset({*SERVERS, *(layout.tool for layout in LAYOUTS.values())})

#: Answers to a verification.
RESPONSES = frozenset({"yes", "no", "unsure"})
#: Answers that say that there is none.
SKIPS = frozenset({"skip", "skipped", "ignore"})
#: Ways to say that it is none of the classes offered.
_NONE = frozenset({"none", "none of these", "none of them"})

#: The class at the end of an option of MTurk: `table lamp [11054]`.
_BRACKETED = re.compile(r"\[(\d{1,9})\]\s*$")
#: What an option of our CSV begins with, where somebody copied all of it: `11054 = table lamp: …`.
_OPTION = re.compile(r"(\d{1,9}|none|unsure) = ")

#: What spreadsheets make of a question's id such as `1:17`.
_TIME = re.compile(r"\d{2}:\d{2}|\d{1,4}:\d{2}:\d{2}( [AP]M)?")
_TIME_HINT = ", a time that a spreadsheet made of it: import the column question_id as text"

#: A judged answer: a vote where `reason` is null, else a reject. `created` orders answers of one
#: worker to one question.
JUDGED = pa.schema(
    [
        *schemas.COLLECTED_VOTES,
        pa.field("answer", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("created", pa.int64()),
        pa.field("answer_id", pa.string()),
    ]
)

#: Why an answer has no worker.
_NOBODY = (
    f"no name of at most {LONGEST_ID} characters says who answered; give worker=NAME if it was one "
    "person"
)

_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class Rules:
    """How answers become votes.

    tool: in front of worker ids. users: names of workers by the tool's number. worker: who answered
    where the answer does not say. answers: what words of the tool mean. deadline: microseconds
    since 1970. names: how the number of a worker without a name is shown.
    """

    tool: str
    space: LabelSpace
    users: Mapping[int, str]
    worker: str | None = None
    answers: Mapping[str, str] | None = None
    deadline: int | None = None
    names: WorkerNames = field(default_factory=WorkerNames)


def judge(answers: pa.Table, questions: QuestionIndex, rules: Rules) -> pa.Table:
    """Every answer (schemas.ANSWERS) as a row of `JUDGED`, in an order that its content decides.

    Of several versions of an answer only the latest is judged. Of several answers of one worker to
    one question the first one counts.
    """
    latest = latest_versions(answers)
    tables = [JUDGED.empty_table()]
    for start in range(0, latest.num_rows, _BATCH_ROWS):
        batch = latest.slice(start, _BATCH_ROWS).to_pylist()
        found = [_row_of(values, questions) for values in batch]
        known = iter(questions.questions([row for row in found if row is not None]))
        asked = [None if row is None else next(known) for row in found]
        judged_rows = [_judge(*pair, rules) for pair in zip(batch, asked, strict=True)]
        tables.append(pa.Table.from_pylist(judged_rows, schema=JUDGED))
    judged = pa.concat_tables(tables).combine_chunks()
    keys = ("image_id", "question_id", "worker_id", "created", "answer_id", "source")
    judged = judged.take(pc.sort_indices(judged, [(key, "ascending") for key in keys]))
    return _mark_second_answers(judged)


def latest_versions(answers: pa.Table) -> pa.Table:
    """The last updated row of each answer_id; of rows of one time, the one that is read last."""
    ids = answers["answer_id"].combine_chunks().dictionary_encode().indices
    number = ids.to_numpy(zero_copy_only=False)
    updated = pc.fill_null(answers["updated"], np.iinfo(np.int64).min).to_numpy()
    order = np.lexsort((np.arange(len(number)), updated, number))
    is_last = np.ones(len(order), dtype=bool)
    is_last[:-1] = np.diff(number[order]) != 0
    return answers.take(pa.array(np.sort(order[is_last])))


def _judge(values: dict[str, Any], question: Question | None, rules: Rules) -> dict[str, Any]:
    worker = _worker_of(values, rules)
    row = {
        "image_id": values["image_id"] if question is None else question.image_id,
        "question_id": values["question_id"] if question is None else question.question_id,
        "worker_id": worker,
        "timestamp": values["updated"],
        "seconds": values["seconds"],
        "source": values["source"],
        "answer": values["value"],
        "created": values["created"],
        "answer_id": values["answer_id"],
        "purpose": None if question is None else question.purpose,
        "inclusion_probability": None if question is None else question.inclusion_probability,
    }
    reason, detail = _why_no_vote(values, question, worker, rules)
    if reason is None:
        assert question is not None and values["value"] is not None
        value = (rules.answers or {}).get(values["value"], values["value"])
        if value.lower() in SKIPS:
            return row | {"reason": str(Reason.SKIPPED), "detail": None}
        try:
            return row | _response(value, question, rules.space)
        except ValueError as error:
            reason, detail = Reason.UNKNOWN_CHOICE, one_line(error)
    return row | {"reason": str(reason), "detail": detail}


def _row_of(values: Mapping[str, Any], questions: QuestionIndex) -> int | None:
    """The row of an answer's question: by its id, else the only one about its image that fits."""
    question_id = values["question_id"]
    if values["place"] is not None and (shown := questions.at(values["place"])) is not None:
        return shown
    image = values["image_id"]
    if question_id is not None:
        known = questions.row_of(question_id)
        if known is not None or image is not None:
            return known
        # crowd-kit's tasks may be images
        image = questions.image_of(question_id, by_url="://" in question_id)
    elif image is None and values["image"] is not None:
        image = questions.image_of(values["image"])
    if image is None:
        return None
    about = questions.of_image(image, asks=values["asks"])
    if len(about) > 1:
        is_word = (values["value"] or "").lower() in RESPONSES
        about = questions.of_image(image, VERIFY if is_word else CHOICE, values["asks"])
    return about[0] if len(about) == 1 else None


def _worker_of(values: Mapping[str, Any], rules: Rules) -> str | None:
    """`tool:name`; None where nobody knows who answered.

    A name that has a tool in front already, as workers have whom select assigned, is kept.
    """
    number = values["worker_number"]
    name = rules.users.get(number) if number is not None else None
    name = name or values["worker"] or _of_number(number, rules) or rules.worker
    is_worker_id = name is not None and name.partition(":")[0] in _TOOLS
    return name if name is None or is_worker_id else f"{rules.tool}:{name}"


def _of_number(number: int | None, rules: Rules) -> str | None:
    return None if number is None else rules.names.shown(str(number))


def _why_no_vote(
    values: Mapping[str, Any], question: Question | None, worker: str | None, rules: Rules
) -> tuple[Reason | None, str | None]:
    status, detail = values["status"], values["detail"]
    if status == Reason.MALFORMED:
        return Reason.MALFORMED, detail
    if worker is None:
        return Reason.MISSING_WORKER, _NOBODY
    if question is None:
        return Reason.UNKNOWN_QUESTION, _why_unknown(values)
    if status is not None:
        return Reason(status), detail
    updated = values["updated"]
    if rules.deadline is not None and updated is not None and updated > rules.deadline:
        return Reason.AFTER_DEADLINE, None
    return None, None


def _why_unknown(values: Mapping[str, Any]) -> str:
    if values["question_id"] is not None:
        hint = _TIME_HINT if _TIME.fullmatch(values["question_id"]) else ""
        return f"no question has the id '{values['question_id']}'{hint}"
    if values["image_id"] is None and values["image"] is None:
        return "the answer names no question and no image"
    image = values["image_id"] if values["image_id"] is not None else f"'{values['image']}'"
    return f"no question, or more than one, is about image {image}"


def _response(value: str, question: Question, space: LabelSpace) -> dict[str, Any]:
    """label, response and candidates of a vote (schemas.COLLECTED_VOTES).

    Raises: ValueError where the value is none of the question's options.
    """
    option = _OPTION.match(value)
    value = value if option is None else option[1]
    word = value.lower()
    offered = None if question.candidates is None else list(question.candidates)
    if question.kind == VERIFY:
        if word not in RESPONSES:
            raise ValueError(f"'{value}' is none of yes, no, unsure; set answers if it means one")
        return {
            "response": word,
            "label": question.label,
            "candidates": offered if question.label is None else None,
        }
    # Our own words come first: a class of such a name is sent by its number.
    if word == "unsure" or word in _NONE:
        response = "unsure" if word == "unsure" else "none"
        return {"response": response, "label": None, "candidates": offered}
    label = _class_of(value, question, space)
    if label is None:
        raise ValueError(f"'{value}' is no class of {space.describe()}, and not none, unsure")
    if not 0 <= label < space.size:
        raise ValueError(f"class {label} is outside {space.describe()}")
    if offered is not None and label not in offered:
        raise ValueError(f"class {label} was not among the classes offered")
    return {"response": None, "label": label, "candidates": offered}


def _class_of(value: str, question: Question, space: LabelSpace) -> int | None:
    """The class that a choice names: by its number, `text [number]`, its name or its synset.

    pandas writes a column of whole numbers in which one is missing as 8087.0.
    """
    match = _BRACKETED.search(value)
    number = whole_number(match[1] if match else value.removesuffix(".0"))
    if number is not None:
        return number
    named = space.find(value)
    if question.candidates is not None and len(named) > 1:  # a name that several classes have
        named = tuple(label for label in named if label in question.candidates)
    return named[0] if len(named) == 1 else None


def _mark_second_answers(judged: pa.Table) -> pa.Table:
    """Votes behind the first one of their worker to their question become rejects.

    judged: sorted, so that these follow one another.
    """
    vote = np.flatnonzero(pc.is_null(judged["reason"]).to_numpy())
    votes = judged.take(pa.array(vote))
    same = np.ones(max(len(vote) - 1, 0), dtype=bool)
    for key in ("question_id", "worker_id"):
        column = votes[key].combine_chunks().dictionary_encode().indices
        same &= np.diff(column.to_numpy(zero_copy_only=False)) == 0
    second = np.zeros(judged.num_rows, dtype=bool)
    second[vote[1:][same]] = True
    mask = pa.array(second)
    detail = "the worker answered this question before"
    for name, text in (("reason", str(Reason.SECOND_ANSWER)), ("detail", detail)):
        column = pc.if_else(mask, text, judged[name])
        position = judged.schema.get_field_index(name)
        judged = judged.set_column(position, JUDGED.field(name), column)
    return judged


def votes_of(judged: pa.Table) -> Iterator[pa.Table]:
    """The votes, in schemas.COLLECTED_VOTES."""
    votes = judged.filter(pc.is_null(judged["reason"]))
    yield votes.select(schemas.COLLECTED_VOTES.names).cast(schemas.COLLECTED_VOTES)


def rejects_of(judged: pa.Table) -> Iterator[pa.Table]:
    """The other answers, in schemas.COLLECT_REJECTS."""
    rejects = judged.filter(pc.is_valid(judged["reason"]))
    yield rejects.select(schemas.COLLECT_REJECTS.names).cast(schemas.COLLECT_REJECTS)
