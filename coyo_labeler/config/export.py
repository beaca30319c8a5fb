"""Settings of the stage `export`."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from coyo_labeler.config.base import Settings, StageSettings

#: Formats that hold the images beside their labels.
WITH_IMAGES = ("webdataset", "tfrecord")


class CardSettings(Settings):
    """What the dataset card says that the files do not know."""

    pretty_name: str = Field("COYO labels", description="name of the dataset, for readers")
    license: str = Field(
        "cc-by-4.0", description="licence of the table as the Hub knows it; COYO's by default"
    )
    language: list[str] = Field(
        ["en"], min_length=1, description="ISO 639 codes of the language of the class names"
    )
    homepage: str | None = Field(None, description="where the dataset is described")


class ExportSettings(StageSettings):
    """Which labels to copy, what of them to keep, and in which format."""

    inputs: ClassVar[tuple[str, ...]] = ("labels", "images")

    labels: str = Field(
        description="labels to copy: an output of label or merge, or Parquet in that schema"
    )
    format: Literal["parquet", "webdataset", "tfrecord", "huggingface"] = Field(
        "parquet", description="of what is written; webdataset and tfrecord need images"
    )
    images: str | None = Field(
        None,
        description="output of fetch, or webdataset tars: the images that belong to the labels",
    )
    threshold: float = Field(
        0.0, ge=0, le=1, description="labels below this probability are left out"
    )
    min_labels: int = Field(
        1, ge=0, description="images with fewer labels left are left out; 0 keeps empty lists"
    )
    max_labels: int | None = Field(
        None, ge=1, description="at most so many labels an image, the most probable; none: all"
    )
    label_space: str = Field(
        "imagenet21k",
        description="imagenet21k, imagenet1k, or a text file that names one class a line",
    )
    rows_per_shard: int = Field(
        500_000, ge=1, description="images in each file of parquet and huggingface"
    )
    name: str = Field(
        "coyo_labeled",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="name of the dataset in the file names and metadata of tfrecord",
    )
    card: CardSettings = Field(
        default_factory=CardSettings, description="what the card of huggingface says"
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
                f"images: format={self.format} holds no images; leave images out, or take "
                f"format={' or '.join(WITH_IMAGES)}"
            )
        if self.max_labels is not None and self.max_labels < self.min_labels:
            raise ValueError(
                f"max_labels: {self.max_labels} is less than min_labels ({self.min_labels}): no "
                "image could be kept"
            )
        if self.format == "tfrecord" and self.min_labels == 0:
            raise ValueError(
                "min_labels: 0 leaves empty lists, of which coyo-vit makes no target; give 1 or "
                "more for format=tfrecord"
            )
        return self
