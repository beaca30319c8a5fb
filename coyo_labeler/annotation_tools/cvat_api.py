"""The calls of CVAT's HTTP API that send and collect make."""

import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from coyo_labeler.annotation_tools.server import Server, Token, part_of, secret_of
from coyo_labeler.errors import WorkError

TOOL = "CVAT"
VARIABLE = "CVAT_ACCESS_TOKEN"

#: CVAT answers requests for plain application/json with 406.
_ACCEPT = "application/vnd.cvat+json"

_PAGE = 100
#: Seconds between two looks at a task whose images CVAT is reading, and how long that may take.
_POLL_SECONDS, _LONGEST_SECONDS = 1.0, 3600.0


class Cvat:
    """A server of CVAT."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.url

    @classmethod
    def connect(cls, stage: str, url: str, timeout_seconds: float, retries: int) -> "Cvat":
        """A server whose access token is in the environment; it is tried.

        Raises: InputError where it is missing or refused, or nothing answers at the URL.
        """
        token = Token("Bearer", secret_of(stage, TOOL, VARIABLE))
        server = Server(stage, TOOL, url, token, VARIABLE, timeout_seconds, retries, _ACCEPT)
        part_of(server.get("/api/users/self"), "username", TOOL, server.url)
        return cls(server)

    def _results(self, path: str, fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        page = 1
        while True:
            answer = self.server.get(path, {**fields, "page": page, "page_size": _PAGE})
            yield from part_of(answer, "results", TOOL, self.url)
            if not answer.get("next"):
                return
            page += 1

    def task(self, number: int) -> dict[str, Any]:
        """A task."""
        task: dict[str, Any] = self.server.get(f"/api/tasks/{number}")
        return task

    def find_tasks(self, name: str) -> list[dict[str, Any]]:
        """The tasks of exactly this name, oldest first."""
        tasks = [t for t in self._results("/api/tasks", {"name": name}) if t["name"] == name]
        return sorted(tasks, key=lambda task: int(task["id"]))

    def create_task(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A new task, without images."""
        task: dict[str, Any] = self.server.post("/api/tasks", document)
        return task

    def delete_task(self, number: int) -> None:
        """Remove a task."""
        self.server.delete(f"/api/tasks/{number}")

    def add_images(self, number: int, document: Mapping[str, Any]) -> None:
        """Give a task its images, and wait until CVAT has read them.

        Raises: WorkError where CVAT cannot read them, or takes longer than an hour.
        """
        answer = self.server.post(f"/api/tasks/{number}/data/", document)
        request = part_of(answer, "rq_id", TOOL, self.url)
        until = time.monotonic() + _LONGEST_SECONDS
        while True:
            state = self.server.get(f"/api/requests/{quote(str(request))}")
            status = part_of(state, "status", TOOL, self.url)
            if status == "finished":
                return
            if status == "failed":
                raise WorkError(
                    f"{TOOL} at {self.url} cannot read the images of task {number}: "
                    f"{state.get('message')}; see that it reaches them, and run the same command "
                    "again"
                )
            if time.monotonic() > until:
                raise WorkError(
                    f"{TOOL} at {self.url} has not read the images of task {number} in an hour; "
                    "run the same command again"
                )
            time.sleep(_POLL_SECONDS)

    def jobs(self, task: int) -> list[dict[str, Any]]:
        """The jobs of a task, replicas too, oldest first."""
        return sorted(self._results("/api/jobs", {"task_id": task}), key=lambda job: int(job["id"]))

    def assign(self, job: int, user: int) -> None:
        """Make a user the assignee of a job."""
        self.server.patch(f"/api/jobs/{job}", {"assignee": user})

    def user(self, name: str) -> int | None:
        """The number of the user of this name."""
        users = self._results("/api/users", {"search": name})
        return next((int(user["id"]) for user in users if user.get("username") == name), None)

    def labels(self, task: int) -> list[dict[str, Any]]:
        """The labels of a task."""
        return list(self._results("/api/labels", {"task_id": task}))

    def job(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """A job with its frames and annotations, as `collect.cvat.read_job` takes it."""
        number = int(job["id"])
        return {
            "job": dict(job),
            "data_meta": self.server.get(f"/api/jobs/{number}/data/meta"),
            "annotations": self.server.get(f"/api/jobs/{number}/annotations/"),
        }
