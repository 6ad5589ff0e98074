"""Charts as geometry in SVG units: positions, ticks, colours. Templates draw them and escape every name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lamina.report.colours import Colour
from lamina.report.format import MINUS, number, percent, power_of_ten

WIDTH, HEIGHT = 400.0, 260.0
LEFT, TOP, BOTTOM = 46.0, 14.0, 42.0
LABEL_GAP = 14.0
MOST_POINTS = 240


@dataclass(frozen=True)
class Series:
    """A named curve in data units; values that are not finite leave a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: Colour
    strong: bool = False


@dataclass(frozen=True)
class Tick:
    """A place on an axis in SVG units, and what is written there."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A curve in SVG units: its unbroken stretches, its end, and the label beside it (empty for none)."""

    name: str
    stretches: tuple[str, ...]
    end: tuple[float, float]
    label: str
    label_y: float
    colour: Colour
    strong: bool


@dataclass(frozen=True)
class LineChart:
    """All that the template needs to draw curves over training steps."""

    title: str
    x_label: str
    unit: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    right: float
    summary: str
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Bar:
    """One bar of a share in [0, 1] with its interval, in data units."""

    label: str
    value: float
    low: float
    high: float
    colour: Colour
    strong: bool = False

    @property
    def text(self) -> str:
        return percent(self.value)


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars from 0 to `limit`; `x` turns a share into SVG units."""

    title: str
    bars: tuple[Bar, ...]
    limit: float
    ticks: tuple[Tick, ...]
    summary: str
    width: float = WIDTH
    row: float = 42.0

    @property
    def height(self) -> float:
        return self.row * len(self.bars) + 30

    def x(self, share: float) -> float:
        return 2 + (self.width - 20) * min(share, self.limit) / self.limit


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that lie in [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def thin(x: Sequence[float], y: Sequence[float], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most about `most` points: means of equal stretches, the first and the last point as they are."""
    points = list(zip(x, y, strict=True))
    if len(points) <= most:
        return points
    inner, size = points[1:-1], math.ceil((len(points) - 2) / (most - 2))
    chunks = [inner[i : i + size] for i in range(0, len(inner), size)]
    means = [(sum(p[0] for p in c) / len(c), sum(p[1] for p in c) / len(c)) for c in chunks]
    return [points[0], *means, points[-1]]


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str = "step",
    unit: str = "",
    from_zero: bool = False,
    label: str = "none",
) -> LineChart | None:
    """Curves on common axes; None where there is nothing finite to draw.

    `label` says what stands at the end of each curve: its "name", its last "value", or "none".
    """
    thinned = [(s, thin(s.x, s.y)) for s in series]
    finite = [p for _, points in thinned for p in points if all(map(_drawable, p))]
    if not finite:
        return None
    x_range = _range([p[0] for p in finite], pad=0.0, from_zero=False)
    y_range = _range([p[1] for p in finite], pad=0.06, from_zero=from_zero)
    right = WIDTH - {"name": 66.0, "value": 52.0}.get(label, 12.0)
    x = _scale(x_range, (LEFT, right))
    y = _scale(y_range, (HEIGHT - BOTTOM, TOP))
    power = _power(y_range)
    ends = [_label(s, label, power) for s in series]
    lines = [_line(s, points, x, y, end) for (s, points), end in zip(thinned, ends, strict=True)]
    return LineChart(
        title=title,
        x_label=x_label,
        unit=unit or (f"in units of {power_of_ten(power)}" if power else ""),
        x_ticks=tuple(Tick(x(v), _short(v)) for v in ticks(*x_range, about=4)),
        y_ticks=tuple(Tick(y(v), _decimal(v / 10**power)) for v in ticks(*y_range)),
        lines=tuple(_spread([line for line in lines if line])),
        right=right,
        summary=f"{title}. " + "; ".join(_in_words(s) for s in series if s.y),
    )


def bar_chart(title: str, bars: Sequence[Bar]) -> BarChart | None:
    """Shares as horizontal bars with their intervals; None without bars."""
    if not bars:
        return None
    highest = max(max(bar.value, bar.high) for bar in bars)
    limit = next((m for m in (0.1, 0.2, 0.5) if highest <= m), 1.0)
    chart = BarChart(title, tuple(bars), limit, (), "")
    marks = tuple(Tick(chart.x(v), percent(v, 0)) for v in ticks(0, limit, about=4))
    words = "; ".join(f"{b.label} {b.text} ({percent(b.low)} to {percent(b.high)})" for b in bars)
    return BarChart(title, tuple(bars), limit, marks, f"{title}. {words}")


def _drawable(value: float) -> bool:
    return math.isfinite(value) and abs(value) < 1e290


def _range(values: Sequence[float], pad: float, from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if from_zero:
        return min(0.0, low), (high * (1 + pad) if high > 1e-290 else 1.0)
    if high - low <= max(1e-12 * max(abs(low), abs(high)), 1e-290):
        margin = abs(low) * 0.1 if abs(low) > 1e-280 else 0.5
        return low - margin, high + margin
    return low - pad * (high - low), high + pad * (high - low)


def _scale(data: tuple[float, float], drawn: tuple[float, float]) -> _Scale:
    return _Scale(data[0], (drawn[1] - drawn[0]) / (data[1] - data[0]), drawn[0])


@dataclass(frozen=True)
class _Scale:
    origin: float
    slope: float
    offset: float

    def __call__(self, value: float) -> float:
        return round(self.offset + (value - self.origin) * self.slope, 1)


def _line(s: Series, points: list[tuple[float, float]], x: _Scale, y: _Scale, label: str) -> Line | None:
    stretches: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if all(map(_drawable, point)):
            stretches[-1].append((x(point[0]), y(point[1])))
        elif stretches[-1]:
            stretches.append([])
    drawn = [stretch for stretch in stretches if stretch]
    if not drawn:
        return None
    end = drawn[-1][-1]
    paths = tuple(" ".join(f"{px},{py}" for px, py in stretch) for stretch in drawn)
    return Line(s.name, paths, end, label, end[1], s.colour, s.strong)


def _spread(lines: list[Line]) -> list[Line]:
    """Move labels apart, LABEL_GAP between two at least; where not all fit, evenly chosen ones stay."""
    labelled = [i for i, line in enumerate(lines) if line.label]
    room = int((HEIGHT - BOTTOM - TOP) / LABEL_GAP) + 1
    if len(labelled) > room:
        kept = {labelled[round(k * (len(labelled) - 1) / (room - 1))] for k in range(room)}
        lines = [line if i in kept else replace(line, label="") for i, line in enumerate(lines)]
        labelled = sorted(kept)
    order = sorted(labelled, key=lambda i: lines[i].end[1])
    places = [lines[i].end[1] for i in order]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + LABEL_GAP)
    overflow = places[-1] - (HEIGHT - BOTTOM) if places else 0.0
    if overflow > 0:
        places[-1] -= overflow
        for k, _ in reversed(list(enumerate(pairwise(places)))):
            places[k] = min(places[k], places[k + 1] - LABEL_GAP)
    for i, place in zip(order, places, strict=True):
        lines[i] = replace(lines[i], label_y=round(place, 1))
    return lines


def _label(s: Series, label: str, power: int) -> str:
    """What stands at the end of a curve; a value is in the unit of the axis."""
    if label == "value":
        drawn = [v / 10**power for v in s.y if _drawable(v)]
        largest = max(map(abs, drawn), default=0.0)
        if not largest:
            return "0" if drawn else ""
        # To the third digit of the largest value: more cannot be seen, and would not fit beside the curve.
        return number(round(drawn[-1], 2 - math.floor(math.log10(largest))))
    return s.name if label == "name" else ""


def _power(data: tuple[float, float]) -> int:
    """The power of ten to take out of an axis whose numbers are very small or very large, else 0."""
    largest = max(abs(data[0]), abs(data[1]))
    return 0 if largest == 0 or 1e-2 <= largest < 1e5 else math.floor(math.log10(largest))


def _decimal(value: float) -> str:
    return f"{value:.4g}".replace("-", MINUS) if abs(value) > 1e-12 else "0"


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _in_words(s: Series) -> str:
    finite = [(x, y) for x, y in zip(s.x, s.y, strict=True) if _drawable(y)]
    if not finite:
        return f"{s.name}: no finite value"
    (x0, y0), (x1, y1) = finite[0], finite[-1]
    return f"{s.name}: {number(y0)} at {_short(x0)}, {number(y1)} at {_short(x1)}"
