"""Settings of the stage `ingest`."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from coyo_labeler.config.base import Settings, StageSettings

#: What the catalog holds anyway; `keep_columns` cannot name these.
CATALOG_COLUMNS = frozenset({"id", "url", "imagehash", "width", "height", "shard", "fallback_urls"})

#: At this many bits random pairs and similar-looking images outnumber true twins.
SAFE_DISTANCES = (0, 2, 4)


class Threshold(Settings):
    """Bounds of a numeric column; both belong to what is kept."""

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
    """What the columns are called in the source."""

    id: str = "id"
    url: str = "url"
    imagehash: str | None = Field(
        None, description="left out: image_phash (COYO-700M) or imagehash (COYO-Labeled-300M)"
    )
    width: str = "width"
    height: str = "height"


class IngestSettings(StageSettings):
    """The keys of `coyo-labeler ingest`."""

    inputs: ClassVar[tuple[str, ...]] = ("source",)

    source: str = Field(description="Parquet file, folder or glob of rows with URL and pHash")
    columns: SourceColumns = Field(
        default_factory=SourceColumns, description="names of the source's columns"
    )
    keep_columns: tuple[str, ...] = Field(
        (), description="further source columns that the catalog keeps"
    )
    min_side: int = Field(200, ge=0, description="px; the shorter side of an image at least")
    max_aspect_ratio: float | None = Field(
        3.0, ge=1, description="longer side over shorter side at most; null: any"
    )
    thresholds: dict[str, Threshold] = Field(
        default_factory=dict,
        description="bounds of numeric columns, as thresholds.watermark_score.max=0.5",
    )
    near_distance: int = Field(
        0, ge=0, description="bits in which the pHash of a twin may differ: 0, 2 or 4"
    )
    max_group: int = Field(
        1000,
        ge=2,
        description="images that may hang together as near twins; larger groups are left alone",
    )
    sample: float = Field(
        1.0, gt=0, le=1, description="share of the deduplicated rows to keep, by a hash of the id"
    )
    rows_per_shard: int = Field(
        10_000, ge=1, le=10_000, description="rows of a shard; the last one may hold fewer"
    )
    max_fallback_urls: int = Field(
        8, ge=0, le=100, description="URLs of dropped twins that the kept row carries at most"
    )
    on_corrupt: Literal["stop", "skip"] = Field(
        "stop", description="an unreadable source file stops the job, or becomes one reject"
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
