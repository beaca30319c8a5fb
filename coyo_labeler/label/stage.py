"""Image tars to a teacher's beliefs: the wiring of the stage."""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from coyo_labeler import extras, storage
from coyo_labeler.config.label import LabelSettings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.formats.image_shards import Shard
from coyo_labeler.inputs import files_by_content
from coyo_labeler.label.commit import (
    LABEL_SPACE,
    WEIGHTS,
    Committed,
    Job,
    ShardDetails,
    read_teacher,
    remove_shard,
    remove_unfinished,
)
from coyo_labeler.label.shards import find_shards
from coyo_labeler.label.spec import TeacherSpec, spec_of
from coyo_labeler.manifest import Outcome, Run
from coyo_labeler.receipts import Receipt, Receipts, files_of, sizes_of, total
from coyo_labeler.written import check_written

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: Devices whose rates the progress line shows, at most.
_DEVICES_SHOWN = 16


def label(spark: "SparkSession | None", settings: LabelSettings, run: Run) -> Outcome:
    """Label the images of tars with a teacher.

    Reads `settings.images` ({shard}.tar, and {shard}.parquet where it lies beside); writes
    {shard}.parquet and below_threshold/{shard}.parquet (schemas.BELIEFS), failures/{shard}.parquet
    (schemas.LABEL_FAILURES) and, where asked for, embeddings/{shard}.parquet.
    Raises: InputError naming the key at fault; WorkError naming the tars that cannot be read, when
    all others are done, or a shard that is missing or changed in the end.
    """
    shards = find_shards(settings.images, settings.ids)
    receipts = Receipts(settings.output, run.fingerprint, details=ShardDetails)
    finished = receipts.read() if run.resumed else {}
    if finished:
        finished, changed = receipts.split_intact(finished)
        for number in changed:
            remove_shard(settings.output, number)
    if run.inputs_changed:
        finished = _accept(shards, finished, settings, run)
    if run.resumed:
        remove_unfinished(settings.output, finished)
    _refuse_other_ids(shards, finished, settings)
    missing = [shard for shard in shards if shard.number not in finished]
    job = Job(
        _spec(settings),
        settings.output,
        run.fingerprint,
        settings.sampling.min_top1,
        settings.decode_threads,
        _known_of_teacher(run, finished) if missing else {},
    )
    speed = _speed(set(finished))
    with receipts.watch("label", len(shards), speed, known=finished) as receipt_of:
        committed = _label_missing(spark, settings, job, missing)
    _refuse_damaged(committed)
    done = receipts.require("label", (shard.number for shard in shards), receipt_of)
    _refuse_mixed(done)
    check_written("label", settings.output, files_of(done))
    run.check_owner()
    remove_unfinished(settings.output, {receipt.shard for receipt in done})
    ids = str(shards[0].ids)
    details = {"shards": len(shards), "ids": ids, "devices": _rates(done)}
    return Outcome(total(done), details=details, files=sizes_of(done))


def _spec(settings: LabelSettings) -> TeacherSpec:
    """The teacher, with absolute paths of classes: executors run in folders of their own."""
    given = files_by_content(settings)
    files: dict[str, Any] = {key: storage.absolute(url) for key, url in given.items()}
    return replace(spec_of(settings), **files)


def _label_missing(
    spark: "SparkSession | None", settings: LabelSettings, job: Job, shards: Sequence[Shard]
) -> list[Committed]:
    if not shards:
        return []
    if spark is None or extras.is_installed("timm", "torch"):
        from coyo_labeler.label.model import check_teacher  # noqa: PLC0415

        check_teacher(job.spec)
    if spark is not None:
        from coyo_labeler.label.on_spark import run_on_spark  # noqa: PLC0415

        return run_on_spark(spark, job, shards, settings.device)
    from coyo_labeler.label.local import run_local, slots_of  # noqa: PLC0415

    return list(run_local(job, shards, slots_of(settings.device)))


def _known_of_teacher(run: Run, finished: Collection[int]) -> Mapping[str, str]:
    """The known entries of the teacher's fingerprint: of finished shards, or of the run's
    inputs."""
    if finished:
        return read_teacher(run.output, min(finished))
    sources = {WEIGHTS: "checkpoint", LABEL_SPACE: "label_space"}
    return {entry: run.inputs[key] for entry, key in sources.items() if key in run.inputs}


def _refuse_other_ids(
    shards: Sequence[Shard], finished: Mapping[int, Receipt], settings: LabelSettings
) -> None:
    """Check that finished shards got their ids by the rule that holds now.

    Raises: InputError where the tars that decide the rule have changed meanwhile.
    """
    rule = str(shards[0].ids)
    for receipt in finished.values():
        before = receipt.details.get("ids", rule)
        if before != rule:
            raise InputError(
                f"label: images: the first shard of {settings.images} has changed: ids come from "
                f"the {rule} of an image now, and in {settings.output} from its {before}; put the "
                "shard back as it was, or choose another output"
            )


def _refuse_mixed(receipts: Sequence[Receipt]) -> None:
    """Check that machines which each downloaded the weights got the same ones."""
    device_of = {
        receipt.details["weights_sha256"]: receipt.details["device"] for receipt in receipts
    }
    if len(device_of) > 1:
        raise WorkError(
            f"label: {' and '.join(device_of.values())} found different weights of the model, and "
            "beliefs of both are in the output; give checkpoint=FILE with the weights that are "
            "wanted, and another output"
        )


def _accept(
    shards: Sequence[Shard], finished: Mapping[int, Receipt], settings: LabelSettings, run: Run
) -> dict[int, Receipt]:
    """Accept tars that were added or changed since the run began, unless they were labelled before.

    Returns the receipts that still hold.

    Raises: InputError naming a finished tar that is not as it was, unless it is to be overwritten.
    """
    stamps = {shard.number: shard.stamp for shard in shards}
    changed = [
        number
        for number, receipt in finished.items()
        if stamps.get(number) != receipt.details["stamp"]
    ]
    if changed and not settings.overwrite:
        what = "has changed" if changed[0] in stamps else "is missing"
        others = f", and so with {len(changed) - 1} more" if len(changed) > 1 else ""
        raise InputError(
            f"label: images: the tar of shard {changed[0]:05d} {what} since it was labelled into "
            f"{settings.output}{others}; choose another output, or have only such shards replaced "
            "with overwrite=true"
        )
    for number in changed:
        remove_shard(settings.output, number)
    run.accept_inputs(settings)
    return {number: receipt for number, receipt in finished.items() if number not in changed}


def _refuse_damaged(committed: Sequence[Committed]) -> None:
    damaged = [shard for shard in committed if shard.damage is not None]
    if not damaged:
        return
    first = damaged[0]
    others = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
    raise WorkError(
        f"label: {first.url}{others} cannot be read to the end ({first.damage}); all other shards "
        "are done and kept. Put a whole tar in its place, or take it away, and run the same "
        "command again: it does what is missing alone"
    )


def _speed(before: set[int]) -> Callable[[Sequence[Receipt]], Mapping[str, Any]]:
    """Facts for progress: images so far, and the speed since the start.

    before: shards that were done before the start.
    """

    def facts(receipts: Sequence[Receipt]) -> Mapping[str, Any]:
        images = sum(receipt.rows.rows_in for receipt in receipts)
        rates = _rates([receipt for receipt in receipts if receipt.shard not in before])
        if not rates:
            return {"images": f"{images:,}"}
        per_device = ", ".join(
            f"{device} {rate['images_per_second']:,.0f}/s idle {rate['idle_share']:.0%}"
            for device, rate in islice(rates.items(), _DEVICES_SHOWN)
        )
        if len(rates) > _DEVICES_SHOWN:
            per_device += f", and {len(rates) - _DEVICES_SHOWN} more devices"
        in_all = sum(rate["images_per_second"] for rate in rates.values())
        return {"images": f"{images:,}", "images/s": f"{in_all:,.0f} ({per_device})"}

    return facts


def _rates(receipts: Sequence[Receipt]) -> dict[str, dict[str, float]]:
    """Images per second, and idle share, of each device while it worked.

    Several tasks of a machine may work side by side under the name of one device.
    """
    by_device = defaultdict[str, list[Receipt]](list)
    for receipt in receipts:
        by_device[receipt.details["device"]].append(receipt)
    rates = {}
    for device, own in sorted(by_device.items()):
        images = sum(receipt.rows.rows_in for receipt in own)
        busy = sum(receipt.details["busy_seconds"] for receipt in own)
        seconds = sum(receipt.seconds for receipt in own)
        rates[device] = {
            "images_per_second": round(images / (_seconds_at_work(own) or 1e-9), 1),
            "idle_share": round(max(0.0, 1 - busy / (seconds or 1e-9)), 3),
        }
    return rates


def _seconds_at_work(receipts: Sequence[Receipt]) -> float:
    """Seconds in which at least one of the shards was being labelled."""
    total, until = 0.0, 0.0
    ends = [(receipt.details["finished"], receipt.seconds) for receipt in receipts]
    for start, end in sorted((end - seconds, end) for end, seconds in ends):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
