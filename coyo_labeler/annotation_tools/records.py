"""What send leaves for collect: which tool, which of its projects, and which question is where."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.parquet_splits import plan_splits, read_split
from coyo_labeler.manifest import read_manifest
from coyo_labeler.storage_errors import parsing

#: The folder of the table schemas.SENT in send's output.
SENT = "sent"

#: What a server is called in `to`, and in the messages of both stages.
SERVERS = ("label_studio", "cvat")


@dataclass(frozen=True)
class Project:
    """A project of Label Studio or a task of CVAT. id: the tool's number of it."""

    id: int
    title: str


@dataclass(frozen=True)
class Record:
    """Where the questions of a finished send are. to: its setting. url: of the server, or ""."""

    to: str
    url: str
    projects: tuple[Project, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As send's manifest has it among its details."""
        return {
            "to": self.to,
            "url": self.url,
            "projects": [asdict(project) for project in self.projects],
        }


def is_sent(url: str) -> bool:
    """Whether a folder is the output of a send that has finished."""
    manifest = read_manifest(url)
    return manifest is not None and manifest.stage == "send"


def read_record(stage: str, key: str, url: str) -> Record:
    """The record in send's output. Raises: InputError where it is none, or not finished."""
    manifest = read_manifest(url)
    if manifest is None or manifest.stage != "send":
        raise InputError(f"{stage}: {key}: {url} is not the output of a send that has finished")
    with parsing(storage.join(url, "_manifest.json"), "run send again"):
        details = manifest.details
        projects = tuple(Project(each["id"], each["title"]) for each in details["projects"])
        return Record(details["to"], details["url"], projects)


def read_places(stage: str, key: str, url: str) -> Iterator[tuple[str, str]]:
    """(`project/task`, question_id) of every question of which the tool has a number."""
    for split in plan_splits(f"{stage}: {key}", storage.join(url, SENT), schemas.SENT, 1 << 20):
        for table in read_split(split, ["project", "task", "question_id"]):
            for row in table.to_pylist():
                if row["task"] is not None:
                    yield f"{row['project']}/{row['task']}", row["question_id"]
