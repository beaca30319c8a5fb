"""The calls of Label Studio's HTTP API that send and collect make."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coyo_labeler.annotation_tools.server import (
    Credentials,
    Server,
    Token,
    part_of,
    secret_of,
)
from coyo_labeler.errors import InputError, WorkError

TOOL = "Label Studio"
VARIABLE = "LABEL_STUDIO_API_KEY"

#: An access token lives 300 seconds; it is renewed well before.
_ACCESS_SECONDS = 240.0

#: Tasks that are asked for at once, without their annotations.
_PAGE = 1000


class RefreshToken:
    """A personal access token: it buys access tokens that live five minutes."""

    def __init__(self, secret: str) -> None:
        self._secret, self._access = secret, ""
        self._until = 0.0
        self._is_fresh = False  # the access token has not been accepted by any request yet

    def header(self, server: Server) -> str:
        """See `Credentials`."""
        if not self._access or time.monotonic() > self._until:
            answer = server.log_in("/api/token/refresh/", {"refresh": self._secret})
            access = answer.get("access") if isinstance(answer, dict) else None
            if not isinstance(access, str):
                raise WorkError(f"{TOOL} at {server.url} answered a refresh token with no access")
            self._access, self._until = access, time.monotonic() + _ACCESS_SECONDS
            self._is_fresh = True
        else:
            self._is_fresh = False
        return f"Bearer {self._access}"

    def expire(self) -> bool:
        """See `Credentials`. A token that was just bought and is refused stays refused."""
        self._access = ""
        return not self._is_fresh

    def secrets(self) -> tuple[str, ...]:
        """See `Credentials`."""
        return tuple(filter(None, (self._secret, self._access)))

    def __repr__(self) -> str:
        return "RefreshToken()"


def credentials(secret: str) -> Credentials:
    """Those of a legacy token, or of a personal one, which is a JWT: three parts in base64."""
    is_jwt = secret.startswith("eyJ") and secret.count(".") == 2
    return RefreshToken(secret) if is_jwt else Token("Token", secret)


class LabelStudio:
    """A server of Label Studio."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.url

    @classmethod
    def connect(cls, stage: str, url: str, timeout_seconds: float, retries: int) -> "LabelStudio":
        """A server whose credentials are in the environment; they are tried.

        Raises: InputError where they are missing or refused, or nothing answers at the URL.
        """
        proof = credentials(secret_of(stage, TOOL, VARIABLE))
        server = Server(stage, TOOL, url, proof, VARIABLE, timeout_seconds, retries)
        part_of(server.get("/api/current-user/whoami"), "id", TOOL, server.url)
        return cls(server)

    def _part(self, answer: Any, name: str) -> Any:
        return part_of(answer, name, TOOL, self.url)

    def find_projects(self, title: str) -> list[dict[str, Any]]:
        """The projects of exactly this title, oldest first."""
        found = []
        page = 1
        while True:
            fields = {"title": title, "page": page, "page_size": 100}
            answer = self.server.get("/api/projects", fields)
            found += [each for each in self._part(answer, "results") if each["title"] == title]
            if not answer.get("next"):
                return sorted(found, key=lambda each: int(each["id"]))
            page += 1

    def project(self, number: int) -> dict[str, Any]:
        """A project."""
        project: dict[str, Any] = self.server.get(f"/api/projects/{number}")
        return project

    def create_project(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A new project."""
        project: dict[str, Any] = self.server.post("/api/projects", document)
        return project

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add tasks, each of the form {"data": …}; returns their numbers, in order.

        Raises: UncertainError where they may have been added all the same.
        """
        answer = self.server.post(f"/api/projects/{project}/import?return_task_ids=true", tasks)
        numbers = self._part(answer, "task_ids")
        if not isinstance(numbers, list) or len(numbers) != len(tasks):
            raise WorkError(
                f"{TOOL} at {self.url} took {len(numbers or ())} of {len(tasks)} tasks for project "
                f"{project}; run the same command again: it adds those that are missing"
            )
        return [int(number) for number in numbers]

    def sent_questions(self, project: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """(question_id, number, data) of every task of a project that has a question's id."""
        for task in self._pages({"project": project, "fields": "task_only"}, _PAGE):
            data = task.get("data", {})
            question_id = data.get("question_id")
            if isinstance(question_id, str):
                yield question_id, int(task["id"]), data

    def tasks_since(
        self, project: int, updated_after: str | None, page_size: int
    ) -> Iterator[dict[str, Any]]:
        """The tasks of a project with their annotations, those changed after a time.

        updated_after: ISO 8601 in UTC.
        """
        fields: dict[str, Any] = {"project": project, "fields": "all"}
        if updated_after is not None:
            condition = {
                "filter": "filter:tasks:updated_at",
                "operator": "greater",
                "type": "Datetime",
                "value": updated_after,
            }
            filters = {"conjunction": "and", "items": [condition]}
            fields["query"] = json.dumps({"filters": filters})
        yield from self._pages(fields, page_size)

    def _pages(self, fields: Mapping[str, Any], page_size: int) -> Iterator[dict[str, Any]]:
        """Tasks page by page, in the order of their numbers: new ones come last."""
        query = json.loads(fields.get("query", "{}")) | {"ordering": ["tasks:id"]}
        page, seen = 1, 0
        while True:
            answer = self.server.get(
                "/api/tasks",
                {**fields, "query": json.dumps(query), "page": page, "page_size": page_size},
            )
            tasks = self._part(answer, "tasks")
            yield from tasks
            seen += len(tasks)
            if not tasks or seen >= int(self._part(answer, "total")):
                return
            page += 1

    def users(self) -> Any:
        """All users, as GET /api/users answers."""
        return self.server.get("/api/users")

    def serve_folder(self, project: int, folder: str) -> None:
        """Let a project show the files of a folder of the server's machine.

        Raises: InputError where the server does not serve it.
        """
        present = self.server.get("/api/storages/localfiles", {"project": project})
        if any(storage.get("path") == folder for storage in present):
            return
        document = {
            "project": project,
            "path": folder,
            "title": "images of the questions",
            "use_blob_urls": True,
            "regex_filter": None,
        }
        try:
            self.server.post("/api/storages/localfiles", document)
        except InputError as error:
            raise InputError(
                f"{error}; start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
                "and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT set to a folder above the images"
            ) from None
