"""Weights from elsewhere: any filesystem, and a model hub (a server of this test's own)."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
import torch

from coyo_labeler.label.model import Teacher
from coyo_labeler.label.spec import TeacherSpec
from tests.label.teachers import MODEL

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def teacher(spec: dict[str, object], **changes: object) -> Teacher:
    return Teacher(TeacherSpec(**{**spec, **changes}), torch.device("cpu"))


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_a_checkpoint_may_lie_on_any_filesystem(small_spec) -> None:
    data = Path(small_spec["checkpoint"]).read_bytes()
    with fsspec.open("memory://weights/model.safetensors", "wb") as file:
        file.write(data)
    there = teacher(small_spec, checkpoint="memory://weights/model.safetensors")
    for ours, expected in zip(
        there.answer(images(4)), teacher(small_spec).answer(images(4)), strict=True
    ):
        assert torch.equal(ours, expected)
    assert there.fingerprint["teacher.weights_sha256"] == hashlib.sha256(data).hexdigest()


@pytest.fixture
def hub(small_teacher: Path) -> Iterator[str]:
    """A model hub with one repository, acme/small: what `push_to_hf_hub` of timm writes."""
    config = {
        "architecture": MODEL,
        "num_classes": 10,
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "num_classes": 10,
            "interpolation": "bicubic",
        },
    }
    files = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": (small_teacher / "model.safetensors").read_bytes(),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            repository, _, name = self.path.partition("/resolve/main/")
            body = files.get(name) if repository == "/acme/small" else None
            self.send_response(404 if body is None else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if with_body and body is not None:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


SCRIPT = """
import json, sys, torch
from coyo_labeler.errors import InputError
from coyo_labeler.label.model import Teacher
from coyo_labeler.label.spec import TeacherSpec
try:
    teacher = Teacher(TeacherSpec(**json.loads(sys.argv[1])), torch.device("cpu"))
except InputError as error:
    sys.exit(f"error: {error}")
images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
labels, probs, _ = teacher.answer(images)
print(json.dumps([labels.tolist(), probs.tolist(), teacher.fingerprint]))
"""


def answer_of(spec: dict[str, object], hub: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Ask a teacher in a process of its own: the hub's client reads where it is only once."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(spec)],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
            "HF_ENDPOINT": hub,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("by_checkpoint", [False, True])
def test_a_model_of_the_hub_answers_as_its_checkpoint_does(
    small_spec, hub, tmp_path, by_checkpoint
) -> None:
    spec = {**small_spec, "model": "hf-hub:acme/small"}
    if not by_checkpoint:
        spec["checkpoint"] = None
    ran = answer_of(spec, hub, tmp_path)
    assert ran.returncode == 0, ran.stderr
    labels, probs, fingerprint = json.loads(ran.stdout.splitlines()[-1])
    expected_labels, expected_probs, _ = teacher(small_spec).answer(images(4))
    assert labels == expected_labels.tolist()
    assert torch.allclose(torch.tensor(probs), expected_probs, atol=1e-6)
    assert fingerprint["teacher.model"] == "hf-hub:acme/small"
    assert len(fingerprint["teacher.weights_sha256"]) == 64


def test_a_model_that_the_hub_does_not_have_is_one_line(small_spec, hub, tmp_path) -> None:
    spec = {**small_spec, "model": "hf-hub:acme/none", "checkpoint": None}
    ran = answer_of(spec, hub, tmp_path)
    assert ran.returncode == 1
    assert "error: model: hf-hub:acme/none cannot be fetched" in ran.stderr
    assert "checkpoint=FILE" in ran.stderr
