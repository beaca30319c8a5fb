"""A Label Studio of its own: started, given a second user, asked and answered, stopped."""

import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

#: Seconds that the first start may take; it makes a database.
_START_SECONDS = 600.0

_ADD_USER = """
from users.models import User
from organizations.models import Organization, OrganizationMember
organization = Organization.objects.first()
user, _ = User.objects.get_or_create(email={email!r}, defaults=dict(username={email!r}))
user.set_password({password!r})
user.active_organization = organization
user.save()
OrganizationMember.objects.get_or_create(user=user, organization=organization)
from rest_framework.authtoken.models import Token
print("TOKEN=" + Token.objects.get_or_create(user=user)[0].key)
"""


class Server:
    """A running server with two people: an owner and an annotator."""

    def __init__(self, command: Path, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.owner, self.annotator = "ann@example.org", "bob@example.org"
        self.password = secrets.token_hex(12)
        self.token = secrets.token_hex(20)
        self._command, self._folder, self._port = command, folder, port
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self._http = urllib3.PoolManager(timeout=120)
        self._environment = {
            **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
            "LABEL_STUDIO_USERNAME": self.owner,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.files),
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """The server, from its first answer to the end of the `with` block."""
        with (self._folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    self._command,
                    "start",
                    "--no-browser",
                    "--port",
                    str(self._port),
                    "--internal-host",
                    "127.0.0.1",
                ],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                self._wait(process)
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            try:
                if self._http.request("GET", f"{self.url}/health", retries=False).status == 200:
                    return
            except urllib3.exceptions.HTTPError:
                time.sleep(0.5)
        raise SystemExit(f"Label Studio does not start; see {self._folder / 'server.log'}")

    def add_annotator(self) -> str:
        """Make the second user; returns the user's token."""
        code = _ADD_USER.format(email=self.annotator, password=self.password)
        result = subprocess.run(
            [self._command, "shell"],
            env=self._environment,
            input=code + "\n",
            capture_output=True,
            text=True,
            check=True,
        )
        match = re.search(r"TOKEN=(\w+)", result.stdout)
        if match is None:
            raise SystemExit(f"the second user was not made: {result.stdout[-500:]}")
        return match[1]

    def ask(self, method: str, path: str, token: str, document: Any = None) -> Any:
        """The JSON that a request answers."""
        response = self._http.request(
            method,
            self.url + path,
            headers={"Authorization": f"Token {token}", "Content-Type": "application/json"},
            body=None if document is None else json.dumps(document).encode(),
        )
        if response.status >= 400:
            raise SystemExit(f"{method} {path}: {response.status} {response.data[:500]!r}")
        return json.loads(response.data) if response.data else None

    def personal_token(self) -> str:
        """A personal access token of the owner: a JWT that buys access tokens."""
        self.ask(
            "POST",
            "/api/jwt/settings",
            self.token,
            {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True},
        )
        token: str = self.ask("POST", "/api/token/", self.token)["token"]
        return token

    def answer(self, task: int, token: str, value: str | None, seconds: float) -> int:
        """Answer a task, or skip it (None); returns the number of the annotation."""
        result = [] if value is None else result_of(value)
        body = {"result": result, "was_cancelled": value is None, "lead_time": seconds}
        number: int = self.ask("POST", f"/api/tasks/{task}/annotations/", token, body)["id"]
        return number

    def change(self, annotation: int, token: str, value: str) -> None:
        """Change an answer."""
        body = {"result": result_of(value)}
        self.ask("PATCH", f"/api/annotations/{annotation}/", token, body)

    def session(self) -> str:
        """The cookie of a browser in which the owner has logged in."""
        page = self._http.request("GET", f"{self.url}/user/login/")
        cookie = _cookies(page.headers)
        token = re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', page.data)
        if token is None:
            raise SystemExit("the page of the login has no form that is known")
        response = self._http.request(
            "POST",
            f"{self.url}/user/login/",
            fields={
                "csrfmiddlewaretoken": token[1].decode(),
                "email": self.owner,
                "password": self.password,
            },
            encode_multipart=False,
            headers={"Cookie": _header(cookie), "Referer": f"{self.url}/user/login/"},
            redirect=False,
        )
        return _header(cookie | _cookies(response.headers))


def result_of(value: str) -> list[dict[str, Any]]:
    return [
        {
            "from_name": "answer",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": [value]},
        }
    ]


def _cookies(headers: Any) -> dict[str, str]:
    pairs = (cookie.partition(";")[0].partition("=") for cookie in headers.getlist("Set-Cookie"))
    return {name.strip(): value for name, _, value in pairs}


def _header(cookies: Mapping[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())
