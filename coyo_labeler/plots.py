"""Small plots as inline SVG, coloured by the page: no scripts, no fonts, no files.

Every plot is 460 units wide, for a column of about as many pixels. The page's style sheet defines
colours and type by class (`s1`, `s2`: the series; `grid`, `tick`, …), for light and dark. The data
enter as numbers and as text, which is escaped here. A plotting library would bring fonts and fixed
colours along.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 30.0, 44.0

Format = Callable[[float], str]


def number(value: float) -> str:
    """A count for an axis: 0, 950, 12k, 3.4M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A share for an axis."""
    return f"{value * 100:.3g} %"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Some `about` round numbers within [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** floor(log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = ceil(low / step - 1e-9)
    return [n * step for n in range(first, floor(high / step + 1e-9) + 1)]


@dataclass
class Plot:
    """Axes and the marks between them.

    x, y: the ends of the axes. x_ticks, y_ticks: (position, text); round numbers by default.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str = ""
    x_format: Format = number
    y_format: Format = number
    x_ticks: Sequence[tuple[float, str]] | None = None
    y_ticks: Sequence[tuple[float, str]] | None = None
    height: float = HEIGHT
    left: float = LEFT
    grid: bool = True
    marks: list[str] = field(default_factory=list)

    def at_x(self, value: float) -> float:
        """Position of a value along the x axis."""
        low, high = self.x
        return self.left + (value - low) / ((high - low) or 1.0) * (WIDTH - self.left - RIGHT)

    def at_y(self, value: float) -> float:
        """Position of a value along the y axis."""
        low, high = self.y
        return (
            self.height
            - BOTTOM
            - (value - low) / ((high - low) or 1.0) * (self.height - BOTTOM - TOP)
        )

    def bars(
        self,
        edges: Sequence[float],
        values: Sequence[float],
        titles: Sequence[str],
        gap: float = 0.12,
    ) -> None:
        """Bars on the x axis; bar i spans edges[i] to edges[i + 1], less the share `gap`."""
        floor_y = self.at_y(max(self.y[0], 0.0))
        for index, value in enumerate(values):
            if value <= 0:
                continue
            left, right = self.at_x(edges[index]), self.at_x(edges[index + 1])
            hair = (right - left) * gap
            top = self.at_y(min(value, self.y[1]))
            self.marks.append(
                f'<rect class="s1" x="{left + hair / 2:.2f}" y="{top:.2f}" '
                f'width="{right - left - hair:.2f}" height="{max(floor_y - top, 0.6):.2f}">'
                f"<title>{escape(titles[index])}</title></rect>"
            )

    def line(self, points: Iterable[tuple[float, float]], style: str) -> None:
        """A line through the points."""
        path = " ".join(f"{self.at_x(x):.2f},{self.at_y(y):.2f}" for x, y in points)
        self.marks.append(f'<polyline class="line {style}" points="{path}"/>')

    def band(self, points: Sequence[tuple[float, float, float]], style: str) -> None:
        """The area between two lines; points: (x, low, high)."""
        upper = [f"{self.at_x(x):.2f},{self.at_y(high):.2f}" for x, _, high in points]
        lower = [f"{self.at_x(x):.2f},{self.at_y(low):.2f}" for x, low, _ in reversed(points)]
        self.marks.append(f'<polygon class="{style}" points="{" ".join(upper + lower)}"/>')

    def steps(self, edges: Sequence[float], values: Sequence[float], style: str) -> None:
        """The outline of a histogram."""
        points = [(edges[0], 0.0)]
        for index, value in enumerate(values):
            points += [(edges[index], value), (edges[index + 1], value)]
        self.line([*points, (edges[len(values)], 0.0)], style)

    def dot(self, x: float, y: float, style: str, title: str, radius: float = 3.5) -> None:
        """A point with a tooltip."""
        self.marks.append(
            f'<circle class="{style}" cx="{self.at_x(x):.2f}" cy="{self.at_y(y):.2f}" '
            f'r="{radius:.2f}"><title>{escape(title)}</title></circle>'
        )

    def whisker(self, x: float, low: float, high: float, style: str) -> None:
        """A vertical interval."""
        self.marks.append(
            f'<line class="whisker {style}" x1="{self.at_x(x):.2f}" x2="{self.at_x(x):.2f}" '
            f'y1="{self.at_y(low):.2f}" y2="{self.at_y(high):.2f}"/>'
        )

    def cell(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        strength: float,
        title: str,
        style: str = "s1",
    ) -> None:
        """A cell of a heat map; strength in [0, 1]."""
        left, right = self.at_x(x[0]), self.at_x(x[1])
        top, bottom = sorted((self.at_y(y[0]), self.at_y(y[1])))
        self.marks.append(
            f'<rect class="{style}" x="{left + 0.5:.2f}" y="{top + 0.5:.2f}" '
            f'width="{right - left - 1:.2f}" height="{bottom - top - 1:.2f}" '
            f'fill-opacity="{strength:.3f}"><title>{escape(title)}</title></rect>'
        )

    def text(self, x: float, y: float, words: str, style: str = "tick") -> None:
        """Text centred on a point."""
        self.marks.append(
            f'<text class="{style}" x="{self.at_x(x):.2f}" y="{self.at_y(y) + 4:.2f}" '
            f'text-anchor="middle">{escape(words)}</text>'
        )

    def rule(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A dashed reference line."""
        x1, y1 = self.at_x(start[0]), self.at_y(start[1])
        x2, y2 = self.at_x(end[0]), self.at_y(end[1])
        self.marks.append(
            f'<line class="rule" x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}"/>'
        )

    def svg(self, description: str) -> Markup:
        """The plot. description: what it shows, for readers who cannot see it."""
        base, right = self.height - BOTTOM, WIDTH - RIGHT
        parts = [
            f'<svg viewBox="0 0 {WIDTH:g} {self.height:g}" role="img" '
            f'aria-label="{escape(description)}">'
        ]
        for value, text in self.y_ticks or [(v, self.y_format(v)) for v in ticks(*self.y)]:
            y = self.at_y(value)
            if self.grid:
                parts.append(
                    f'<line class="grid" x1="{self.left:g}" x2="{right:g}" y1="{y:.2f}" '
                    f'y2="{y:.2f}"/>'
                )
            parts.append(
                f'<text class="tick" x="{self.left - 7:g}" y="{y + 4:.2f}" text-anchor="end">'
                f"{escape(text)}</text>"
            )
        for value, text in self.x_ticks or [(v, self.x_format(v)) for v in ticks(*self.x)]:
            parts.append(
                f'<text class="tick" x="{self.at_x(value):.2f}" y="{base + 17:g}" '
                f'text-anchor="middle">{escape(text)}</text>'
            )
        parts += self.marks
        if self.grid:
            parts.append(
                f'<line class="axis" x1="{self.left:g}" x2="{right:g}" y1="{base:g}" '
                f'y2="{base:g}"/>'
            )
        parts.append(
            f'<text class="label" x="{(self.left + right) / 2:g}" y="{self.height - 8:g}" '
            f'text-anchor="middle">{escape(self.x_label)}</text>'
        )
        if self.y_label:
            parts.append(f'<text class="label" x="0" y="12">{escape(self.y_label)}</text>')
        return Markup("".join(parts) + "</svg>")
