"""Settings of the stage `compare`."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from coyo_labeler.config.base import StageSettings


class CompareSettings(StageSettings):
    """Show two annotations of the same images side by side: COCO instances, or labels folders."""

    inputs: ClassVar[tuple[str, ...]] = ("a", "b", "images")
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {"processes"}
    sections: ClassVar[Mapping[str, str]] = {
        "a": "Input and output",
        "min_iou": "Matching",
        "title": "The page",
        "label_space": "How the work is done",
    }

    a: str = Field(
        description="COCO instance JSON: a file, or a folder or glob of shards that are put "
        "together (.json, .json.gz); or a labels folder, for which `report` compares",
        examples=["instances_train2017.json"],
    )
    b: str = Field(
        description="the other annotation, of the same kind; differences are b − a",
        examples=["sama-coco-train"],
    )
    images: str | None = Field(
        None, description="folder of the pictures by file_name, to draw examples on"
    )
    min_iou: float = Field(
        0.5, gt=0, le=1, description="least IoU of two masks that are one object in both"
    )
    name_a: str = Field("a", description="what the page calls the first annotation")
    name_b: str = Field("b", description="what the page calls the second")
    title: str = Field("Two annotations", description="heading of the page")
    top: int = Field(20, ge=1, le=500, description="classes or pairs in each list of the page")
    examples: int = Field(
        12, ge=0, le=60, description="images that differ most, drawn side by side; 0: none"
    )
    label_space: str = Field(
        "imagenet21k", description="for labels folders only: the classes that labels index"
    )
    processes: int | None = Field(
        None, ge=1, description="processes that compare images; null: one per core"
    )
