"""Labelling on Spark: a task labels shard after shard on one device.

Nothing here imports torch before a task knows which GPU is its own.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pyspark import TaskContext
from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.label.commit import Committed, Job, Slot, label_and_commit
from coyo_labeler.session import is_local

if TYPE_CHECKING:
    from coyo_labeler.formats.image_shards import Shard
    from coyo_labeler.label.model import Teacher
    from coyo_labeler.label.spec import TeacherSpec

#: The fields of a shard and of what is committed. As text and numbers they travel without an
#: import: what a task is given is unpickled before it has claimed its GPU.
_Planned = tuple[str, str, str, str]
_Done = tuple[int, str, str | None]

#: Shards of one task at most: a lost executor costs the progress inside one of them at most, as
#: each is committed by itself; fewer tasks drain the device less often.
_SHARDS_PER_TASK = 8


_UNTOLD = (
    "Spark was not told of GPUs, so that all tasks of a machine would work on the first; give "
    "spark.executor.resource.gpu.amount=1 and spark.task.resource.gpu.amount=1 (and the cluster's "
    "workers a spark.worker.resource.gpu.discoveryScript), or device=cpu"
)


def run_on_spark(
    spark: SparkSession, job: Job, shards: Sequence["Shard"], device: str
) -> list[Committed]:
    """Label the shards; returns one row per shard.

    Rows hold shard numbers and URLs, never images. On `local[*]` each device of the machine gets
    one task; on a cluster each task one GPU of an executor, or the cores that it has.
    """
    context = spark.sparkContext
    slots: list[Slot] | None = None
    profile: ResourceProfile | None = None
    if is_local(spark):
        from coyo_labeler.label.local import slots_of  # noqa: PLC0415

        slots = slots_of(device)
        tasks = len(slots)
    else:
        profile = profile_of(dict(context.getConf().getAll()), device)
        tasks = max(context.defaultParallelism, -(-len(shards) // _SHARDS_PER_TASK))
    rows = [(shard.name, shard.url, shard.stamp, str(shard.ids)) for shard in shards]
    # An RDD, because mapInArrow takes a profile from Spark 4.0 on only.
    plan = context.parallelize(rows, min(tasks, len(rows)))
    if profile is not None:
        plan = plan.withResources(profile)
    committed = plan.mapPartitions(_work(job, slots, device)).collect()
    return [Committed(*done) for done in committed]


def profile_of(conf: Mapping[str, str], device: str) -> ResourceProfile | None:
    """What a task asks for: one GPU with its share of the executor's cores, or all the cores.

    conf: of the Spark context. None where the cluster knows neither GPUs nor the cores of an
    executor.

    Raises: InputError under dynamic allocation, which knows no tasks that ask for a GPU, and where
    GPUs are wanted that Spark was not told of.
    """
    if conf.get("spark.dynamicAllocation.enabled", "false") == "true":
        raise InputError(
            "label: spark.dynamicAllocation.enabled is true, and would take executors away from "
            "long tasks; set it to false, with spark.executor.instances"
        )
    gpus = int(conf.get("spark.executor.resource.gpu.amount", "0") or 0)
    if not gpus and device.startswith("cuda"):
        raise InputError(f"label: device={device}, but {_UNTOLD}")
    cores = int(conf.get("spark.executor.cores", "0") or 0)
    request = TaskResourceRequests()
    if gpus:
        request.resource("gpu", 1)
    if cores:
        request.cpus(max(1, cores // max(1, gpus)))
    if not gpus and not cores:
        return None
    return ResourceProfileBuilder().require(request).build


def _work(
    job: Job, slots: list[Slot] | None, device: str
) -> Callable[[Iterable[_Planned]], Iterator[_Done]]:
    def work(planned: Iterable[_Planned]) -> Iterator[_Done]:
        rows = list(planned)
        if not rows:
            return
        context = TaskContext.get()
        assert context is not None
        address = claim_gpu(context.resources(), "torch" in sys.modules)
        slot = slots[context.partitionId()] if slots else _slot(context, device, address)
        from coyo_labeler.formats.image_ids import IdRule  # noqa: PLC0415
        from coyo_labeler.formats.image_shards import Shard  # noqa: PLC0415

        shards = [Shard(name, url, stamp, IdRule(ids)) for name, url, stamp, ids in rows]
        teacher = _teacher(job.spec, slot.device, job.fingerprint)
        for done in label_and_commit(job, teacher, slot, shards):
            yield done.shard, done.url, done.damage

    return work


def claim_gpu(resources: "dict[str, Any]", torch_is_loaded: bool) -> str | None:
    """Make the GPU that Spark gave this task the only one that CUDA sees; returns its address.

    Python workers live on for further tasks, and CUDA looks at CUDA_VISIBLE_DEVICES once. Where a
    worker that has started torch is given another GPU, the task fails by design: Spark ends the
    worker and tries again in a fresh one.
    """
    if "gpu" not in resources:
        return None
    address: str = resources["gpu"].addresses[0]
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch_is_loaded and before != address:
        raise RuntimeError(
            f"this Python worker holds GPU {before}, and the task was given GPU {address}; "
            "trying again in a fresh worker"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = address
    return address


def _slot(context: TaskContext, device: str, address: str | None) -> Slot:
    """The slot of a cluster's task.

    Raises: InputError where there are GPUs that Spark does not assign: all tasks would take one.
    """
    from coyo_labeler.label.local import devices_of  # noqa: PLC0415

    name = devices_of(device)[0]
    host = socket.gethostname()
    if address is None and name != "cpu":
        raise InputError(f"label: torch sees GPUs on {host}, but {_UNTOLD}")
    if address is None:
        return Slot(name, context.cpus(), f"{host}/{name}")
    if name == "cpu" and device == "auto":
        raise WorkError(
            f"label: Spark gave the task GPU {address} of {host}, but torch sees none there; "
            "install a CUDA build of torch that fits the driver, or give device=cpu"
        )
    facts = {
        "gpu": address,
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "task": f"{context.stageId()}.{context.partitionId()}.{context.attemptNumber()}",
    }
    return Slot(name, context.cpus(), f"{host}/gpu {address}", facts)


@lru_cache(maxsize=1)
def _teacher(spec: "TeacherSpec", device: str, fingerprint: str) -> "Teacher":
    """One model a Python worker, kept from task to task.

    fingerprint: of the run, which changes with the content of the files that the spec names.
    """
    import torch  # noqa: PLC0415

    from coyo_labeler.label.model import Teacher  # noqa: PLC0415

    return Teacher(spec, torch.device(device))
