"""Answers from a server: what has changed since the last poll, joined with what was there."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from coyo_labeler.annotation_tools.cvat_api import Cvat
from coyo_labeler.annotation_tools.label_studio_api import LabelStudio
from coyo_labeler.collect import cvat, label_studio
from coyo_labeler.collect.answers import Answer, to_tables
from coyo_labeler.collect.state import Polled, replace_groups
from coyo_labeler.collect.times import parse_time
from coyo_labeler.collect.worker_names import WorkerNames
from coyo_labeler.formats import schemas
from coyo_labeler.progress import Progress

#: A task that was changed while the last poll ran may carry a time shortly before its end.
_OVERLAP = timedelta(minutes=2)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def poll_label_studio(
    api: LabelStudio,
    projects: Sequence[int],
    before: Polled,
    page_size: int,
    names: WorkerNames,
) -> Polled:
    """All answers of some projects; only tasks that changed since `before` are asked for."""
    cursors = dict(before.cursors)
    groups: set[str] = set()
    tables: list[pa.Table] = []
    with Progress("collect", None, "tasks") as progress:

        def answers() -> Iterator[Answer]:
            for project in projects:
                api.project(project)  # a filter on a project that is gone answers no tasks
                latest = cursors.get(str(project))
                for task in api.tasks_since(project, _with_overlap(latest), page_size):
                    origin = f"{label_studio.TOOL}:task {task.get('id')}"
                    groups.add(f"{label_studio.TOOL}:{task.get('id')}")
                    latest = _later(latest, task.get("updated_at"))
                    progress.update(len(groups))
                    yield from label_studio.read_task(task, origin)
                if latest is not None:
                    cursors[str(project)] = latest

        tables.extend(map(names.of_answers, to_tables(answers())))
    users = {**before.users, **names.of_users(label_studio.users_of(api.users()))}
    return Polled(_joined(before, groups, tables), cursors, users, names.check)


def poll_cvat(api: Cvat, tasks: Sequence[int], before: Polled, names: WorkerNames) -> Polled:
    """All answers of some tasks; only jobs that changed since `before` are read."""
    cursors = dict(before.cursors)
    groups: set[str] = set()
    tables: list[pa.Table] = []
    with Progress("collect", None, "jobs") as progress:

        def answers() -> Iterator[Answer]:
            for task in tasks:
                name, labels = api.task(task).get("name"), api.labels(task)
                for number, job in enumerate(api.jobs(task)):
                    group = f"{cvat.TOOL}:{job.get('id')}"
                    stamp = str(job.get("updated_date"))
                    progress.update(len(groups))
                    if cursors.get(group) == stamp:
                        continue
                    groups.add(group)
                    document = {**api.job(job), "labels": labels, "task_name": name}
                    yield from cvat.read_job(document, f"{cvat.TOOL}:task {task} job {number + 1}")
                    cursors[group] = stamp

        tables.extend(map(names.of_answers, to_tables(answers())))
    return Polled(_joined(before, groups, tables), cursors, key_check=names.check)


def _joined(before: Polled, groups: Iterable[str], tables: Sequence[pa.Table]) -> pa.Table:
    changed = pa.concat_tables([schemas.ANSWERS.empty_table(), *tables])
    return replace_groups(before.answers, set(groups), changed)


def _with_overlap(latest: str | None) -> str | None:
    """The time from which tasks are asked for again."""
    moment = parse_time(latest)
    if moment is None:
        return None
    since = _EPOCH + timedelta(microseconds=moment) - _OVERLAP
    return since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _later(latest: str | None, updated: Any) -> str | None:
    """The later one of two times of the server; what is no time is passed over."""
    try:
        moment = parse_time(updated)
    except ValueError:
        return latest
    before = parse_time(latest)
    is_later = moment is not None and (before is None or moment > before)
    return str(updated) if is_later else latest
