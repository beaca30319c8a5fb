"""Reading settings: defaults, then a YAML file, then `key=value` words, checked in one place."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from coyo_labeler import storage
from coyo_labeler.config.base import Settings
from coyo_labeler.config.explain import explain
from coyo_labeler.config.words import parse_word
from coyo_labeler.config.yaml_values import UnboundedError, load_texts, load_yaml
from coyo_labeler.errors import InputError, one_line

#: Bytes of a YAML file at most.
_MAX_BYTES = 2**20

S = TypeVar("S", bound=Settings)

#: The default file of each stage, and presets; conf/ of a checkout is a link to this folder.
CONF = Path(__file__).parents[1] / "conf"


def read_settings(
    cls: type[S], stage: str, config: str | None = None, overrides: Iterable[str] = ()
) -> S:
    """Settings of `stage`: the defaults of `cls`, overlaid by a YAML file, then by `key=value`.

    config: path or URL of a YAML file, or the name of one in `CONF`, or None. overrides:
    `key=value` words, dotted for nested keys; a value is what was typed where text is wanted,
    else it is read as YAML.

    Raises: InputError naming the key, what is wrong and the remedy.
    """
    values = _read_yaml(stage, _find(config)) if config else {}
    for word in overrides:
        _override(cls, stage, values, word)
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
        raise InputError(f"{who}: {explain(cls, error, names or {})}") from None


def _find(config: str) -> str:
    """The path that `config` means; a name in `CONF` where there is no such file here."""
    preset = CONF / f"{config}.yaml"
    is_name = "/" not in config and not Path(config).exists()
    return str(preset) if is_name and preset.is_file() else config


def _read_yaml(stage: str, config: str) -> dict[str, Any]:
    text = _read_file(stage, config)
    try:
        values = load_yaml(text)
    except (yaml.YAMLError, UnboundedError) as error:
        where = one_line(error, 300)
        raise InputError(f"{stage}: config: {config} is not valid YAML: {where}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{stage}: config: {config} must hold 'key: value' lines")
    spark = values.get("spark")
    if isinstance(spark, dict) and spark.get("conf") and isinstance(spark["conf"], dict):
        spark["conf"] = _numbers_as_written(spark["conf"], load_texts(text)["spark"]["conf"])
    return values


def _read_file(stage: str, config: str) -> str:
    fs, path = storage.resolve(config)
    try:
        with fs.open(path, "rb") as file:
            data: bytes = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InputError(f"{stage}: config: {config} is too large to be a file of settings")
        return data.decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        presets = ", ".join(preset_names(stage))
        raise InputError(
            f"{stage}: config: no such file: {config}; give a path, or one of {presets}"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{stage}: config: {config} is not UTF-8 (byte {data[error.start]:#04x} at position "
            f"{error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        reason = error.strerror or one_line(error, 200)
        raise InputError(
            f"{stage}: config: {config} cannot be read ({reason}); give a YAML file"
        ) from None


def _numbers_as_written(values: Mapping[str, Any], texts: Any) -> dict[str, Any]:
    """Properties of Spark are texts: a number among them is what stands in the file."""
    written = texts if isinstance(texts, dict) else {}
    return {key: _number_as_written(value, written.get(key)) for key, value in values.items()}


def _number_as_written(value: Any, text: Any) -> Any:
    if isinstance(value, dict):
        return _numbers_as_written(value, text)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return text if is_number and isinstance(text, str) else value


def _override(cls: type[BaseModel], stage: str, values: dict[str, Any], word: str) -> None:
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
    try:
        values[last] = parse_word(cls, [*parents, last], text)
    except UnboundedError as error:
        raise InputError(f"{stage}: {key}: {error}") from None


def default_config(stage: str) -> str:
    """The default file of a stage."""
    return str(CONF / f"{stage}.yaml")


def preset_names(stage: str) -> list[str]:
    """The names of a stage's files in `CONF`, which `config` may be."""
    return sorted(path.stem for path in CONF.glob(f"{stage}*.yaml"))
