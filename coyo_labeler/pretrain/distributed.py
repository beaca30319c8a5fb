"""One process, or several that torchrun started."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from coyo_labeler.pretrain.model import device_of

T = TypeVar("T")

#: How long processes wait for one another: the first evaluates and writes alone.
_PATIENCE = timedelta(hours=6)


def torchrun_processes() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Process:
    """This process among those that train together."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether it is the one that writes what all share."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all have come here."""
        self.gather(None)

    def gather(self, value: T) -> Sequence[T]:
        """The value of every process, by rank, in every process."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def tell(self, value: T | None) -> T:
        """The first process's value, in every process."""
        told: list[Any] = [value]
        if self.count > 1:
            dist.broadcast_object_list(told, src=0)
        result: T = told[0]
        return result


def join_group() -> None:
    """Join the processes that torchrun started."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cuda:nccl,cpu:gloo" if cuda else "gloo", timeout=_PATIENCE)


def this_process(device: str) -> Process:
    """This process, in the group that was joined, or alone.

    Raises: InputError where there is no such device.
    """
    place = device_of(device)
    if not dist.is_initialized():
        return Process(0, 1, place)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return Process(dist.get_rank(), dist.get_world_size(), place)
