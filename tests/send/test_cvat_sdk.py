"""What we ask CVAT, and what the fake server answers, by the models of CVAT's own SDK.

No server of CVAT is at hand in tests: so every request must be one of the SDK's endpoints, with its
header, fields and body, and every answer one that the SDK can read, types checked.
"""

import inspect
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cvat_sdk.api_client import ApiClient, apis, models
from cvat_sdk.api_client.api_client import Endpoint
from cvat_sdk.api_client.model_utils import ModelNormal
from urllib3 import HTTPResponse

from coyo_labeler.annotation_tools.questions import Question
from coyo_labeler.send.cvat_tasks import Task
from coyo_labeler.send.images import Shown
from tests.annotation_tools.fake_cvat import TOKEN, FakeCvat
from tests.annotation_tools.fake_label_studio import serve
from tests.annotation_tools.tables import question, rows_of, run, write_questions

CLIENT = ApiClient()
ENDPOINTS = [
    endpoint
    for _, api in inspect.getmembers(apis, inspect.isclass)
    for endpoint in vars(api(CLIENT)).values()
    if isinstance(endpoint, Endpoint)
]


class Recorder(FakeCvat):
    """A fake server that keeps what it is asked and answers."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[tuple[str, str, str, bytes, Any]] = []

    def respond(self, method: str, url: str, headers: Any, body: bytes) -> tuple[int, Any]:
        status, answer = super().respond(method, url, headers, body)
        if status < 400:
            self.exchanges.append((method, url, headers["Accept"], body, answer))
        return status, answer


def endpoint_of(method: str, path: str) -> Endpoint:
    """The SDK's endpoint of a request; one with fewer places for numbers first."""
    fitting = [
        each
        for each in ENDPOINTS
        if each.settings["http_method"] == method
        and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", each.settings["endpoint_path"]), path)
    ]
    assert fitting, f"CVAT's SDK has no {method} {path}"
    return min(fitting, key=lambda each: each.settings["endpoint_path"].count("{"))


def parse(document: Any, schema: Any) -> None:
    """Read a document as the SDK does. Raises: its errors, for a wrong type or a lacking field."""
    data = json.dumps(document).encode()
    check_names(CLIENT.deserialize(HTTPResponse(body=data), schema, _check_type=True))


def check_names(value: Any) -> None:
    """The SDK keeps fields that it does not know; neither side has any."""
    if isinstance(value, list):
        for each in value:
            check_names(each)
    elif isinstance(value, ModelNormal):
        unknown = value.to_dict().keys() - value.attribute_map.keys()
        assert not unknown, f"{type(value).__name__} has no {sorted(unknown)}"
        for name in value.to_dict():
            check_names(value[name])


def check(method: str, url: str, accept: str, body: bytes, answer: Any) -> None:
    parts = urlsplit(url)
    endpoint = endpoint_of(method, parts.path)
    assert accept in (endpoint.headers_map["accept"] or [accept])
    fields = {endpoint.attribute_map[name] for name in endpoint.attribute_map}
    assert parse_qs(parts.query).keys() <= fields, url
    if body:
        (schema,) = (s for name, s in endpoint.openapi_types.items() if name.endswith("_request"))
        parse(json.loads(body), schema)
    if endpoint.settings["response_schema"] is not None:
        parse(answer, endpoint.settings["response_schema"])


def test_all_that_is_said_to_cvat_and_back_is_in_its_sdk(tmp_path, monkeypatch):
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", TOKEN)
    rows = [question(n, "verify", worker_id=("ann", "bob")[n % 2]) for n in range(4)]
    rows.append(question(5, "verify", label=5, overlap=2))
    fake = Recorder()
    with serve(fake) as url:
        asked = write_questions(tmp_path, rows)
        run("send", questions=asked, to="cvat", url=url, output=tmp_path / "sent")
        for number, job in fake.jobs.items():
            job["assignee"] = job["assignee"] or fake.users[0]
            fake.tag(number, job["start_frame"], "yes")
        (tmp_path / "sent" / "_manifest.json").rename(tmp_path / "sent" / "kept")
        emptied = min(fake.tasks)
        fake.tasks[emptied]["size"] = 0  # so that a task is deleted, too
        run("send", questions=asked, to="cvat", url=url, output=tmp_path / "sent")
        run("collect", questions=asked, source=tmp_path / "sent", output=tmp_path / "collected")
    assert rows_of(tmp_path / "collected", "votes")
    for exchange in fake.exchanges:
        check(*exchange)
    said = {
        (method, re.sub(r"\d+|action.*", "N", urlsplit(u).path)) for method, u, *_ in fake.exchanges
    }
    assert said == {
        ("GET", "/api/users/self"),
        ("GET", "/api/users"),
        ("GET", "/api/tasks"),
        ("POST", "/api/tasks"),
        ("DELETE", "/api/tasks/N"),
        ("POST", "/api/tasks/N/data/"),
        ("GET", "/api/requests/N"),
        ("GET", "/api/jobs"),
        ("PATCH", "/api/jobs/N"),
        ("GET", "/api/tasks/N"),
        ("GET", "/api/labels"),
        ("GET", "/api/jobs/N/data/meta"),
        ("GET", "/api/jobs/N/annotations/"),
    }


@pytest.mark.parametrize(
    ("cloud_storage", "manifest", "by_url"),
    [(None, None, True), (None, None, False), (7, "r1/manifest.jsonl", False)],
)
def test_images_of_all_origins_are_named_as_the_sdk_wants(cloud_storage, manifest, by_url):
    asked = Question("r:1", 1, None, None, "verify", 5, None, None, None, 1, None)
    task = Task("r (5)", ((asked, Shown("1.jpg", "1.jpg")),), ((None, (0,)),), 0)
    parse(task.data(cloud_storage, manifest, by_url), (models.DataRequest,))
