"""Settings of the stage `select`."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from coyo_labeler.config.base import StageSettings
from coyo_labeler.formats.image_ids import Ids


class SelectSettings(StageSettings):
    """Choose which images to ask people about, and with what probability each is chosen."""

    inputs: ClassVar[tuple[str, ...]] = ("labels", "votes", "images", "gold", "workers")
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {"engine", "partitions"}

    sections: ClassVar[Mapping[str, str]] = {
        "labels": "Input and output",
        "strategy": "What is asked",
        "audit": "The audit, and gold among the questions",
        "overlap": "How often, and of whom",
        "engine": "How the work is done; changes no value of the result",
    }

    labels: str = Field(
        description="beliefs, or output of merge: Parquet file, folder or glob",
        examples=["/data/merged"],
    )
    budget: int = Field(ge=1, description="answers wanted in this round", examples=[10000])
    votes: str | None = Field(
        None,
        description="votes of all earlier rounds, Parquet or CSV; these images are asked about "
        "again only where answers disagree or the label is still uncertain",
    )
    images: str | None = Field(
        None, description="tars of the images, to write each image's key into its question"
    )
    ids: Ids = Field(
        "auto",
        description="auto: an image's id stands in its JSON or in the table beside the tar; where "
        "no image has one, img2dataset's keys are ids; hash: instead of none, a hash of uid or key",
    )
    label_space: str = Field(
        "imagenet21k",
        description="imagenet21k, imagenet1k, or a text file with one class name per line",
    )
    strategy: Literal["risk", "entropy", "margin", "random"] = Field(
        "risk",
        description="which images come first; risk: highest 1 - top probability; entropy: highest "
        "entropy; margin: smallest lead of the first class over the second; random: by chance",
    )
    kind: Literal["choice", "verify", "tree"] = Field(
        "choice",
        description="choice: which of these classes is it? verify: is it this class, yes or no? "
        "tree: is it one of the classes below a node of the tree (WordNet), that about which an "
        "answer says most: a dog, before which of 120?",
    )
    max_node_classes: int = Field(
        1000,
        ge=1,
        description="classes below a node that is asked about, at most (kind=tree): people know "
        "dogs and tools, but no wholes and abstractions",
    )
    candidates: int = Field(10, ge=1, description="classes that a choice offers, at most")
    max_per_class: int | None = Field(
        None,
        ge=1,
        description="questions per most probable class among those chosen by strategy; null: any "
        "number. The audit and gold are not limited",
    )
    max_per_pair: int | None = Field(
        None,
        ge=1,
        description="the same per pair of most probable and second class: those that are confused",
    )
    round: int = Field(1, ge=1, description="number of this round; it begins every question_id")
    audit: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the questions whose images are drawn by chance alone, for honest "
        "estimates",
    )
    gold: str | None = Field(
        None, description="image_id, label: true classes, Parquet or CSV, asked about unmarked"
    )
    gold_share: float = Field(
        0.05, ge=0, le=1, description="share of the questions that are about gold"
    )
    overlap: int = Field(1, ge=1, description="answers per question, each of another worker")
    max_votes: int = Field(3, ge=1, description="answers per image over all rounds, at most")
    repeat_risk: float = Field(
        0.1,
        ge=0,
        le=1,
        description="an image with votes is asked about again while its risk after them is at "
        "least this, or its answers disagree",
    )
    assign: Literal["none", "random", "greedy"] = Field(
        "none",
        description="who answers; none: anybody; random: workers by chance; greedy: for one "
        "question after the other the worker with the highest expected accuracy on it",
    )
    workers: str | None = Field(
        None,
        description="who can be asked: output of merge, a table of worker_id [, accuracy], or a "
        "text file of one id per line; null: the workers of labels, where it is an output of merge",
    )
    max_per_worker: int | None = Field(
        None, ge=1, description="questions per worker, at most; null: the same number for each"
    )
    seed: int = Field(0, description="seed of everything that is drawn")
    engine: Literal["auto", "spark", "local"] = Field(
        "auto",
        description="spark, or local: threads of this machine, without Spark and Java; auto: local "
        "where no cluster is named and the inputs are small",
    )
    partitions: int | None = Field(
        None, ge=1, description="partitions of the images; null: by cores and images"
    )

    @model_validator(mode="after")
    def _asked_no_more_often_than_allowed(self) -> Self:
        if self.overlap > self.max_votes:
            raise ValueError(
                f"overlap: {self.overlap} answers per question are more than max_votes="
                f"{self.max_votes} per image; raise max_votes or lower overlap"
            )
        return self

    @model_validator(mode="after")
    def _workers_are_for_assignment(self) -> Self:
        if self.assign == "none" and (self.max_per_worker or self.workers):
            key = "workers" if self.workers else "max_per_worker"
            raise ValueError(f"{key}: nobody is assigned; give assign=random or assign=greedy")
        return self

    @model_validator(mode="after")
    def _shares_leave_room(self) -> Self:
        if self.audit + (self.gold_share if self.gold else 0) > 1:
            raise ValueError(
                "audit and gold_share: together they are more than all questions; lower one of them"
            )
        return self
