"""What is wrong with settings, on one line: which key, why, and the remedy."""

import datetime
import difflib
import reprlib
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from coyo_labeler.config.base import Settings
from coyo_labeler.redact import redact_value

#: Wrong keys that one message names at most.
_MAX_ERRORS = 10

#: What YAML makes of a text without quotes.
_KINDS = {
    bool: "a truth value in YAML",
    int: "a number in YAML",
    float: "a number in YAML",
    datetime.date: "a date in YAML",
    datetime.datetime: "a time in YAML",
}

#: Values in messages: enough to recognise them, however large they are.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 200, 200, 60


def explain(cls: type[BaseModel], error: ValidationError, names: Mapping[str, str]) -> str:
    """All errors on one line; misspelt keys first, since others may be missing because of them."""
    details = error.errors(include_url=False)
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    reasons = [_explain_one(cls, detail, names) for detail in details[:_MAX_ERRORS]]
    more = len(details) - _MAX_ERRORS
    return "; ".join(reasons) + (f"; and {more:,} more" if more > 0 else "")


def _explain_one(cls: type[BaseModel], detail: Mapping[str, Any], names: Mapping[str, str]) -> str:
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path)
    if detail["type"] == "extra_forbidden":
        known = _keys_of(cls, path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        remedy = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(known)}"
        if ":" in path[-1]:  # {max:1} is the key "max:1"
            remedy = "in YAML a space follows the colon: {key: value}"
        return f"{key}: no such key; {remedy}"
    if detail["type"] == "missing":
        return f"{key}: missing; give {key}=…"
    if detail["type"] == "value_error":
        reason = str(detail["ctx"]["error"])
        return f"{names.get(key, key)}: {reason}" if key else reason
    message = detail["msg"].removeprefix("Input should be ")
    # A union adds the names of its types to the path; they are no keys.
    key = ".".join(part for part in path if part in _all_keys(cls)) or key
    value = redact_value(".".join(path), detail["input"])
    return _explain_value(names.get(key, key), detail["type"], value, message)


def _explain_value(key: str, kind: str, value: Any, wanted: str) -> str:
    if kind == "invalid_key":
        return f"{key}: a key must be text; write it in quotes"
    if kind == "string_type" and value is None:
        return f"{key}: nothing is given; give {key}=…"
    shown = _SHORT.repr(value)
    in_yaml = _KINDS.get(type(value))
    if kind == "string_type" and in_yaml is not None:
        return f"{key}: {shown} is {in_yaml}, and text is wanted; write it in quotes: {key}: '…'"
    if kind in {"list_type", "tuple_type"}:
        wanted = f"a list; give {key}='[…]'"
    if kind == "too_short":
        return f"{key}: nothing is in the list; give some, such as {key}='[…]'"
    return f"{key}: {shown} is wrong; it must be {wanted}"


def _keys_of(cls: type[BaseModel], path: list[str]) -> list[str]:
    """The keys below a path; any key may stand before the settings of a mapping."""
    kind: Any = cls
    for part in path:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            kind = kind.model_fields[part].annotation if _is_model(kind) else None
    return list(kind.model_fields) if _is_model(kind) else []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _all_keys(cls: type[BaseModel]) -> set[str]:
    keys = set(cls.model_fields)
    for field in cls.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            keys |= _all_keys(field.annotation)
    return keys
