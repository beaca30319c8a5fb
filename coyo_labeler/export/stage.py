"""The stage `export`: copies a labels folder into the format of its consumer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import SparkSession

from coyo_labeler import receipts as shard_receipts
from coyo_labeler import storage
from coyo_labeler.config.export import WITH_IMAGES, ExportSettings
from coyo_labeler.export.card import render_card
from coyo_labeler.export.choose import Choice, Reason
from coyo_labeler.export.job import ExportJob
from coyo_labeler.export.on_spark import index_tars, write_images, write_rows
from coyo_labeler.export.plan import Labels, find_labels, plan_shards
from coyo_labeler.export.provenance import read_provenance
from coyo_labeler.export.roll_up import RollUp
from coyo_labeler.export.statistics import read_statistics
from coyo_labeler.export.tars import find_tars
from coyo_labeler.export.tfrecord import metadata_files
from coyo_labeler.formats.label_spaces import load_label_space
from coyo_labeler.formats.label_tree import LabelTree, find_label_tree, read_label_tree
from coyo_labeler.formats.spark_tables import read_table
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.progress import watch_spark
from coyo_labeler.receipts import Receipt, files_of
from coyo_labeler.written import check_written, refuse_strangers

#: Version of the dataset, which TFDS requires in the metadata of a folder.
_TFDS_VERSION = "1.0.0"


def export(spark: SparkSession, settings: ExportSettings, run: Run) -> Outcome:
    """Copy labels for their consumers, in one of four formats.

    Reads `settings.labels` (schemas.BELIEFS or POSTERIOR) and, for the formats that hold images,
    the tars of `settings.images`; writes the files of the format, _rejects/
    (schemas.EXPORT_REJECTS), and for tfrecord and huggingface their metadata.

    Raises: InputError naming the key, file, tar or image at fault.
    """
    labels = find_labels(settings.labels)
    tree = _find_tree(settings)
    if settings.tree and tree is not None:
        # Readers of a folder of Parquet files try every file whose name does not begin with _.
        name = "_tree.json" if settings.format == "parquet" else "tree.json"
        storage.write_json(storage.join(settings.output, name), tree.to_json())
    if settings.format in WITH_IMAGES:
        return _with_images(spark, settings, run, labels)
    shards = plan_shards(labels.rows, settings.rows_per_shard)
    job = make_job(settings, run, labels, len(shards))
    finished = finished_shards(job)
    with job.receipts.watch("export", len(shards), facts, known=finished) as seen:
        write_rows(spark, job, [shard for shard in shards if shard.number not in finished])
    done = all_receipts(job, seen)
    if settings.format == "huggingface":
        write_card(spark, settings, labels, done)
    counted = shard_receipts.total(done)
    rows = Counts(sum(labels.rows.values()), counted.rows_out, counted.rejected)
    return Outcome(rows, details=details(done), files=data_files(done))


def _find_tree(settings: ExportSettings) -> LabelTree | None:
    """The tree above the classes. Raises: InputError where roll_up needs one and there is none."""
    space = load_label_space(settings.label_space)
    if settings.roll_up != "none":
        return read_label_tree(space)
    return find_label_tree(space)


def _with_images(
    spark: SparkSession, settings: ExportSettings, run: Run, labels: Labels
) -> Outcome:
    assert settings.images is not None  # checked by the settings
    tars = find_tars(settings.images, settings.ids)
    job = make_job(settings, run, labels, len(tars))
    url = storage.locate(settings.labels, "posterior")
    rows = read_table(spark, "export: labels", url, labels.schema)
    finished = finished_shards(job)
    missing = [tar for tar in tars if tar.number not in finished]
    with job.receipts.watch("export", len(tars), facts, known=finished) as seen:
        index = index_tars(spark, tars)
        without_image = write_images(spark, job, rows, index, missing)
        index.unpersist()
    done = all_receipts(job, seen)
    if settings.format == "tfrecord":
        write_metadata(settings, done)
    counted = shard_receipts.total(done)
    rejected = {**counted.rejected, str(Reason.NO_IMAGE): without_image}
    return Outcome(
        Counts(sum(labels.rows.values()), counted.rows_out, rejected),
        {"images": count_images(done, counted.rows_in)},
        details(done),
        data_files(done),
    )


def make_job(settings: ExportSettings, run: Run, labels: Labels, shards: int) -> ExportJob:
    """The settings that all tasks share. shards: number of exported files."""
    space = load_label_space(settings.label_space)
    rule = None if settings.roll_up == "none" else RollUp(space, settings.roll_up)
    choice = Choice(settings.threshold, settings.min_labels, settings.max_labels, space.size, rule)
    metadata = {
        "export.threshold": str(settings.threshold),
        "export.min_labels": str(settings.min_labels),
        "export.max_labels": str(settings.max_labels),
        "export.label_space": space.name,
        "export.roll_up": settings.roll_up,
        **labels.metadata,
    }
    return ExportJob(
        settings.format,
        settings.output,
        run.fingerprint,
        settings.name,
        shards,
        choice,
        labels.schema,
        metadata,
    )


def finished_shards(job: ExportJob) -> dict[int, Receipt]:
    """The receipts of an interrupted run whose files are as it wrote them; the others go."""
    finished, changed = job.receipts.split_intact(job.receipts.read())
    for number in changed:
        job.receipts.remove(number)
    return finished


def all_receipts(job: ExportJob, seen: Mapping[int, Receipt]) -> list[Receipt]:
    """The receipts of all shards, in order, after a look at the files that they describe.

    seen: those that were read before.

    Raises: WorkError where one is missing, where a file has changed, or where others lie between
    them.
    """
    receipts = job.receipts.require("export", range(job.shards), seen)
    files = files_of(receipts)
    check_written("export", job.output, files)
    refuse_strangers("export", job.output, {name.rpartition("/")[0] for name in files}, files)
    return receipts


def count_images(done: Sequence[Receipt], labelled: int) -> Counts:
    """The samples of all tars: those that have a row of labels, and the others by reason."""
    rejected = Counter[str]()
    for receipt in done:
        rejected["no_labels"] += receipt.details["unlabelled"]
        rejected.update(receipt.details["faults"])
    return Counts(sum(receipt.details["images"] for receipt in done), labelled, rejected)


def write_card(
    spark: SparkSession, settings: ExportSettings, labels: Labels, done: Sequence[Receipt]
) -> None:
    """Write the dataset card, README.md."""
    with watch_spark(spark, "export: statistics"):
        data = storage.join(settings.output, "data")
        statistics = read_statistics(spark, data, labels.schema, settings.threshold)
    counted = shard_receipts.total(done)
    sizes = {key: sum(receipt.details[key] for receipt in done) for key in ("bytes", "nbytes")} | {
        "rows": counted.rows_out
    }
    card = render_card(
        settings,
        labels.schema,
        sizes,
        statistics,
        read_provenance(settings.labels),
        counted.rejected,
        load_label_space(settings.label_space),
    )
    storage.write_bytes(storage.join(settings.output, "README.md"), card.encode())


def write_metadata(settings: ExportSettings, done: Sequence[Receipt]) -> None:
    """Write the metadata that TensorFlow Datasets reads."""
    lengths = [receipt.rows.rows_out for receipt in done]
    size = sum(receipt.details["bytes"] for receipt in done)
    description = f"{settings.card.pretty_name}: labels of at least {settings.threshold}"
    files = metadata_files(settings.name, _TFDS_VERSION, lengths, size, description)
    for name, document in files.items():
        storage.write_json(storage.join(settings.output, name), document)


def details(done: Sequence[Receipt]) -> Mapping[str, Any]:
    """The details for the manifest."""
    sums = {
        key: sum(receipt.details[key] for receipt in done)
        for key in ("bytes", "labels", "re_encoded")
    }
    return {"shards": len(done), **sums}


def data_files(done: Sequence[Receipt]) -> dict[str, int]:
    """Bytes of the files of the copy, by name; its rejects are no part of it."""
    return {receipt.details["file"]: receipt.details["bytes"] for receipt in done}


def facts(done: Sequence[Receipt]) -> Mapping[str, Any]:
    """The facts that the progress line shows of the finished shards."""
    counted = shard_receipts.total(done)
    return {"rows": f"{counted.rows_in:,}", "kept": f"{counted.rows_out:,}"}
