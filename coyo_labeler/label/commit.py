"""What a worker does with its shards: label each, write its files, then its receipt."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from coyo_labeler import storage
from coyo_labeler.label.model import Teacher, TeacherSpec
from coyo_labeler.label.predict import ShardResult, label_shards
from coyo_labeler.label.read import Shard
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import Receipt, Receipts


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told. threads: that decode, None: one a core."""

    spec: TeacherSpec
    output: str
    fingerprint: str
    threads: int | None


@dataclass(frozen=True)
class Committed:
    """One shard is on disk with its receipt, or its tar was damaged."""

    shard: int
    url: str
    damage: str | None


def label_and_commit(job: Job, teacher: Teacher, shards: Iterable[Shard]) -> Iterator[Committed]:
    """Label the shards that have no receipt yet, and write each as it is done.

    A damaged tar is told, not raised: the other shards go on.
    """
    receipts = Receipts(job.output, job.fingerprint)
    missing = (shard for shard in shards if receipts.get(shard.number) is None)
    for result in label_shards(teacher, missing, job.threads):
        if result.damage is None:
            _write(job.output, result, teacher.fingerprint)
            receipts.write(_receipt(job, result))
        yield Committed(result.shard.number, result.shard.url, result.damage)


def _write(output: str, result: ShardResult, fingerprint: Mapping[str, str]) -> None:
    assert result.beliefs is not None
    assert result.failures is not None
    name = f"{result.shard.number:05d}.parquet"
    storage.write_parquet(storage.join(output, name), result.beliefs, fingerprint)
    storage.write_parquet(storage.join(output, "failures", name), result.failures)


def _receipt(job: Job, result: ShardResult) -> Receipt:
    assert result.beliefs is not None
    counts = Counts(result.samples, result.beliefs.num_rows, result.rejected)
    details = {"busy_seconds": round(result.busy_seconds, 3)}
    return Receipt(result.shard.number, job.fingerprint, counts, result.seconds, details)
