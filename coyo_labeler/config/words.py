"""`key=value` words: where text is wanted the value is what was typed, elsewhere it is YAML."""

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from coyo_labeler.config.yaml_values import load_texts, load_yaml

#: How YAML spells nothing.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


def parse_word(cls: type[BaseModel], path: Sequence[str], text: str) -> Any:
    """The value that `text` gives the key at `path` of a settings class.

    Text stays as typed: 2024_01_15 is no number there, nor 1:30 a time. The items of a list of
    texts stay so too.

    Raises: UnboundedError where YAML is nested without end.
    """
    kinds = _kinds_at(cls, path)
    nullable = NoneType in kinds
    wanted = [kind for kind in kinds if kind is not NoneType]
    if len(wanted) == 1:
        if text in _NULL and (nullable or not text):
            return None
        if _is_text(wanted[0]):
            return text
        if _holds_texts(wanted[0]):
            return _yaml(text, load_texts)
    return _yaml(text, load_yaml)


def _yaml(text: str, load: Any) -> Any:
    """The value as YAML, or the plain text where that is not valid YAML.

    A sentence with a colon in it is text, not a mapping.
    """
    try:
        value = load(text)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, dict) and not text.lstrip().startswith("{") else value


def _kinds_at(cls: type[BaseModel], path: Sequence[str]) -> tuple[Any, ...]:
    """The types that the key at `path` may have, None's among them; Any for an unknown key."""
    kinds: tuple[Any, ...] = (cls,)
    for part in path:
        kind = next((kind for kind in kinds if kind is not NoneType), Any)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(part)
            kinds = _members(field.annotation) if field else (Any,)
        elif get_origin(kind) is dict:
            kinds = _members(get_args(kind)[1])
        elif kind is not str:  # the dots of a property's name are no levels
            return (Any,)
    return kinds


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    return kind is str


def _holds_texts(kind: Any) -> bool:
    items = [item for item in get_args(kind) if item is not Ellipsis]
    return get_origin(kind) in (list, tuple, dict) and all(item is str for item in items)
