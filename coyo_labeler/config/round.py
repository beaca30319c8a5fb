"""Settings of the command `round`."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, field_validator

from coyo_labeler.config.base import Settings, SparkSettings

#: Stages of a round that have settings of their own, and the keys that the round sets.
NESTED: Mapping[str, frozenset[str]] = {
    "merge": frozenset({"beliefs", "votes", "output"}),
    "learn": frozenset({"embeddings", "labels", "beliefs", "votes", "output"}),
    "report": frozenset({"labels", "votes", "gold_key", "output"}),
    "select": frozenset({"labels", "votes", "round", "output"}),
    "send": frozenset({"questions", "output"}),
    "collect": frozenset({"questions", "source", "sent", "output"}),
}


class RoundSettings(Settings):
    """Do the next step of the loop: merge and ask, or collect answers, or stop."""

    sections: ClassVar[Mapping[str, str]] = {
        "rounds": "The loop",
        "enough": "When a round ends, and when the loop does",
        "merge": "Settings of the stages",
    }

    rounds: str = Field(
        description="folder of the loop; each round has a folder in it: 001, 002, …",
        examples=["/data/rounds"],
    )
    beliefs: str = Field(
        description="what the machine believes before any vote: output of label, or "
        "COYO-Labeled-300M",
        examples=["/data/beliefs"],
    )
    label_space: str = Field(
        "imagenet21k",
        description="imagenet21k, imagenet1k, or a text file with one class name per line",
    )
    embeddings: str | None = Field(
        None, description="features of the images: then each round learns from all votes so far"
    )
    images: str | None = Field(None, description="tars of the images, for select and send")
    gold: str | None = Field(None, description="image_id, label: true classes, to ask about")
    source: str | None = Field(
        None,
        description="where the answers are, unless send gave the questions to a server: an export, "
        "in whose name {round} stands for the round's folder",
    )
    enough: float = Field(
        0.9, gt=0, le=1, description="share of the answers wanted with which a round ends"
    )
    max_hours: float | None = Field(
        None, gt=0, description="hours after sending with which a round ends in any case"
    )
    wanted_accuracy: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="stop when the audit's interval of the labels' accuracy lies above this",
    )
    min_gain: float | None = Field(
        None,
        ge=0,
        description="stop when an answer of the next round is expected to raise the probability of "
        "its image's label by less than this",
    )
    budget: int | None = Field(
        None, ge=1, description="stop when so many answers have been collected over all rounds"
    )
    merge: dict[str, str] = Field(default_factory=dict, description="keys of merge")
    learn: dict[str, str] = Field(default_factory=dict, description="keys of learn")
    report: dict[str, str] = Field(
        default_factory=dict, description="keys of report, which estimates the accuracy"
    )
    select: dict[str, str] = Field(
        default_factory=dict, description="keys of select; select.budget is required"
    )
    send: dict[str, str] = Field(
        default_factory=dict, description="keys of send; send.to is required"
    )
    collect: dict[str, str] = Field(default_factory=dict, description="keys of collect")
    log_format: Literal["text", "json"] = Field(
        "text", description="log lines on standard error: text, or json, one object per line"
    )
    spark: SparkSettings = Field(
        default_factory=SparkSettings, description="how the stages get their Spark session"
    )

    @field_validator(*NESTED, mode="before")
    @classmethod
    def _as_words(cls, value: Any) -> Any:
        """Values as they would be typed behind key=, and dots for nested keys."""
        return dict(_leaves(value)) if isinstance(value, dict) else value

    @field_validator("rounds")
    @classmethod
    def _a_plain_folder(cls, value: str) -> str:
        if any(character in value for character in "*?[]{}"):
            raise ValueError(f"{value} has a character of patterns; give a folder without *?[]{{}}")
        return value


def _leaves(nested: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in nested.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield f"{prefix}{name}", value
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
            yield f"{prefix}{name}", text.removesuffix("...\n").strip()
