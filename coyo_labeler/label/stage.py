"""Image tars to a teacher's beliefs: the wiring of the stage."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coyo_labeler.config.label import LabelSettings
from coyo_labeler.errors import WorkError
from coyo_labeler.label.commit import Committed, Job
from coyo_labeler.label.local import devices_of, run_local
from coyo_labeler.label.model import spec_of
from coyo_labeler.label.read import Shard, find_shards
from coyo_labeler.manifest import Outcome, Run
from coyo_labeler.receipts import Receipt, Receipts, total

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def label(spark: "SparkSession | None", settings: LabelSettings, run: Run) -> Outcome:
    """Label the images of tars with a teacher.

    Reads `settings.images` ({shard}.tar, and {shard}.parquet where it lies beside); writes
    {shard}.parquet (schemas.BELIEFS) and failures/{shard}.parquet (schemas.LABEL_FAILURES).
    Raises: InputError naming the key at fault; WorkError naming the tars that cannot be read, when
    all others are done.
    """
    shards = find_shards(settings.images)
    job = Job(spec_of(settings), settings.output, run.fingerprint, settings.decode_threads)
    receipts = Receipts(settings.output, run.fingerprint)
    finished = receipts.shards()
    missing = [
        shard
        for shard in shards
        if shard.number not in finished or receipts.get(shard.number) is None
    ]
    with receipts.watch("label", len(shards), _facts):
        committed = _deal_out(spark, settings, job, missing)
    _refuse_damaged(committed)
    counts = total(list(receipts.read().values()))
    return Outcome(counts, details={"shards": len(shards)})


def _deal_out(
    spark: "SparkSession | None", settings: LabelSettings, job: Job, shards: Sequence[Shard]
) -> list[Committed]:
    if not shards:
        return []
    if spark is not None:
        from coyo_labeler.label.on_spark import run_on_spark  # noqa: PLC0415

        return run_on_spark(spark, job, shards, settings.device)
    return list(run_local(job, shards, devices_of(settings.device)))


def _refuse_damaged(committed: Sequence[Committed]) -> None:
    damaged = [shard for shard in committed if shard.damage is not None]
    if damaged:
        first = damaged[0]
        others = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise WorkError(
            f"label: {first.url}{others} cannot be read to the end ({first.damage}); all other "
            "shards are done and kept: fetch the tar again or remove it, then run with "
            "overwrite=true"
        )


def _facts(receipts: Sequence[Receipt]) -> Mapping[str, Any]:
    images = sum(receipt.rows.rows_in for receipt in receipts)
    return {"images": f"{images:,}"}
