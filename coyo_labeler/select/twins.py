"""Near twins: images of one perceptual hash, of which one is asked about."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler.em.segments import I64, Bool
from coyo_labeler.hashing import splitmix64

#: Hexadecimal digits of a perceptual hash of 64 bits.
_DIGITS = 16


def group_of(ids: I64, hashes: pa.ChunkedArray | None) -> I64:
    """A number for the group of near twins of each image, (n,): its hash, else one of its own.

    hashes: the column `imagehash`, or None. Images without a hash are taken to have no twin. The
    numbers of hashes are even and those of images odd, so that the two kinds do not meet.
    """
    own = splitmix64(ids) | np.uint64(1)
    if hashes is None:
        return own.view(np.int64)
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(hashes.combine_chunks().cast(pa.string())))
    given = np.asarray(pc.fill_null(pc.not_equal(texts, ""), False))
    if not given.any():
        return own.view(np.int64)
    numbers = _numbers(texts.filter(pa.array(given)))
    # Another bijection, so that the lowest bit that is lost is not one of the picture.
    own[given] = splitmix64(numbers.view(np.int64), 2) & ~np.uint64(1)
    return own.view(np.int64)


def _numbers(texts: pa.Array) -> NDArray[np.uint64]:
    """64 bits of each text, (n,): hexadecimal digits as the number that they are."""
    lengths = np.asarray(pc.binary_length(texts))
    if (lengths == _DIGITS).all():
        start = texts.offset
        offsets = np.frombuffer(texts.buffers()[1], dtype=np.int32)[start : start + 1]
        data = np.frombuffer(texts.buffers()[2], dtype=np.uint8)
        octets = data[offsets[0] : offsets[0] + _DIGITS * len(texts)].reshape(-1, _DIGITS)
        values = _VALUES[octets]
        if (values < _DIGITS).all():
            pairs = (values[:, ::2] << 4) | values[:, 1::2]
            return np.ascontiguousarray(pairs).view(">u8")[:, 0].astype(np.uint64)
    numbers = [_number(text) for text in texts.to_pylist()]
    return np.array(numbers, dtype=np.uint64)


def _number(text: str) -> int:
    try:
        if len(text) == _DIGITS:
            return int(text, 16)
    except ValueError:
        return _hashed(text)
    return _hashed(text)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _digit_values() -> NDArray[np.uint8]:
    values = np.full(256, 255, dtype=np.uint8)
    for value, digit in enumerate("0123456789abcdef"):
        values[ord(digit)] = value
    return values


_VALUES = _digit_values()


def representatives(group: I64, ids: I64, n_votes: NDArray[Any], is_gold: Bool) -> Bool:
    """Which image of each group may be asked about, (n,): one of each.

    It is the one of gold, else the one with most votes, else the one of the lowest id.
    """
    order = np.lexsort((ids, -n_votes.astype(np.int64), ~is_gold, group))
    ordered = group[order]
    leads = np.ones(len(order), dtype=bool)
    leads[1:] = ordered[1:] != ordered[:-1]
    first = np.zeros(len(order), dtype=bool)
    first[order[leads]] = True
    return first
