"""Settings of the stage `simulate`."""

from collections.abc import Mapping
from typing import ClassVar, Literal, cast

from pydantic import Field, field_validator

from coyo_labeler.config.base import StageSettings

#: Which image is asked about next, by the learner of this package.
OWN_POLICIES = ("risk", "gumbel", "unvoted", "random", "margin", "entropy")
#: The methods of Liao, Kar & Fidler 2021, by its names.
PAPER_POLICIES = ("ds_model", "lean", "improved_lean", "efficient_annotation")
CROWDS = ("uniform", "structured")

_TABLES = ("embeddings", "beliefs", "gold", "seed_gold")


class _Inputs:
    """The crowd is an input where it is a table: of an object it depends on its value."""

    def __get__(
        self, settings: "SimulateSettings | None", cls: type["SimulateSettings"]
    ) -> tuple[str, ...]:
        drawn = settings is not None and settings.crowd_kind is not None
        return _TABLES if drawn else (*_TABLES, "crowd")


class SimulateSettings(StageSettings):
    """Try policies of asking on images whose truth is known, before paying for votes."""

    inputs: ClassVar[tuple[str, ...]] = cast(tuple[str, ...], _Inputs())
    by_content: ClassVar[frozenset[str]] = frozenset({"label_space"})
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {"processes"}
    sections: ClassVar[Mapping[str, str]] = {
        "embeddings": "Input and output",
        "crowd": "The crowd",
        "policies": "What is tried",
        "components": "The learner and the model of workers",
        "processes": "How the work is done",
    }

    @property
    def crowd_kind(self) -> str | None:
        """uniform or structured, or None for a table."""
        kind = self.crowd.partition(":")[0]
        return kind if kind in CROWDS else None

    embeddings: str | None = Field(
        None,
        description="features (id, embedding), as label embeddings=true writes them; null: beliefs "
        "alone",
    )
    beliefs: str | None = Field(
        None, description="the teacher's beliefs (output of label): further features"
    )
    gold: str = Field(
        description="true classes (image_id, label) of the images to simulate, Parquet or CSV",
        examples=["out/demo/gold/gold.parquet"],
    )
    seed_gold: str | None = Field(
        None,
        description="images that are known at the start (image_id, label), Parquet or CSV; they "
        "are never asked about and do not count in any accuracy",
    )
    label_space: str | None = Field(
        None,
        description="classes that labels index, a name or a text file with one class per line; "
        "null: as many as the highest label says",
    )
    crowd: str = Field(
        "structured:0.7",
        description="confusions of workers: uniform:<accuracy>, structured:<accuracy>, a table "
        "(worker_id, true_label, voted_label, probability), or the output of a merge",
    )
    workers: int = Field(
        50, ge=1, le=100_000, description="how many, for uniform and structured crowds"
    )
    worker_quota: int | None = Field(
        None, ge=1, description="votes of one worker per round at most; null: no bound"
    )
    policies: list[str] = Field(
        ["risk", "gumbel", "unvoted", "random", "efficient_annotation"],
        min_length=1,
        description="which images are asked about: " + ", ".join(OWN_POLICIES) + "; or a method "
        "of the seed paper: " + ", ".join(PAPER_POLICIES),
    )
    assign: Literal["random", "greedy"] = Field(
        "random",
        description="who is asked, random or greedy: the worker with the best expected accuracy "
        "on the image",
    )
    explore: float = Field(
        0.1, ge=0, le=1, description="share of greedy assignments that are random all the same"
    )
    audit: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of each round's votes on images drawn by chance alone, for the "
        "estimated accuracy; the seed paper's methods have none",
    )
    gold_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of each round's votes on images of seed_gold, to see how right the "
        "workers are; the seed paper's methods have none",
    )
    votes_per_image: float = Field(1.0, ge=0, le=1000, description="the budget")
    max_votes: int = Field(3, ge=1, le=1000, description="votes of one image at most")
    rounds: int = Field(20, ge=1, le=10_000, description="rounds that the budget is spent in")
    wanted_accuracy: float = Field(
        0.8, gt=0, le=1, description="the accuracy whose price the answer names"
    )
    finished_risk: float = Field(
        0.1, ge=0, le=1, description="an image is finished below this risk"
    )
    seconds_per_vote: float = Field(
        5.0, gt=0, description="seconds that a worker spends on one question"
    )
    price_per_vote: float = Field(0.02, ge=0, description="price of one vote, in any currency")
    seed: int = Field(0, ge=0, lt=2**31, description="of the first simulation")
    seeds: int = Field(
        1, ge=1, le=1000, description="simulations of each policy: seed, seed + 1, ..."
    )
    components: int = Field(
        256, ge=1, le=8192, description="principal components of the features that are kept"
    )
    ridge: float = Field(
        0.3, gt=0, description="ridge of the softmax regression, divided by its training images"
    )
    passes: int = Field(
        2, ge=1, le=20, description="how often learner and EM take turns in each round"
    )
    folds: int = Field(5, ge=2, le=50, description="folds of out-of-fold predictions")
    images_per_class: int = Field(
        500, ge=1, description="training images per class at most, by lowest hash"
    )
    worker_strength: float = Field(
        10.0, gt=0, description="pull of the pool on a worker's confusions, in votes"
    )
    pool_strength: float = Field(
        20.0, gt=0, description="pull of the prior on the pooled confusions, in votes"
    )
    worker_accuracy: float = Field(
        0.7, gt=0, lt=1, description="accuracy of workers before any vote"
    )
    processes: int | None = Field(
        None, ge=1, description="simulations that run at once; null: one per core"
    )

    @field_validator("policies")
    @classmethod
    def _known_policies(cls, value: list[str]) -> list[str]:
        known = OWN_POLICIES + PAPER_POLICIES
        for name in value:
            if name not in known:
                raise ValueError(f"'{name}' is no policy; give some of {', '.join(known)}")
        if len(set(value)) < len(value):
            raise ValueError("a policy is named twice; name each once")
        return value

    @field_validator("crowd")
    @classmethod
    def _readable_crowd(cls, value: str) -> str:
        kind, colon, accuracy = value.partition(":")
        if kind in CROWDS and (colon or not accuracy):
            try:
                number = float(accuracy)
            except ValueError:
                number = -1.0
            if not 0 <= number <= 1:
                raise ValueError(
                    f"'{value}' is no crowd; give {kind}:<accuracy>, such as {kind}:0.7"
                )
        return value
