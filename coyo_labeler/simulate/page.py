"""The curves of a simulation as one HTML page: no scripts, no remote requests, light and dark."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from coyo_labeler.config.simulate import PAPER_POLICIES, SimulateSettings
from coyo_labeler.plots import Plot, number, percent
from coyo_labeler.simulate.answers import Curve

#: Points of a table of the page, in votes per image.
_POINTS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


def render(curves: Sequence[Curve], summary: Mapping[str, Any], settings: SimulateSettings) -> str:
    """The page. Every name is escaped."""
    environment = Environment(
        loader=PackageLoader("coyo_labeler.simulate", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = lambda value: (
        "–" if value is None or np.isnan(value) else f"{value * 100:.1f}"
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    estimated = [curve for curve in curves if not np.isnan(curve.mean["estimate_low"]).all()]
    plots = {
        "accuracy": _lines(curves, "accuracy", "accuracy", band=True),
        "calibration": _lines(curves, "calibration_error", "expected calibration error", True),
        "learner": _lines(curves, "learner_accuracy", "accuracy of the learner alone", True),
        "finished": _lines(curves, "finished", "finished images", True),
        "cost": _lines(curves, "cost", "cost of all votes", False, number),
    }
    if estimated:
        plots["estimate"] = _estimate(estimated[0])
    return environment.get_template("page.html.jinja").render(
        curves=curves,
        summary=summary,
        settings=settings,
        plots=plots,
        estimated=estimated[0].policy if estimated else None,
        paper=PAPER_POLICIES,
        table=_table(curves),
    )


def _span(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Ends of an axis around all values."""
    joined = np.concatenate(values)
    joined = joined[~np.isnan(joined)]
    if not len(joined):
        return 0.0, 1.0
    low, high = float(joined.min()), float(joined.max())
    pad = max((high - low) * 0.05, 1e-3)
    return max(0.0, low - pad), high + pad


def _lines(
    curves: Sequence[Curve], name: str, title: str, band: bool, form: Any = percent
) -> Markup:
    right = max(float(curve.mean["votes_per_image"][-1]) for curve in curves) or 1.0
    span = _span([curve.low[name] for curve in curves] + [curve.high[name] for curve in curves])
    plot = Plot((0, right), span, "votes per image", y_format=form)
    for order, curve in enumerate(curves, start=1):
        votes = curve.mean["votes_per_image"].tolist()
        if band and curve.seeds > 1:
            low, high = curve.low[name].tolist(), curve.high[name].tolist()
            plot.band(list(zip(votes, low, high, strict=True)), f"b{order}")
    for order, curve in enumerate(curves, start=1):
        votes, values = curve.mean["votes_per_image"].tolist(), curve.mean[name].tolist()
        plot.line(zip(votes, values, strict=True), f"l{order}")
        for x, y in zip(votes, values, strict=True):
            plot.dot(x, y, f"s{order}", f"{curve.policy} at {x:.2f}: {form(y)}", 2.0)
    return plot.svg(f"{title} against votes per image, by policy")


def _estimate(curve: Curve) -> Markup:
    """Estimated accuracy with its interval, and the accuracy that it estimates."""
    votes = curve.mean["votes_per_image"]
    names = ("estimate_low", "estimate_high", "accuracy", "estimated_accuracy")
    span = _span([curve.mean[name] for name in names])
    plot = Plot((0, float(votes[-1]) or 1.0), span, "votes per image", y_format=percent)
    rows = ~np.isnan(curve.mean["estimate_low"])
    band = zip(
        votes[rows].tolist(),
        curve.mean["estimate_low"][rows].tolist(),
        curve.mean["estimate_high"][rows].tolist(),
        strict=True,
    )
    plot.band(list(band), "b2")
    for name, style in (("estimated_accuracy", "l2"), ("accuracy", "l1")):
        plot.line(zip(votes.tolist(), curve.mean[name].tolist(), strict=True), style)
    return plot.svg("Estimated accuracy with its 95 % interval, and the true accuracy")


def _table(curves: Sequence[Curve]) -> dict[str, Any]:
    """Mean accuracy of each policy at some votes per image, between rounds by straight lines."""
    right = max(float(curve.mean["votes_per_image"][-1]) for curve in curves)
    points = [point for point in _POINTS if point <= right + 1e-9] or [0.0]
    if right - points[-1] > 1e-9:
        points.append(right)
    rows = []
    for curve in curves:
        votes = curve.mean["votes_per_image"]
        cells = [
            {
                name: _at(point, votes, curve.mean[name])
                for name in ("accuracy", "calibration_error")
            }
            for point in points
        ]
        rows.append({"policy": curve.policy, "cells": cells, "stopped": curve.stopped})
    return {"points": points, "rows": rows}


def _at(point: float, votes: np.ndarray, values: np.ndarray) -> float | None:
    if point > votes[-1] + 1e-3:
        return None
    return float(np.interp(point, votes, values))
