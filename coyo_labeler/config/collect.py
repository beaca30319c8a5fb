"""Settings of the stage `collect`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from coyo_labeler.config.base import StageSettings

#: What a source can be in.
Format = Literal[
    "auto", "label_studio", "cvat", "mturk", "crowdkit", "toloka", "prodigy", "columns"
]


class CollectSettings(StageSettings):
    """Turn the answers of an annotation tool into votes, and say why the others are none."""

    inputs: ClassVar[tuple[str, ...]] = ("questions", "sent", "users")
    paths: ClassVar[tuple[str, ...]] = ("source",)
    by_content: ClassVar[frozenset[str]] = frozenset({"label_space", "users"})
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {
        "timeout_seconds",
        "retries",
        "page_size",
    }

    sections: ClassVar[Mapping[str, str]] = {
        "questions": "Input and output",
        "columns": "How answers are read",
        "deadline": "Which answers are votes",
        "timeout_seconds": "How a server is asked",
    }

    questions: str = Field(
        description="what was asked: output of select, or Parquet in its schema",
        examples=["rounds/0001/questions"],
    )
    source: str = Field(
        description="where the answers are: an export (file, folder or glob), the output of send, "
        "or the URL of a project of Label Studio or a task of CVAT",
        examples=["export.json"],
    )
    sent: str | None = Field(
        None, description="output of send; CVAT's exports name no question without it"
    )
    users: str | None = Field(
        None,
        description="JSON of Label Studio's GET /api/users, for names of workers in an export; "
        "from a server it is read",
    )
    label_space: str = Field(
        "imagenet21k",
        description="imagenet21k, imagenet1k, or a text file with one class name per line",
    )
    format: Format = Field(
        "auto",
        description="format of the export: label_studio (JSON), cvat (XML or JSON of a job), mturk "
        "(results CSV), crowdkit (CSV: task, worker, label), toloka (TSV), prodigy (JSON lines) or "
        "columns (any table); auto: by its content",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="columns of a table by what they hold: question_id, image_id, image, label, "
        "worker_id, answer, answer_id, timestamp, started, seconds, status",
    )
    answers: dict[str, str] = Field(
        default_factory=dict,
        description="what words of the tool mean, such as {correct: yes}: a class, yes, no, "
        "unsure, none or skipped",
    )
    worker: str | None = Field(
        None, description="who answered, where the source does not say; null: no vote then"
    )
    deadline: str | None = Field(
        None, description="answers given or changed after this ISO 8601 time are no votes"
    )
    hash_workers: bool = Field(
        False,
        description="write a hash instead of workers' names; keyed by the environment's "
        "COYO_LABELER_WORKER_KEY, where it is set",
    )
    timeout_seconds: float = Field(
        60.0, gt=0, description="seconds that a server may be silent before a request is repeated"
    )
    retries: int = Field(
        6, ge=0, le=20, description="repetitions of a request after an overload or a broken line"
    )
    page_size: int = Field(
        100, ge=1, le=1000, description="tasks that are asked for at once from Label Studio"
    )

    @property
    def reopens(self) -> bool:
        """A finished output has work left where the source has new answers."""
        return True
