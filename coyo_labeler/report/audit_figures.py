"""The plots of the report's audit: reliability with and without votes, and workers on gold."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from coyo_labeler.plots import Plot, percent

#: The other folder's colour, then ours, drawn above it.
_SERIES = (("compare", "2"), ("labels", "1"))
#: Workers that are drawn: those with most answers to gold questions.
_MAX_WORKERS = 80
#: Bins with fewer images are not joined by the line, which would show noise.
_MIN_JOINED = 10


def audit_figures(audit: Mapping[str, Any]) -> dict[str, Markup]:
    """SVG plots by name; those without data are absent."""
    plots = {}
    for kind, words in (("unvoted", "that nobody was asked about"), ("voted", "asked about")):
        shown = [
            (audit[key]["calibration"][kind], series)
            for key, series in _SERIES
            if key in audit and (audit[key]["calibration"][kind] or {}).get("bins")
        ]
        if shown:
            plots["audit_" + kind] = _reliability(shown, words)
        if len(shown) == len(_SERIES):
            plots[f"audit_{kind}_both"] = Markup("")
    tested = [worker for worker in audit["workers"] if worker["gold"]["n"]]
    if tested:
        most = sorted(tested, key=lambda w: (-w["gold"]["n"], w["worker_id"]))[:_MAX_WORKERS]
        plots["audit_workers"] = _workers(most)
    return plots


def _reliability(shown: Sequence[tuple[Mapping[str, Any], str]], words: str) -> Markup:
    plot = Plot((0, 1), (0, 1), "stated probability", "share right, estimated", percent, percent)
    plot.rule((0, 0), (1, 1))
    for reliability, series in shown:
        bins = reliability["bins"]
        most = max(b["share"] for b in bins)
        joined = [(b["confidence"], b["correct"]) for b in bins if b["images"] >= _MIN_JOINED]
        plot.line(joined, f"l{series}")
        for b in bins:
            title = f"stated {b['confidence']:.1%}, right {b['correct']:.1%}, {b['images']:,} asked"
            radius = 2.0 + 5.0 * (b["share"] / most) ** 0.5
            plot.dot(b["confidence"], b["correct"], f"s{series}", title, radius)
    return plot.svg(f"Reliability diagram of images {words}")


def _workers(workers: Sequence[Mapping[str, Any]]) -> Markup:
    ranked = sorted(workers, key=lambda worker: (worker["gold"]["value"], worker["worker_id"]))
    plot = Plot(
        (0.3, len(ranked) + 0.7), (0, 1), "workers, by accuracy on gold", "right", y_format=percent,
        x_ticks=[(1, "1"), (len(ranked), str(len(ranked)))],
    )  # fmt: skip
    for rank, worker in enumerate(ranked, start=1):
        gold = worker["gold"]
        plot.whisker(rank, gold["low"], gold["high"], "l1")
        title = f"{worker['worker_id']}: {gold['value']:.1%} of {gold['n']:,}"
        plot.dot(rank, gold["value"], "s1", title, 3)
    return plot.svg("Accuracy of every worker on gold questions with its 95 % interval")
