"""The stage `collect`: answers are read, judged and written as votes and rejects."""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.annotation_tools.questions import QuestionIndex
from coyo_labeler.annotation_tools.records import (
    SERVERS,
    Project,
    Record,
    is_sent,
    read_places,
    read_record,
)
from coyo_labeler.collect.answers import to_tables
from coyo_labeler.collect.judge import Rules, judge, rejects_of, votes_of
from coyo_labeler.collect.label_studio import users_of
from coyo_labeler.collect.sources import find_files, read_files
from coyo_labeler.collect.state import Polled, read_state, write_state
from coyo_labeler.collect.tables import LAYOUTS
from coyo_labeler.collect.times import parse_time
from coyo_labeler.collect.worker_names import WORKER_KEY, WorkerNames
from coyo_labeler.config.collect import CollectSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import load_label_space
from coyo_labeler.inputs import fingerprint_input
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.progress import Progress
from coyo_labeler.storage_errors import parsing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

VOTES, REJECTS = "votes", "rejects"
PART = "part-00000.parquet"

#: A project of Label Studio, or a task of CVAT, as the address bar of a browser has it.
_PROJECT = re.compile(
    r"(?P<url>https?://.+?)/(?P<what>projects|tasks)/(?P<id>\d{1,18})(?:[/?#].*)?"
)


@dataclass(frozen=True)
class Read:
    """What a source holds. format: see the setting. stamp: changes with its content."""

    format: str
    answers: pa.Table
    users: Mapping[int, str]
    stamp: str
    polled: Polled | None = None


def collect(_: "SparkSession | None", settings: CollectSettings, run: Run) -> Outcome | None:
    """Turn the answers of `settings.source` into votes/ and rejects/.

    Reads `settings.questions` (schemas.QUESTIONS); writes votes/ (schemas.COLLECTED_VOTES), which
    merge takes, and rejects/ (schemas.COLLECT_REJECTS). Returns None where the output is finished
    and the source has nothing new.

    Raises: InputError naming the setting, file or value at fault; WorkError where a server fails.
    """
    deadline = _deadline(settings)
    space = load_label_space(settings.label_space)
    names = WorkerNames.from_environment(settings.hash_workers)
    is_server = _is_server(settings)
    read = _read_server(settings, names) if is_server else _read_files(settings, run, names)
    if read is None or (run.done is not None and run.done.details.get("stamp") == read.stamp):
        return None
    questions = QuestionIndex.read("collect", settings.questions, space)
    for place, question_id in _places(settings, read.format):
        questions.add_place(place, question_id)
    rules = Rules(
        _tool_of(read.format),
        space,
        read.users,
        None if settings.worker is None else names.shown(settings.worker),
        settings.answers,
        deadline,
        names,
    )
    judged = judge(read.answers, questions, rules)
    if not judged.num_rows:
        logger.warning("collect: source: there are no answers at %s yet", settings.source)
    if run.done is not None:
        run.reopen()
    if read.polled is not None:
        write_state(settings.output, read.polled)
    votes = _write(settings.output, VOTES, schemas.COLLECTED_VOTES, votes_of(judged))
    _write(settings.output, REJECTS, schemas.COLLECT_REJECTS, rejects_of(judged))
    reasons = Counter(reason for reason in judged["reason"].to_pylist() if reason is not None)
    return Outcome(
        Counts(judged.num_rows, votes, reasons),
        details=_details(read, judged, len(questions)),
    )


def _details(read: Read, judged: pa.Table, questions: int) -> dict[str, Any]:
    is_vote = judged["reason"].is_null()
    votes = judged.filter(is_vote)
    purposes = Counter(purpose or "" for purpose in votes["purpose"].to_pylist())
    return {
        "format": read.format,
        "stamp": read.stamp,
        "questions": questions,
        "answered": len(votes["question_id"].unique()),
        "workers": len(votes["worker_id"].unique()),
        "votes_by_purpose": dict(sorted(purposes.items())),
        "earlier_versions": read.answers.num_rows - judged.num_rows,
    }


def _write(output: str, table: str, schema: pa.Schema, rows: Any) -> int:
    return storage.write_tables(storage.join(output, table, PART), schema, rows)


def _tool_of(format_name: str) -> str:
    layout = LAYOUTS.get(format_name)
    return format_name if layout is None else layout.tool


def _deadline(settings: CollectSettings) -> int | None:
    try:
        return parse_time(settings.deadline)
    except ValueError:
        raise InputError(
            f"collect: deadline: '{settings.deadline}' is no time; give one in ISO 8601, such as "
            "2026-11-30T18:00:00Z"
        ) from None


# -- files ----------------------------------------------------------------------------------------


def _read_files(settings: CollectSettings, run: Run, names: WorkerNames) -> Read | None:
    """The answers in files; None where they are as the finished run found them."""
    stamp = fingerprint_input("collect", "source", settings.source)
    if run.done is not None and run.done.details.get("stamp") == stamp:
        return None
    files = find_files(settings.source, settings.format)
    chosen = files[0].format
    if settings.format == "auto":
        logger.info(
            "collect: source: %s: taken for %s; if it is not, set format",
            settings.source,
            "a table with columns of our names" if chosen == "columns" else f"answers of {chosen}",
        )
    tables = [schemas.ANSWERS.empty_table()]
    with Progress("collect", None, "answers") as progress:
        for table in to_tables(read_files(files, settings.columns, settings.worker)):
            tables.append(table)
            progress.update(sum(each.num_rows for each in tables))
    answers = pa.concat_tables(tables)
    users = names.of_users(_users_in(answers) | _given_users(settings))
    return Read(chosen, names.of_answers(answers), users, stamp)


def _users_in(answers: pa.Table) -> dict[int, str]:
    """Names of workers by number, from answers that have both."""
    pairs = answers.select(["worker_number", "worker"]).drop_null()
    pairs = pairs.group_by(["worker_number", "worker"]).aggregate([])
    pairs = pairs.sort_by([("worker_number", "ascending"), ("worker", "ascending")])
    return {row["worker_number"]: row["worker"] for row in pairs.to_pylist()}


def _given_users(settings: CollectSettings) -> dict[int, str]:
    if settings.users is None:
        return {}
    remedy = "give what GET /api/users answers"
    with parsing(settings.users, remedy):
        users = users_of(json.loads(storage.read_text(settings.users)))
    if not users:
        raise InputError(f"collect: users: {settings.users} names no users; {remedy}")
    return users


# -- servers --------------------------------------------------------------------------------------


def _is_server(settings: CollectSettings) -> bool:
    return settings.source.startswith(("http://", "https://")) or is_sent(settings.source)


def _read_server(settings: CollectSettings, names: WorkerNames) -> Read:
    from coyo_labeler.annotation_tools.cvat_api import Cvat  # noqa: PLC0415
    from coyo_labeler.annotation_tools.label_studio_api import LabelStudio  # noqa: PLC0415
    from coyo_labeler.collect.polling import poll_cvat, poll_label_studio  # noqa: PLC0415

    record = _record(settings)
    numbers = [project.id for project in record.projects]
    how = (record.url, settings.timeout_seconds, settings.retries)
    before = read_state(settings.output)
    if before.cursors and before.key_check != names.check:
        raise InputError(
            f"collect: {WORKER_KEY} in the environment is not the key with which the workers in "
            f"{settings.output} were hashed; set that key, or run with overwrite=true"
        )
    if record.to == "label_studio":
        api = LabelStudio.connect("collect", *how)
        polled = poll_label_studio(api, numbers, before, settings.page_size, names)
    else:
        polled = poll_cvat(Cvat.connect("collect", *how), numbers, before, names)
    return Read(record.to, polled.answers, polled.users, polled.stamp, polled)


def _record(settings: CollectSettings) -> Record:
    """Which server and which of its projects to ask."""
    source = settings.source
    if not source.startswith(("http://", "https://")):
        record = read_record("collect", "source", source)
        if record.to not in SERVERS:
            raise InputError(
                f"collect: source: {source} holds the files that send wrote ({record.to}); give "
                "the answers that the tool exports"
            )
        return record
    match = _PROJECT.fullmatch(source)
    if match is None:
        raise InputError(
            f"collect: source: {source} names no project; give https://HOST/projects/N of Label "
            "Studio, https://HOST/tasks/N of CVAT, or the output of send"
        )
    to = "label_studio" if match["what"] == "projects" else "cvat"
    if settings.format not in {"auto", to}:
        raise InputError(
            f"collect: format: {source} is a URL of {to}, not of {settings.format}; leave format "
            "out, or give an exported file"
        )
    return Record(to, match["url"], (Project(int(match["id"]), ""),))


def _places(settings: CollectSettings, format_name: str) -> Iterable[tuple[str, str]]:
    """Where the tool shows the questions, for CVAT, whose answers name none."""
    if format_name != "cvat":
        return ()
    if settings.sent is not None:
        read_record("collect", "sent", settings.sent)
        return read_places("collect", "sent", settings.sent)
    if is_sent(settings.source):
        return read_places("collect", "source", settings.source)
    return ()
