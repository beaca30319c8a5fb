"""Shards dealt out by Spark: a task labels shard after shard on one device."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import SparkSession

from coyo_labeler.label.commit import Committed, Job, label_and_commit
from coyo_labeler.label.read import Shard

if TYPE_CHECKING:
    from coyo_labeler.label.model import Teacher, TeacherSpec

_PLAN = "number int, url string"
_COMMITTED = "shard int, url string, damage string"


def run_on_spark(
    spark: SparkSession, job: Job, shards: Sequence[Shard], device: str
) -> list[Committed]:
    """Label the shards; returns one row per shard.

    Rows hold shard numbers and URLs, never images. On `local[*]` one task has the whole machine.
    """
    tasks = _tasks(spark, len(shards))
    plan = spark.createDataFrame([(s.number, s.url) for s in shards], _PLAN)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row for batch in batches for row in batch.to_pylist())
        todo = [Shard(row["number"], row["url"]) for row in rows]
        if not todo:
            return
        for done in label_and_commit(job, _teacher(job.spec, device), todo):
            yield pa.RecordBatch.from_pydict(
                {"shard": [done.shard], "url": [done.url], "damage": [done.damage]},
                schema=pa.schema(
                    [("shard", pa.int32()), ("url", pa.string()), ("damage", pa.string())]
                ),
            )

    rows = plan.repartitionByRange(tasks, "number").mapInArrow(work, _COMMITTED).collect()
    return [Committed(row["shard"], row["url"], row["damage"]) for row in rows]


def _tasks(spark: SparkSession, shards: int) -> int:
    context = spark.sparkContext
    return 1 if context.master.startswith("local[") else min(shards, context.defaultParallelism)


@lru_cache(maxsize=1)
def _teacher(spec: "TeacherSpec", device: str) -> "Teacher":
    """One model a Python worker, kept from shard to shard."""
    import torch  # noqa: PLC0415

    from coyo_labeler.label.local import devices_of  # noqa: PLC0415
    from coyo_labeler.label.model import Teacher  # noqa: PLC0415

    return Teacher(spec, torch.device(devices_of(device)[0]))
