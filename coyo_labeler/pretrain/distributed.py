"""The processes that train together: one, or those that torchrun started."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from coyo_labeler.errors import InputError, one_line
from coyo_labeler.pretrain.model import device_of

T = TypeVar("T")

#: How long processes wait for one another. The first evaluates and writes while the others wait.
_PATIENCE = timedelta(hours=6)
#: How long the first waits for the others at the start, and the others for the first.
_MEETING = timedelta(minutes=30)


@dataclass(frozen=True)
class Process:
    """This process, among those that train together."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files that all share."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        self.gather(None)

    def gather(self, value: T) -> Sequence[T]:
        """The values of all processes, by rank; every process gets them."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T | None) -> T:
        """The value of the first process; every process gets it, and the others pass None."""
        values: list[Any] = [value]
        if self.count > 1:
            dist.broadcast_object_list(values, src=0)
        result: T = values[0]
        return result


def local_rank() -> int:
    """The number of this process on its machine.

    Launchers that start one process per machine need not set it.
    """
    return int(os.environ.get("LOCAL_RANK", "0"))


def join_group() -> None:
    """Join the processes that torchrun started.

    Raises: InputError where there are more of them than GPUs, or they do not find each other.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        if local_rank() >= torch.cuda.device_count():
            raise InputError(
                f"pretrain_vit: process {local_rank()} of this machine has no GPU, for there are "
                f"{torch.cuda.device_count()}; start as many processes as GPUs"
            )
        torch.cuda.set_device(local_rank())
    try:
        store, rank, count = next(rendezvous("env://", timeout=_MEETING))
        store.set_timeout(_PATIENCE)
        backend = "cuda:nccl,cpu:gloo" if cuda else "gloo"
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE
        )
    except (RuntimeError, ValueError) as error:  # PyTorch's errors of networks are RuntimeErrors
        place = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise InputError(
            f"pretrain_vit: process {os.environ.get('RANK', '?')} of "
            f"{os.environ.get('WORLD_SIZE', '?')} did not find the others at {place} "
            f"({one_line(error, 200)}); give all of them the address and a free port of the first, "
            "and start as many as WORLD_SIZE says"
        ) from error


def leave_group() -> None:
    """Leave the group at a regular end.

    A process that exits with the group's threads still running may abort, and torchrun then ends
    the others before they are done.
    """
    dist.destroy_process_group()


def this_process(device: str) -> Process:
    """This process, in the group that was joined, or alone. device: the setting.

    Raises: InputError if there is no such device.
    """
    own = device_of(device)
    if not dist.is_initialized():
        return Process(0, 1, own)
    if own.type == "cuda":
        own = torch.device("cuda", local_rank())
    return Process(dist.get_rank(), dist.get_world_size(), own)
