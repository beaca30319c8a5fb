"""Image tars to a teacher's beliefs: the wiring of the stage."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coyo_labeler import storage
from coyo_labeler.config.label import LabelSettings
from coyo_labeler.errors import WorkError
from coyo_labeler.label.commit import Committed, Job
from coyo_labeler.label.local import run_local, seats_of
from coyo_labeler.label.model import check_teacher, spec_of
from coyo_labeler.label.read import Shard, find_shards
from coyo_labeler.manifest import MANIFEST, Outcome, Run
from coyo_labeler.receipts import Receipt, Receipts, total

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def label(spark: "SparkSession | None", settings: LabelSettings, run: Run) -> Outcome:
    """Label the images of tars with a teacher.

    Reads `settings.images` ({shard}.tar, and {shard}.parquet where it lies beside); writes
    {shard}.parquet and below_threshold/{shard}.parquet (schemas.BELIEFS), failures/{shard}.parquet
    (schemas.LABEL_FAILURES) and, where asked for, embeddings/{shard}.parquet.
    Raises: InputError naming the key at fault; WorkError naming the tars that cannot be read, when
    all others are done.
    """
    shards = find_shards(settings.images)
    job = Job(
        spec_of(settings),
        settings.output,
        run.fingerprint,
        settings.sampling.min_top1,
        settings.decode_threads,
    )
    receipts = Receipts(settings.output, run.fingerprint)
    finished = receipts.read()
    missing = [shard for shard in shards if shard.number not in finished]
    with receipts.watch("label", len(shards), _speed(set(finished))):
        committed = _deal_out(spark, settings, job, missing)
    _refuse_damaged(settings.images, committed)
    done = list(receipts.read().values())
    return Outcome(total(done), details={"shards": len(shards), "devices": _rates(done)})


def _deal_out(
    spark: "SparkSession | None", settings: LabelSettings, job: Job, shards: Sequence[Shard]
) -> list[Committed]:
    if not shards:
        return []
    check_teacher(job.spec)
    if spark is not None:
        from coyo_labeler.label.on_spark import run_on_spark  # noqa: PLC0415

        return run_on_spark(spark, job, shards, settings.device)
    return list(run_local(job, shards, seats_of(settings.device)))


def _refuse_damaged(images: str, committed: Sequence[Committed]) -> None:
    damaged = [shard for shard in committed if shard.damage is not None]
    if not damaged:
        return
    first = damaged[0]
    others = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
    # The output of fetch is known by its manifest, other folders by the times of their files.
    by_manifest = storage.exists(storage.join(images, MANIFEST))
    again = "run the same command again" if by_manifest else "run again with overwrite=true"
    raise WorkError(
        f"label: {first.url}{others} cannot be read to the end ({first.damage}); all other shards "
        f"are done and kept. Put a whole tar in its place, and {again}"
    )


def _speed(before: set[int]) -> Callable[[Sequence[Receipt]], Mapping[str, Any]]:
    """For progress: images so far, and the speed of what was done since the start.

    before: shards that were done then.
    """

    def facts(receipts: Sequence[Receipt]) -> Mapping[str, Any]:
        images = sum(receipt.rows.rows_in for receipt in receipts)
        rates = _rates([receipt for receipt in receipts if receipt.shard not in before])
        if not rates:
            return {"images": f"{images:,}"}
        per_device = ", ".join(
            f"{device} {rate['images_per_second']:,.0f}/s idle {rate['idle_share']:.0%}"
            for device, rate in rates.items()
        )
        in_all = sum(rate["images_per_second"] for rate in rates.values())
        return {"images": f"{images:,}", "images/s": f"{in_all:,.0f} ({per_device})"}

    return facts


def _rates(receipts: Sequence[Receipt]) -> dict[str, dict[str, float]]:
    """Images per second and idle share of each device."""
    rates = {}
    for device in sorted({receipt.details["device"] for receipt in receipts}):
        own = [receipt for receipt in receipts if receipt.details["device"] == device]
        seconds = sum(receipt.seconds for receipt in own) or 1e-9
        rates[device] = {
            "images_per_second": round(sum(r.rows.rows_in for r in own) / seconds, 1),
            "idle_share": round(
                max(0.0, 1 - sum(r.details["busy_seconds"] for r in own) / seconds), 3
            ),
        }
    return rates
