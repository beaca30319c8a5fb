"""The contenders of `benchmarks/em.py`: each reads votes/ and writes posterior/ of (id, labels)."""

import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.em_data import ROOT, Case

ITERATIONS = 10
#: Contenders that run the stage itself, with their settings: the model of the peers, or defaults.
_CONFUSION = {
    "worker_model": "confusion", "class_prior": "estimated", "calibration": "none"
}  # fmt: skip
STAGES = {
    "merge": {"engine": "local", **_CONFUSION},
    "spark": {"engine": "spark", **_CONFUSION},
    "default": {},
}


def merge_command(case: Case, output: Path, iterations: int, settings: dict[str, str]) -> list[str]:
    """The command by which a user starts `merge`."""
    given = {
        "votes": case.folder / "votes",
        "output": output,
        "label_space": case.folder / "labels.txt",
        "max_iterations": iterations,
        "tolerance": 0,
        **settings,
    }
    if case.beliefs:
        given |= {"beliefs": case.beliefs_folder, "beliefs_are": "categorical"}
    words = [f"{key}={value}" for key, value in given.items()]
    return [sys.executable, str(ROOT / "jobs" / "merge.py"), *words]


def peer_command(peer: str, case: Case, output: Path, iterations: int) -> list[str]:
    """The command that runs a contender of this file in its own process."""
    words = [f"--{peer}", json.dumps(asdict(case)), str(output), str(iterations)]
    return [sys.executable, "-m", "benchmarks.em", *words]


def run_crowdkit(case: Case, output: Path, iterations: int) -> None:
    from crowdkit.aggregation import DawidSkene  # noqa: PLC0415

    votes = pq.read_table(case.folder / "votes").to_pandas()
    votes.columns = ["task", "worker", "label"]
    labels = DawidSkene(n_iter=iterations, tol=-1.0).fit_predict(votes)
    write_answer(output, labels.index.to_numpy(), labels.to_numpy())


def run_dataframe(case: Case, output: Path, iterations: int) -> None:
    """EM as a Spark user would write it (explode, join, groupBy), without pooled skills."""
    from pyspark.sql import Window  # noqa: PLC0415
    from pyspark.sql import functions as F  # noqa: PLC0415

    from coyo_labeler.config.base import SparkSettings  # noqa: PLC0415
    from coyo_labeler.session import open_session  # noqa: PLC0415

    spark = open_session(SparkSettings(conf={"spark.driver.memory": "8g"}), "dataframe")
    alpha, right, c = 10.0, 0.8, case.classes
    votes = spark.read.parquet(str(case.folder / "votes")).repartition("image_id").cache()
    states = votes.select("image_id", F.col("label").alias("y")).distinct()
    pairs = votes.join(states, "image_id").cache()
    whole = Window.partitionBy("image_id")
    shares = votes.groupBy("image_id", F.col("label").alias("y")).count()
    posterior = shares.withColumn("p", F.col("count") / F.sum("count").over(whole))
    prior = F.when(F.col("label") == F.col("y"), right).otherwise((1 - right) / (c - 1))
    for _ in range(iterations):
        weighted = pairs.join(posterior.select("image_id", "y", "p"), ["image_id", "y"])
        counts = weighted.groupBy("worker_id", "y", "label").agg(F.sum("p").alias("n"))
        rows = counts.groupBy("worker_id", "y").agg(F.sum("n").alias("n_row"))
        theta = counts.join(rows, ["worker_id", "y"]).select(
            "worker_id",
            "y",
            "label",
            F.log((alpha * prior + F.col("n")) / (alpha + F.col("n_row"))).alias("log_theta"),
        )
        joint = (
            pairs.join(theta, ["worker_id", "y", "label"])
            .groupBy("image_id", "y")
            .agg(F.sum("log_theta").alias("l"))
        )
        peak = F.col("l") - F.max("l").over(whole)
        posterior = joint.withColumn("e", F.exp(peak))
        posterior = posterior.withColumn("p", F.col("e") / F.sum("e").over(whole))
        posterior = posterior.select("image_id", "y", "p").localCheckpoint()
    best = posterior.groupBy("image_id").agg(F.max_by("y", "p").alias("y"))
    best.select(F.col("image_id").alias("id"), F.array("y").alias("labels")).write.parquet(
        str(output / "posterior")
    )


def run_notebook(case: Case, output: Path, iterations: int) -> None:
    """merge's kernels without Spark, through the class for notebooks."""
    from coyo_labeler import DawidSkene  # noqa: PLC0415

    votes = pq.read_table(case.folder / "votes")
    labels = DawidSkene(labels=case.classes, n_iter=iterations, tol=0).fit_predict(votes)
    write_answer(output, labels.index.to_numpy(), labels.to_numpy())


def run_kernel(case: Case, output: Path, iterations: int) -> None:
    """Bare kernels on the arrays of `merge`, in this process; only EM is timed."""
    from coyo_labeler.config.merge import MergeSettings  # noqa: PLC0415
    from coyo_labeler.em.loop import State, StoppingRule, fit  # noqa: PLC0415
    from coyo_labeler.em.partitions import InMemory, PartitionedEStep  # noqa: PLC0415
    from coyo_labeler.executor import executor_of  # noqa: PLC0415
    from coyo_labeler.formats.label_spaces import load_label_space  # noqa: PLC0415
    from coyo_labeler.merge.prepare import prepare  # noqa: PLC0415
    from coyo_labeler.merge.settings import make_model, make_plan  # noqa: PLC0415
    from coyo_labeler.merge.state import StateFolder  # noqa: PLC0415

    settings = MergeSettings(
        votes=str(case.folder / "votes"),
        beliefs=str(case.beliefs_folder) if case.beliefs else None,
        beliefs_are="categorical",
        label_space=str(case.folder / "labels.txt"),
        worker_model="confusion",
        calibration="none",
        class_prior="uniform",
        output=str(output),
    )
    space = load_label_space(settings.label_space)
    state, plan = StateFolder(str(output), "kernel"), make_plan(settings, space, None)
    model = make_model(settings, space)
    prepared = prepare(executor_of(None), state, model, plan, space, lambda: None)
    problems = [state.map_problems(number) for number in range(prepared.partitions)]
    e_step = PartitionedEStep(InMemory(problems), prepared.model)
    fitted = fit(e_step, prepared.model, StoppingRule(iterations, 0.0), State(), lambda _: None)
    seconds = [entry["seconds"] for entry in fitted.history]
    pairs = sum(len(part.pair_cell) for part in problems)
    document = {"seconds": statistics.median(seconds), "pairs": pairs, "cells": len(e_step.cells)}
    (output / "kernel.json").write_text(json.dumps(document))


PEERS = {
    "crowdkit": run_crowdkit,
    "dataframe": run_dataframe,
    "notebook": run_notebook,
    "kernel": run_kernel,
}


def write_answer(output: Path, image: np.ndarray, label: np.ndarray) -> None:
    (output / "posterior").mkdir(parents=True)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(label.astype(np.int32)), 1)
    pq.write_table(pa.table({"id": image, "labels": lists}), output / "posterior" / "0.parquet")
