"""Shards dealt out on one machine without Spark: all visible GPUs, one process each."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch

from coyo_labeler.label.commit import Committed, Job, label_and_commit
from coyo_labeler.label.model import Teacher
from coyo_labeler.label.read import Shard


def devices_of(device: str) -> list[str]:
    """The devices that a value of the key `device` stands for on this machine."""
    if device not in {"auto", "cuda"}:
        return [device]
    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu" if device == "auto" else device]


def run_local(job: Job, shards: Sequence[Shard], devices: Sequence[str]) -> Iterator[Committed]:
    """Label the shards, each device its share; with one device in this very process."""
    if len(devices) == 1:
        yield from _work(job, shards, devices[0])
        return
    shares = [shards[index :: len(devices)] for index in range(len(devices))]
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(len(devices), mp_context=context) as pool:
        tasks = [
            pool.submit(_work_list, job, share, device)
            for share, device in zip(shares, devices, strict=True)
            if share
        ]
        for task in as_completed(tasks):
            yield from task.result()


def _work(job: Job, shards: Sequence[Shard], device: str) -> Iterator[Committed]:
    return label_and_commit(job, Teacher(job.spec, torch.device(device)), shards)


def _work_list(job: Job, shards: Sequence[Shard], device: str) -> list[Committed]:
    return list(_work(job, shards, device))
