"""Questions that can share a project: of one kind, with one overlap, for one worker."""

import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler.annotation_tools.questions import CHOICE, Question, to_questions
from coyo_labeler.errors import InputError

_BATCH_ROWS = 10_000

#: Characters of a title that Label Studio takes, and of the name in one that is cut.
_LONGEST_TITLE, _LONGEST_NAME = 50, 16


@dataclass(frozen=True, slots=True, order=True)
class GroupKey:
    """What the questions of a group have in common. worker: "" where nobody is assigned.

    asks: the class, or the set of classes, of a verification; () unless the tool needs a project
    for each.
    """

    kind: str
    overlap: int
    worker: str
    asks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """A group of questions. rows: where they are in the table of all, in its order."""

    key: GroupKey
    rows: NDArray[np.int64]

    @property
    def questions(self) -> int:
        """How many there are."""
        return len(self.rows)

    @property
    def kind(self) -> str:
        """choice or verify."""
        return self.key.kind

    @property
    def overlap(self) -> int:
        """Answers wanted to each question."""
        return self.key.overlap


@dataclass(frozen=True)
class Survey:
    """What one look at all questions finds.

    round_name: what stands in front of the question ids. images: their ids. table: all questions,
    in questions.SCHEMA; some 150 bytes each.
    """

    round_name: str
    groups: tuple[Group, ...]
    images: frozenset[int]
    table: pa.Table

    def questions_of(self, group: Group) -> Iterator[Question]:
        """The questions of a group, in the order in which select wrote them."""
        for start in range(0, len(group.rows), _BATCH_ROWS):
            rows = pa.array(group.rows[start : start + _BATCH_ROWS])
            yield from to_questions(self.table.take(rows))


def key_of(question: Question, by_class: bool) -> GroupKey:
    """The group of a question. by_class: whether each asked class has a group of its own."""
    asks: tuple[int, ...] = ()
    if by_class and question.kind != CHOICE:
        asks = (question.label,) if question.label is not None else question.candidates or ()
    # CVAT has one task for all workers of a class: its jobs are assigned.
    worker = "" if by_class else question.worker_id or ""
    return GroupKey(question.kind, question.overlap, worker, asks)


def survey(tables: Iterable[pa.Table], by_class: bool) -> Survey:
    """The groups of all questions, in an order that does not depend on theirs.

    tables: in questions.SCHEMA.

    Raises: InputError where a question comes twice for one worker, or there are none.
    """
    rows: dict[GroupKey, array[int]] = {}
    images: set[int] = set()
    seen: set[tuple[str, str | None]] = set()
    rounds: set[str] = set()
    known: list[pa.Table] = []
    for table in tables:
        known.append(table)
        for question in to_questions(table):
            identity = (question.question_id, question.worker_id)
            if identity in seen:
                raise InputError(
                    f"send: questions: question_id {question.question_id} comes twice; write the "
                    "questions with select"
                )
            rows.setdefault(key_of(question, by_class), array("q")).append(len(seen))
            seen.add(identity)
            images.add(question.image_id)
            rounds.add(question.question_id.partition(":")[0])
    if not seen:
        raise InputError("send: questions: there are none; select some first")
    groups = tuple(Group(key, np.array(rows[key], dtype=np.int64)) for key in sorted(rows))
    name = next(iter(rounds)) if len(rounds) == 1 else "questions"
    return Survey(name, groups, frozenset(images), pa.concat_tables(known))


def title_of(group: Group, name: str) -> str:
    """The title of a group's project: the name, and what sets the group apart.

    The same questions have the same title in every run, and different groups have different ones:
    a project's number of answers is that of all its tasks.
    """
    answers = f"{group.overlap} answers" if group.overlap > 1 else ""
    # The server trims titles, and one that it changed would not be found again.
    parts = [" ".join(part.split()) for part in (name, group.kind, answers, group.key.worker)]
    title = " · ".join(filter(None, parts))
    if len(title) <= _LONGEST_TITLE:
        return title
    if len(parts[0]) > _LONGEST_NAME:
        parts[0] = f"{parts[0][: _LONGEST_NAME - 1].rstrip()}…"
    front = " · ".join(filter(None, parts))[: _LONGEST_TITLE - 9].rstrip()
    return f"{front} {zlib.crc32(title.encode()):08x}"
