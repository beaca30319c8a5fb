"""The plots of the report, each made from its part of the document."""

from collections.abc import Iterable, Mapping, Sequence
from math import log10
from typing import Any

from markupsafe import Markup

from coyo_labeler.plots import Plot, number, percent, ticks
from coyo_labeler.report.audit_figures import audit_figures
from coyo_labeler.report.metrics import coarsen

#: Bars of a histogram over [0, 1].
_BARS = 50
#: More workers are shown as a histogram.
_MAX_WORKERS = 80

#: Bins with fewer images are not joined by the line, which would show noise.
_MIN_JOINED = 10

#: The other folder's colour, then ours, drawn above it.
_SERIES = (("other_accuracy", "2"), ("accuracy", "1"))

#: Histograms of the catalog: (x axis, what is counted).
_CATALOG = {
    "shorter_side": ("shorter side, pixels", "images"),
    "aspect_ratio": ("longer side / shorter side", "images"),
    "rows_per_hash": ("source rows per pHash", "pHashes"),
}


def figures(document: Mapping[str, Any]) -> dict[str, Markup]:
    """SVG plots by name; those without data are absent."""
    plots = {"confidence": _confidence(document["confidence"]["counts"])}
    if document["classes"]["by_rank"]:
        plots["by_rank"] = _by_rank(document["classes"]["by_rank"])
    if document["sizes"]["cells"]:
        plots["sizes"] = _sizes(document["sizes"])
    for name, words in _CATALOG.items():
        counted = document.get("catalog", {}).get(name)
        if counted and any(counted["rows"]):
            plots["catalog_" + name] = _edges(counted, *words)
    if "accuracy" in document:
        plots |= _accuracy(document)
    if "posterior" in document:
        posterior = document["posterior"]
        plots["risk"] = _risk(document)
        plots["entropy"] = _entropy(posterior["entropy"])
        plots["votes"] = _votes(posterior["images_by_votes"])
    if "accuracy" in document.get("tree", {}):
        plots["tree_distance"] = _tree_distance(document["tree"])
    fit = document.get("fit", {})
    if len(fit.get("iterations", ())) > 1:
        plots["objective"] = _objective(fit["iterations"])
    if any(row[0] for bins in fit.get("reliability", {}).values() for row in bins):
        plots["calibration"] = _calibration(fit["reliability"])
    if "workers" in document:
        known = [worker for worker in document["workers"] if worker["accuracy"] is not None]
        draw = _workers if len(known) <= _MAX_WORKERS else _worker_histogram
        plots["workers"] = draw(known)
    if "audit" in document:
        plots |= audit_figures(document["audit"])
    return plots


def _accuracy(document: Mapping[str, Any]) -> dict[str, Markup]:
    plots = {
        "reliability": _reliability(document),
        "coverage": _coverage(document),
        "precision_recall": _precision_recall(document),
    }
    for key, _ in _SERIES:
        if key in document and "matrix" in document[key]:
            plots["matrix_" + key] = _matrix(document[key]["matrix"])
    return plots


def _top(*values: Iterable[float]) -> float:
    """The upper end of a y axis: a little above all values."""
    return max((v for row in values for v in row), default=0.0) * 1.04 or 1.0


def _confidence(counts: Sequence[int]) -> Markup:
    bars = coarsen(counts, _BARS)
    edges = [index / _BARS for index in range(_BARS + 1)]
    plot = Plot((0, 1), (0, _top(bars)), "probability of the first label", "images")
    titles = [f"{edges[i]:.2f} to {edges[i + 1]:.2f}: {n:,.0f} images" for i, n in enumerate(bars)]
    plot.bars(edges, bars, titles)
    return plot.svg("Histogram of the probability of the first label")


def _risk(document: Mapping[str, Any]) -> Markup:
    bars = coarsen(document["posterior"]["risk"]["counts"], _BARS)
    other = document.get("other_risk")
    before = coarsen(other["counts"], _BARS) if other else []
    edges = [index / _BARS for index in range(_BARS + 1)]
    plot = Plot((0, 1), (0, _top(bars, before)), "1 − probability of the first label", "images")
    titles = [
        f"risk {edges[i]:.2f} to {edges[i + 1]:.2f}: {n:,.0f} images"
        + (f", {document['series']['other']} {before[i]:,.0f}" if other else "")
        for i, n in enumerate(bars)
    ]
    plot.bars(edges, bars, titles)
    if other:
        plot.steps(edges, before, "l2")
    return plot.svg("Histogram of risk" + (", the compared labels outlined" if other else ""))


def _entropy(entropy: Mapping[str, Any]) -> Markup:
    counts = entropy["counts"] or [0]
    per_bar = -(-len(counts) // _BARS)
    padded = [*counts, *([0] * (-len(counts) % per_bar))]
    bars = [float(sum(padded[i : i + per_bar])) for i in range(0, len(padded), per_bar)]
    width = per_bar * entropy["bin"]
    edges = [index * width for index in range(len(bars) + 1)]
    titles = [f"{edges[i]:.2f} to {edges[i + 1]:.2f} nats: {n:,.0f}" for i, n in enumerate(bars)]
    plot = Plot((0, edges[-1]), (0, _top(bars)), "entropy of the posterior, nats", "images")
    plot.bars(edges, bars, titles)
    return plot.svg("Histogram of the entropy of the posterior")


def _by_rank(points: Sequence[Sequence[int]]) -> Markup:
    logs = [(log10(rank), log10(max(count, 1))) for rank, count in points]
    right, high = max(1.0, logs[-1][0]), max(1.0, logs[0][1] * 1.05)
    across = [(float(d), number(10.0**d)) for d in range(int(right) + 1)]
    up = [(float(d), number(10.0**d)) for d in range(int(high) + 1)]
    plot = Plot((0, right), (0, high), "rank of the class", "images", x_ticks=across, y_ticks=up)
    plot.line(logs, "l1")
    return plot.svg("Images per class by rank of the class, both axes logarithmic")


def _sizes(sizes: Mapping[str, Any]) -> Markup:
    per_octave, cells = sizes["bins_per_octave"], sizes["cells"]
    low = min(min(w, h) for w, h, _ in cells) // per_octave * per_octave
    high = -(-(max(max(w, h) for w, h, _ in cells) + 1) // per_octave) * per_octave
    octaves = [(float(b), f"{2 ** (b // per_octave)}") for b in range(low, high + 1, per_octave)]
    plot = Plot(
        (low, high), (low, high), "width, pixels", "height, pixels", x_ticks=octaves,
        y_ticks=octaves, height=440,
    )  # fmt: skip
    plot.rule((low, low), (high, high))
    most = log10(max(n for *_, n in cells) + 1)
    for width, height, count in cells:
        sides = [round(2 ** ((side + 0.5) / per_octave)) for side in (width, height)]
        title = f"about {sides[0]} × {sides[1]}: {count:,} images"
        strength = 0.15 + 0.85 * log10(count + 1) / most
        plot.cell((width, width + 1), (height, height + 1), strength, title)
    return plot.svg("Heat map of image width and height, logarithmic axes and colour")


def _edges(counted: Mapping[str, Sequence[float]], across: str, up: str) -> Markup:
    """A histogram of bins of unequal width, drawn equally wide; empty ends are left out."""
    rows, starts = counted["rows"], counted["from"]
    used = [index for index, n in enumerate(rows) if n]
    first, last = max(0, used[0] - 1), min(len(rows) - 1, used[-1] + 1)
    bars = [float(n) for n in rows[first : last + 1]]
    names = [f"{start:g}" for start in starts[first : last + 1]]
    edges = [float(index) for index in range(len(bars) + 1)]
    titles = [f"from {name}: {n:,.0f} {up}" for name, n in zip(names, bars, strict=True)]
    shown = [(float(index), name) for index, name in enumerate(names)]
    plot = Plot((0, len(bars)), (0, _top(bars)), across, up, x_ticks=shown)
    plot.bars(edges, bars, titles)
    return plot.svg(f"Histogram of the catalog: {across}")


def _reliability(document: Mapping[str, Any]) -> Markup:
    plot = Plot((0, 1), (0, 1), "stated probability", "share correct", percent, percent, height=380)
    plot.rule((0, 0), (1, 1))
    for key, series in _SERIES:
        bins = document[key]["reliability"]["bins"] if key in document else []
        most = max((b["images"] for b in bins), default=1)
        joined = [(b["confidence"], b["correct"]) for b in bins if b["images"] >= _MIN_JOINED]
        plot.line(joined, f"l{series}")
        for b in bins:
            title = f"stated {b['confidence']:.1%}, correct {b['correct']:.1%} of {b['images']:,}"
            radius = 2.0 + 5.0 * (b["images"] / most) ** 0.5
            plot.dot(b["confidence"], b["correct"], f"s{series}", title, radius)
    return plot.svg("Reliability diagram: share correct against stated probability")


def _without_start(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """A curve without its first hundredth, where a few images make it jump."""
    curve = list(points)
    return [point for point in curve if point[0] >= 0.01] or curve


def _coverage(document: Mapping[str, Any]) -> Markup:
    curves = {
        series: _without_start((p["share"], p["accuracy"]) for p in document[key]["coverage"])
        for key, series in _SERIES
        if key in document
    }
    low = min(y for curve in curves.values() for _, y in curve)
    floor = max(0.0, int(low * 20 - 1) / 20)
    plot = Plot(
        (0, 1), (floor, 1), "share of images kept, most confident first", "accuracy", percent,
        percent, height=380,
    )  # fmt: skip
    for series, curve in curves.items():
        plot.line(curve, f"l{series}")
        share, accuracy = curve[-1]
        plot.dot(share, accuracy, f"s{series}", f"all images: {accuracy:.1%}")
    return plot.svg("Accuracy of the most confident images by the share of images kept")


def _precision_recall(document: Mapping[str, Any]) -> Markup:
    plot = Plot((0, 1), (0, 1), "recall", "precision", percent, percent)
    for key, series in _SERIES:
        if key in document:
            curve = document[key]["precision_recall"]
            plot.line(_without_start((p["recall"], p["precision"]) for p in curve), f"l{series}")
    return plot.svg("Precision against recall of all labels as the threshold falls")


def _matrix(matrix: Mapping[str, Any]) -> Markup:
    names, counts = matrix["names"], matrix["counts"]
    size = len(names)
    short = [name if len(name) <= 9 else name[:8] + "…" for name in names]
    fits = size <= 10 and max(map(len, names)) < 8
    plot = Plot(
        (0, size), (size, 0), "given as", "true class", height=460, left=66, grid=False,
        x_ticks=[(i + 0.5, name if fits else str(i)) for i, name in enumerate(short)],
        y_ticks=[(i + 0.5, name) for i, name in enumerate(short)],
    )  # fmt: skip
    for true, row in enumerate(counts):
        total = sum(row) or 1
        for given, count in enumerate(row):
            share, style = count / total, "s1" if true == given else "s2"
            strength = 0.05 + 0.75 * (share if true == given else min(1.0, share * 4))
            title = f"{names[true]} given as {names[given]}: {count:,} ({share:.1%})"
            plot.cell(
                (given, given + 1), (true, true + 1), strength if count else 0.03, title, style
            )
            if count and size <= 14:
                plot.text(given + 0.5, true + 0.5, number(count), "count")
    return plot.svg("Confusion matrix: images by true class and by first label")


def _votes(images_by_votes: Sequence[Sequence[int]]) -> Markup:
    most = min(max(n for n, _ in images_by_votes), 20)
    bars = [0.0] * (most + 1)
    for votes, images in images_by_votes:
        bars[min(votes, most)] += images
    edges = [index - 0.5 for index in range(most + 2)]
    shown = [(float(v), number(v)) for v in ticks(0, most, 10) if v == int(v)]
    plot = Plot((-0.5, most + 0.5), (0, _top(bars)), "votes on the image", "images", x_ticks=shown)
    plot.bars(edges, bars, [f"{v} votes: {n:,.0f} images" for v, n in enumerate(bars)], gap=0.3)
    return plot.svg("Images by number of votes")


def _objective(history: Sequence[Mapping[str, Any]]) -> Markup:
    points = [(float(i + 1), float(row["objective"])) for i, row in enumerate(history)]
    low, high = min(y for _, y in points), max(y for _, y in points)
    pad = (high - low) * 0.06 or 1.0
    shown = [(v, number(v)) for v in ticks(1, len(points), 8) if v == int(v)]
    plot = Plot(
        (1, len(points)), (low - pad, high + pad), "iteration", "log-posterior", x_ticks=shown,
        y_format=lambda value: f"{value:,.6g}".replace("-", "−"), left=64,
    )  # fmt: skip
    plot.line(points, "l1")
    for x, y in points:
        plot.dot(x, y, "s1", f"iteration {x:.0f}: {y:,.3f}", 2.8)
    return plot.svg("Objective of the EM by iteration")


def _calibration(reliability: Mapping[str, Sequence[Sequence[float]]]) -> Markup:
    plot = Plot(
        (0, 1), (0, 1), "belief in the machine’s first class", "its posterior", percent, percent
    )
    plot.rule((0, 0), (1, 1))
    for when, series in (("before", "2"), ("after", "1")):
        bins = [row for row in reliability.get(when, ()) if row[0] > 0]
        most = max((n for n, *_ in bins), default=1.0)
        joined = [(belief / n, posterior / n) for n, belief, posterior in bins if n >= _MIN_JOINED]
        plot.line(joined, f"l{series}")
        for n, belief, posterior in bins:
            shares = f"belief {belief / n:.1%}, posterior {posterior / n:.1%}"
            title = f"{when}: {shares}, {n:,.0f} images"
            radius = 2.0 + 3.5 * (n / most) ** 0.5
            plot.dot(belief / n, posterior / n, f"s{series}", title, radius)
    return plot.svg("Reliability of the beliefs, judged by the votes, before and after calibration")


def _workers(workers: Sequence[Mapping[str, Any]]) -> Markup:
    ranked = sorted(workers, key=lambda worker: (worker["accuracy"], worker["worker_id"]))
    plot = Plot(
        (0.3, len(ranked) + 0.7), (0, 1), "workers, by accuracy", "accuracy", y_format=percent,
        x_ticks=[(1, "1"), (len(ranked), str(len(ranked)))],
    )  # fmt: skip
    for rank, worker in enumerate(ranked, start=1):
        if worker["accuracy_low"] is not None and worker["accuracy_high"] is not None:
            plot.whisker(rank, worker["accuracy_low"], worker["accuracy_high"], "l1")
        title = f"{worker['worker_id']}: {worker['accuracy']:.1%}, {worker['n_votes']:,} votes"
        plot.dot(rank, worker["accuracy"], "s1", title, 3)
    return plot.svg("Accuracy of every worker with its 90 % interval")


def _worker_histogram(workers: Sequence[Mapping[str, Any]]) -> Markup:
    """Workers by accuracy; the title of each bar gives the mean 90 % interval of its workers."""
    bars, lows, highs = [0.0] * 25, [0.0] * 25, [0.0] * 25
    for worker in workers:
        bar = min(int(worker["accuracy"] * 25), 24)
        bars[bar] += 1
        lows[bar] += worker["accuracy_low"] or 0.0
        highs[bar] += worker["accuracy_high"] if worker["accuracy_high"] is not None else 1.0
    edges = [index / 25 for index in range(26)]
    plot = Plot((0, 1), (0, _top(bars)), "accuracy", "workers", percent)
    titles = [
        f"{edges[i]:.0%} to {edges[i + 1]:.0%}: {n:,.0f} workers"
        + (f", mean interval {lows[i] / n:.0%} to {highs[i] / n:.0%}" if n else "")
        for i, n in enumerate(bars)
    ]
    plot.bars(edges, bars, titles)
    return plot.svg("Workers by accuracy")


def _tree_distance(tree: Mapping[str, Any]) -> Markup:
    bars, other = (
        _mistakes(tree[key]["distances"]) if key in tree else [0.0]
        for key in ("accuracy", "other_accuracy")
    )
    size = max(len(bars), len(other))
    bars += [0.0] * (size - len(bars))
    edges = [index - 0.5 for index in range(1, size + 2)]
    titles = [f"{index + 1} steps: {n:,.0f} images" for index, n in enumerate(bars)]
    shown = [(float(v), number(v)) for v in ticks(1, size, 8) if v == int(v)]
    plot = Plot(
        (0.5, size + 0.5), (0, _top(bars, other)), "steps from the first label to the true class",
        "wrong images", x_ticks=shown,
    )  # fmt: skip
    plot.bars(edges, bars, titles)
    if any(other):
        plot.steps(edges, other + [0.0] * (size - len(other)), "l2")
    return plot.svg("Mistakes by their distance in the tree of classes")


def _mistakes(distances: Sequence[Sequence[int]]) -> list[float]:
    """The images at distances 1, 2, …; at least one bar."""
    counts = {steps: float(images) for steps, images in distances if steps}
    return [counts.get(steps, 0.0) for steps in range(1, max(counts, default=1) + 1)]
