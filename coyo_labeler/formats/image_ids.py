"""The id of an image in a shard: one rule for everything that reads shards.

The id is the whole number `id` of the sample's JSON, else that of the table beside the tar. Where
no image of a folder has an `id`, be it a number or not, and all keys are digits as img2dataset
writes them, the key is the id. Anything else is no id, unless the user asks for hashes.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

#: The setting `ids`: what becomes of an image without a whole number.
Ids = Literal["auto", "hash"]

_WHOLE = re.compile(r"-?[0-9]{1,40}")
_DIGITS = re.compile(r"[0-9]{1,40}")


class IdRule(StrEnum):
    """Where the ids of a folder come from; one decision for all of its shards."""

    NUMBER = "number"  # the whole number `id`, and nothing else
    KEY = "key"  # the key, which is made of digits; no image has a number
    HASH = "hash"  # the whole number `id`, else a hash of `uid` or of the key


class NoIdError(Exception):
    """An image has no id. The message says why, and what to do."""


def whole_number(value: Any) -> int | None:
    """A whole number within int64, also where it is written as the text "3" or as 3.0; else
    None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        number = int(value) if _WHOLE.fullmatch(value) else None
    elif isinstance(value, int):
        number = value
    elif (isinstance(value, float) and value.is_integer()) or (
        isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value()
    ):
        number = int(value)
    else:
        number = None
    return number if number is not None and -(2**63) <= number < 2**63 else None


def is_given(value: Any) -> bool:
    """Whether a value stands for an id at all, be it a good one: null, NaN and "" do not."""
    return (
        value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))
    )


def key_number(shard: str, key: str) -> int | None:
    """The number that a key of img2dataset is: digits that begin with the shard's; else None.

    So keys of different shards differ. shard: name of the tar without `.tar`.
    """
    is_numbered = _DIGITS.fullmatch(key) and _DIGITS.fullmatch(shard) and key.startswith(shard)
    return whole_number(key) if is_numbered and len(key) > len(shard) else None


def hash_id(text: str) -> int:
    """A stable id of 63 bits: the upper bits of BLAKE2b-64 of the text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def id_of(
    rule: IdRule, shard: str, path: str, document: Mapping[str, Any], row: Mapping[str, Any]
) -> int:
    """The id of a sample.

    path: its key with folders. document: its JSON, row: its row of the table beside; {} where there
    is none.

    Raises: NoIdError where it has none, or its JSON and the table disagree.
    """
    own, beside = whole_number(document.get("id")), whole_number(row.get("id"))
    if own is not None and beside is not None and own != beside:
        raise NoIdError(f"its JSON has the id {own}, and the table beside the tar {beside}")
    number = beside if own is None else own
    if rule is IdRule.KEY:
        given = [value for value in (document.get("id"), row.get("id")) if is_given(value)]
        if given:
            raise NoIdError(
                f"it has the id {str(given[0])[:40]}, but the first images of the folder have "
                "none, so that their keys are ids; give every image an id"
            )
        number = key_number(shard, path.rpartition("/")[2])
        if number is None:
            raise NoIdError("its key is not the shard's number and further digits; try ids=hash")
        return number
    if number is not None:
        return number
    if rule is IdRule.HASH:
        uid = next((uid for uid in (document.get("uid"), row.get("uid")) if _is_uid(uid)), path)
        return hash_id(str(uid))
    raise NoIdError("no whole number 'id' in its JSON or the table beside the tar; try ids=hash")


def _is_uid(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def rule_of(ids: Ids, images: Iterable[tuple[str, str, Any]]) -> IdRule | None:
    """The rule that the images of a shard speak for; None where there are none.

    images: (shard's name, key without folders, `id` or None) of each, read until the rule is clear.
    """
    otherwise = IdRule.HASH if ids == "hash" else IdRule.NUMBER
    some = False
    for shard, key, value in images:
        some = True
        if is_given(value) or key_number(shard, key) is None:
            return otherwise
    return IdRule.KEY if some else None
