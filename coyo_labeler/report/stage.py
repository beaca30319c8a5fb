"""The stage `report`: a labels folder to statistics, accuracy against gold, one HTML page."""

import logging
from importlib.metadata import version
from typing import Any

from pyspark.sql import SparkSession

from coyo_labeler import schemas, storage
from coyo_labeler.config.report import ReportSettings
from coyo_labeler.errors import InputError
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.progress import watch_spark
from coyo_labeler.report import provenance
from coyo_labeler.report.document import describe
from coyo_labeler.report.examples import thumbnails
from coyo_labeler.report.metrics import Sums
from coyo_labeler.report.names import read_names
from coyo_labeler.report.page import render
from coyo_labeler.report.queries import (
    SLICES,
    example_rows,
    find_tars,
    join_other,
    join_truth,
    read_labels,
    read_pairs,
    tally_rows,
)
from coyo_labeler.report.summary import summarise
from coyo_labeler.tables import read_table

logger = logging.getLogger(__name__)


def report(spark: SparkSession, settings: ReportSettings, run: Run) -> Outcome:
    """Describe `settings.labels` (schemas.BELIEFS or POSTERIOR) on one page.

    Writes index.html, report.json and report.txt.

    Raises: InputError naming the key, column or value at fault.
    """
    names = read_names(settings.label_space)
    rows = read_labels(spark, "labels", settings.labels)
    rows_in = rows.count()
    gold = _read_optional(spark, "gold", settings.gold, schemas.GOLD)
    slices = _read_optional(spark, "slices", settings.slices, SLICES)
    other = read_labels(spark, "compare", settings.compare) if settings.compare else None
    with watch_spark(spark, "report"):
        joined = join_other(join_truth(rows, gold, slices), other)
        sums = tally_rows(joined, names.size)
        _refuse_doubled_ids(sums, rows_in)
        examples = example_rows(joined, settings.examples) if settings.examples else {}
        pictures = _pictures(spark, settings, examples)
        workers = _workers(spark, settings.labels)
    document = describe(
        sums,
        names,
        settings,
        examples=examples,
        workers=workers,
        history=provenance.read_history(settings.labels),
        funnel=provenance.read_funnel(settings),
        about={"version": version("coyo-labeler"), "fingerprint": run.fingerprint},
    )
    text = summarise(document)
    storage.write_json(storage.join(settings.output, "report.json"), document)
    storage.write_bytes(storage.join(settings.output, "report.txt"), text.encode())
    storage.write_bytes(
        storage.join(settings.output, "index.html"), render(document, pictures).encode()
    )
    logger.info("%s", text)
    return Outcome(Counts(rows_in, sums.count("rows")), details={"summary": text.splitlines()})


def _read_optional(spark: SparkSession, key: str, url: str | None, schema: Any) -> Any:
    return read_pairs(spark, key, url, schema) if url is not None else None


def _refuse_doubled_ids(sums: Sums, rows_in: int) -> None:
    if sums.count("rows") > rows_in:
        raise InputError(
            "report: compare: some ids come more than once; a labels folder holds each image once"
        )


def _workers(spark: SparkSession, labels: str) -> list[dict[str, Any]]:
    """The workers of a merge, the busiest first; one row per worker."""
    url = storage.join(labels, "workers")
    if not storage.exists(url):
        return []
    rows: list[dict[str, Any]] = (
        read_table(spark, "labels", url, schemas.WORKERS).toArrow().to_pylist()
    )
    return sorted(rows, key=lambda row: (-row["n_votes"], row["worker_id"]))


def _pictures(
    spark: SparkSession, settings: ReportSettings, examples: dict[str, list[dict[str, Any]]]
) -> dict[int, str]:
    ids = sorted({row["id"] for group in examples.values() for row in group})
    if settings.images is None or not ids:
        return {}
    return thumbnails(find_tars(spark, settings.images, ids))
