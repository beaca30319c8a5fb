"""`DawidSkene` on Spark DataFrames: the stage `merge`, in a folder of its own."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from coyo_labeler import schemas, storage
from coyo_labeler.errors import InputError
from coyo_labeler.merge.frames import LABEL, TASK, WORKER, column_name
from coyo_labeler.session import spark_path
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from coyo_labeler.tables import write_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from coyo_labeler.merge.api import DawidSkene

_KEYS = [
    "worker_model",
    "truth",
    "beliefs_are",
    "pooling",
    "counts",
    "prior_strength",
    "pooling_strength",
    "prior_accuracy",
    "prior_floor",
    "class_prior",
    "support",
    "support_mass",
    "duplicate_votes",
    "min_calibration_votes",
    "start",
]


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
    calibration = model.calibration
    fixed = None if isinstance(calibration, str) else ",".join(map(str, calibration))
    given = {
        **{key: getattr(model, key) for key in _KEYS},
        **{name: storage.join(folder, name) for name in written},
        "calibration": fixed or calibration,
        "max_iterations": model.n_iter,
        "tolerance": model.tol,
        "label_space": space,
        "output": storage.join(folder, "merged"),
        "overwrite": "true",
    }
    settings = read_stage_settings(STAGES["merge"], [f"{k}={v}" for k, v in given.items()])
    manifest, _ = run_stage(STAGES["merge"], settings, spark)
    output = settings.output
    history = storage.read_json(storage.join(output, "history.json")) or {}
    calibrated = manifest.details["calibration"]
    error = calibrated["expected_calibration_error"]
    return {
        "posterior_": spark.read.parquet(spark_path(storage.join(output, "posterior"))),
        "workers_": spark.read.parquet(spark_path(storage.join(output, "workers")))
        .toPandas()
        .rename(columns={"worker_id": "worker"})
        .set_index("worker"),
        "loss_history_": [entry["objective"] for entry in history["iterations"]],
        "calibration_": (calibrated["a"], calibrated["b"]),
        "expected_calibration_error_": (error["before"], error["after"]),
        "n_iter_": manifest.details["iterations"],
        "worker_model_": manifest.details["worker_model"],
        "classes_": names,
    }


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
