"""What the settings of all stages have in common."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

#: Characters that no path can hold, and no UTF-8.
_UNWRITABLE = re.compile(r"[\0\ud800-\udfff]")


class Settings(BaseModel):
    """A frozen group of settings: unknown keys, wrong types and values out of range are refused.

    The description of a field is the one place that says what a key means: conf/<stage>.yaml and
    `--help` are made from it (`config.describe`). A key with a `Literal` type explains each choice.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _can_be_written(cls, values: Any) -> Any:
        """Neither a path nor a document can hold these characters."""
        for key, text in _texts(values):
            if _UNWRITABLE.search(text):
                raise ValueError(f"{key}: the text holds a NUL or half a surrogate pair; remove it")
        return values


class SparkSettings(Settings):
    """How a stage gets its Spark session."""

    master: str | None = Field(
        None,
        description="Spark master; null: spark-submit's, else the environment's MASTER, else "
        "local[*]",
    )
    conf: dict[str, str] = Field(
        default_factory=dict, description="further Spark properties, by name"
    )

    @field_validator("conf", mode="before")
    @classmethod
    def _join_names(cls, value: Any) -> Any:
        """The dots of a property's name nest like those of a key: spark.conf.spark.app.id=x."""
        return dict(_leaves(value)) if isinstance(value, dict) else value


def _texts(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts among values and names, with the name of the setting that they belong to."""
    if isinstance(values, str):
        yield key, values
    elif isinstance(values, Mapping):
        for name, value in values.items():
            yield from _texts(name, key or "a key")
            yield from _texts(value, key or str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value, key)


def _leaves(nested: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, bool):  # as Spark spells it
            yield f"{prefix}{name}", str(value).lower()
        else:
            is_number = isinstance(value, int | float)
            yield f"{prefix}{name}", str(value) if is_number else value


class StageSettings(Settings):
    """The keys that every stage has.

    inputs: the keys that hold input paths. They must exist, and their content (not the path) enters
    the fingerprint of a run. paths: further keys that hold paths, which the stage itself looks at.
    by_content: the keys whose file enters the fingerprint by its sha256, so that the file may be
    touched, copied or moved; of other inputs names, sizes and times count. A key of by_content
    outside inputs may hold a file or a name, such as a label space's.
    inputs_by_shard: the inputs that the stage itself checks shard by shard; what lies there may
    change between a run and its resumption where nothing was made of it yet. operational: the keys
    that change how the work is done but no value of the result; they may differ between a run and
    its resumption. sections: headings of conf/<stage>.yaml and --help, by the first key below each.
    """

    inputs: ClassVar[tuple[str, ...]] = ()
    paths: ClassVar[tuple[str, ...]] = ()
    by_content: ClassVar[frozenset[str]] = frozenset()
    inputs_by_shard: ClassVar[frozenset[str]] = frozenset()
    operational: ClassVar[frozenset[str]] = frozenset(
        {"output", "overwrite", "spark", "log_format"}
    )
    sections: ClassVar[Mapping[str, str]] = {}

    output: str = Field(description="folder to write, any fsspec URL")
    overwrite: bool = Field(
        False, description="replace what an earlier run with other settings wrote into output"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="log lines on standard error: text, or json, one object per line"
    )
    spark: SparkSettings = Field(
        default_factory=SparkSettings, description="how the stage gets its Spark session"
    )

    @property
    def reopens(self) -> bool:
        """Whether the stage may have work left on an output that is finished."""
        return False

    def shaping(self) -> dict[str, Any]:
        """The settings that shape the output, as JSON values.

        A path at which an input lies too is left out: as of other inputs, its content is compared.
        """
        known = {getattr(self, key) for key in self.inputs} - {None}
        moved = {key for key in self.paths if getattr(self, key) in known}
        return self.model_dump(mode="json", exclude={*self.operational, *self.inputs, *moved})

    def check(self) -> None:
        """Check what a run needs besides valid values, before it claims its output.

        Raises: InputError naming the key.
        """
