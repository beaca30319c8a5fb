"""The rows of schemas.SENT."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from coyo_labeler.annotation_tools.questions import Question
from coyo_labeler.formats import schemas

_BATCH = 20_000


@dataclass(frozen=True, slots=True)
class Sent:
    """A question that a tool has. project, task, image: see schemas.SENT."""

    question: Question
    project: str
    task: int | None
    image: str


def to_tables(rows: Iterable[Sent]) -> Iterator[pa.Table]:
    """The rows as tables of schemas.SENT."""
    left = iter(rows)
    while batch := list(islice(left, _BATCH)):
        columns = [
            [row.question.question_id for row in batch],
            [row.question.image_id for row in batch],
            [row.question.worker_id for row in batch],
            [row.project for row in batch],
            [row.task for row in batch],
            [row.image for row in batch],
        ]
        yield pa.table(columns, schema=schemas.SENT)
