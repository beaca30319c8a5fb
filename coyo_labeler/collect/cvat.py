"""CVAT's tags to answers: an export as XML ("CVAT for images 1.1"), or a job of its API.

No tag says who set it: the worker is the assignee of the job. A frame's answer is its one tag; a
frame without a tag has none. The name of our tasks ends in the class that they ask about.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import IO, Any

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse

from coyo_labeler.collect.answers import Answer, clean, malformed, text_or_none, worker_or_none
from coyo_labeler.collect.reasons import Reason
from coyo_labeler.collect.times import parse_time
from coyo_labeler.errors import InputError, one_line
from coyo_labeler.formats.image_ids import whole_number

#: Name of the tool, in front of ids of its workers and answers.
TOOL = "cvat"

#: The class at the end of a task's name: `r0001 lamp (8087)`.
_ASKED = re.compile(r"\((\d{1,9})\)\s*$")

#: Where an export in XML says whose it is, of which task.
_META = {
    "meta/job/id": "job",
    "meta/task/id": "task",
    "meta/task/name": "name",
    "meta/job/assignee/username": "worker",
}

#: Sources of tags that no person set: a model, and CVAT's own merging of replicas.
_NOT_BY_PEOPLE = ("auto", "consensus")

_REMEDY = "export the job from CVAT as 'CVAT for images 1.1'"

#: Elements within elements, at most; CVAT's own have eight.
_DEEPEST = 50


def asked_class(task_name: str | None) -> int | None:
    """The class at the end of the name of a task."""
    match = _ASKED.search(task_name or "")
    return int(match[1]) if match else None


def read_xml(file: IO[bytes], origin: str, where: str) -> Iterator[Answer]:
    """The answers of an export. origin: its file, unique. where: setting and file, for messages.

    Raises: InputError where it is no such XML.
    """
    path: list[str] = []
    meta: dict[str, str] = {}
    for event, element in _events(file, where):
        if event == "start":
            path.append(element.tag)
            if path[0] != "annotations":
                shown = clean(path[0], 60)
                raise InputError(
                    f"{where} is XML, but no export of CVAT: it begins with <{shown}>; {_REMEDY}"
                )
            if len(path) > _DEEPEST:
                raise InputError(f"{where} has elements nested too deeply; export it again")
            continue
        field = _META.get("/".join(path[1:]))
        if field is not None:
            meta[field] = (element.text or "").strip()
        elif path[1:] == ["image"]:
            answer = _image(element, meta, origin)
            if answer is not None:
                yield answer
        path.pop()
        if len(path) == 1:  # what was read is released, so that a long file fits in memory
            element.clear()


def _events(file: IO[bytes], where: str) -> Iterator[tuple[str, Any]]:
    """The starts and ends of elements. Raises: InputError where it is no XML, or has a DTD."""
    try:
        events = iter(iterparse(file, ("start", "end"), forbid_dtd=True))
        while (event := next(events, None)) is not None:
            yield event
    except DefusedXmlException:
        raise InputError(
            f"{where} has a document type, which no export of CVAT has; {_REMEDY}"
        ) from None
    # An encoding that is not known is a LookupError, one that expat cannot use a ValueError.
    except (ParseError, LookupError, ValueError) as error:
        raise InputError(
            f"{where} is not readable XML ({one_line(error, 200)}); export it again"
        ) from None


def _image(element: Any, meta: Mapping[str, str], origin: str) -> Answer | None:
    """The answer to one image; None where it has no tag."""
    owner = next((f"{kind} {meta[kind]}" for kind in ("job", "task") if meta.get(kind)), origin)
    frame = element.get("id", "")
    name = clean(f"{TOOL}:{owner} frame {frame or element.get('name', '')}")
    tags = element.findall("tag")
    if not tags:
        return None
    task_name = text_or_none(meta.get("name"))
    answer = Answer(
        name,
        image=text_or_none(element.get("name")),
        place=None if task_name is None else f"{task_name}/{frame}",
        asks=asked_class(meta.get("name")),
        worker=worker_or_none(meta.get("worker")),
        source=name,
    )
    by_people = {tag.get("label") for tag in tags if tag.get("source") not in _NOT_BY_PEOPLE}
    by_model = {tag.get("label") for tag in tags}
    return _with_value(answer, by_people, by_model)


def _with_value(answer: Answer, by_people: set[Any], by_model: set[Any]) -> Answer:
    """The answer with its one tag."""
    values = by_people or by_model
    value = text_or_none(next(iter(values))) if len(values) == 1 else None
    if value is None:
        detail = "the tag has no label" if len(values) == 1 else f"{len(values)} different tags"
        return replace(answer, status=Reason.MALFORMED, detail=detail)
    if not by_people:
        return replace(answer, value=value, status=Reason.PREDICTION, detail="nobody set the tag")
    return replace(answer, value=value)


def read_job(document: Any, origin: str) -> Iterator[Answer]:
    """The answers of a job, as the API has it.

    document: `job`, `data_meta` and `annotations` are what GET /api/jobs/{id}, …/data/meta and
    …/annotations answer; `labels` the results of GET /api/labels?job_id=; `task_name` that of the
    job's task. origin: where it stands, unique.
    """
    if not isinstance(document, dict):
        yield malformed(origin, origin, "not a job, but " + type(document).__name__)
        return
    parts = {
        name: document[name] if isinstance(document.get(name), dict) else {}
        for name in ("job", "data_meta", "annotations")
    }
    job, tags = parts["job"], parts["annotations"].get("tags")
    number = whole_number(job.get("id"))
    owner = origin if number is None else f"job {number}"
    group = None if number is None else f"{TOOL}:{number}"
    if not isinstance(tags, list):
        yield malformed(origin, origin, "the job has no list of tags", group)
        return
    task_name = text_or_none(document.get("task_name"))
    names, labels = _frame_names(parts["data_meta"]), _label_names(document.get("labels"))
    try:
        updated = parse_time(job.get("updated_date"))
    except ValueError:
        updated = None  # the job is known by its number; its time matters to a deadline only
    assignee = job.get("assignee")
    common = Answer(
        "",
        group=group,
        asks=asked_class(task_name),
        worker=worker_or_none(assignee.get("username")) if isinstance(assignee, dict) else None,
        created=updated,
        updated=updated,
    )
    by_frame: dict[int, list[Mapping[str, Any]]] = {}
    for position, tag in enumerate(tags):
        frame = whole_number(tag.get("frame")) if isinstance(tag, dict) else None
        if frame is None:
            where = f"{TOOL}:{owner} tag {position + 1}"
            yield malformed(where, where, "the tag has no frame", group)
        else:
            by_frame.setdefault(frame, []).append(tag)
    for frame, of_frame in sorted(by_frame.items()):
        name = f"{TOOL}:{owner} frame {frame}"
        answer = replace(
            common,
            answer_id=name,
            source=name,
            image=names.get(frame),
            place=None if task_name is None else f"{task_name}/{frame}",
        )
        values = [(_label_of(tag, labels), tag.get("source")) for tag in of_frame]
        by_people = {value for value, source in values if source not in _NOT_BY_PEOPLE}
        yield _with_status(_with_value(answer, by_people, {value for value, _ in values}), job)


def _with_status(answer: Answer, job: Mapping[str, Any]) -> Answer:
    """The answer, which is no vote if its job was rejected or holds ground truth."""
    if answer.status is not None:
        return answer
    if job.get("type") == "ground_truth":
        return replace(answer, status=Reason.GROUND_TRUTH, detail="a job of ground truth")
    if job.get("state") == "rejected":
        return replace(answer, status=Reason.REJECTED_ASSIGNMENT, detail="the job was rejected")
    return answer


def _frame_names(meta: Mapping[str, Any]) -> dict[int, str]:
    """The names of a job's frames, by their numbers in the task."""
    frames, included = meta.get("frames"), meta.get("included_frames")
    if not isinstance(frames, list):
        return {}
    start = whole_number(meta.get("start_frame")) or 0
    numbers = included if isinstance(included, list) else range(start, start + len(frames))
    names: dict[int, str] = {}
    for number, frame in zip(numbers, frames, strict=False):
        known = whole_number(number)
        name = text_or_none(frame.get("name")) if isinstance(frame, dict) else None
        if known is not None and name is not None:
            names[known] = name
    return names


def _label_names(document: Any) -> dict[int, str]:
    """Names of labels by number, from the results of GET /api/labels."""
    results = document.get("results") if isinstance(document, dict) else document
    names: dict[int, str] = {}
    for label in results if isinstance(results, list) else ():
        number = whole_number(label.get("id")) if isinstance(label, dict) else None
        name = text_or_none(label.get("name")) if isinstance(label, dict) else None
        if number is not None and name is not None:
            names[number] = name
    return names


def _label_of(tag: Mapping[str, Any], labels: Mapping[int, str]) -> str | None:
    """What a tag says: its label, or its one attribute where the label's name is not known."""
    number = whole_number(tag.get("label_id"))
    if number is not None and number in labels:
        return labels[number]
    attributes = tag.get("attributes")
    if isinstance(attributes, list) and len(attributes) == 1 and isinstance(attributes[0], dict):
        return text_or_none(attributes[0].get("value"))
    return text_or_none(tag.get("label")) or (None if number is None else f"label_id {number}")
