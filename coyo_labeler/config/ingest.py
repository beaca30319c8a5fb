"""Settings of the stage `ingest`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from coyo_labeler.config.base import Settings, StageSettings

#: Columns that every catalog has; `keep_columns` cannot name these.
CATALOG_COLUMNS = frozenset({"id", "url", "imagehash", "width", "height", "shard", "fallback_urls"})

#: Values of `near_distance`. At more bits random pairs and similar-looking images outnumber twins.
SAFE_DISTANCES = (0, 2, 4)


class Threshold(Settings):
    """Bounds of a numeric column; both bounds are kept."""

    min: float | None = Field(None, description="rows below are rejected")
    max: float | None = Field(None, description="rows above are rejected")

    @model_validator(mode="after")
    def _bounds(self) -> "Threshold":
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: no row could pass")
        return self


class SourceColumns(Settings):
    """Names of the columns in the source."""

    id: str = Field("id", description="image id")
    url: str = Field("url", description="URL of the image")
    imagehash: str | None = Field(
        None,
        description="64-bit pHash; null: image_phash (COYO-700M) or imagehash "
        "(COYO-Labeled-300M), whichever the source has",
    )
    width: str = Field("width", description="width in pixels")
    height: str = Field("height", description="height in pixels")


class IngestSettings(StageSettings):
    """Turn source rows (URL, pHash) into a deduplicated, sharded catalog."""

    inputs: ClassVar[tuple[str, ...]] = ("source",)
    sections: ClassVar[Mapping[str, str]] = {
        "source": "Input and output",
        "min_side": "Which rows are kept",
        "near_distance": "Twins: images of the same, or nearly the same, pHash",
        "sample": "The catalog",
    }

    source: str = Field(
        description="Parquet file, folder or glob of rows with URL and pHash",
        examples=["s3://bucket/coyo-700m/*.parquet"],
    )
    columns: SourceColumns = Field(
        default_factory=SourceColumns, description="names of the columns in the source"
    )
    keep_columns: tuple[str, ...] = Field(
        (),
        description="further source columns to keep in the catalog, such as [text, "
        "clip_similarity_vitb32]",
    )
    on_corrupt: Literal["stop", "skip"] = Field(
        "stop", description="unreadable source file; stop: stop the job, skip: count one reject"
    )
    min_side: int = Field(200, ge=0, description="smallest length of the shorter side in pixels")
    max_aspect_ratio: float | None = Field(
        3.0, ge=1, description="largest ratio of the longer to the shorter side; null: no limit"
    )
    thresholds: dict[str, Threshold] = Field(
        default_factory=dict,
        description="bounds of numeric columns, such as {watermark_score: {max: 0.5}}; a null is "
        "out of bounds",
    )
    near_distance: int = Field(
        0, ge=0, description="bits in which the pHash of twins may differ: 0 (equal), 2 or 4"
    )
    max_group: int = Field(
        1000,
        ge=2,
        description="largest group of near twins, in images; larger groups are kept as they are, "
        "and reported",
    )
    max_fallback_urls: int = Field(
        8, ge=0, le=100, description="largest number of URLs of dropped twins in a kept row"
    )
    sample: float = Field(
        1.0, gt=0, le=1, description="share of the deduplicated rows to keep, by a hash of the id"
    )
    rows_per_shard: int = Field(
        10_000, ge=1, le=10_000, description="rows of a shard; the last one may have fewer"
    )

    @model_validator(mode="after")
    def _names(self) -> "IngestSettings":
        taken = CATALOG_COLUMNS & set(self.keep_columns)
        if taken:
            raise ValueError(f"keep_columns: {', '.join(sorted(taken))}: the catalog has it anyway")
        if len(set(self.keep_columns)) < len(self.keep_columns):
            raise ValueError("keep_columns: a column is named twice")
        if self.near_distance not in SAFE_DISTANCES:
            raise ValueError(_refusal(self.near_distance))
        return self


def _refusal(distance: int) -> str:
    if distance % 2:
        return (
            f"near_distance: {distance} is odd, but 32 of the 64 bits of a pHash are set, so that "
            "distances are even; give 0, 2 or 4"
        )
    return (
        f"near_distance: {distance} is more than 4: among COYO's 580 million hashes some 4 million "
        "pairs of unrelated images are within 6 bits (42,500 within 4), and chains of them would "
        "join into giant groups; give 0, 2 or 4"
    )
