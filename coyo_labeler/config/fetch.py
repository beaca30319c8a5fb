"""Settings of the stage `fetch`."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, field_validator

from coyo_labeler.config.base import StageSettings
from coyo_labeler.errors import InputError


class FetchSettings(StageSettings):
    """Download the images of a catalog into webdataset tars, and check each against its pHash."""

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

    sections: ClassVar[Mapping[str, str]] = {
        "catalog": "Input and output",
        "user_agent": "Which requests are made",
        "check_phash": "Which images are kept, and how",
        "timeout_seconds": "How the work is done",
    }

    catalog: str = Field(
        description="output of ingest, or Parquet files of the same columns",
        examples=["s3://bucket/work/catalog"],
    )
    retry: bool = Field(
        False,
        description="try the rows again that failed for a transient reason (timeouts, 429, 5xx …)",
    )
    user_agent: str | None = Field(
        None,
        description="User-Agent header with a contact (a URL or an address), such as "
        "'example-bot/1.0 (+https://example.org/bot)'; null: only loopback hosts are asked",
    )
    allow_private: bool = Field(
        False, description="allow private and loopback addresses (tests, the demo, mirrors)"
    )
    robots_txt: bool = Field(
        True, description="request robots.txt once per host and task, and obey it"
    )
    refuse_tags: tuple[str, ...] = Field(
        ("noai", "noimageai", "noindex", "noimageindex", "noml"),
        description="rules of X-Robots-Tag that forbid use",
    )

    check_phash: bool = Field(
        True, description="compare the pHash of the pixels with the catalog's; false: only decode"
    )
    max_distance: int = Field(
        4, ge=0, le=64, description="bits in which the pHash may differ from the catalog's"
    )
    keep_changed: bool = Field(
        False, description="put images whose pHash differs by more into the tar all the same"
    )
    max_bytes: int = Field(
        32 * 2**20, ge=1, description="largest size of an image in bytes; reading stops beyond"
    )
    max_pixels: int = Field(
        64_000_000,
        ge=1,
        le=89_478_485,
        description="largest number of pixels of an image, by its header",
    )
    resize_to: int | None = Field(
        None,
        ge=1,
        description="pixels; larger images are shrunk to this shorter side and keep their aspect "
        "ratio; null: the original bytes are kept",
    )
    resize_quality: int = Field(95, ge=1, le=100, description="JPEG quality of shrunk images")

    timeout_seconds: float = Field(
        30.0,
        gt=0,
        description="time per image for the requests, retries and pauses of all its URLs; not for "
        "waiting on a busy host, robots.txt (3 × connect_seconds, once per host) and decoding",
    )
    connect_seconds: float = Field(
        10.0, gt=0, description="time per connection, including name resolution"
    )
    retries: int = Field(2, ge=0, le=100, description="further attempts after a transient failure")
    backoff_seconds: float = Field(
        0.5, gt=0, description="mean pause before the first further attempt; doubles each time"
    )
    connections: int = Field(
        128, ge=1, le=4096, description="images requested concurrently, per task"
    )
    host_connections: int = Field(
        8, ge=1, le=4096, description="images requested concurrently from one host, per task"
    )
    host_requests_per_second: float | None = Field(
        None,
        gt=0,
        description="requests per second to one host, over all tasks; null: no limit",
    )
    verify_threads: int = Field(
        2, ge=1, le=256, description="threads that decode and hash, per task"
    )

    @property
    def reopens(self) -> bool:
        """A finished output has work left where failed rows should be tried again."""
        return self.retry

    def check(self) -> None:
        """See `StageSettings.check`."""
        if self.user_agent is None and not self.allow_private:
            raise InputError(
                "fetch: user_agent: missing; hosts must be able to tell who asks: give "
                "user_agent='example-bot/1.0 (+https://example.org/bot)' with a contact of yours"
            )

    @field_validator("user_agent")
    @classmethod
    def _contact(cls, value: str | None) -> str | None:
        if value is not None and "@" not in value and "://" not in value:
            raise ValueError(
                f"'{value}' names no contact; add a URL or an address, such as "
                "'example-bot/1.0 (+https://example.org/bot)'"
            )
        return value
