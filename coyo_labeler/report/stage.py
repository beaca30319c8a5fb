"""The stage `report`: a labels folder to statistics, accuracy against gold and one HTML page."""

import logging
from importlib.metadata import version
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from coyo_labeler import storage
from coyo_labeler.config.report import ReportSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.image_shards import find_shards
from coyo_labeler.formats.label_spaces import LabelSpace, load_label_space
from coyo_labeler.formats.label_tree import find_label_tree, read_label_tree
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.progress import watch_spark
from coyo_labeler.report import provenance, workers
from coyo_labeler.report.document import Context, describe
from coyo_labeler.report.examples import locate, thumbnails
from coyo_labeler.report.judged import read_audit
from coyo_labeler.report.page import render
from coyo_labeler.report.queries import (
    aggregate,
    join_other,
    join_truth,
    look_up,
    read_labels,
    read_pairs,
)
from coyo_labeler.report.summary import summarise
from coyo_labeler.report.tree_section import describe_tree
from coyo_labeler.report.tree_tally import TreeTally

logger = logging.getLogger(__name__)


def report(spark: SparkSession, settings: ReportSettings, run: Run) -> Outcome:
    """Describe `settings.labels` (schemas.BELIEFS or POSTERIOR) on one page.

    Writes index.html, report.json and report.txt.

    Raises: InputError naming the key, column or value at fault.
    """
    space = load_label_space(settings.label_space)
    rows = read_labels(spark, "labels", settings.labels)
    rows_in = rows.count()
    gold = _read_optional(spark, "gold", settings.gold, schemas.GOLD, space)
    slices = _read_optional(spark, "slices", settings.slices, schemas.SLICES, space)
    other = read_labels(spark, "compare", settings.compare) if settings.compare else None
    with watch_spark(spark, "report"):
        joined = join_other(join_truth(rows, gold, slices), other, gold)
        tree = _tree_tally(settings, space)
        sums = aggregate(joined, space.size, settings.examples, settings.top, tree)
        _refuse_duplicate_ids(sums.count("rows"), rows_in)
        examples = look_up(joined, sums)
        pictures = _pictures(spark, settings, examples)
        context = Context(
            series=provenance.read_series(settings),
            about={"version": version("coyo-labeler"), "fingerprint": run.fingerprint},
            examples=examples,
            workers=workers.read_workers(spark, settings.labels),
            worker_pairs=workers.read_worker_pairs(spark, settings.labels, settings.top),
            fit=provenance.read_fit(settings.labels),
            funnel=provenance.read_funnel(settings),
            catalog=provenance.read_catalog(settings),
            download=provenance.read_download(settings),
            audit=read_audit(spark, settings, space, gold, slices) if settings.votes else {},
        )
    document = describe(sums, space, settings, context)
    if tree is not None:
        document["tree"] = describe_tree(sums, tree, settings.top)
    text = summarise(document)
    storage.write_json(storage.join(settings.output, "report.json"), document)
    storage.write_bytes(storage.join(settings.output, "report.txt"), text.encode())
    page = render(document, pictures)
    storage.write_bytes(storage.join(settings.output, "index.html"), page.encode())
    logger.info("%s", text)
    counts = Counts(rows_in, sums.count("rows"))
    return Outcome(counts, details={"summary": text.splitlines()})


def _tree_tally(settings: ReportSettings, space: LabelSpace) -> TreeTally | None:
    """What is counted along the tree; None for classes without one.

    Raises: InputError where `nodes` are asked for and there is no tree, or none of that name.
    """
    if find_label_tree(space) is None and not settings.nodes:
        return None
    tree = read_label_tree(space)
    for synset in settings.nodes:
        try:
            tree.node(synset)
        except InputError as error:
            raise InputError(f"report: nodes: {error}") from None
    return TreeTally(space, tuple(settings.nodes), tuple(settings.levels))


def _read_optional(
    spark: SparkSession, key: str, url: str | None, schema: pa.Schema, space: LabelSpace
) -> DataFrame | None:
    return read_pairs(spark, key, url, schema, space) if url is not None else None


def _refuse_duplicate_ids(counted: int, rows_in: int) -> None:
    if counted > rows_in:
        raise InputError(
            "report: compare: some ids occur more than once; give a labels folder that holds each "
            "image once"
        )


def _pictures(
    spark: SparkSession, settings: ReportSettings, examples: dict[str, list[dict[str, Any]]]
) -> dict[int, str]:
    ids = sorted({row["id"] for group in examples.values() for row in group})
    if settings.images is None or not ids:
        return {}
    shards = find_shards(settings.images, settings.ids, "report: images")
    return thumbnails(locate(spark, shards, ids))
