"""A server that answers as Label Studio 1.23 does, as far as send and collect ask; with faults."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

LEGACY = "0123456789abcdef0123456789abcdef01234567"
#: A personal token is a JWT; its signature is not looked at.
PERSONAL = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"


class FakeLabelStudio:
    """State of the server, and what it shall do wrong.

    bodies: of all requests, as text. fail_imports: so many imports answer 502, after the tasks were
    taken if `take_before_failing`. capacity: tasks after which every import fails. fail_gets: so
    many GETs answer 503. uses_per_access: requests after which an access token has expired.
    """

    def __init__(self) -> None:
        self.projects: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.storages: list[dict[str, Any]] = []
        self.users = [
            {"id": 1, "username": "", "email": "ann@example.org"},
            {"id": 2, "username": "", "email": "bob@example.org"},
        ]
        self.bodies: list[str] = []
        self.requests: list[str] = []
        self.authorizations: set[str] = set()
        self.fail_imports = self.fail_gets = 0
        self.take_before_failing = True
        self.capacity: int | None = None
        self.uses_per_access: int | None = None
        self.refreshes = 0
        self._uses = 0
        self._annotations = 0
        self._clock = 0
        self._lock = threading.Lock()

    # -- what people do ---------------------------------------------------------------------------

    def now(self) -> str:
        self._clock += 1
        minutes, seconds = divmod(self._clock, 60)
        return f"2026-11-25T12:{minutes:02d}:{seconds:02d}.000001Z"

    def answer(self, task: int, user: int, value: str | None, **fields: Any) -> dict[str, Any]:
        """A person answers a task, or skips it (None)."""
        self._annotations += 1
        moment = self.now()
        annotation = {
            "id": self._annotations,
            "completed_by": user,
            "result": [] if value is None else [result_of(value)],
            "was_cancelled": value is None,
            "ground_truth": False,
            "created_at": moment,
            "updated_at": moment,
            "lead_time": 2.5,
            "task": task,
            **fields,
        }
        self.tasks[task]["annotations"].append(annotation)
        self.tasks[task]["updated_at"] = moment
        return annotation

    def change(self, annotation: dict[str, Any], value: str) -> None:
        annotation["result"] = [result_of(value)]
        annotation["updated_at"] = self.tasks[annotation["task"]]["updated_at"] = self.now()

    def task_of(self, question_id: str) -> int:
        """The number of the one task of a question."""
        (number,) = (
            n for n, task in self.tasks.items() if task["data"]["question_id"] == question_id
        )
        return number

    # -- what the server answers ------------------------------------------------------------------

    def respond(self, method: str, url: str, headers: Any, body: bytes) -> tuple[int, Any]:
        with self._lock:
            parts = urlsplit(url)
            self.requests.append(f"{method} {parts.path}")
            self.bodies.append(url + body.decode())
            document = json.loads(body) if body else None
            if parts.path == "/api/token/refresh/":
                return self._refresh(document)
            if not self._is_allowed(headers.get("Authorization", "")):
                return 401, {"detail": "Invalid token."}
            if method == "GET" and self.fail_gets:
                self.fail_gets -= 1
                return 503, {"detail": "busy"}
            fields = {name: values[0] for name, values in parse_qs(parts.query).items()}
            return self._route(method, parts.path, fields, document)

    def _refresh(self, document: Any) -> tuple[int, Any]:
        if document != {"refresh": PERSONAL}:
            return 401, {"detail": "Token is invalid"}
        self.refreshes += 1
        self._uses = 0
        return 200, {"access": f"access-{self.refreshes}"}

    def _is_allowed(self, authorization: str) -> bool:
        self.authorizations.add(authorization)
        if authorization == f"Token {LEGACY}":
            return True
        self._uses += 1
        has_expired = self.uses_per_access is not None and self._uses > self.uses_per_access
        return authorization == f"Bearer access-{self.refreshes}" and not has_expired

    def _route(
        self, method: str, path: str, fields: dict[str, str], document: Any
    ) -> tuple[int, Any]:
        if path == "/api/storages/localfiles" and method == "POST":
            self.storages.append(document)
            return 201, document
        if path == "/api/projects" and method == "POST":
            return self._create(document)
        gets: dict[str, Callable[[], Any]] = {
            "/api/current-user/whoami": lambda: self.users[0],
            "/api/users": lambda: self.users,
            "/api/projects": lambda: self._find(fields),
            "/api/storages/localfiles": lambda: [
                s for s in self.storages if str(s["project"]) == fields["project"]
            ],
            "/api/tasks": lambda: self._page(fields),
        }
        if path in gets:
            return 200, gets[path]()
        match = re.fullmatch(r"/api/projects/(\d+)(/import)?", path)
        if match is None or int(match[1]) not in self.projects:
            return 404, {"detail": "Not found."}
        if match[2]:
            return self._import(int(match[1]), document)
        return 200, self.projects[int(match[1])]

    def _create(self, document: dict[str, Any]) -> tuple[int, Any]:
        title = document["title"].strip()
        if not 3 <= len(title) <= 50:
            return 400, {"validation_errors": {"title": ["Ensure … no more than 50 characters."]}}
        number = len(self.projects) + 1
        self.projects[number] = {**document, "id": number, "title": title}
        return 201, self.projects[number]

    def _find(self, fields: dict[str, str]) -> Any:
        wanted = fields["title"].lower()  # a part of the title will do
        found = [p for p in self.projects.values() if wanted in p["title"].lower()]
        return {"count": len(found), "next": None, "previous": None, "results": found}

    def _import(self, project: int, tasks: list[dict[str, Any]]) -> tuple[int, Any]:
        if self.capacity is not None and len(self.tasks) >= self.capacity:
            return 500, {"detail": "the disk is full"}
        fails = self.fail_imports > 0
        self.fail_imports -= fails
        numbers = []
        if not fails or self.take_before_failing:
            for task in tasks:
                number = len(self.tasks) + 1
                moment = self.now()
                self.tasks[number] = {
                    "id": number,
                    "data": task["data"],
                    "annotations": [],
                    "predictions": [],
                    "created_at": moment,
                    "updated_at": moment,
                    "project": project,
                }
                numbers.append(number)
        if fails:
            return 502, {"detail": "bad gateway"}
        return 201, {"task_count": len(numbers), "task_ids": numbers}

    def _page(self, fields: dict[str, str]) -> Any:
        of_project = [t for t in self.tasks.values() if str(t["project"]) == fields["project"]]
        query = json.loads(fields.get("query", "{}"))
        for item in query.get("filters", {}).get("items", []):
            assert item["filter"] == "filter:tasks:updated_at"
            assert item["operator"] == "greater"
            of_project = [t for t in of_project if t["updated_at"] > item["value"]]
        size, page = int(fields["page_size"]), int(fields["page"])
        part = of_project[(page - 1) * size : page * size]
        if fields["fields"] == "task_only":
            part = [{k: v for k, v in task.items() if k != "annotations"} for task in part]
        return {"total": len(of_project), "tasks": part}


def result_of(value: str) -> dict[str, Any]:
    return {
        "from_name": "answer",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [value]},
    }


@contextmanager
def serve(fake: Any) -> Iterator[str]:
    """The URL of a fake server on 127.0.0.1 while the `with` block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, document = fake.respond(self.command, self.path, self.headers, body)
            data = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  # the base class's names

        def log_message(self, *_: object) -> None:
            """The tests look at what the server has got, not at its log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
