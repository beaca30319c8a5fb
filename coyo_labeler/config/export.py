"""Settings of the stage `export`."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from coyo_labeler.config.base import Settings, StageSettings
from coyo_labeler.formats.image_ids import Ids

#: Formats that hold the images beside their labels.
WITH_IMAGES = ("webdataset", "tfrecord")


class CardSettings(Settings):
    """Facts of the dataset card that the files do not hold."""

    pretty_name: str = Field("COYO labels", description="name of the dataset, for readers")
    license: str = Field(
        "cc-by-4.0",
        description="licence of the table, as the Hub spells it; the default is COYO's",
    )
    language: list[str] = Field(
        ["en"], min_length=1, description="language of the class names, as ISO 639 codes"
    )
    homepage: str | None = Field(None, description="page that describes the dataset")


class ExportSettings(StageSettings):
    """Copy a labels folder for consumers: Parquet, webdataset, TFRecord or Hugging Face."""

    inputs: ClassVar[tuple[str, ...]] = ("labels", "images")
    sections: ClassVar[Mapping[str, str]] = {
        "labels": "Input and output",
        "threshold": "Which labels are kept",
        "label_space": "How they are written",
    }

    labels: str = Field(
        description="labels to copy: output of label or merge, or Parquet in that schema",
        examples=["out/demo/merged"],
    )
    format: Literal["parquet", "webdataset", "tfrecord", "huggingface"] = Field(
        "parquet",
        description="parquet, huggingface (Parquet with a dataset card), webdataset or tfrecord "
        "(both hold the images and need images)",
    )
    images: str | None = Field(
        None,
        description="images of the labels: output of fetch, or webdataset tars",
    )
    ids: Ids = Field(
        "auto",
        description="auto: an image's id stands in its JSON or in the table beside the tar; where "
        "no image has one, img2dataset's keys are ids; hash: instead of none, a hash of uid or key",
    )
    threshold: float = Field(
        0.0, ge=0, le=1, description="labels below this probability are dropped"
    )
    min_labels: int = Field(
        1, ge=0, description="images with fewer labels left are dropped; 0 keeps empty lists"
    )
    max_labels: int | None = Field(
        None, ge=1, description="most labels per image, the most probable ones; null: all"
    )
    roll_up: Literal["none", "leaves", "ancestors", "ancestors_max"] = Field(
        "none",
        description="what the tree above the classes does to lists, before the threshold; none: "
        "nothing; leaves: labels that another of the list lies below are dropped; ancestors: every "
        "class above a label joins the list, with the sum of the probabilities at or below it; "
        "ancestors_max: with their maximum, for teachers with a sigmoid and truth=multi",
    )
    tree: bool = Field(
        True,
        description="write the tree above the classes to tree.json, if the label space has one; "
        "for format=parquet to _tree.json, which readers of the folder skip",
    )
    label_space: str = Field(
        "imagenet21k",
        description="imagenet21k, imagenet1k, or a text file with one class name per line",
    )
    rows_per_shard: int = Field(
        500_000, ge=1, description="images in each file of parquet and huggingface"
    )
    name: str = Field(
        "coyo_labeled",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="name of the dataset in file names and metadata of tfrecord",
    )
    card: CardSettings = Field(
        default_factory=CardSettings, description="dataset card of huggingface"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.format in WITH_IMAGES and self.images is None:
            raise ValueError(
                f"images: missing; format={self.format} holds the images: give images=PATH, the "
                "output of fetch"
            )
        if self.format not in WITH_IMAGES and self.images is not None:
            raise ValueError(
                f"images: format={self.format} holds no images; leave images out, or set "
                f"format={' or '.join(WITH_IMAGES)}"
            )
        if self.max_labels is not None and self.max_labels < self.min_labels:
            raise ValueError(
                f"max_labels: {self.max_labels} is less than min_labels ({self.min_labels}): no "
                "image could be kept"
            )
        if self.format == "tfrecord" and self.min_labels == 0:
            raise ValueError(
                "min_labels: 0 keeps empty lists, from which coyo-vit can make no target; give 1 "
                "or more for format=tfrecord"
            )
        return self
