"""One answer as a tool has it, whatever the tool: what every reader yields."""

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from itertools import islice

import pyarrow as pa

from coyo_labeler.collect.reasons import Reason
from coyo_labeler.formats import schemas
from coyo_labeler.formats.image_ids import whole_number

#: Characters of a text that are kept. Longer ids are no ids of ours, and longer answers no choices.
LONGEST_ID, LONGEST_TEXT = 300, 500

_BATCH = 20_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A row of schemas.ANSWERS, which says what each field means."""

    answer_id: str
    group: str | None = None
    question_id: str | None = None
    image_id: int | None = None
    image: str | None = None
    place: str | None = None
    asks: int | None = None
    worker: str | None = None
    worker_number: int | None = None
    value: str | None = None
    created: int | None = None
    updated: int | None = None
    seconds: float | None = None
    source: str = ""
    status: str | None = None
    detail: str | None = None


assert schemas.ANSWERS.names == [field.name for field in fields(Answer)]


def malformed(answer_id: str, source: str, detail: str, group: str | None = None) -> Answer:
    """Something that cannot be read as an answer."""
    return Answer(
        answer_id, group=group, source=source, status=Reason.MALFORMED, detail=clean(detail)
    )


def clean(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text that UTF-8 can hold, cut where it is too long: JSON can spell halves of pairs."""
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return cut.encode("utf-8", "backslashreplace").decode()


def text_or_none(value: object, longest: int = LONGEST_TEXT) -> str | None:
    """A text, or a whole number as text, without the blanks around it; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = whole_number(value)
        value = None if number is None else str(number)
    if not isinstance(value, str):
        return None
    return clean(value.strip(), longest) or None


def worker_or_none(value: object) -> str | None:
    """The name of a worker; None where there is none, or one so long that it would be cut."""
    name = text_or_none(value, LONGEST_ID + 1)
    return None if name is None or len(name) > LONGEST_ID else name


def to_tables(answers: Iterable[Answer]) -> Iterator[pa.Table]:
    """The answers as tables of schemas.ANSWERS, some thousand rows each."""
    remaining = iter(answers)
    while batch := list(islice(remaining, _BATCH)):
        columns = zip(*map(astuple, batch), strict=True)
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(columns, schemas.ANSWERS, strict=True)
        ]
        yield pa.table(arrays, schema=schemas.ANSWERS)
