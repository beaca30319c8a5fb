"""`DawidSkene` on Spark DataFrames: the stage `merge`, in a folder of its own."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from coyo_labeler import spark_versions, storage
from coyo_labeler.dawid_skene.columns import LABEL, TASK, WORKER, column_name, label_index
from coyo_labeler.dawid_skene.results import Results
from coyo_labeler.dawid_skene.settings import merge_settings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.spark_tables import paths_to_read, write_table
from coyo_labeler.stages import STAGES, run_stage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from coyo_labeler.dawid_skene.estimator import DawidSkene

#: Largest number of tasks whose labels are collected.
_MOST_TASKS = 20_000_000


def fit_on_spark(
    estimator: DawidSkene, votes: DataFrame, beliefs: DataFrame | None, gold: DataFrame | None
) -> Results:
    """Run the stage on DataFrames.

    Tasks and labels are integers; `labels` is the number of classes, or their names. Everything is
    written under `workdir`, a URL that all executors reach.

    Raises: InputError where a column is missing or `labels` is.
    """
    spark = votes.sparkSession
    if estimator.labels is None:
        raise InputError("DawidSkene: on Spark the label space must be given: labels=21841")
    classes = label_index(estimator.labels)
    folder = estimator.workdir or tempfile.mkdtemp(prefix="coyo_labeler-")
    space, output = storage.join(folder, "labels.txt"), storage.join(folder, "merged")
    storage.write_bytes(space, "\n".join(map(str, classes)).encode())
    tables = {
        "votes": (
            _rename(votes, "votes", {"image_id": TASK, "worker_id": WORKER, "label": LABEL}),
            schemas.VOTES,
        )
    }
    if beliefs is not None:
        tables["beliefs"] = (_as_beliefs(beliefs), schemas.BELIEFS)
    if gold is not None:
        tables["gold"] = (_rename(gold, "gold", {"image_id": TASK, "label": LABEL}), schemas.GOLD)
    urls = {name: storage.join(folder, name) for name in tables}
    settings = merge_settings(estimator, **urls, label_space=space, output=output, overwrite=True)
    for name, (frame, schema) in tables.items():
        write_table(frame, urls[name], schema)
    manifest, _ = run_stage(STAGES["merge"], settings, spark)

    def read(name: str) -> DataFrame:
        return spark.read.parquet(*paths_to_read(storage.join(output, name)))

    history = storage.read_json(storage.join(output, "history.json")) or {}
    calibration = manifest.details["calibration"]
    error = calibration["expected_calibration_error"]
    priors = pd.Series(1 / len(classes), index=classes.rename("label"), name="prior")
    if storage.exists(storage.join(output, "classes")):
        priors[:] = read("classes").orderBy("label").toPandas()["share"].to_numpy()
    return Results(
        classes=classes,
        labels=None,
        posterior=read("posterior"),
        workers=read("workers")
        .toPandas()
        .rename(columns={"worker_id": "worker"})
        .set_index("worker"),
        rejects=read("rejects").withColumnsRenamed({"image_id": "task", "worker_id": "worker"}),
        priors=priors,
        loss_history=[entry["objective"] for entry in history["iterations"]],
        calibration=(calibration["a"], calibration["b"]),
        expected_calibration_error=(error["before"], error["after"]),
        n_iter=manifest.details["iterations"],
        worker_model=manifest.details["worker_model"],
    )


def collect_labels(posterior: DataFrame, classes: pd.Index[Any]) -> pd.Series[Any]:
    """The most probable label of each task, by task; posterior: schemas.POSTERIOR.

    Raises: InputError where there are too many tasks for one machine.
    """
    tasks = posterior.count()
    if tasks > _MOST_TASKS:
        raise InputError(
            f"DawidSkene: {tasks:,} tasks are too many to collect; use posterior_, a Spark "
            "DataFrame: the first of labels is the most probable"
        )
    first = posterior.select("id", F.get("labels", F.lit(0)).alias("label"))
    table = spark_versions.to_arrow(first.where(F.col("label").isNotNull()).orderBy("id"))
    return pd.Series(
        classes.take(table["label"].to_numpy()),
        index=table["id"].to_pandas().rename("task"),
        name="agg_label",
    )


def collect_posterior(posterior: DataFrame, classes: pd.Index[Any]) -> pa.Table:
    """The rows of a posterior as task, label, probability; posterior: schemas.POSTERIOR."""
    table = spark_versions.to_arrow(
        posterior.select("id", "labels", "label_probs")
    ).combine_chunks()
    lists = table["labels"].combine_chunks()
    label, probability = lists.flatten(), table["label_probs"].combine_chunks().flatten()
    return pa.table(
        {
            "task": table["id"].combine_chunks().take(pc.list_parent_indices(lists)),
            "label": pa.array(classes.take(label.to_numpy()).to_numpy()),
            "probability": probability.cast(pa.float64()),
        }
    )


def _rename(frame: DataFrame, what: str, columns: dict[str, tuple[str, ...]]) -> DataFrame:
    """The columns that the stage reads.

    what: the table, for messages. columns: the stage's names, and the names to look up for each.
    """
    required = [
        F.col(column_name(frame.columns, names, what)).alias(name)
        for name, names in columns.items()
    ]
    optional = [name for name in schemas.VOTES_OPTIONAL.names if name in frame.columns]
    return frame.select(*required, *optional)


def _as_beliefs(frame: DataFrame) -> DataFrame:
    task = column_name(frame.columns, ("id", *TASK), "beliefs")
    for name in ("labels", "label_probs"):
        column_name(frame.columns, [name], "beliefs")
    columns = [F.col(task).alias("id")]
    for field in schemas.BELIEFS.names[1:]:
        columns.append(F.col(field) if field in frame.columns else F.lit(None).alias(field))
    return frame.select(*columns)
