"""Settings of the stage `fetch`."""

from typing import ClassVar

from pydantic import Field, field_validator

from coyo_labeler.config.base import StageSettings


class FetchSettings(StageSettings):
    """The keys of `coyo-labeler fetch`."""

    inputs: ClassVar[tuple[str, ...]] = ("catalog",)
    operational: ClassVar[frozenset[str]] = StageSettings.operational | {
        "retry",
        "user_agent",
        "allow_private",
        "timeout_seconds",
        "connect_seconds",
        "retries",
        "backoff_seconds",
        "connections",
        "host_connections",
        "host_requests_per_second",
        "verify_threads",
    }

    catalog: str = Field(description="what ingest wrote, or Parquet files of the same columns")
    retry: bool = Field(
        False, description="try the rows again that failed for a while (timeouts, 429, 5xx …)"
    )
    user_agent: str | None = Field(
        None,
        description="who asks, with a contact (a URL or an address), as "
        "'example-bot/1.0 (+https://example.org/bot)'; left out: only loopback is asked",
    )
    allow_private: bool = Field(
        False, description="let private and loopback addresses through (tests, the demo, mirrors)"
    )
    robots_txt: bool = Field(
        True, description="ask for robots.txt once per host and task, and obey it"
    )
    refuse_tags: tuple[str, ...] = Field(
        ("noai", "noimageai", "noindex", "noimageindex", "noml"),
        description="rules in X-Robots-Tag that mean no",
    )

    check_phash: bool = Field(
        True, description="hash the pixels and compare with the catalog; false: only decode"
    )
    max_distance: int = Field(
        4, ge=0, le=64, description="bits in which an image's pHash may differ from the catalog's"
    )
    keep_changed: bool = Field(
        False, description="put images whose pHash differs by more into the tar all the same"
    )
    max_bytes: int = Field(
        32 * 2**20, ge=1, description="bytes of an image at most; reading stops beyond"
    )
    max_pixels: int = Field(
        64_000_000, ge=1, le=89_478_485, description="pixels of an image at most, by its header"
    )
    resize_to: int | None = Field(
        None,
        ge=1,
        description="px; shrink bigger images to this shorter side, ratio kept; null: as they are",
    )
    resize_quality: int = Field(95, ge=1, le=100, description="JPEG quality of shrunk images")

    timeout_seconds: float = Field(
        30.0,
        gt=0,
        description="deadline of an image: requests, retries and pauses of all its URLs; not its "
        "turn at a host, robots.txt (3 × connect_seconds, once per host) and decoding",
    )
    connect_seconds: float = Field(
        10.0, gt=0, description="deadline of one connection, the name's resolution included"
    )
    retries: int = Field(2, ge=0, le=100, description="further attempts after a transient failure")
    backoff_seconds: float = Field(
        0.5, gt=0, description="mean pause before the first further attempt; doubles each time"
    )
    connections: int = Field(128, ge=1, le=4096, description="images asked for at once, per task")
    host_connections: int = Field(
        8, ge=1, le=4096, description="images asked for at once of one host, per task"
    )
    host_requests_per_second: float | None = Field(
        None, gt=0, description="requests to one host a second at most, all tasks; null: any"
    )
    verify_threads: int = Field(
        2, ge=1, le=256, description="threads that decode and hash, per task"
    )

    @property
    def reopens(self) -> bool:
        """A finished output has work left where failed rows are to be tried again."""
        return self.retry

    @field_validator("user_agent")
    @classmethod
    def _contact(cls, value: str | None) -> str | None:
        if value is not None and "@" not in value and "://" not in value:
            raise ValueError(
                f"'{value}' names no contact; add a URL or an address, as "
                "'example-bot/1.0 (+https://example.org/bot)'"
            )
        return value
