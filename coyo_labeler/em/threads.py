"""Ranges of an array, worked on in threads by compiled passes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")


def in_threads(work: Callable[[int, int], R], ranges: Sequence[tuple[int, int]]) -> list[R]:
    """`work(begin, end)` on every range, a thread each; the results in the order of the ranges."""
    if len(ranges) <= 1:
        return [work(begin, end) for begin, end in ranges]
    with ThreadPoolExecutor(len(ranges)) as pool:
        return list(pool.map(work, *zip(*ranges, strict=True)))
