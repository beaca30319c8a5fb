"""Settings of the stage `merge`."""

from collections.abc import Mapping
from math import isfinite
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from coyo_labeler.config.base import StageSettings

#: Values of `calibration` other than numbers.
CALIBRATIONS = ("votes", "gold", "none")


class MergeSettings(StageSettings):
    """Merge a teacher's beliefs with human votes into posterior labels, by EM."""

    inputs: ClassVar[tuple[str, ...]] = ("beliefs", "votes", "gold", "warm_start")
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {
        "engine",
        "partitions",
        "max_broadcast_mb",
    }

    sections: ClassVar[Mapping[str, str]] = {
        "votes": "Input and output",
        "label_space": "The model",
        "duplicate_votes": "Which votes count",
        "start": "EM",
        "engine": "How the work is done; changes no value of the result",
    }

    votes: str = Field(
        description="image_id, worker_id, label [, response, timestamp, candidates, "
        "inclusion_probability]: Parquet or CSV file, folder or glob; or the output of collect",
        examples=["/data/votes"],
    )
    beliefs: str | None = Field(
        None, description="output of label, or COYO-Labeled-300M; null: votes alone"
    )
    gold: str | None = Field(
        None, description="Parquet of image_id, label: true classes, which EM takes as given"
    )
    warm_start: str | None = Field(
        None, description="earlier output of merge: start from the skills of its workers"
    )
    incremental: bool = Field(
        False,
        description="true: votes holds new votes only; the posterior of warm_start takes the place "
        "of beliefs, and only images with a new vote are inferred again",
    )
    label_space: str = Field(
        "imagenet21k",
        description="imagenet21k, imagenet1k, or a text file with one class name per line",
    )
    truth: Literal["single", "multi"] = Field(
        "single", description="single: one class per image; multi: a set of labels per image"
    )
    tree: bool = Field(
        False,
        description="true: an answer about a class speaks for all classes below it in the tree "
        "(WordNet), and votes may name a node above the classes; with truth=multi a class is there "
        "wherever one below it is",
    )
    beliefs_are: Literal["sigmoid", "categorical"] = Field(
        "sigmoid",
        description="sigmoid: one probability per class, each on its own; categorical: a "
        "distribution over classes (softmax)",
    )
    calibration: str = Field(
        "votes",
        description="calibration of the beliefs: fitted on votes or on gold; none; or given as "
        "'a,b' (categorical: a temperature 'T')",
    )
    min_calibration_votes: int = Field(
        200,
        ge=1,
        description="votes (for calibration=gold: gold images) with a belief that are enough to "
        "fit on; with fewer nothing is fitted, and a warning says so",
    )
    worker_model: Literal[
        "auto", "confusion", "pooled", "one_coin", "shared_mistakes", "perfect"
    ] = Field(
        "auto",
        description="per worker: confusion: a confusion matrix; pooled: the same one for all; "
        "one_coin: one accuracy, and even mistakes among what was offered; shared_mistakes: half "
        "of them as the machine would make them; perfect: no errors; auto: which of the first four "
        "predicts votes best that were held out",
    )
    pooling: Literal["global", "none"] = Field(
        "global",
        description="global: shrink workers towards the skill of all workers; none: to the prior "
        "alone",
    )
    counts: Literal["soft", "hard"] = Field(
        "soft", description="soft: count the posterior; hard: count its most probable class"
    )
    prior_strength: float = Field(
        10.0, ge=0, description="alpha: weight of the prior of each worker, in votes"
    )
    pooling_strength: float = Field(
        10.0, ge=0, description="beta: weight of the prior of the pooled skill, in votes"
    )
    prior_accuracy: float | Literal["gold"] = Field(
        0.8,
        description="accuracy expected of an unknown worker, between 0 and 1; gold: estimated from "
        "gold",
    )
    prior_floor: float = Field(
        1e-4, gt=0, lt=1, description="least probability that no class of a belief is right"
    )
    class_prior: Literal["auto", "uniform", "estimated"] = Field(
        "auto",
        description="prior over classes of images without a belief: uniform, or estimated as the "
        "share of each class among these images; auto: as votes that were held out tell",
    )
    support: Literal["candidates", "all"] = Field(
        "candidates",
        description="classes of an image: candidates (those with a belief or a vote), or all of a "
        "small label space",
    )
    support_mass: float = Field(
        0.9999,
        gt=0,
        le=1,
        description="share of a belief that is kept by class; the rest is lumped together",
    )
    duplicate_votes: Literal["last", "first", "error"] = Field(
        "last",
        description="votes of the same worker on the same question: the last or the first counts; "
        "error: stop",
    )
    on_bad_vote: Literal["stop", "reject"] = Field(
        "stop",
        description="votes that cannot be used; stop: stop and say where, reject: set them aside",
    )
    start: Literal["labels", "skills"] = Field(
        "labels",
        description="labels: start from the beliefs (or the majority); skills: from workers with "
        "the prior's skill, better where a worker has few votes per class",
    )
    criterion: Literal["objective", "hard"] = Field(
        "objective",
        description="objective: stop when it changes by less than tolerance; hard: stop when no "
        "most probable class changes",
    )
    max_iterations: int = Field(100, ge=1, description="largest number of EM iterations")
    tolerance: float = Field(
        1e-6, ge=0, description="relative change of the objective below which EM has converged"
    )
    seed: int = Field(0, description="recorded only: nothing in EM is random")
    engine: Literal["auto", "spark", "local"] = Field(
        "auto",
        description="spark, or local: threads of this machine, without Spark and Java; auto: local "
        "where no cluster is named and the inputs are small",
    )
    partitions: int | None = Field(
        None, ge=1, description="partitions of the voted images; null: by cores and votes"
    )
    max_broadcast_mb: int = Field(
        32, ge=0, description="MB; larger worker parameters are sharded by class, not broadcast"
    )

    @model_validator(mode="after")
    def _an_increment_has_what_it_adds_to(self) -> Self:
        if not self.incremental:
            return self
        wrong = (
            "needs warm_start=OUTPUT, the merge to which the votes are added"
            if self.warm_start is None
            else "uses the posterior of warm_start as beliefs; leave beliefs out"
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
            finite = all(isfinite(number) for number in numbers)
            if len(numbers) not in (1, 2) or numbers[0] <= 0 or not finite:
                raise ValueError(
                    f"'{text}' is wrong; it must be votes, gold, none, or numbers: 'a,b' with a > 0"
                    " for sigmoid beliefs, a temperature for categorical ones"
                )
        return text
