"""Questions to a server of Label Studio: projects are found or created, and tasks are sent once."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from coyo_labeler.annotation_tools.label_studio_api import LabelStudio
from coyo_labeler.annotation_tools.questions import Question
from coyo_labeler.annotation_tools.records import Project
from coyo_labeler.annotation_tools.server import UncertainError
from coyo_labeler.errors import InputError
from coyo_labeler.redact import without_parameters
from coyo_labeler.send.groups import Group
from coyo_labeler.send.images import Images, Shown
from coyo_labeler.send.label_studio_tasks import INSTRUCTIONS, configuration, task
from coyo_labeler.send.record import Sent
from coyo_labeler.send.wording import Wording

logger = logging.getLogger(__name__)

#: Attempts at a batch of which is not known whether it arrived.
_ATTEMPTS = 5


def open_project(api: LabelStudio, group: Group, title: str, images: Images) -> Project:
    """The project of a group: the one of this title, else a new one.

    Raises: InputError where a project of this title asks in another way, or cannot show the images.
    """
    config = configuration(group.kind)
    present = api.find_projects(title)
    if present:
        project = present[0]
        if _canonical(project.get("label_config", "")) != _canonical(config):
            raise InputError(
                f"send: project: project {project['id']} on {api.url} is called '{title}' too, and "
                "asks with another labelling configuration; give project=NAME"
            )
        logger.info("send: goes on with project %s, '%s'", project["id"], title)
    else:
        project = api.create_project(
            {
                "title": title,
                "description": f"{group.questions:,} questions sent by coyo-labeler",
                "label_config": config,
                "expert_instruction": INSTRUCTIONS[group.kind],
                "show_instruction": True,
                "maximum_annotations": 1 if group.key.worker else group.overlap,
                "sampling": "Sequential sampling",
                "show_skip_button": True,
                "enable_empty_annotation": False,
                "show_annotation_history": False,
                "show_collab_predictions": False,
            }
        )
    if images.access == "local_files" and images.folder is not None:
        api.serve_folder(int(project["id"]), images.folder)
    return Project(int(project["id"]), title)


def _canonical(config: str) -> str:
    return "".join(config.split())


def find_present(
    api: LabelStudio,
    project: Project,
    questions: Iterable[Question],
    images: Images,
    wording: Wording,
) -> dict[str, int]:
    """The numbers of the tasks that a project has, by the id of their question.

    questions: those that are to be sent there.

    Raises: InputError where a task has the id of one of them, and asks something else: it is of
    another loop, whose rounds have the same numbers.
    """
    numbers, asked = {}, {}
    for question_id, number, data in api.sent_questions(project.id):
        numbers[question_id], asked[question_id] = number, _asked(data)
    if not numbers:
        return numbers
    logger.info("send: '%s' has %d tasks already", project.title, len(numbers))
    for question in questions:
        shown = images.find(question)
        if question.question_id not in numbers or shown is None:
            continue
        image, asks = _asked(task(question, shown.url, wording)["data"])
        there, asks_there = asked[question.question_id]
        # Label Studio answers with other addresses for images of its own storages.
        is_other_image = shown.url.startswith(("http://", "https://")) and image != there
        if asks != asks_there or is_other_image:
            raise InputError(
                f"send: project: task {numbers[question.question_id]} of project {project.id} on "
                f"{api.url}, '{project.title}', has the id {question.question_id} too, and asks "
                "something else, perhaps for another loop; give project=NAME"
            )
    return numbers


def _asked(data: Mapping[str, Any]) -> tuple[int, int]:
    """What a task's data show and ask, as hashes: the image without its signature, and the rest."""
    choices = data.get("choices")
    values = [each.get("value") for each in choices] if isinstance(choices, list) else None
    return hash(without_parameters(str(data.get("image")))), hash(str((data.get("label"), values)))


def send_tasks(
    api: LabelStudio,
    project: Project,
    questions: Iterator[tuple[Question, Shown]],
    present: dict[str, int],
    wording: Wording,
    batch_size: int,
) -> Iterator[Sent]:
    """Send questions to a project, those that it has not got, and say where each one is.

    present: see `find_present`.

    Raises: WorkError where the server keeps failing.
    """
    while batch := list(islice(questions, batch_size)):
        _send_batch(api, project, batch, present, wording)
        for question, shown in batch:
            yield Sent(question, str(project.id), present[question.question_id], shown.recorded)


def _send_batch(
    api: LabelStudio,
    project: Project,
    batch: Sequence[tuple[Question, Shown]],
    present: dict[str, int],
    wording: Wording,
) -> None:
    """Send what is missing of a batch; `present` then has the number of every task.

    Importing makes every task anew, so after a failure the project is asked what has arrived.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        missing = [pair for pair in batch if pair[0].question_id not in present]
        if not missing:
            return
        tasks = [task(question, shown.url, wording) for question, shown in missing]
        try:
            numbers = api.import_tasks(project.id, tasks)
        except UncertainError as error:
            if attempt == _ATTEMPTS:
                raise
            logger.warning("%s; asks what has arrived", error)
            present.update((each[0], each[1]) for each in api.sent_questions(project.id))
        else:
            ids = (question.question_id for question, _ in missing)
            present.update(zip(ids, numbers, strict=True))
