"""Questions to CVAT: over its API, or as the bodies of its requests, in files."""

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from coyo_labeler import storage
from coyo_labeler.annotation_tools.cvat_api import Cvat
from coyo_labeler.annotation_tools.records import Project
from coyo_labeler.errors import InputError, one_line
from coyo_labeler.formats.faults import ImageError
from coyo_labeler.formats.pictures import open_picture
from coyo_labeler.send.cvat_tasks import Task
from coyo_labeler.send.images import Images
from coyo_labeler.send.record import Sent

logger = logging.getLogger(__name__)

MANIFEST = "manifest.jsonl"


def send_task(api: Cvat, task: Task, images: Images, cloud_storage: int | None) -> Project:
    """The task on the server: the one that is there, else a new one with its images and jobs.

    One that got no images, because an earlier run was killed, is made anew.

    Raises: InputError where a worker is no user of the server, WorkError where images fail.
    """
    users = {worker: _user(api, worker) for worker, _ in task.jobs if worker is not None}
    number = None
    for present in api.find_tasks(task.name):
        if int(present.get("size") or 0) == len(task.questions):
            number = int(present["id"])
            logger.info("send: goes on with task %d, '%s'", number, task.name)
            break
        if not present.get("size"):
            api.delete_task(int(present["id"]))
    if number is None:
        number = int(api.create_task(task.document())["id"])
        manifest = None if cloud_storage is None else images.path_of(MANIFEST)
        api.add_images(number, task.data(cloud_storage, manifest, images.are_urls))
    jobs = [job for job in api.jobs(number) if job.get("type") == "annotation"]
    jobs.sort(key=lambda job: int(job["start_frame"]))
    for job, (worker, _) in zip(jobs, task.jobs, strict=False):
        if worker is not None and (job.get("assignee") or {}).get("username") != _login(worker):
            api.assign(int(job["id"]), users[worker])
    return Project(number, task.name)


def _login(worker: str) -> str:
    """The name of a worker on the server: collect puts the tool in front of it."""
    return worker.removeprefix("cvat:")


def _user(api: Cvat, worker: str) -> int:
    number = api.user(_login(worker))
    if number is None:
        raise InputError(
            f"send: questions: worker {worker} is no user of CVAT at {api.url}; add the user, or "
            "select without assign"
        )
    return number


def write_task(output: str, number: int, task: Task, images: Images, storage_id: int | None) -> str:
    """Write the bodies of the two requests that make a task; returns the file, below the output."""
    name = f"tasks/{number:05d}.json"
    manifest = None if storage_id is None else images.path_of(MANIFEST)
    document: dict[str, Any] = {
        "POST /api/tasks": task.document(),
        "POST /api/tasks/{id}/data": task.data(storage_id, manifest, images.are_urls),
        "assignees of the jobs": [None if w is None else _login(w) for w, _ in task.jobs],
    }
    storage.write_json(storage.join(output, name), document)
    return name


def sent_rows(task: Task) -> Iterator[Sent]:
    """Where each question of a task is: by the task's name, which exports have, and its frame."""
    for frame, (question, shown) in enumerate(task.questions):
        yield Sent(question, task.name, frame, shown.recorded)


def write_manifest(images: Images) -> None:
    """Write manifest.jsonl (dataset-manifest 1.1) beside the images, for a cloud storage."""
    assert images.folder is not None
    lines = [{"version": "1.1"}, {"type": "images"}, *_manifest_lines(images)]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    storage.write_bytes(storage.join(images.folder, MANIFEST), text.encode())


def _manifest_lines(images: Images) -> Iterable[dict[str, Any]]:
    """Names are relative to the manifest."""
    assert images.folder is not None
    for name in sorted(images.files.values()):
        fs, path = storage.resolve(storage.join(images.folder, name))
        stem, dot, ending = name.rpartition(".")
        try:
            with open_picture(fs.cat_file(path)) as picture:
                width, height = picture.size
        except ImageError as error:
            raise InputError(
                f"send: images: {images.folder}/{name} does not decode ({one_line(error, 200)}); "
                "leave the image out of the questions"
            ) from None
        yield {
            "name": stem,
            "extension": f"{dot}{ending}",
            "width": width,
            "height": height,
            "meta": {"related_images": []},
        }
