"""Which labels the votes are about, and which labels there were before these votes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from coyo_labeler import spark_versions, storage
from coyo_labeler.audit.folders import beliefs_of
from coyo_labeler.audit.nodes import tree_of
from coyo_labeler.audit.tables import LabelRows, read_crowd, single_truths
from coyo_labeler.config.report import ReportSettings
from coyo_labeler.em.segments import find
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.spark_tables import read_table
from coyo_labeler.report import asked, audit
from coyo_labeler.report.asked import Asked, Labelled
from coyo_labeler.report.queries import read_labels

#: Labels that votes did not change agree with those before them at least in this share of images.
_SAME = 0.995


def read_audit(
    spark: SparkSession,
    settings: ReportSettings,
    space: LabelSpace,
    gold: DataFrame | None,
    slices: DataFrame | None,
) -> dict[str, Any]:
    """The section `audit` of the report: read the votes and their images, then describe them.

    Raises: InputError naming the key, column or value at fault.
    """
    assert settings.votes is not None
    rows = asked.read_votes(spark, settings.votes, space).cache()
    try:
        gathered = asked.gather_votes(rows)
        votes = _votes(spark, settings, space, gathered, gold, slices)
        labels = read_labels(spark, "labels", settings.labels)
        compare = read_labels(spark, "compare", settings.compare) if settings.compare else None
        own = _series(spark, settings.labels, labels, compare, gathered, space, slices)
        other = None
        if compare is not None and settings.compare is not None:
            other = _series(spark, settings.compare, compare, None, gathered, space, slices)
    finally:
        rows.unpersist()
    return audit.describe_audit(
        votes,
        own,
        other,
        space,
        wanted=settings.wanted_interval,
        top=settings.top,
        cost_per_answer=settings.cost_per_answer,
        cost_per_hour=settings.cost_per_hour,
    )


def _votes(
    spark: SparkSession,
    settings: ReportSettings,
    space: LabelSpace,
    gathered: Asked,
    gold: DataFrame | None,
    slices: DataFrame | None,
) -> audit.Votes:
    crowd = read_crowd(gathered.chosen, space.size)
    known = _gold(spark, settings, gathered, gold)
    images, labels = known["image_id"].to_numpy(), known["label"].to_numpy()
    number, there = find(crowd.image, images)
    skipped = asked.read_skipped(spark, settings.votes) if settings.votes else None
    by_worker: dict[str, int] | None = None
    by_class: dict[int, int] | None = None
    if skipped is not None:
        labels_rows = read_labels(spark, "labels", settings.labels)
        by_worker, by_class = asked.count_skipped(skipped, labels_rows)
    return audit.Votes(
        crowd=crowd,
        answers=gathered.answers,
        images=gathered.images,
        share=gathered.share,
        truth=single_truths(images, labels, crowd.image),
        gold=(number[there], labels[there].astype(np.int64)),
        slices=_slices(crowd.image, gathered, slices),
        skipped_workers=by_worker,
        skipped_classes=by_class,
        tree=tree_of(settings.labels, space),
    )


def _gold(
    spark: SparkSession, settings: ReportSettings, gathered: Asked, gold: DataFrame | None
) -> pa.Table:
    """The true classes of images that were asked about (schemas.GOLD)."""
    frames = [] if gold is None else [gold.select("image_id", "label")]
    if settings.gold_key is not None:
        url = storage.locate(settings.gold_key, "gold_key")
        key = read_table(spark, "report: gold_key", url, schemas.GOLD_KEY)
        frames.append(key.select("image_id", "label"))
    if not frames:
        return pa.table({"image_id": pa.array([], pa.int64()), "label": pa.array([], pa.int32())})
    together = frames[0] if len(frames) == 1 else frames[0].unionByName(frames[1])
    ids = gathered.rows.select("image_id").distinct()
    if gathered.share < 1:
        ids = ids.where(asked.is_chosen("image_id", gathered.share))
    return spark_versions.to_arrow(together.join(ids, "image_id", "left_semi").distinct())


def _slices(
    image: np.ndarray[Any, np.dtype[np.int64]], gathered: Asked, slices: DataFrame | None
) -> Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """The numbers of the images of each slice."""
    if slices is None:
        return {}
    ids = gathered.rows.select("image_id").distinct()
    if gathered.share < 1:
        ids = ids.where(asked.is_chosen("image_id", gathered.share))
    pairs = spark_versions.to_arrow(
        slices.select("image_id", "slice").join(ids, "image_id", "left_semi").distinct()
    )
    names = pairs["slice"].combine_chunks().dictionary_encode()
    codes = names.indices.to_numpy()
    number = find(image, pairs["image_id"].to_numpy())[0]
    order = np.argsort(codes, kind="stable")
    parts = np.split(number[order], np.cumsum(np.bincount(codes, minlength=len(names.dictionary))))
    return {
        name: np.sort(part) for name, part in zip(names.dictionary.to_pylist(), parts, strict=False)
    }


def _series(
    spark: SparkSession,
    url: str,
    labels: DataFrame,
    compare: DataFrame | None,
    gathered: Asked,
    space: LabelSpace,
    slices: DataFrame | None,
) -> audit.Series:
    own = asked.look_up_asked(labels, gathered)
    before, note, is_own = _before(spark, url, labels, compare, gathered)
    table = own if is_own else (asked.look_up_asked(before, gathered) if before else None)
    same_images = table is not None and abs(table.images - own.images) <= own.images / 100
    confidence = table.confidence if table is not None and same_images else None
    people = {}
    if slices is not None:
        people = asked.by_slice(before if before is not None else labels, gathered, slices)
        if confidence is None:
            people = {name: (n, k, None) for name, (n, k, _) in people.items()}
    return audit.Series(
        rows=_rows(own, "report: labels", space),
        before=_rows(table, "report: labels", space) if table is not None else None,
        images=own.images,
        asked=own.asked,
        confidence=confidence,
        own=is_own,
        note=note,
        slices=people,
        accuracies=_accuracies(spark, url),
    )


def _rows(labelled: Labelled, source: str, space: LabelSpace) -> LabelRows:
    return LabelRows.read(labelled.chosen, source, space.size)


def _before(
    spark: SparkSession,
    url: str,
    labels: DataFrame,
    compare: DataFrame | None,
    gathered: Asked,
) -> tuple[DataFrame | None, str, bool]:
    """The labels without the votes, in words what they are, and whether they are `labels` itself.

    None where they are nowhere; then the answers are divided out of the posterior.
    """
    merged = "n_votes" in labels.columns
    if merged and (beliefs := beliefs_of(url)) is not None and storage.exists(beliefs):
        return (
            read_labels(spark, "labels", beliefs),
            "the beliefs that the merge started from",
            False,
        )
    if compare is not None and "n_votes" not in compare.columns:
        same_asked, same_others = _same(labels, compare, gathered)
        if same_others >= _SAME and (merged or same_asked < same_others):
            return (
                compare,
                "the compared labels: the votes changed only what was asked about",
                False,
            )
    if merged:
        return None, "the posterior, divided by the likelihood of the answers", False
    return labels, "", True


def _same(labels: DataFrame, other: DataFrame, gathered: Asked) -> tuple[float, float]:
    """Shares of images whose first labels are the same: asked about, and not asked about."""
    ids = gathered.rows.select(F.col("image_id").alias("asked_id")).distinct()
    first = F.get("labels", F.lit(0))
    joined = (
        labels.select("id", first.alias("mine"))
        .join(
            other.select(F.col("id").alias("other_id"), first.alias("theirs")),
            F.col("id") == F.col("other_id"),
        )
        .join(ids, F.col("id") == F.col("asked_id"), "left")
    )
    same = F.col("mine").eqNullSafe(F.col("theirs")).cast("double")
    is_asked = F.col("asked_id").isNotNull()
    row = joined.agg(F.avg(F.when(is_asked, same)), F.avg(F.when(~is_asked, same))).first()
    asked_share, others = (row[0], row[1]) if row is not None else (None, None)
    return (1.0 if asked_share is None else asked_share), (1.0 if others is None else others)


def _accuracies(spark: SparkSession, url: str) -> dict[str, float]:
    """The accuracy that a merge estimated for each worker; {} if the labels are no merge's."""
    folder = storage.join(url, "workers")
    if storage.is_glob(url) or not storage.exists(folder):
        return {}
    rows = read_table(spark, "labels", folder, schemas.WORKERS).select("worker_id", "accuracy")
    return {row[0]: row[1] for row in rows.collect() if row[1] is not None}
