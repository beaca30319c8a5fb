"""The plots of the comparison, each made from its part of the document."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from coyo_labeler.plots import Plot, number, percent

#: Classes up to which the matches are shown as a matrix.
_MATRIX_CLASSES = 90
#: The curves of the scores, and their colours.
_CURVES = (("precision", "1"), ("recall", "2"))


def figures(document: Mapping[str, Any]) -> dict[str, Markup]:
    """SVG plots by name; those without data are absent."""
    plots = {}
    if document["matches"]["pairs"]:
        plots["iou"] = _iou(document["matches"]["histogram"])
        used = [row["class"] for row in document["by_class"] if row["pairs"] or row["changed_to"]]
        if 1 < len(used) <= _MATRIX_CLASSES:
            plots["matrix"] = _matrix(document["confusion"], used, document["names"])
    if document["scores"]["iou_0.50"]["precision"] is not None:
        plots["scores"] = _scores(document["scores"]["by_iou"])
    return plots


def _iou(histogram: Mapping[str, Any]) -> Markup:
    bins, counts = histogram["bins"], histogram["counts"]
    first = next(index for index, count in enumerate(counts) if count)
    edges = [index / bins for index in range(first, bins + 1)]
    bars = [float(count) for count in counts[first:]]
    titles = [f"{edges[i]:.2f} to {edges[i + 1]:.2f}: {n:,.0f} pairs" for i, n in enumerate(bars)]
    plot = Plot((edges[0], 1), (0, max(bars) * 1.04), "IoU of the two masks", "pairs")
    plot.bars(edges, bars, titles)
    return plot.svg("Histogram of the IoU of matched objects")


def _scores(rows: Sequence[Mapping[str, Any]]) -> Markup:
    plot = Plot((0.5, 0.95), (0, 1), "least IoU of a hit", "", y_format=percent)
    for name, series in _CURVES:
        points = [(row["iou"], row[name]) for row in rows if row[name] is not None]
        plot.line(points, f"l{series}")
        for threshold, value in points:
            title = f"{name} {value:.1%} at an IoU of {threshold:g}"
            plot.dot(threshold, value, f"s{series}", title)
    return plot.svg("Precision and recall of b against a by the least IoU of a hit")


def _matrix(
    confusion: Sequence[Mapping[str, Any]], names: Sequence[str], sets: Mapping[str, str]
) -> Markup:
    index = {name: position for position, name in enumerate(names)}
    size = len(names)
    totals = [0] * size
    for row in confusion:
        totals[index[row["a"]]] += row["count"]
    shown = size <= 25
    short = [name if len(name) <= 9 else name[:8] + "…" for name in names]
    ticks = [(i + 0.5, name) for i, name in enumerate(short)] if shown else [(0.0, "")]
    plot = Plot(
        (0, size), (size, 0), f"class in {sets['b']}", f"class in {sets['a']}",
        height=460, left=66, grid=False,
        x_ticks=ticks if size <= 8 else [(0.0, "")], y_ticks=ticks,
    )  # fmt: skip
    for row in confusion:
        a, b = index[row["a"]], index[row["b"]]
        share = row["count"] / totals[a]
        strength = 0.05 + 0.75 * (share if a == b else min(1.0, share * 4))
        title = (
            f"{row['a']} in a, {row['b']} in b: {row['count']:,} ({share:.1%}), "
            f"mean IoU {row['mean_iou']:.3f}"
        )
        plot.cell((b, b + 1), (a, a + 1), strength, title, "s1" if a == b else "s2")
        if size <= 14:
            plot.text(b + 0.5, a + 0.5, number(row["count"]), "count")
    return plot.svg("Confusion matrix: matched objects by class in a and class in b")
