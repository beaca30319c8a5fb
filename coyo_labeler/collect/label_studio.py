"""Label Studio's JSON: the annotations of a task to answers.

An export (JSON), a task of the API, and a page of tasks all hold tasks of one form. Predictions are
no answers; drafts are none yet.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from coyo_labeler.collect.answers import (
    LONGEST_ID,
    Answer,
    clean,
    malformed,
    text_or_none,
    worker_or_none,
)
from coyo_labeler.collect.reasons import Reason
from coyo_labeler.collect.times import parse_time, seconds_of
from coyo_labeler.errors import one_line
from coyo_labeler.formats.image_ids import whole_number

#: Name of the tool, in front of ids of its workers and answers.
TOOL = "label_studio"

#: The name of the control in our labelling configurations.
CONTROL = "answer"


def read_task(task: Any, origin: str) -> Iterator[Answer]:
    """The answers of one task. origin: where it stands, unique; for answers without an id."""
    if not isinstance(task, dict):
        yield malformed(origin, origin, "not a task, but " + one_line(type(task).__name__))
        return
    number = whole_number(task.get("id"))
    group = None if number is None else f"{TOOL}:{number}"
    annotations = task.get("annotations")
    if not isinstance(annotations, list):
        yield malformed(origin, origin, "the task has no list of annotations", group)
        return
    data = task.get("data")
    about = _about(data if isinstance(data, dict) else {})
    for position, annotation in enumerate(annotations):
        yield _answer(annotation, about, f"{origin} annotation {position + 1}", group)


def _about(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a task's data say about the question."""
    label = whole_number(data.get("label"))
    return {
        "question_id": text_or_none(data.get("question_id"), LONGEST_ID),
        "image_id": whole_number(data.get("image_id")),
        # Our own tasks have ids; those of other projects may have nothing but an image.
        "image": text_or_none(data.get("key")) or text_or_none(data.get("image")),
        "asks": label if label is not None and abs(label) < 2**31 else None,
    }


def _answer(annotation: Any, about: Mapping[str, Any], origin: str, group: str | None) -> Answer:
    if not isinstance(annotation, dict):
        return malformed(origin, origin, "the annotation is not an object", group)
    number = whole_number(annotation.get("id"))
    name = origin if number is None else f"{TOOL}:{number}"
    worker, worker_number = _worker(annotation.get("completed_by"))
    try:
        created = parse_time(annotation.get("created_at"))
        updated = parse_time(annotation.get("updated_at"))
        value, status, detail = _value(annotation)
    except ValueError as error:
        created = updated = value = None
        status, detail = Reason.MALFORMED, clean(one_line(error))
    return Answer(
        name,
        group=group,
        **about,
        worker=worker,
        worker_number=worker_number,
        value=value,
        created=created,
        updated=created if updated is None else updated,
        seconds=seconds_of(annotation.get("lead_time")),
        source=name,
        status=status,
        detail=detail,
    )


def _worker(completed_by: Any) -> tuple[str | None, int | None]:
    """The name and the number of a user: exports have a number, single tasks an object."""
    if isinstance(completed_by, dict):
        name = completed_by.get("email") or completed_by.get("username")
        return worker_or_none(name), whole_number(completed_by.get("id"))
    number = whole_number(completed_by)
    return (None, number) if number is not None else (worker_or_none(completed_by), None)


def _value(annotation: Mapping[str, Any]) -> tuple[str | None, Reason | None, str | None]:
    """The chosen value, and why the annotation is no vote, if it says so.

    Raises: ValueError where there is no single choice.
    """
    if annotation.get("was_cancelled") is True:
        return None, Reason.SKIPPED, "cancelled"
    results = annotation.get("result")
    if not isinstance(results, list):
        raise ValueError("the annotation has no list of results")
    choices = [
        result for result in results if isinstance(result, dict) and result.get("type") == "choices"
    ]
    ours = [result for result in choices if result.get("from_name") == CONTROL]
    chosen = ours or choices
    if not results:
        return None, Reason.SKIPPED, "submitted without a choice"
    if len(chosen) != 1:
        raise ValueError(f"the annotation has {len(chosen)} results of type choices, not one")
    value = chosen[0].get("value")
    values = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(values, list) or len(values) != 1:
        number = len(values) if isinstance(values, list) else 0
        raise ValueError(f"the result has {number} choices, not one")
    text = text_or_none(values[0])
    if text is None:
        raise ValueError("the choice is not a text")
    if annotation.get("ground_truth") is True:
        return text, Reason.GROUND_TRUTH, "imported, or marked as ground truth"
    return text, None, None


def users_of(document: Any) -> dict[int, str]:
    """Names of users by number, from what GET /api/users answers."""
    users: dict[int, str] = {}
    for user in document if isinstance(document, list) else ():
        name, number = _worker(user) if isinstance(user, dict) else (None, None)
        if name is not None and number is not None:
            users[number] = name
    return users
