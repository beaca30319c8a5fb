"""What the settings of all stages have in common."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Settings(BaseModel):
    """A frozen group of settings: unknown keys, wrong types and values out of range are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )


class SparkSettings(Settings):
    """How a stage gets its Spark session."""

    master: str | None = Field(
        None, description="left out: spark-submit's, else the environment's MASTER, else local[*]"
    )
    conf: dict[str, str] = Field(
        default_factory=dict, description="any further Spark properties, by name"
    )

    @field_validator("conf", mode="before")
    @classmethod
    def _join_names(cls, value: Any) -> Any:
        """The dots of a property's name nest like those of a key: spark.conf.spark.app.id=x."""
        return dict(_leaves(value)) if isinstance(value, dict) else value


def _leaves(nested: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in nested.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:  # as Spark spells it
            yield prefix + name, str(value).lower() if isinstance(value, bool) else str(value)


class StageSettings(Settings):
    """The keys that every stage has.

    `inputs` names the keys that hold input paths: they must exist, and what lies there (not the
    path) enters the fingerprint. `operational` names the keys that change how the work is done but
    not one value of what comes out: they may differ between a run and its resumption.
    `inputs_by_shard` names the inputs that the stage itself checks shard by shard: what lies there
    may change between a run and its resumption where nothing was made of it yet. See also
    `files_by_content`.
    """

    inputs: ClassVar[tuple[str, ...]] = ()
    inputs_by_shard: ClassVar[frozenset[str]] = frozenset()
    operational: ClassVar[frozenset[str]] = frozenset(
        {"output", "overwrite", "spark", "log_format"}
    )

    output: str = Field(description="folder to write, any fsspec URL")
    overwrite: bool = Field(
        False, description="replace what an earlier run with other settings wrote into output"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="log lines on standard error: text, or one JSON object a line"
    )
    spark: SparkSettings = Field(default_factory=SparkSettings)

    @property
    def uses_spark(self) -> bool:
        """Whether the stage works on a Spark session; a stage that also runs bare overrides it."""
        return True

    def files_by_content(self) -> Mapping[str, str]:
        """URLs of single files, by key, that enter the fingerprint by their sha256.

        Of other inputs names, sizes and times count. An input of `inputs` that is named here too
        counts by its sha256 alone, so that it may be touched, copied or moved.
        """
        return {}

    @property
    def reopens(self) -> bool:
        """Whether the stage may have work left on an output that is finished."""
        return False
