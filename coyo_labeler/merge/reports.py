"""What a merge tells besides the posterior: history, calibration, the report on workers."""

from collections.abc import Mapping
from typing import Any

from coyo_labeler.em.calibration import expected_calibration_error
from coyo_labeler.em.loop import State
from coyo_labeler.em.model import Model
from coyo_labeler.em.sums import Sums
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.merge.broadcast import Conclusion
from coyo_labeler.merge.prepare import Layout
from coyo_labeler.merge.worker_report import confused_pairs, judge_workers, worker_report


def calibration_document(model: Model, state: State, last: Sums) -> dict[str, Any]:
    """a and b (or the temperature), what they were fitted on, and what they did."""
    before, after = (expected_calibration_error(bins) for bins in last.reliability)
    document = {
        "fitted_on": model.fit_calibration,
        "a": state.calibration.a,
        "b": state.calibration.b,
        "expected_calibration_error": {"before": before, "after": after},
    }
    if model.beliefs_are != "sigmoid":
        document["temperature"] = 1.0 / state.calibration.a
    return document


def history_document(state: State, calibration: Mapping[str, Any], last: Sums) -> dict[str, Any]:
    """history.json: every iteration, and the reliability of the beliefs before and after."""
    return {
        "iterations": list(state.history),
        "stopped": state.stopped,
        "calibration": dict(calibration),
        "reliability": {
            name: [[float(x) for x in row] for row in bins]
            for name, bins in zip(("before", "after"), last.reliability, strict=True)
        },
    }


def report_document(layout: Layout, conclusion: Conclusion, space: LabelSpace) -> dict[str, Any]:
    """worker_report.json."""
    workers = judge_workers(layout.workers, layout.tally, conclusion.right, layout.model)
    pairs = confused_pairs(conclusion.pairs, space)
    return worker_report(workers, pairs, layout.sample)


def manifest_details(
    layout: Layout, state: State, calibration: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, Any]:
    """What the manifest tells."""
    return {
        "iterations": len(state.history),
        "stopped": state.stopped,
        "objective": state.history[-1]["objective"],
        "workers": len(layout.workers),
        "worker_model": layout.model.worker_model,
        "skills": "broadcast" if layout.shards is None else f"{len(layout.shards)} shards",
        "prior_accuracy": layout.model.prior_accuracy,
        "true_share": state.true_share if layout.model.truth == "multi" else None,
        "calibration": dict(calibration),
        "krippendorff_alpha": report["krippendorff_alpha"],
        "spammers": len(report["spammers"]),
        "adversaries": len(report["adversaries"]),
    }
