"""CVAT's form of questions: one task for each asked class, with the labels yes, no and unsure.

A page with thousands of labels freezes, so CVAT asks yes-or-no questions only.
"""

import posixpath
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from coyo_labeler.annotation_tools.questions import Question
from coyo_labeler.send.groups import Group
from coyo_labeler.send.images import Shown
from coyo_labeler.send.wording import ANSWERS, Wording

#: Images of one task, at most.
PER_TASK = 5000

#: Characters of a task's name; CVAT takes 256.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Task:
    """A task of CVAT with its images in the order of its frames.

    jobs: the frames of each job, by their numbers, and who shall do it. replicas: answers wanted
    from as many workers, each in a job of its own; 0 for one answer.
    """

    name: str
    questions: tuple[tuple[Question, Shown], ...]
    jobs: tuple[tuple[str | None, tuple[int, ...]], ...]
    replicas: int

    @property
    def files(self) -> list[str]:
        """The images, in the order of the frames."""
        return [shown.url for _, shown in self.questions]

    def document(self) -> dict[str, Any]:
        """The body of POST /api/tasks."""
        body: dict[str, Any] = {
            "name": self.name,
            "labels": [{"name": value, "type": "tag"} for value, _ in ANSWERS],
            "segment_size": 0,
        }
        return body | ({"initial_replicas": self.replicas} if self.replicas else {})

    def data(self, cloud_storage: int | None, manifest: str | None, by_url: bool) -> dict[str, Any]:
        """The body of POST /api/tasks/{id}/data.

        cloud_storage: CVAT's number of the bucket with the images, and manifest the path in it of
        their manifest; both None for a share that CVAT mounts. by_url: CVAT downloads the images.
        """
        files = self.files
        # The mapping is the order of the frames. CVAT refuses a sorting_method beside it
        # (_validate_job_file_mapping in its engine).
        body: dict[str, Any] = {
            "image_quality": 90,
            "use_cache": True,
            "job_file_mapping": [
                [name_of(files[frame]) for frame in frames] for _, frames in self.jobs
            ],
        }
        if by_url:
            return body | {"remote_files": files}
        if cloud_storage is None:
            return body | {"server_files": files, "copy_data": False}
        listed = [manifest, *files] if manifest else files
        return body | {"server_files": listed, "cloud_storage_id": cloud_storage}


def name_of(image: str) -> str:
    """What CVAT calls an image: a path as it is, and what it downloads by the last part of its URL.

    No two images of a task may have one name.
    """
    if not image.startswith(("http://", "https://")):
        return image
    return posixpath.basename(unquote(urlsplit(image).path))


def tasks_of(
    group: Group,
    questions: Iterable[tuple[Question, Shown]],
    name: str,
    wording: Wording,
    job_images: int,
) -> Iterator[Task]:
    """The tasks of a group, `PER_TASK` images each; no name of an image comes twice in one.

    name: in front of their names. job_images: images in a job that is nobody's yet.
    """
    for number, part in enumerate(_parts(questions), 1):
        ordered = sorted(part, key=lambda pair: pair[0].worker_id or "")  # stable: jobs are runs
        jobs = tuple(_jobs([question.worker_id for question, _ in ordered], job_images))
        is_assigned = any(worker is not None for worker, _ in jobs)
        replicas = group.overlap if group.overlap > 1 and not is_assigned else 0
        title = _name(name, group, number, wording)
        yield Task(title, tuple(ordered), jobs, replicas)


def _name(name: str, group: Group, number: int, wording: Wording) -> str:
    """`r0001 2 lamp: an artificial source … (8087)`: collect finds the class at the end.

    CVAT has no other place for the definition, and names of classes have several meanings.
    """
    asks = group.key.asks
    what = wording.title("", asks)
    words = [
        name,
        *([f"{group.overlap} answers"] if group.overlap > 1 else []),
        *([f"part {number}"] if number > 1 else []),
    ]
    if len(asks) > 1:
        # Sets of classes can begin alike, so the name ends in a digest of all of them.
        digest = zlib.crc32(repr(asks).encode())
        front = " ".join([*words, what])[: _LONGEST_NAME - 20]
        return f"{front} (set {digest:08x})"
    front = " ".join([*words, what])[: _LONGEST_NAME - 20]
    return f"{front} ({asks[0]})"


def _parts(
    questions: Iterable[tuple[Question, Shown]],
) -> Iterator[list[tuple[Question, Shown]]]:
    parts: list[list[tuple[Question, Shown]]] = []
    holding: list[set[str]] = []
    for question, shown in questions:
        for part, files in zip(parts, holding, strict=True):
            if len(part) < PER_TASK and name_of(shown.url) not in files:
                break
        else:
            part, files = [], set()
            parts.append(part)
            holding.append(files)
        part.append((question, shown))
        files.add(name_of(shown.url))
    yield from parts


def _jobs(
    workers: Sequence[str | None], job_images: int
) -> Iterator[tuple[str | None, tuple[int, ...]]]:
    """Runs of frames with one worker; those without one are cut into jobs of some images."""
    frames: list[int] = []
    for frame, worker in enumerate(workers):
        is_full = worker is None and len(frames) == job_images
        if frames and (worker != workers[frame - 1] or is_full):
            yield workers[frame - 1], tuple(frames)
            frames = []
        frames.append(frame)
    if frames:
        yield workers[-1], tuple(frames)
