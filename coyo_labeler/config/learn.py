"""Settings of the stage `learn`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from coyo_labeler.config.base import StageSettings


class LearnSettings(StageSettings):
    """Learn from voted images, and believe of every image what they teach: for the next merge."""

    inputs: ClassVar[tuple[str, ...]] = ("embeddings", "labels", "beliefs", "votes")
    by_content: ClassVar[frozenset[str]] = frozenset({"label_space"})
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {"engine", "device"}
    sections: ClassVar[Mapping[str, str]] = {
        "embeddings": "Input and output",
        "train_on": "What is learned from",
        "folds": "The learner",
        "top_k": "What is written",
        "engine": "How the work is done",
    }

    embeddings: str = Field(
        description="features (id, embedding): output of label embeddings=true, or Parquet in that "
        "schema",
        examples=["out/demo/beliefs"],
    )
    labels: str = Field(
        description="what is learned: output of merge, or a posterior (id, labels, label_probs, "
        "n_votes)",
        examples=["out/demo/merged"],
    )
    beliefs: str | None = Field(
        None,
        description="the teacher's beliefs (output of label): learner and teacher become one "
        "belief, with weights that held-out images decide",
    )
    votes: str | None = Field(
        None,
        description="the votes that merge was given: with beliefs, held-out votes decide these "
        "weights by the workers' accuracies in labels; null: held-out posteriors do",
    )
    label_space: str = Field(
        "imagenet21k",
        description="classes that labels index: imagenet21k, imagenet1k, or a text file with one "
        "class per line",
    )
    train_on: Literal["voted", "confident"] = Field(
        "voted",
        description="voted: images with a vote; confident: those with a top probability of "
        "`confidence` or more, voted or not",
    )
    confidence: float = Field(
        0.9, gt=0, le=1, description="least top probability, for train_on=confident"
    )
    max_training_images: int = Field(
        500_000,
        ge=1,
        description="training images at most, those of the lowest hash; their features must fit "
        "in memory as float32",
    )
    images_per_class: int | None = Field(
        None,
        ge=1,
        description="training images of one class at most, by lowest hash; null: no bound",
    )
    balance: bool = Field(True, description="whether all classes weigh the same in training")
    folds: int = Field(
        5,
        ge=2,
        le=50,
        description="folds: no training image is believed what a learner says that was trained on "
        "it",
    )
    l2: float = Field(
        0.3, gt=0, description="ridge of the weights, divided by the number of training images"
    )
    epochs: int = Field(
        10, ge=1, le=1000, description="passes over the training images, with minibatches"
    )
    minibatch: int = Field(512, ge=1, le=65536, description="images per step, with minibatches")
    solver: Literal["auto", "lbfgs", "minibatch"] = Field(
        "auto",
        description="lbfgs: full batches, to convergence; minibatch: Adam on sparse targets; auto: "
        "lbfgs up to two million weights, and 10^11 images times weights",
    )
    top_k: int = Field(50, ge=1, description="classes kept per image")
    seed: int = Field(0, ge=0, lt=2**31, description="of the order of minibatches")
    device: str = Field(
        "auto", description="for minibatches: auto (a GPU if there is one), cpu, cuda"
    )
    engine: Literal["auto", "spark", "local"] = Field(
        "auto",
        description="where images are scored: spark: on executors; local: in threads of this "
        "machine; auto: spark where a cluster is named; training is on this machine",
    )
