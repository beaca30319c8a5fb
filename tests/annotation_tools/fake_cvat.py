"""A server that answers as CVAT 2.80 does, by its SDK, as far as send and collect ask.

tests/send/test_cvat_sdk.py reads every answer with the SDK's models.
"""

import json
import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "a-personal-access-token"


class FakeCvat:
    """State of the server. fails_to_read: it cannot read the images of new tasks."""

    def __init__(self) -> None:
        self.tasks: dict[int, dict[str, Any]] = {}
        self.data: dict[int, dict[str, Any]] = {}
        self.jobs: dict[int, dict[str, Any]] = {}
        self.tags: dict[int, list[dict[str, Any]]] = {}
        self.users = [{"id": 7, "username": "ann"}, {"id": 8, "username": "bob"}]
        self.bodies: list[str] = []
        self.annotation_reads = 0
        self.fails_to_read = False
        self._clock = 0

    def tag(self, job: int, frame: int, label: str, source: str = "manual") -> None:
        """A person sets the tag of a frame."""
        task = self.tasks[self.jobs[job]["task_id"]]
        number = next(each["id"] for each in task["all_labels"] if each["name"] == label)
        self.tags[job] = [tag for tag in self.tags[job] if tag["frame"] != frame]
        self.tags[job].append({"frame": frame, "label_id": number, "source": source})
        self.jobs[job]["updated_date"] = self._now()

    def _now(self) -> str:
        self._clock += 1
        return f"2026-11-25T17:00:{self._clock:02d}Z"

    def respond(self, method: str, url: str, headers: Any, body: bytes) -> tuple[int, Any]:
        self.bodies.append(body.decode())
        if headers.get("Accept") != "application/vnd.cvat+json":
            return 406, {"detail": "Could not satisfy the request Accept header."}
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"detail": "Authentication credentials were not provided."}
        return self._carry_out(method, url, body)

    def _carry_out(self, method: str, url: str, body: bytes) -> tuple[int, Any]:
        parts = urlsplit(url)
        fields = {name: values[0] for name, values in parse_qs(parts.query).items()}
        document = json.loads(body) if body else None
        if method == "GET":
            return self._get(parts.path, fields)
        if method == "POST" and parts.path == "/api/tasks":
            return self._create(document)
        match = re.fullmatch(r"/api/(tasks|jobs)/(\d+)(/data/)?", parts.path)
        assert match is not None, (method, url)
        number = int(match[2])
        if method == "DELETE":
            del self.tasks[number]
            return 204, None
        if method == "PATCH":
            user = next(user for user in self.users if user["id"] == document["assignee"])
            self.jobs[number]["assignee"] = user
            return 200, _shown_job(self.jobs[number])
        return self._take_data(number, document)

    def _create(self, document: dict[str, Any]) -> tuple[int, Any]:
        number = max(self.tasks, default=0) + 1
        labels = [
            {"id": 100 * number + place, "name": label["name"]}
            for place, label in enumerate(document["labels"])
        ]
        self.tasks[number] = {**document, "id": number, "size": 0, "all_labels": labels}
        return 201, _shown_task(self.tasks[number])

    def _take_data(self, number: int, document: dict[str, Any]) -> tuple[int, Any]:
        if not self.fails_to_read:
            # What CVAT's engine demands of a mapping: no order besides, names of what it has got.
            assert "sorting_method" not in document
            downloaded = [unquote(urlsplit(url).path) for url in document.get("remote_files", ())]
            names = [path.rpartition("/")[2] for path in downloaded]
            assert len(names) == len(set(names))
            present = {*names, *document.get("server_files", ())}
            assert present >= {name for names in document["job_file_mapping"] for name in names}
            self.data[number] = document
            self._make_jobs(self.tasks[number], document["job_file_mapping"])
        return 202, {"rq_id": f"action=create&target=task&id={number}"}

    def _make_jobs(self, task: dict[str, Any], mapping: list[list[str]]) -> None:
        start = 0
        for files in mapping:
            kinds = ["annotation"] + ["replica"] * task.get("initial_replicas", 0)
            for kind in kinds:
                number = len(self.jobs) + 1
                self.tags[number] = []
                self.jobs[number] = {
                    "id": number,
                    "task_id": task["id"],
                    "type": kind,
                    "state": "new",
                    "assignee": None,
                    "start_frame": start,
                    "stop_frame": start + len(files) - 1,
                    "updated_date": self._now(),
                    "files": files,
                }
            start += len(files)
        task["size"] = start

    def _get(self, path: str, fields: dict[str, str]) -> tuple[int, Any]:
        if path == "/api/users/self":
            return 200, self.users[0]
        match = re.fullmatch(r"/api/jobs/(\d+)/(annotations/|data/meta)", path)
        if match is not None:
            return 200, self._part_of_job(self.jobs[int(match[1])], match[2])
        match = re.fullmatch(r"/api/requests/(.+)", path)
        if match is not None:
            assert unquote(match[1]).startswith("action=create&target=task&id=")
            status = "failed" if self.fails_to_read else "finished"
            return 200, {
                "id": unquote(match[1]),
                "status": status,
                "message": "no such file" if self.fails_to_read else "",
                "operation": {"type": "create:task", "target": "task"},
                "created_date": self._now(),
            }
        match = re.fullmatch(r"/api/tasks/(\d+)", path)
        if match is not None:
            task = self.tasks.get(int(match[1]))
            return (404, {"detail": "Not found."}) if task is None else (200, _shown_task(task))
        lists: dict[str, list[dict[str, Any]]] = {
            "/api/users": [u for u in self.users if fields.get("search", "") in u["username"]],
            "/api/tasks": [
                _shown_task(t) for t in self.tasks.values() if t["name"] == fields.get("name")
            ],
            "/api/jobs": [
                _shown_job(j)
                for j in self.jobs.values()
                if str(j["task_id"]) == fields.get("task_id")
            ],
            "/api/labels": self.tasks[int(fields["task_id"])]["all_labels"]
            if "task_id" in fields
            else [],
        }
        size, page = 2, int(fields["page"])  # short pages, so that there are several
        part = lists[path][(page - 1) * size : page * size]
        more = len(lists[path]) > page * size
        return 200, {
            "count": len(lists[path]),
            "next": "https://cvat.example/next" if more else None,
            "previous": None,
            "results": part,
        }

    def _part_of_job(self, job: dict[str, Any], part: str) -> Any:
        if part == "annotations/":
            self.annotation_reads += 1
            return {"version": 1, "tags": self.tags[job["id"]], "shapes": [], "tracks": []}
        return {
            "start_frame": job["start_frame"],
            "stop_frame": job["stop_frame"],
            "included_frames": None,
            "deleted_frames": [],
            "chunks_updated_date": job["updated_date"],
            "frames": [
                {"name": name, "width": 1, "height": 1, "related_files": 0} for name in job["files"]
            ],
        }


def _shown_task(task: dict[str, Any]) -> dict[str, Any]:
    """A task as the API shows it: labels and jobs are addresses of lists."""
    url = "https://cvat.example/api"
    jobs = {"url": f"{url}/jobs", "count": 1, "completed": 0, "validation": 0}
    summaries = {"labels": {"url": f"{url}/labels"}, "jobs": jobs}
    kept = {key: value for key, value in task.items() if key != "all_labels"}
    return {**kept, **summaries}


def _shown_job(job: dict[str, Any]) -> dict[str, Any]:
    """A job as the API shows it."""
    url = "https://cvat.example/api"
    summaries = {"labels": {"url": f"{url}/labels"}, "issues": {"url": f"{url}/issues", "count": 0}}
    return {**{key: value for key, value in job.items() if key != "files"}, **summaries}
