"""Settings of the stage `merge`."""

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from coyo_labeler import storage
from coyo_labeler.config.base import StageSettings
from coyo_labeler.session import names_cluster

#: Bytes of votes and of beliefs up to which threads are done before Spark could gain on them:
#: some 15 million votes in Parquet, and the beliefs of a million images.
_LOCAL_VOTES, _LOCAL_BELIEFS = 64 * 2**20, 256 * 2**20

#: Calibration that is fitted, or left out; anything else is a pair of numbers.
CALIBRATIONS = ("votes", "gold", "none")


class MergeSettings(StageSettings):
    """Machine beliefs and human votes to posterior labels, by EM."""

    inputs: ClassVar[tuple[str, ...]] = ("beliefs", "votes", "gold", "warm_start")
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {
        "engine",
        "partitions",
        "max_broadcast_mb",
    }

    beliefs: str | None = Field(
        None, description="beliefs (output of label, or COYO-Labeled-300M); none: votes alone"
    )
    votes: str = Field(description="votes: Parquet or CSV file, folder or glob")
    gold: str | None = Field(
        None, description="Parquet of image_id, label: true classes, which EM takes as given"
    )
    label_space: str = Field(
        "imagenet21k", description="imagenet21k, imagenet1k, or a text file, one class a line"
    )
    truth: Literal["single", "multi"] = Field(
        "single", description="one class per image, or a set of labels per image"
    )
    beliefs_are: Literal["sigmoid", "categorical"] = Field(
        "sigmoid", description="each class on its own, or a distribution over classes (softmax)"
    )
    calibration: str = Field(
        "votes", description="fit on votes or on gold, none, or given: 'a,b' (categorical: 'T')"
    )
    min_calibration_votes: int = Field(
        200,
        ge=1,
        description="with fewer votes (or gold images) that have a belief nothing is fitted, "
        "and it is said",
    )
    worker_model: Literal["auto", "confusion", "one_coin", "perfect"] = Field(
        "auto",
        description="a confusion matrix, one accuracy, or no errors, for each worker; auto: a "
        "confusion matrix where there are votes enough to tell it, else one accuracy",
    )
    pooling: Literal["global", "none"] = Field(
        "global", description="shrink workers towards what all of them do, or to the prior alone"
    )
    counts: Literal["soft", "hard"] = Field(
        "soft", description="count the posterior, or its most probable class"
    )
    prior_strength: float = Field(
        10.0, ge=0, description="alpha: votes that the prior of each worker is worth"
    )
    pooling_strength: float = Field(
        10.0, ge=0, description="beta: votes that the prior of the pooled skill is worth"
    )
    prior_accuracy: float | Literal["gold"] = Field(
        0.8, description="accuracy expected of an unknown worker, 0 to 1; gold: estimated from gold"
    )
    prior_floor: float = Field(
        1e-4, gt=0, lt=1, description="least probability that no class of a belief is right"
    )
    class_prior: Literal["uniform", "estimated"] = Field(
        "estimated",
        description="prior over classes of images that have no belief: as frequent as they are "
        "found to be, or all alike",
    )
    support: Literal["candidates", "all"] = Field(
        "candidates",
        description="classes of an image: those believed or voted, or all of a small label space",
    )
    support_mass: float = Field(
        0.9999, gt=0, le=1, description="share of a belief that is kept; its far tail is lumped"
    )
    duplicate_votes: Literal["last", "first", "error"] = Field(
        "last", description="the same worker twice on one question: which vote counts"
    )
    on_bad_vote: Literal["stop", "reject"] = Field(
        "stop", description="a vote that cannot be read: stop and say where, or set it aside"
    )
    start: Literal["labels", "skills"] = Field(
        "labels",
        description="begin from the beliefs (or the majority), or from workers as the prior has "
        "them: better where a worker has few votes on a class",
    )
    criterion: Literal["objective", "hard"] = Field(
        "objective", description="stop when the objective stands still, or no top class changes"
    )
    max_iterations: int = Field(100, ge=1, description="EM iterations at most")
    tolerance: float = Field(
        1e-6, ge=0, description="relative change of the objective that counts as standing still"
    )
    seed: int = Field(0, description="recorded only: nothing in EM is random")
    warm_start: str | None = Field(
        None, description="an earlier output of merge: start from the skills of its workers"
    )
    engine: Literal["auto", "spark", "local"] = Field(
        "auto",
        description="Spark, or threads of this machine, without Spark and Java; auto: local where "
        "nobody named a cluster and the votes are few enough",
    )
    incremental: bool = Field(
        False,
        description="votes are new ones only; warm_start's posterior takes the place of beliefs, "
        "and only images that have a new vote are looked at again",
    )
    partitions: int | None = Field(
        None, ge=1, description="partitions of the voted images; left out: by cores and votes"
    )
    max_broadcast_mb: int = Field(
        32, ge=0, description="skills larger than this are joined by class, not broadcast"
    )

    @property
    def uses_spark(self) -> bool:
        """Whether the work is Spark's: where a cluster was named, or the inputs are large."""
        if self.engine != "auto":
            return self.engine == "spark"
        return (
            names_cluster(self.spark)
            or _bytes_of(self.votes) > _LOCAL_VOTES
            or (self.beliefs is not None and _bytes_of(self.beliefs) > _LOCAL_BELIEFS)
        )

    @model_validator(mode="after")
    def _an_increment_has_what_it_adds_to(self) -> Self:
        if not self.incremental:
            return self
        wrong = (
            "needs warm_start=OUTPUT, the merge that the votes are added to"
            if self.warm_start is None
            else "takes the posterior of warm_start for beliefs; leave beliefs out"
            if self.beliefs is not None
            else "works for truth=single; merge all votes together instead"
            if self.truth != "single"
            else ""
        )
        if wrong:
            raise ValueError(f"incremental {wrong}")
        return self

    @field_validator("prior_accuracy")
    @classmethod
    def _accuracy_is_a_probability(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 0 < value < 1:
            raise ValueError(f"{value} is wrong; it must lie between 0 and 1, both excluded")
        return value

    @field_validator("calibration", mode="before")
    @classmethod
    def _calibration_reads(cls, value: object) -> object:
        if value is None:
            return "none"
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if text not in CALIBRATIONS:
            try:
                numbers = [float(part) for part in text.split(",")]
            except ValueError:
                numbers = []
            if len(numbers) not in (1, 2) or numbers[0] <= 0:
                raise ValueError(
                    f"'{text}' is wrong; it must be votes, gold, none, or numbers: 'a,b' with a > 0"
                    " for sigmoid beliefs, a temperature for categorical ones"
                )
        return text


def _bytes_of(url: str) -> int:
    return sum(info["size"] for info in storage.files_of(url, suffix="").values())
