"""Questions as files that are imported by hand: Label Studio's JSON, MTurk's CSV, plain CSV."""

import csv
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from html import escape
from importlib import resources
from itertools import islice
from typing import Any

from coyo_labeler import storage
from coyo_labeler.annotation_tools.questions import CHOICE, Question
from coyo_labeler.send.groups import Group
from coyo_labeler.send.images import Shown
from coyo_labeler.send.label_studio_tasks import configuration, task
from coyo_labeler.send.record import Sent
from coyo_labeler.send.wording import ANSWERS, NONE, UNSURE, Wording

#: Questions in one file: Label Studio takes 250,000 tasks or 200 MB at once.
PER_FILE = 20_000

#: Bytes of a worker's id in a file's name, which has 255 at most.
_LONGEST_NAME = 160

#: Columns of plain CSV; people fill in the last two.
_CSV = ("question_id", "image", "question", "definition", "options", "worker_id", "answer")
_MTURK = ("image_url", "question_id", "image_id", "label", "question", "definition", "categories")


class Folder:
    """Where the files of one kind and worker go.

    kinds: of all questions; where there are two, each kind has a subfolder. name: of the group's
    worker, see `file_names`; "" for none.
    """

    def __init__(self, output: str, group: Group, kinds: int, name: str) -> None:
        self._below = f"{group.kind}/" if kinds > 1 else ""
        self._output = output
        self._worker = f"{name}-" if name else ""
        overlap = group.overlap
        self._overlap = f"{overlap}x-" if overlap > 1 else ""

    def shared(self, name: str) -> str:
        """A file for all questions of the kind, below the output."""
        return f"{self._below}{name}"

    def numbered(self, stem: str, number: int, suffix: str) -> str:
        """A file of the group's questions, below the output."""
        return f"{self._below}{stem}-{self._overlap}{self._worker}{number:05d}{suffix}"

    def write(self, name: str, text: str) -> None:
        """Write a file by its name below the output, whole or not at all."""
        storage.write_bytes(storage.join(self._output, name), text.encode())


def file_names(workers: Collection[str]) -> dict[str, str]:
    """A part of a file's name for the id of each worker; different ones also without upper case.

    Where several ids would give one name, each has a checksum behind it.
    """
    names = {worker: _file_name(worker) for worker in workers}
    alike = Counter(name.casefold() for name in names.values())
    return {
        worker: name if alike[name.casefold()] == 1 else f"{name}-{zlib.crc32(worker.encode()):08x}"
        for worker, name in names.items()
    }


def _file_name(worker: str) -> str:
    safe = re.sub(r"[^\w.@-]", "_", worker)[:80]
    return safe.encode()[:_LONGEST_NAME].decode(errors="ignore")


def write_label_studio(
    folder: Folder, group: Group, questions: Iterable[tuple[Question, Shown]], wording: Wording
) -> Iterator[Sent]:
    """config.xml and tasks-*.json, which an empty project of Label Studio takes."""
    folder.write(folder.shared("config.xml"), configuration(group.kind))
    for name, batch in _files(folder, questions, "tasks", ".json"):
        tasks = (task(question, shown.url, wording) for question, shown in batch)
        lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in tasks)
        folder.write(name, f"[\n{lines}\n]\n")
        yield from _sent(name, batch)


def write_mturk(
    folder: Folder, group: Group, questions: Iterable[tuple[Question, Shown]], wording: Wording
) -> Iterator[Sent]:
    """template.html and questions-*.csv: a project of MTurk, and its batches."""
    template = resources.files(__package__).joinpath("mturk_template.html").read_text("utf-8")
    folder.write(folder.shared("template.html"), template)
    for name, batch in _files(folder, questions, "questions", ".csv"):
        rows = [_mturk_row(question, shown.url, wording) for question, shown in batch]
        folder.write(name, _csv_text(_MTURK, rows))
        yield from _sent(name, batch)


def _mturk_row(question: Question, image: str, wording: Wording) -> tuple[Any, ...]:
    """Values that MTurk puts into the template as they are; so they are escaped here."""
    if question.kind == CHOICE:
        named = [f"{each.line} [{each.label}]" for each in wording.options(question)]
        categories = [*named, NONE[1], UNSURE[0]]
    else:
        categories = [value for value, _ in ANSWERS]
    return (
        escape(image),
        question.question_id,
        question.image_id,
        question.label,
        escape(wording.question(question)),
        wording.definition(question),
        escape(json.dumps(categories, ensure_ascii=False)),
    )


def write_csv(
    folder: Folder, group: Group, questions: Iterable[tuple[Question, Shown]], wording: Wording
) -> Iterator[Sent]:
    """questions-*.csv for any tool, or a spreadsheet: collect reads it back, filled in."""
    del group  # its kind stands in each row
    for name, batch in _files(folder, questions, "questions", ".csv"):
        rows = [_csv_row(question, shown.url, wording) for question, shown in batch]
        folder.write(name, _csv_text(_CSV, rows))
        yield from _sent(name, batch)


def _csv_row(question: Question, image: str, wording: Wording) -> tuple[Any, ...]:
    if question.kind == CHOICE:
        classes = wording.options(question)
        words = [f"{each.label} = {each.line}" for each in classes]
        options = [*words, f"{NONE[0]} = {NONE[1]}", f"{UNSURE[0]} = {UNSURE[1]}"]
        definition = ""
    else:
        options = [value for value, _ in ANSWERS]
        definition = "\n".join(wording.lines(question))
    return (
        question.question_id,
        image,
        wording.question(question),
        definition,
        "\n".join(options),
        question.worker_id,
        None,
    )


def _csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _files(
    folder: Folder, questions: Iterable[tuple[Question, Shown]], stem: str, suffix: str
) -> Iterator[tuple[str, list[tuple[Question, Shown]]]]:
    left = iter(questions)
    number = 0
    while batch := list(islice(left, PER_FILE)):
        yield folder.numbered(stem, number, suffix), batch
        number += 1


def _sent(name: str, batch: Iterable[tuple[Question, Shown]]) -> Iterator[Sent]:
    for question, shown in batch:
        yield Sent(question, name, None, shown.recorded)
