"""Labelling on one machine without Spark: one process for each visible GPU."""

import multiprocessing
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue

import torch

from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.formats.image_shards import Shard
from coyo_labeler.label.commit import Committed, Job, Slot, label_and_commit
from coyo_labeler.label.model import Teacher
from coyo_labeler.machine import cores_of_machine


def devices_of(device: str) -> list[str]:
    """The devices of this machine that a value of the setting `device` names.

    Raises: InputError where it names a GPU that this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [f"cuda:{index}" for index in range(count)]
    if device in {"auto", "cuda"} and gpus:
        return gpus
    if device in {"auto", "cpu"}:
        return ["cpu"]
    if device not in gpus:
        raise InputError(
            f"device: {device}: torch sees {', '.join(gpus) or 'no GPU'} on "
            f"{socket.gethostname()}; give device=auto, or install a CUDA build of torch that fits "
            "the driver"
        )
    return [device]


def slots_of(device: str) -> list[Slot]:
    """One slot per device of this machine, each with its share of the cores."""
    devices = devices_of(device)
    cores = max(1, cores_of_machine() // len(devices))
    return [Slot(name, cores, f"{socket.gethostname()}/{name}") for name in devices]


def run_local(job: Job, shards: Sequence[Shard], slots: Sequence[Slot]) -> Iterator[Committed]:
    """Label the shards: one slot works in this process, several work in a process each.

    A process takes the next shard as soon as it has room for it, so no process waits for another.

    Raises: WorkError where a process is killed.
    """
    if len(slots) == 1:
        yield from label_and_commit(job, teacher_of(job, slots[0]), slots[0], shards)
        return
    # A fork of a process that has started CUDA fails; the fork server has only imported it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    queue: Queue[Shard | None] = context.Queue()
    for shard in shards:
        queue.put(shard)
    for _ in slots:
        queue.put(None)
    with ProcessPoolExecutor(
        len(slots), mp_context=context, initializer=_share, initargs=(queue,)
    ) as pool:
        tasks = [pool.submit(_work, job, slot) for slot in slots]
        try:
            for task in as_completed(tasks):
                yield from task.result()
        except BrokenProcessPool:
            raise WorkError(
                "label: a process was killed, most likely for lack of memory; what is finished is "
                "kept: run the same command again, with a smaller batch_size or decode_threads"
            ) from None


def teacher_of(job: Job, slot: Slot) -> Teacher:
    """The teacher of a slot."""
    return Teacher(job.spec, torch.device(slot.device))


_queue: "Queue[Shard | None]"


def _share(queue: "Queue[Shard | None]") -> None:
    """Give a process the queue; it cannot be sent with a task."""
    global _queue  # noqa: PLW0603
    _queue = queue


def _work(job: Job, slot: Slot) -> list[Committed]:
    shards: Iterator[Shard] = iter(_queue.get, None)
    return list(label_and_commit(job, teacher_of(job, slot), slot, shards))
