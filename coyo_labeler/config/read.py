"""Reading settings: defaults, then a YAML file, then `key=value` words, checked in one place."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import yaml
from pydantic import BaseModel, ValidationError

from coyo_labeler.config.base import Settings, StageSettings
from coyo_labeler.errors import InputError, one_line

S = TypeVar("S", bound=StageSettings)

#: The default file of each stage, and presets; conf/ of a checkout is a link to this folder.
CONF = Path(__file__).parents[1] / "conf"


def read_settings(
    cls: type[S], stage: str, config: str | None = None, overrides: Iterable[str] = ()
) -> S:
    """Settings of `stage`: the defaults of `cls`, overlaid by a YAML file, then by `key=value`.

    config: path or URL of a YAML file, or the name of one in `CONF`, or None. overrides:
    `key=value` words, dotted for nested keys; a value is read as YAML.

    Raises: InputError naming the key, what is wrong and the remedy.
    """
    values = _read_yaml(stage, _find(config)) if config else {}
    for word in overrides:
        _override(stage, values, word)
    return check_settings(cls, stage, values)


def check_settings(
    cls: type[S], who: str, values: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> S:
    """Settings of typed values. who: whose they are, for messages.

    names: what messages call a key, where the user knows it by another name.

    Raises: InputError naming the key, what is wrong and the remedy.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{who}: {_explain(cls, error, names or {})}") from None


def _find(config: str) -> str:
    """The path that `config` means; a name in `CONF` where there is no such file here."""
    preset = CONF / f"{config}.yaml"
    is_name = "/" not in config and not Path(config).exists()
    return str(preset) if is_name and preset.is_file() else config


def _read_yaml(stage: str, config: str) -> dict[str, Any]:
    try:
        with fsspec.open(config, "rt") as file:
            values = yaml.safe_load(file)
    except FileNotFoundError:
        presets = ", ".join(preset_names(stage))
        raise InputError(
            f"{stage}: config: no such file: {config}; give a path, or one of {presets}"
        ) from None
    except yaml.YAMLError as error:
        where = one_line(error)
        raise InputError(f"{stage}: config: {config} is not valid YAML: {where}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{stage}: config: {config} must hold 'key: value' lines")
    return values


def _override(stage: str, values: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key.strip("-"):
        raise InputError(
            f"{stage}: '{word}' is not of the form key=value; 'coyo-labeler {stage} --help' lists "
            "the keys"
        )
    *parents, last = key.strip().split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"{stage}: {key}: '{parent}' holds a value, not nested keys")
    values[last] = _parse(text)


def _parse(text: str) -> Any:
    """The value of a `key=value` word: YAML, or the plain text where that is not valid YAML.

    A sentence with a colon in it is text, not a mapping.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, dict) and not text.lstrip().startswith("{") else value


def _explain(cls: type[BaseModel], error: ValidationError, names: Mapping[str, str]) -> str:
    """All errors on one line; misspelt keys first, since others may be missing because of them."""
    details = error.errors(include_url=False)
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    return "; ".join(_explain_one(cls, detail, names) for detail in details)


def _explain_one(cls: type[BaseModel], detail: Mapping[str, Any], names: Mapping[str, str]) -> str:
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path)
    if detail["type"] == "extra_forbidden":
        known = _keys_of(cls, path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        remedy = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(known)}"
        return f"{key}: no such key; {remedy}"
    if detail["type"] == "missing":
        return f"{key}: missing; give {key}=…"
    if detail["type"] == "value_error":
        reason = str(detail["ctx"]["error"])
        return f"{names.get(key, key)}: {reason}" if key else reason
    message = detail["msg"].removeprefix("Input should be ")
    # A union adds the names of its types to the path; they are no keys.
    key = ".".join(part for part in path if part in _all_keys(cls)) or key
    return f"{names.get(key, key)}: {detail['input']!r} is wrong; it must be {message}"


def _keys_of(cls: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        nested = cls.model_fields[part].annotation
        if not (isinstance(nested, type) and issubclass(nested, BaseModel)):
            return []
        cls = nested
    return list(cls.model_fields)


def _all_keys(cls: type[BaseModel]) -> set[str]:
    keys = set(cls.model_fields)
    for field in cls.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            keys |= _all_keys(field.annotation)
    return keys


def default_config(stage: str) -> str:
    """The default file of a stage."""
    return str(CONF / f"{stage}.yaml")


def preset_names(stage: str) -> list[str]:
    """The names of a stage's files in `CONF`, which `config` may be."""
    return sorted(path.stem for path in CONF.glob(f"{stage}*.yaml"))
