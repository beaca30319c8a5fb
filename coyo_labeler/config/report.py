"""Settings of the stage `report`."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, NonNegativeInt

from coyo_labeler.config.base import StageSettings
from coyo_labeler.formats.image_ids import Ids


class ReportSettings(StageSettings):
    """Describe a labels folder in one HTML page: statistics, accuracy against gold, examples."""

    inputs: ClassVar[tuple[str, ...]] = (
        "labels",
        "gold",
        "gold_key",
        "votes",
        "compare",
        "slices",
        "images",
        "catalog",
    )
    sections: ClassVar[Mapping[str, str]] = {
        "labels": "Input and output",
        "votes": "Votes, and the accuracy that is estimated from them",
        "label_space": "The page",
    }

    labels: str = Field(
        description="labels to describe: output of label or merge, or Parquet in that schema",
        examples=["out/demo/merged"],
    )
    gold: str | None = Field(
        None,
        description="true classes (image_id, label), Parquet or CSV; an image with several rows "
        "has several true classes",
    )
    compare: str | None = Field(
        None, description="second labels folder, such as the teacher's beliefs before the votes"
    )
    slices: str | None = Field(
        None, description="groups to compare (image_id, slice), Parquet or CSV; needs gold or votes"
    )
    images: str | None = Field(
        None, description="output of fetch: its rejects join the funnel, its tars give examples"
    )
    ids: Ids = Field(
        "auto",
        description="auto: an image's id stands in its JSON or in the table beside the tar; where "
        "no image has one, img2dataset's keys are ids; hash: instead of none, a hash of uid or key",
    )
    catalog: str | None = Field(None, description="output of ingest: its rejects join the funnel")
    votes: str | None = Field(
        None,
        description="output of collect, or votes with inclusion_probability, Parquet or CSV: the "
        "accuracy of labels and compare is estimated from them",
    )
    gold_key: str | None = Field(
        None,
        description="output of select, or its gold_key: the true classes of gold questions, for "
        "the accuracy of each worker; gold is used for it too",
    )
    wanted_interval: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="half the width of the interval that is wanted: the page says how many more "
        "answers that takes",
    )
    cost_per_answer: float | None = Field(
        None, ge=0, description="what one answer costs, in any currency"
    )
    cost_per_hour: float | None = Field(
        None, ge=0, description="what an hour of work costs, where cost_per_answer is not given"
    )
    label_space: str = Field(
        "imagenet21k",
        description="imagenet21k, imagenet1k, or a text file with one class name per line",
    )
    nodes: list[str] = Field(
        default_factory=list,
        description="synsets to ask about, such as [n02084071] for dog or not: accuracy, precision "
        "and recall of each; needs gold, and a label space with a tree (docs/tree.md)",
    )
    levels: list[NonNegativeInt] = Field(
        [4, 6, 8],
        description="depths of the tree at which first labels are compared with gold; "
        "4: living things, artifacts, foods …",
    )
    title: str = Field("Label report", description="heading of the page")
    top: int = Field(10, ge=1, le=200, description="classes or pairs in each list of the page")
    examples: int = Field(
        12, ge=0, le=60, description="thumbnails in each group of examples; 0: none"
    )
