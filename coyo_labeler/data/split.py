"""Which samples of which shards each consumer reads: every sample once per epoch.

A *consumer* is one DataLoader worker of one rank. Whole shards are assigned in turn. Where the
number of shards is no multiple of the number of consumers, the few that are left over are cut into
equal parts, so that all consumers get the same share.
"""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """Samples of one shard: those whose position modulo `modulus` is in [start, stop)."""

    shard: int
    start: int = 0
    stop: int = 1
    modulus: int = 1

    def holds(self, position: int) -> bool:
        """Whether the sample at a 0-based position of the tar belongs to the part."""
        return self.start <= position % self.modulus < self.stop


def seed_of(*parts: int) -> int:
    """A seed (64 bits) from several numbers, the same on every machine."""
    text = ",".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def parts_of(
    shards: int, consumer: int, consumers: int, *, seed: int, epoch: int, shuffle: bool
) -> list[Part]:
    """The parts that one consumer reads in one epoch, in order.

    shards, consumers: how many there are; consumer: 0-based. With `shuffle` the shards are
    permuted by (seed, epoch), in the same way for every consumer.

    Each of the C consumers gets shards // C whole shards. The L shards left over are seen as L·C
    equal units, C per shard. Consumer c owns the units [c·L, (c+1)·L), which touch two shards at
    most. Unit u of a shard holds the positions that equal u modulo C.
    """
    order = np.arange(shards)
    if shuffle:
        np.random.default_rng(seed_of(seed, epoch)).shuffle(order)
    whole = shards // consumers * consumers
    parts = [Part(int(shard)) for shard in order[consumer:whole:consumers]]
    left = order[whole:]
    first, last = consumer * len(left), (consumer + 1) * len(left)
    for index, shard in enumerate(left):
        start = max(first - index * consumers, 0)
        stop = min(last - index * consumers, consumers)
        if start < stop:
            parts.append(Part(int(shard), start, stop, consumers))
    return parts
