"""Numbers by chance for images: the same for an image whatever lies beside it."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.segments import I64
from coyo_labeler.hashing import splitmix64

U64 = NDArray[np.uint64]

#: What is drawn: who is audited, which gold is asked, who comes first of equals (in all, in a
#: class, in a pair of classes), the order of the questions, and who is assigned.
AUDIT, GOLD, TIES, CLASS_TIES, PAIR_TIES, ORDER, WORKER = (
    "audit",
    "gold",
    "ties",
    "class ties",
    "pair ties",
    "order",
    "worker",
)
STREAMS = (AUDIT, GOLD, TIES, CLASS_TIES, PAIR_TIES, ORDER, WORKER)


def salt(stream: str, seed: int, number: int) -> int:
    """64 bits for a stream of numbers. number: of the round.

    Of equals the same image comes first in every round. Those of one pair are in an order that
    nobody draws: which images of a pair pass decides how many of each class are left, and so all
    probabilities after it.
    """
    if stream in (TIES, CLASS_TIES, PAIR_TIES):
        number = 0
    if stream == PAIR_TIES:
        seed = 0
    digest = hashlib.blake2b(f"{stream}:{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def draw(ids: I64, salt: int) -> U64:
    """A number of 64 bits for each id, (n,), uniform over seeds.

    Different ids have different numbers: the hash is a bijection, so that no ties are left.
    """
    return splitmix64(ids.view(np.uint64) ^ np.uint64(salt))


def share_below(share: float) -> int:
    """The largest number of 64 bits below which lies this share of all; -1 for none."""
    return min(int(share * 2.0**64), 2**64) - 1


def slot_of(numbers: U64, slots: int) -> I64:
    """Which of equal slots of the range each number falls into, (n,), for up to 2^31 slots."""
    return ((numbers >> np.uint64(32)) * np.uint64(slots) >> np.uint64(32)).astype(np.int64)
