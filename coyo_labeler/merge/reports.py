"""All that merge writes besides the posterior: tables of workers and classes, history, reports."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.em.calibration import expected_calibration_error
from coyo_labeler.em.class_prior import expected_classes
from coyo_labeler.em.loop import State
from coyo_labeler.em.model import Model
from coyo_labeler.em.model_choice import name_of
from coyo_labeler.em.segments import F64
from coyo_labeler.em.sums import Sums
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.merge.earlier import (
    CLASSES_FOLDER,
    SKILLS_FOLDER,
    TALLY_FOLDER,
    classes_table,
    tally_table,
)
from coyo_labeler.merge.iterate import StageEStep
from coyo_labeler.merge.prepare import Prepared
from coyo_labeler.merge.worker_counts import WorkerCounts
from coyo_labeler.merge.worker_report import confused_pairs, judge_workers, worker_report
from coyo_labeler.merge.workers import workers_table
from coyo_labeler.written import refuse_strangers

#: Folders of the tables that have one file per shard of the skills.
_SHARDED = ("confusions", SKILLS_FOLDER)
#: Biases of classes that the manifest has, at most.
_BIASES_SHOWN = 20


def write_reports(
    output: str, e_step: StageEStep, fitted: State, prepared: Prepared, space: LabelSpace
) -> dict[str, Any]:
    """Write workers/, tally/, confusions/, skills/, classes/, rejects/ and the JSON reports.

    fitted: the state of EM at its end. Returns the details of the manifest.
    """
    parameters = e_step.parameters_of(fitted)[0]
    sums = e_step.run(parameters, reliability=True)
    counts = e_step.write_counts(sums)
    _write_workers(output, prepared, counts)
    _write_classes(output, fitted, sums)
    _write_no_rejects(output, prepared)
    _refuse_strangers(output, prepared)
    calibration = _calibration(prepared.model, fitted, sums)
    storage.write_json(storage.join(output, "history.json"), _history(fitted, calibration, sums))
    report = _worker_report(prepared, counts, space)
    storage.write_json(storage.join(output, "worker_report.json"), report)
    return _details(prepared, fitted, calibration, report)


def _write(output: str, folder: str, table: pa.Table) -> None:
    storage.write_parquet(storage.join(output, folder, "part-00000.parquet"), table)


def _write_workers(output: str, prepared: Prepared, counts: WorkerCounts) -> None:
    workers, tally = prepared.workers, prepared.tally
    _write(output, "workers", workers_table(workers, tally, counts.right, prepared.model))
    _write(output, TALLY_FOLDER, tally_table(workers, tally))


def _write_classes(output: str, fitted: State, sums: Sums) -> None:
    """Where the class prior was estimated."""
    if fitted.log_class_prior is not None:
        images = expected_classes(sums, fitted.log_class_prior)
        _write(output, CLASSES_FOLDER, classes_table(fitted.log_class_prior, images))


def _write_no_rejects(output: str, prepared: Prepared) -> None:
    """An empty table of rejects where no vote was rejected."""
    if not prepared.rejects:
        _write(output, "rejects", schemas.VOTES_REJECTS.empty_table())


def _refuse_strangers(output: str, prepared: Prepared) -> None:
    """Check that each table has the files of this run and no others. Raises: WorkError."""
    one = "part-00000.parquet"
    parts = 1 if prepared.shards is None else len(prepared.shards)
    names = [
        *(prepared.rejects or [f"rejects/{one}"]),
        *(f"{folder}/{one}" for folder in ("workers", TALLY_FOLDER, CLASSES_FOLDER)),
        *(f"{folder}/part-{n:05d}.parquet" for folder in _SHARDED for n in range(parts)),
    ]
    refuse_strangers("merge", output, {name.partition("/")[0] for name in names}, names)


def _calibration(model: Model, fitted: State, sums: Sums) -> dict[str, Any]:
    """a and b (or the temperature), what they were fitted on, and the error before and after."""
    document = {
        "fitted_on": model.fit_calibration,
        **{name: value for name, value in asdict(fitted.calibration).items() if name != "bias"},
        "expected_calibration_error": {
            **_errors(sums.reliability),
            "unvoted_by_drawn": _errors(sums.reliability_unvoted[0]),
            "unvoted_by_gold": _errors(sums.reliability_unvoted[1]),
        },
    }
    if fitted.calibration.bias:
        document["class_bias"] = _largest(fitted.calibration.bias)
    if model.beliefs_are != "sigmoid":
        document["temperature"] = 1.0 / fitted.calibration.a
    return document


def _largest(bias: Sequence[float]) -> dict[str, float]:
    """The biases that are furthest from 0, by class."""
    order = np.argsort(-np.abs(np.array(bias)), kind="stable")[:_BIASES_SHOWN]
    return {str(label): round(bias[label], 4) for label in order}


def _errors(reliability: F64) -> dict[str, float | None]:
    """reliability: (2, bins, 3) before and after calibration."""
    before, after = (expected_calibration_error(bins) for bins in reliability)
    return {"before": before, "after": after}


def _history(fitted: State, calibration: Mapping[str, Any], sums: Sums) -> dict[str, Any]:
    """Every iteration, and the reliability of the beliefs before and after calibration."""
    return {
        "iterations": list(fitted.history),
        "stopped": fitted.stopped,
        "calibration": dict(calibration),
        "reliability": {
            name: [[float(x) for x in row] for row in bins]
            for name, bins in zip(("before", "after"), sums.reliability, strict=True)
        },
    }


def _worker_report(prepared: Prepared, counts: WorkerCounts, space: LabelSpace) -> dict[str, Any]:
    judged = judge_workers(prepared.workers, prepared.tally, counts.right, prepared.model)
    return worker_report(judged, confused_pairs(counts.pairs, space), prepared.sample)


def _details(
    prepared: Prepared, fitted: State, calibration: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, Any]:
    """The details of the manifest."""
    model, shards = prepared.model, prepared.shards
    return {
        "iterations": len(fitted.history),
        "stopped": fitted.stopped,
        "objective": fitted.history[-1]["objective"],
        "workers": len(prepared.workers),
        "worker_model": name_of(model),
        "class_prior": "estimated" if model.estimate_class_prior else "uniform",
        "model_choice": dict(prepared.choice),
        "skills": "broadcast" if shards is None else f"{len(shards)} shards",
        "prior_accuracy": model.prior_accuracy,
        "true_share": fitted.true_share if model.truth == "multi" else None,
        "calibration": dict(calibration),
        "krippendorff_alpha": report["krippendorff_alpha"],
        "spammers": len(report["spammers"]),
        "adversaries": len(report["adversaries"]),
    }
