"""Which plots the report shows, each from its part of the document."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

from markupsafe import Markup

from coyo_labeler.report.metrics import coarsen
from coyo_labeler.report.plots import Plot, number, percent, ticks

_BARS = 40


def figures(document: Mapping[str, Any]) -> dict[str, Markup]:
    """SVG plots by name; those without data are absent."""
    found = {"confidence": _unit(document["confidence"]["counts"], "probability of first label")}
    if document["classes"]["by_rank"]:
        found["by_rank"] = _by_rank(document["classes"]["by_rank"])
    if document["sizes"]["cells"]:
        found["sizes"] = _sizes(document["sizes"])
    if "accuracy" in document:
        found["reliability"] = _reliability(document)
    if "posterior" in document:
        posterior = document["posterior"]
        found["risk"] = _risk(posterior["risk"]["counts"], document.get("other_risk"))
        found["entropy"] = _entropy(posterior["entropy"])
        found["votes"] = _votes(posterior["images_by_votes"])
    if len(document.get("history", [])) > 1:
        found["objective"] = _objective(document["history"])
    if "workers" in document:
        found["workers"] = _workers(document["workers"])
    return found


def _top(values: Sequence[float]) -> float:
    return max(values, default=1.0) * 1.06 or 1.0


def _unit(counts: Sequence[int], label: str) -> Markup:
    bars = coarsen(counts, _BARS)
    edges = [index / _BARS for index in range(_BARS + 1)]
    plot = Plot((0, 1), (0, _top(bars)), label, "images")
    titles = [f"{edges[i]:.3f} – {edges[i + 1]:.3f}: {int(n):,} images" for i, n in enumerate(bars)]
    plot.bars(edges, bars, "s1", titles)
    return plot.svg(f"Histogram of the {label}")


def _risk(counts: Sequence[int], other: Mapping[str, Any] | None) -> Markup:
    bars = coarsen(counts, _BARS)
    edges = [index / _BARS for index in range(_BARS + 1)]
    before: list[float] = coarsen(other["counts"], _BARS) if other else []
    plot = Plot((0, 1), (0, _top([*bars, *before])), "risk (1 − top posterior)", "images")
    titles = [
        f"risk {edges[i]:.3f} – {edges[i + 1]:.3f}: {int(n):,} images"
        + (f", {int(before[i]):,} before" if other else "")
        for i, n in enumerate(bars)
    ]
    plot.bars(edges, bars, "s1", titles)
    if other:
        plot.steps(edges, before, "l2")
    return plot.svg("Histogram of risk" + (", with the compared labels outlined" if other else ""))


def _entropy(entropy: Mapping[str, Any]) -> Markup:
    counts = entropy["counts"] or [0]
    per_bar = max(1, len(counts) // _BARS + 1)
    padded = [*counts, *([0] * (-len(counts) % per_bar))]
    bars = [float(sum(padded[i : i + per_bar])) for i in range(0, len(padded), per_bar)]
    width = per_bar * entropy["bin"]
    edges = [index * width for index in range(len(bars) + 1)]
    titles = [f"{edges[i]:.2f} – {edges[i + 1]:.2f} nats: {int(n):,}" for i, n in enumerate(bars)]
    plot = Plot((0, edges[-1]), (0, _top(bars)), "entropy of the posterior, nats", "images")
    plot.bars(edges, bars, "s1", titles)
    return plot.svg("Histogram of the entropy of the posterior")


def _by_rank(points: Sequence[Sequence[int]]) -> Markup:
    logs = [(log10(rank), log10(max(count, 1))) for rank, count in points]
    right, high = max(1.0, logs[-1][0]), max(1.0, logs[0][1] * 1.05)
    decades_x = [(float(d), number(10.0**d)) for d in range(int(right) + 1)]
    decades_y = [(float(d), number(10.0**d)) for d in range(int(high) + 1)]
    plot = Plot(
        (0, right), (0, high), "rank of the class", "images", x_ticks=decades_x, y_ticks=decades_y
    )
    plot.line(logs, "l1")
    return plot.svg("Images per class by rank of the class, both axes logarithmic")


def _sizes(sizes: Mapping[str, Any]) -> Markup:
    per_octave, cells = sizes["bins_per_octave"], sizes["cells"]
    low = min(min(w, h) for w, h, _ in cells) // per_octave * per_octave
    high = -(-(max(max(w, h) for w, h, _ in cells) + 1) // per_octave) * per_octave
    octaves = [(float(b), f"{2 ** (b // per_octave)}") for b in range(low, high + 1, per_octave)]
    plot = Plot(
        (low, high),
        (low, high),
        "width, pixels",
        "height, pixels",
        x_ticks=octaves,
        y_ticks=octaves,
        height=400,
    )
    most = log10(max(n for *_, n in cells) + 1)
    for width, height, count in cells:
        sides = [round(2 ** (side / per_octave)) for side in (width, height)]
        plot.cell(
            (width, width + 1),
            (height, height + 1),
            0.12 + 0.88 * log10(count + 1) / most,
            f"about {sides[0]} × {sides[1]}: {count:,} images",
        )
    plot.rule((low, low), (high, high))
    return plot.svg("Heat map of image width and height, logarithmic axes and colour")


def _reliability(document: Mapping[str, Any]) -> Markup:
    plot = Plot((0, 1), (0, 1), "stated probability", "share correct", percent, percent, height=340)
    plot.rule((0, 0), (1, 1), "")
    both = [("other_accuracy", "2"), ("accuracy", "1")]
    for key, series in both:
        bins = document[key]["reliability"]["bins"] if key in document else []
        most = max((b["images"] for b in bins), default=1)
        plot.line([(b["confidence"], b["correct"]) for b in bins], f"l{series}")
        for b in bins:
            title = f"stated {b['confidence']:.1%}, correct {b['correct']:.1%} of {b['images']:,}"
            radius = 2.2 + 4.8 * (b["images"] / most) ** 0.5
            plot.dot(b["confidence"], b["correct"], f"s{series}", title, radius)
    return plot.svg("Reliability diagram: share correct against stated probability")


def _votes(images_by_votes: Sequence[Sequence[int]]) -> Markup:
    most = min(max(n for n, _ in images_by_votes), 20)
    bars = [0.0] * (most + 1)
    for votes, images in images_by_votes:
        bars[min(votes, most)] += images
    edges = [index - 0.5 for index in range(most + 2)]
    shown = [(float(v), number(v)) for v in ticks(0, most, 10) if v == int(v)]
    plot = Plot((-0.5, most + 0.5), (0, _top(bars)), "votes on the image", "images", x_ticks=shown)
    plot.bars(edges, bars, "s1", [f"{v} votes: {int(n):,} images" for v, n in enumerate(bars)])
    return plot.svg("Images by number of votes")


def _objective(history: Sequence[Mapping[str, Any]]) -> Markup:
    points = [(float(i + 1), float(row["objective"])) for i, row in enumerate(history)]
    low, high = min(y for _, y in points), max(y for _, y in points)
    pad = (high - low) * 0.06 or 1.0
    shown = [(v, number(v)) for v in ticks(1, len(points), 8) if v == int(v)]
    plot = Plot(
        (1, len(points)),
        (low - pad, high + pad),
        "iteration",
        "objective",
        x_ticks=shown,
        y_format=lambda value: f"{value:,.5g}",
        left=70,
    )
    plot.line(points, "l1")
    for x, y in points:
        plot.dot(x, y, "s1", f"iteration {x:.0f}: {y:,.3f}", 2.8)
    return plot.svg("Objective of the EM by iteration")


def _workers(workers: Sequence[Mapping[str, Any]]) -> Markup:
    known = sorted(
        (w for w in workers if w["accuracy"] is not None), key=lambda w: float(w["accuracy"])
    )
    if len(known) > 60:
        bars = [0.0] * 25
        for worker in known:
            bars[min(int(worker["accuracy"] * 25), 24)] += 1
        edges = [index / 25 for index in range(26)]
        plot = Plot((0, 1), (0, _top(bars)), "accuracy", "workers", percent)
        titles = [f"{edges[i]:.0%} – {edges[i + 1]:.0%}: {int(n)}" for i, n in enumerate(bars)]
        plot.bars(edges, bars, "s1", titles)
        return plot.svg("Workers by accuracy")
    plot = Plot(
        (0.3, len(known) + 0.7),
        (0, 1),
        "workers, by accuracy",
        "accuracy",
        y_format=percent,
        x_ticks=[],
    )
    for at, worker in enumerate(known, start=1):
        if worker["accuracy_low"] is not None and worker["accuracy_high"] is not None:
            plot.whisker(at, worker["accuracy_low"], worker["accuracy_high"], "l1")
        title = f"{worker['worker_id']}: {worker['accuracy']:.1%}, {worker['n_votes']:,} votes"
        plot.dot(at, worker["accuracy"], "s1", title, 3)
    return plot.svg("Accuracy of every worker with its 90 % interval")
