"""Questions as select writes them: read batch by batch, and looked up for an answer."""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import check_columns, check_types
from coyo_labeler.formats.image_ids import whole_number
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import read_footers, read_split, split_file

#: What is read of a question. Risk and the candidates' probabilities are not: no tool needs them.
COLUMNS = tuple(name for name in schemas.QUESTIONS.names if name not in {"risk", "candidate_probs"})
SCHEMA = pa.schema([schemas.QUESTIONS.field(name).with_nullable(True) for name in COLUMNS])
#: The columns without which a file holds no questions.
REQUIRED = ("question_id", "image_id", "kind")

CHOICE, VERIFY = "choice", "verify"

_BATCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Question:
    """One row of schemas.QUESTIONS.

    candidates: the classes of a choice (None: all), or the set that a verification without a label
    is about.
    """

    question_id: str
    image_id: int
    key: str | None
    url: str | None
    kind: str
    label: int | None
    candidates: tuple[int, ...] | None
    purpose: str | None
    inclusion_probability: float | None
    overlap: int
    worker_id: str | None

    @property
    def asks(self) -> int | tuple[int, ...] | None:
        """What a verification asks about: a class, or a set of classes."""
        return self.candidates if self.label is None else self.label


def read_tables(stage: str, url: str, space: LabelSpace) -> Iterator[pa.Table]:
    """The questions of the files at a URL, in the order of their files and rows, as `SCHEMA`.

    stage: for messages. url: a file, folder or glob of Parquet in schemas.QUESTIONS, or select's
    output; columns other than `REQUIRED` may be missing.

    Raises: InputError naming the file and row of a question that cannot be asked.
    """
    key = f"{stage}: questions"
    files = _files(stage, url)
    for file, footer in zip(files, read_footers(key, files), strict=True):
        present = footer.schema.to_arrow_schema().names
        check_columns(key, file, present, REQUIRED, "give the output of select")
        schema = pa.schema([field for field in SCHEMA if field.name in present])
        check_types(key, file, footer.schema.to_arrow_schema(), schema)
        row = 0
        for split in split_file(key, file, footer, schema, footer.num_rows or 1):
            for table in read_split(split, batch_rows=_BATCH_ROWS):
                columns = [
                    table[field.name] if field.name in present else _missing(field, table.num_rows)
                    for field in SCHEMA
                ]
                complete = pa.table(columns, schema=SCHEMA)
                for question in to_questions(complete):
                    row += 1
                    problem = _problem(question, space)
                    if problem:
                        raise InputError(
                            f"{key}: {file}: row {row}: {problem}; write the questions with select"
                        )
                yield complete


def _missing(field: pa.Field, rows: int) -> pa.Array:
    return (
        pa.array([1] * rows, field.type) if field.name == "overlap" else pa.nulls(rows, field.type)
    )


def to_questions(table: pa.Table) -> Iterator[Question]:
    """The rows of a table in `SCHEMA`."""
    for values in table.to_pylist():
        candidates = values["candidates"]
        values["candidates"] = None if candidates is None else tuple(candidates)
        yield Question(**values)


def _files(stage: str, url: str) -> list[str]:
    try:
        files = sorted(storage.files_of(storage.locate(url, "questions")))
    except FileNotFoundError:
        files = []
    if not files:
        raise InputError(f"{stage}: questions: no Parquet files at {url}; give select's output")
    return files


def _problem(question: Question, space: LabelSpace) -> str:
    if not question.question_id or question.image_id is None:
        return "question_id or image_id is missing"
    if question.kind not in {CHOICE, VERIFY}:
        return f"kind is '{question.kind}', neither choice nor verify"
    if question.kind == VERIFY and question.label is None and not question.candidates:
        return "the verification asks about no class: label and candidates are missing"
    labels = () if question.label is None else (question.label,)
    for label in (*labels, *(question.candidates or ())):
        if label is None or not 0 <= label < space.size:
            return f"class {label} is outside {space.describe()}"
    if question.overlap is None or question.overlap < 1:
        return f"overlap is {question.overlap}, it must be 1 or more"
    return ""


def stem_of(name: str) -> str:
    """The name of an image's file, without folders, query and ending. name: a path or URL."""
    path = urlsplit(name).path if "://" in name else name
    return posixpath.splitext(posixpath.basename(unquote(path)))[0]


class QuestionIndex:
    """Questions by their id, their image's id, and the name of their image's file.

    A question is known by its row. What is looked up by images is sorted only when it is needed.
    """

    def __init__(self, stage: str, tables: Iterable[pa.Table]) -> None:
        """Index tables in `SCHEMA`; a question may come again for another worker.

        Raises: InputError where two different questions have one id.
        """
        self._rows: dict[str, int] = {}
        self._by_place: dict[str, str] = {}
        known = [SCHEMA.empty_table()]
        row = 0
        repeated: list[tuple[int, int]] = []
        for table in tables:
            known.append(table)
            for question_id in table["question_id"].to_pylist():
                first = self._rows.setdefault(question_id, row)
                if first != row:
                    repeated.append((first, row))
                row += 1
        self._table = pa.concat_tables(known).combine_chunks()
        for first, again in repeated:
            one, other = self.questions([first, again])
            if (one.image_id, one.kind, one.asks) != (other.image_id, other.kind, other.asks):
                raise InputError(
                    f"{stage}: questions: question_id {one.question_id} stands for two different "
                    "questions; write the questions with select"
                )

    @classmethod
    def read(cls, stage: str, url: str, space: LabelSpace) -> "QuestionIndex":
        """The index of the questions at a URL. Raises: InputError, see `read_tables`."""
        return cls(stage, read_tables(stage, url, space))

    def __len__(self) -> int:
        return len(self._rows)

    def questions(self, rows: Sequence[int]) -> list[Question]:
        """The questions of some rows, in their order."""
        return list(to_questions(self._table.take(pa.array(rows, pa.int64()))))

    def row_of(self, question_id: str) -> int | None:
        """The row of a question, by its id."""
        return self._rows.get(question_id)

    def add_place(self, place: str, question_id: str) -> None:
        """Say where a tool shows a question: `project/task` of schemas.SENT."""
        self._by_place[place] = question_id

    def at(self, place: str) -> int | None:
        """The row of the question that a tool shows at a place."""
        question_id = self._by_place.get(place)
        return None if question_id is None else self.row_of(question_id)

    def of_image(
        self, image_id: int, kind: str | None = None, asks: int | None = None
    ) -> list[int]:
        """The rows of questions about an image, of one kind, about one class; None: whichever."""
        ids, rows = self._images
        first, last = (int(np.searchsorted(ids, image_id, side)) for side in ("left", "right"))
        about = sorted(set(rows[first:last].tolist()) & self._first_rows)
        return [
            row
            for row, question in zip(about, self.questions(about), strict=True)
            if kind in {None, question.kind} and (asks is None or question.label == asks)
        ]

    def image_of(self, name: str, by_url: bool = True) -> int | None:
        """The image whose file has this name: its id, its key, or the last part of its URL.

        by_url: false where the name may be a mere number, such as 1, which URLs often end in.
        """
        stem = stem_of(name)
        number = whole_number(stem)
        if number is not None and self.of_image(number):
            return number
        image_id = self._keys.get(stem)
        return self._urls.get(stem) if image_id is None and by_url else image_id

    @cached_property
    def _first_rows(self) -> set[int]:
        """Rows of questions, without those that come again for another worker."""
        return set(self._rows.values())

    @cached_property
    def _images(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The image ids in ascending order, and the row of each."""
        ids = self._table["image_id"].combine_chunks().to_numpy()
        order = np.argsort(ids, kind="stable")
        return ids[order], order

    @cached_property
    def _keys(self) -> dict[str, int | None]:
        return self._names("key")

    @cached_property
    def _urls(self) -> dict[str, int | None]:
        return self._names("url")

    def _names(self, column: str) -> dict[str, int | None]:
        """Images by the names of their files; a name that several images have is None's."""
        names: dict[str, int | None] = {}
        texts = self._table[column].to_pylist()
        for text, image_id in zip(texts, self._table["image_id"].to_pylist(), strict=True):
            if text:
                stem = stem_of(text) if column == "url" else text
                if names.setdefault(stem, image_id) != image_id:
                    names[stem] = None
        return names
