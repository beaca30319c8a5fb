"""`DawidSkene` on Spark DataFrames: the stage `merge`, in a folder of its own."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from coyo_labeler import storage
from coyo_labeler.dawid_skene.settings import stage_settings
from coyo_labeler.dawid_skene.tables import LABEL, TASK, WORKER, column_name
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.spark_tables import write_table
from coyo_labeler.session import spark_path
from coyo_labeler.stages import STAGES, run_stage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from coyo_labeler.dawid_skene.estimator import DawidSkene

#: So many tasks and no more are collected.
_MOST_TASKS = 20_000_000


def fit_on_spark(
    model: DawidSkene, votes: DataFrame, beliefs: DataFrame | None, gold: DataFrame | None
) -> dict[str, Any]:
    """Run the stage on DataFrames; returns the attributes that `fit` sets.

    Tasks and labels are integers; `labels` is the number of classes, or their names. Everything is
    written under `model.workdir`, a URL that all executors reach.

    Raises: InputError where a column is missing or `labels` is.
    """
    spark = votes.sparkSession
    if model.labels is None:
        raise InputError("DawidSkene: on Spark the label space must be given: labels=21841")
    names = range(model.labels) if isinstance(model.labels, int) else model.labels
    folder = model.workdir or tempfile.mkdtemp(prefix="coyo_labeler-")
    space = storage.join(folder, "labels.txt")
    storage.write_bytes(space, "\n".join(map(str, names)).encode())
    inputs = {"votes": _rename(votes, {"image_id": TASK, "worker_id": WORKER, "label": LABEL})}
    written = {"votes": (inputs["votes"], schemas.VOTES)}
    if beliefs is not None:
        written["beliefs"] = (_as_beliefs(beliefs), schemas.BELIEFS)
    if gold is not None:
        written["gold"] = (_rename(gold, {"image_id": TASK, "label": LABEL}), schemas.GOLD)
    for name, (frame, schema) in written.items():
        write_table(frame, storage.join(folder, name), schema)
    settings = stage_settings(
        model,
        **{name: storage.join(folder, name) for name in written},
        label_space=space,
        output=storage.join(folder, "merged"),
        overwrite="true",
    )
    manifest, _ = run_stage(STAGES["merge"], settings, spark)
    output = str(settings.output)

    def read(name: str) -> DataFrame:
        return spark.read.parquet(spark_path(storage.join(output, name)))

    history = storage.read_json(storage.join(output, "history.json")) or {}
    calibrated = manifest.details["calibration"]
    error = calibrated["expected_calibration_error"]
    classes: pd.Index[Any] = pd.Index(names)
    priors = pd.Series(1 / len(classes), index=classes.rename("label"), name="prior")
    if storage.exists(storage.join(output, "classes")):
        priors[:] = read("classes").orderBy("label").toPandas()["share"].to_numpy()
    return {
        "posterior_": read("posterior"),
        "rejects_": read("rejects").withColumnsRenamed({"image_id": "task", "worker_id": "worker"}),
        "priors_": priors,
        "workers_": read("workers")
        .toPandas()
        .rename(columns={"worker_id": "worker"})
        .set_index("worker"),
        "loss_history_": [entry["objective"] for entry in history["iterations"]],
        "calibration_": (calibrated["a"], calibrated["b"]),
        "expected_calibration_error_": (error["before"], error["after"]),
        "n_iter_": manifest.details["iterations"],
        "worker_model_": manifest.details["worker_model"],
        "classes_": classes,
    }


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
    table = first.where(F.col("label").isNotNull()).orderBy("id").toArrow()
    return pd.Series(
        classes.take(table["label"].to_numpy()),
        index=table["id"].to_pandas().rename("task"),
        name="agg_label",
    )


def collect_posterior(posterior: DataFrame, classes: pd.Index[Any]) -> pa.Table:
    """The rows of a posterior as task, label, probability; posterior: schemas.POSTERIOR."""
    table = posterior.select("id", "labels", "label_probs").toArrow().combine_chunks()
    lists = table["labels"].combine_chunks()
    label, probability = lists.flatten(), table["label_probs"].combine_chunks().flatten()
    return pa.table(
        {
            "task": table["id"].combine_chunks().take(pc.list_parent_indices(lists)),
            "label": pa.array(classes.take(label.to_numpy()).to_numpy()),
            "probability": probability.cast(pa.float64()),
        }
    )


def _rename(frame: DataFrame, columns: dict[str, tuple[str, ...]]) -> DataFrame:
    chosen = [
        F.col(column_name(frame.columns, names, "votes")).alias(name)
        for name, names in columns.items()
    ]
    extras = [name for name in schemas.VOTES_OPTIONAL.names if name in frame.columns]
    return frame.select(*chosen, *extras)


def _as_beliefs(frame: DataFrame) -> DataFrame:
    task = column_name(frame.columns, ("id", *TASK), "beliefs")
    for name in ("labels", "label_probs"):
        column_name(frame.columns, [name], "beliefs")
    columns = [F.col(task).alias("id")]
    for field in schemas.BELIEFS.names[1:]:
        columns.append(F.col(field) if field in frame.columns else F.lit(None).alias(field))
    return frame.select(*columns)
