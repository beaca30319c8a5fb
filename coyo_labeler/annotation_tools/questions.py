"""Questions as select writes them: read batch by batch, and looked up for an answer."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import check_types
from coyo_labeler.formats.image_ids import whole_number
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.parquet_splits import read_footers, read_split, split_file

#: What is read of a question. Risk and the candidates' probabilities are not: no tool needs them.
COLUMNS = tuple(name for name in schemas.QUESTIONS.names if name not in {"risk", "candidate_probs"})
SCHEMA = pa.schema([schemas.QUESTIONS.field(name).with_nullable(True) for name in COLUMNS])
#: The columns without which a file holds no questions.
REQUIRED = ("question_id", "image_id", "kind")

CHOICE, VERIFY = "choice", "verify"

_BATCH_ROWS = 50_000


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
        storage.check_columns(key, file, present, REQUIRED, "give the output of select")
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

    It takes some 600 bytes per question.
    """

    def __init__(self) -> None:
        self._questions: dict[str, Question] = {}
        self._by_image: dict[int, list[Question]] = {}
        self._by_key: dict[str, int | None] = {}
        self._by_url: dict[str, int | None] = {}
        self._by_place: dict[str, str] = {}

    @classmethod
    def read(cls, stage: str, url: str, space: LabelSpace) -> "QuestionIndex":
        """The index of the questions at a URL. Raises: InputError, see `read_tables`."""
        index = cls()
        for table in read_tables(stage, url, space):
            for question in to_questions(table):
                index.add(question, stage)
        return index

    def __len__(self) -> int:
        return len(self._questions)

    def add(self, question: Question, stage: str) -> None:
        """Add a question; the same one may come again for another worker.

        Raises: InputError where another question has its id.
        """
        present = self._questions.get(question.question_id)
        if present is not None:
            if (present.image_id, present.kind, present.asks) != (
                question.image_id,
                question.kind,
                question.asks,
            ):
                raise InputError(
                    f"{stage}: questions: question_id {question.question_id} stands for two "
                    "different questions; write the questions with select"
                )
            return
        self._questions[question.question_id] = question
        self._by_image.setdefault(question.image_id, []).append(question)
        if question.key:
            self._name(question.key, question.image_id, self._by_key)
        if question.url:
            self._name(stem_of(question.url), question.image_id, self._by_url)

    def _name(self, name: str, image_id: int, names: dict[str, int | None]) -> None:
        """Note the name of an image; one that several images have is no name."""
        present = names.setdefault(name, image_id)
        names[name] = image_id if present == image_id else None

    def add_place(self, place: str, question_id: str) -> None:
        """Say where a tool shows a question: `project/task` of schemas.SENT."""
        self._by_place[place] = question_id

    def at(self, place: str) -> Question | None:
        """The question that a tool shows at a place."""
        question_id = self._by_place.get(place)
        return None if question_id is None else self.get(question_id)

    def get(self, question_id: str) -> Question | None:
        """The question of an id."""
        return self._questions.get(question_id)

    def of_image(
        self, image_id: int, kind: str | None = None, asks: int | None = None
    ) -> list[Question]:
        """The questions about an image; of one kind, or about one class, where that is known."""
        return [
            question
            for question in self._by_image.get(image_id, ())
            if kind in {None, question.kind} and (asks is None or question.label == asks)
        ]

    def image_of(self, name: str, by_url: bool = True) -> int | None:
        """The image whose file has this name: its id, its key, or the last part of its URL.

        by_url: false where the name may be a mere number, such as 1, which URLs often end in.
        """
        stem = stem_of(name)
        number = whole_number(stem)
        if number is not None and number in self._by_image:
            return number
        image_id = self._by_key.get(stem)
        return self._by_url.get(stem) if image_id is None and by_url else image_id
