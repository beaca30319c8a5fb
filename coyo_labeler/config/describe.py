"""The keys of a stage as text, from its settings class: for `--help` and for conf/<stage>.yaml."""

import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from coyo_labeler.config.base import Settings, StageSettings
from coyo_labeler.config.round import RoundSettings

#: Characters of a line at most, and where the comments of a YAML file begin.
_WIDTH, _COMMENT = 112, 32

#: Heading of the keys that every stage has.
_COMMON = "Every stage"


@dataclass(frozen=True)
class Key:
    """One key: its name, dotted where it is nested, its default as a JSON value, its meaning.

    A required key has an example instead of a default. heading: of the section that begins here.
    A group of nested keys comes before its keys, with no default.
    """

    name: str
    description: str
    default: Any = None
    required: bool = False
    group: bool = False
    heading: str = ""

    @property
    def value(self) -> str:
        """The default, or the example, as YAML."""
        if self.group:
            return ""
        dumped = yaml.safe_dump(
            self.default, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False
        )
        return dumped.removesuffix("...\n").strip()


def keys_of(cls: type[StageSettings | RoundSettings]) -> list[Key]:
    """All keys in the order in which a reader wants them: required, own, those of every stage."""
    shared = StageSettings.model_fields
    common = [name for name in shared if name != "output" and name in cls.model_fields]
    own = [name for name in cls.model_fields if name not in StageSettings.model_fields]
    output = ["output"] if "output" in cls.model_fields else []
    required = [name for name in [*own, *output] if cls.model_fields[name].is_required()]
    optional = [*output, *own]
    order = [*required, *(name for name in optional if name not in required), *common]
    sections = {order[0]: "", **cls.sections, common[0]: _COMMON}
    return [key for name in order for key in _keys(cls, name, "", sections.get(name, ""))]


def _keys(cls: type[Settings], name: str, prefix: str, heading: str = "") -> Iterator[Key]:
    field = cls.model_fields[name]
    description = field.description or ""
    nested = field.annotation
    if isinstance(nested, type) and issubclass(nested, Settings):
        yield Key(prefix + name, description, group=True, heading=heading)
        for inner in nested.model_fields:
            yield from _keys(nested, inner, f"{prefix}{name}.")
    elif field.is_required():
        example = (field.examples or ["PATH"])[0]
        yield Key(prefix + name, description, example, required=True, heading=heading)
    else:
        default = field.get_default(call_default_factory=True)
        if isinstance(default, tuple):
            default = list(default)
        yield Key(prefix + name, description, default, heading=heading)


def help_text(cls: type[StageSettings | RoundSettings]) -> str:
    """The keys with defaults and meanings, for `--help`."""
    lines = ["keys, with defaults:"]
    for key in keys_of(cls):
        if key.heading:
            lines += ["", f"{key.heading}:"]
        default = "required" if key.required else key.value
        start = f"  {key.name:<24} " + ("" if key.group else f"[{default}] ")
        lines += textwrap.wrap(
            start + key.description,
            _WIDTH,
            subsequent_indent=" " * 27,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        )
    return "\n".join(lines)


def yaml_text(cls: type[StageSettings | RoundSettings], stage: str) -> str:
    """conf/<stage>.yaml: every key with its default and its meaning."""
    keys = keys_of(cls)
    words = " ".join(f"{key.name}=PATH" for key in keys if key.required)
    source = cls.__module__.replace(".", "/")
    about = inspect.cleandoc(cls.__doc__ or "").splitlines()
    lines = [
        f"# coyo-labeler {stage} {words}",
        "#",
        *(f"# {line}".rstrip() for line in about),
        "#",
        "# Every key with its default; required keys are commented out. `make conf` writes this",
        f"# file from the descriptions in {source}.py: edit them there.",
    ]
    for key in keys:
        if key.heading:
            lines += ["", f"# --- {key.heading} ---"]
        lines += _yaml_lines(key)
    return "\n".join(lines) + "\n"


def _yaml_lines(key: Key) -> list[str]:
    depth = key.name.count(".")
    name = key.name.rpartition(".")[2]
    start = f"{'# ' if key.required else ''}{'  ' * depth}{name}: {key.value}".rstrip()
    comment = max(_COMMENT, len(start) + 2)
    first, *more = textwrap.wrap(
        key.description,
        max(40, _WIDTH - comment - 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [f"{start:<{comment}}# {first}", *(f"{'':<{comment}}# {line}" for line in more)]
