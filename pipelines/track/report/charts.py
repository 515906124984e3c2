"""Charts as inline SVG, drawn for a page that is light or dark, wide or narrow.

Runs on: driver.
Takes:   numbers.
Gives:   ``Markup`` of one <svg>. Colours are the page's CSS classes; every text is escaped; no script, no network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

Format = Callable[[float], str]
Scale = Callable[[float], float]  # a value to its pixel
TEXT_PX = 12
CHARACTER_PX = 6.6  # about the width of a digit at TEXT_PX


@dataclass(frozen=True)
class Series:
    """One curve: ``css`` is its class, ``name`` what it is called; ``dots`` draws its points as well (for few points)."""

    css: str
    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


@dataclass(frozen=True)
class Band:
    """The area between two curves over the same x: the lowest and highest of what the curve of that class averages."""

    css: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """What a line chart shows. ``levels`` are named horizontal lines, ``marks`` vertical ones."""

    title: str  # for those who cannot see it
    lines: list[Series]
    bands: list[Band] = field(default_factory=list)
    levels: list[tuple[str, float]] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)
    from_zero: bool = False
    format_y: Format = lambda value: f"{value:g}"  # at the axis
    format_value: Format = lambda value: f"{value:.4g}"  # where a single value is read


def line_chart(chart: Chart, width: int, height: int) -> Markup:
    """The chart in its own pixels: draw it once for each width at which it is shown."""
    xs = [x for line in chart.lines for x in line.x]
    ys = [y for line in chart.lines for y in line.y] + [y for band in chart.bands for y in (*band.low, *band.high)]
    ys += [level for _, level in chart.levels] + ([0.0] if chart.from_zero else [])
    if not xs or not ys:
        return Markup("")
    margin = 0.04 * ((max(ys) - min(ys)) or abs(max(ys)) or 1.0)
    low, high = (0.0 if chart.from_zero else min(ys) - margin), max(ys) + margin
    y_ticks = [tick for tick in nice_ticks(low, high, max(3, height // 48)) if low <= tick <= high]
    labels = [chart.format_y(tick) for tick in y_ticks]
    left, right, top, bottom = 10 + CHARACTER_PX * max(map(len, labels), default=0), width - 14, 10, height - 26
    x_low, x_high = min(0.0, *xs), max(*xs, 1.0)

    def px(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (right - left)

    def py(y: float) -> float:
        return bottom - (y - low) / ((high - low) or 1.0) * (bottom - top)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(chart.title)}" data-left="{left:.1f}" '
             f'data-right="{right}" data-low="{x_low:g}" data-high="{x_high:g}">']
    for tick, label in zip(y_ticks, labels, strict=True):
        parts.append(f'<path class="grid" d="M{left:.1f} {py(tick):.1f}H{right}"/>'
                     f'<text class="tick" text-anchor="end" x="{left - 6:.1f}" y="{py(tick) + 4:.1f}">{label}</text>')
    x_ticks = [tick for tick in nice_ticks(x_low, x_high, max(2, width // 110)) if x_low <= tick <= x_high]
    for tick in x_ticks:
        anchor = "end" if px(tick) > right - 16 else "middle"
        parts.append(f'<text class="tick" text-anchor="{anchor}" x="{px(tick):.1f}" y="{height - 8}">{si(tick)}</text>')
    parts += [f'<path class="mark" d="M{px(x):.1f} {top}V{bottom}"/>' for x in chart.marks if x_low <= x <= x_high]
    parts += [_band(band, px, py) for band in chart.bands]
    parts += _levels(chart.levels, left, right, py)
    parts += [_line(line, px, py) for line in chart.lines]
    parts.append(f'<path class="cursor" d="M0 {top}V{bottom}"/></svg>')
    return Markup("".join(parts))  # noqa: S704 - numbers, and texts that were escaped


def stacked_bar(shares: list[tuple[str, float]], title: str) -> Markup:
    """One horizontal bar of shares that sum to 1, stretched to any width."""
    at, parts = 0.0, ['<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" '
                      f'aria-label="{escape(title)}">']
    for css, share in shares:
        parts.append(f'<rect class="{css}" x="{at * 100:.3f}" y="0" width="{max(share, 0) * 100:.3f}" height="10"/>')
        at += share
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - numbers, and a title that was escaped


def timeline_chart(rows: list[tuple[str, list[tuple[str, float, float, str]]]], width: int, title: str) -> Markup:
    """One lane per row, with a box for each piece of work.

    Args:
        rows: (name, [(css, begin, end, label)]); a label is drawn where its box has room, and told to whoever points at it.
    """
    left, lane, gap, bottom = 76, 26, 6, 20
    begin = min(box[1] for _, boxes in rows for box in boxes)
    end = max(box[2] for _, boxes in rows for box in boxes)
    scale = (width - left - 8) / max(end - begin, 1e-9)
    height = len(rows) * (lane + gap) + bottom
    parts = [f'<svg class="timeline" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
             f'aria-label="{escape(title)}">']
    for row, (name, boxes) in enumerate(rows):
        y = row * (lane + gap)
        parts.append(f'<text class="tick" x="0" y="{y + lane / 2 + 4:.1f}">{escape(name)}</text>'
                     f'<rect class="idle" x="{left}" y="{y}" width="{width - left - 8}" height="{lane}"/>')
        for css, box_begin, box_end, label in boxes:
            x, box_width = left + (box_begin - begin) * scale, max((box_end - box_begin) * scale, 0.5)
            text = (f'<text class="box" x="{x + box_width / 2:.1f}" y="{y + lane / 2 + 4:.1f}">{escape(label)}</text>'
                    if len(label) * CHARACTER_PX + 2 < box_width else "")
            parts.append(f'<g><title>{escape(name)}: {css} {escape(label)}, {(box_end - box_begin) * 1e3:.3g} ms</title>'
                         f'<rect class="work {css}" x="{x:.2f}" y="{y}" width="{box_width:.2f}" height="{lane}"/>{text}</g>')
    seconds = end - begin
    for tick in nice_ticks(0.0, seconds, 4)[:-1]:
        x, label = left + tick * scale, f"{tick * 1e3:g} ms"
        if x + len(label) * CHARACTER_PX < width:
            parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 4}">{label}</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - numbers, and texts that were escaped


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers, from the last below the range to the first above it."""
    largest = max(abs(low), abs(high))
    span = high - low
    if span <= 1e-9 * largest or span < 1e-200:  # a flat line, but for rounding
        span = largest if largest >= 1e-200 else 1.0
    rough = span / max(1, count)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = magnitude * next(m for m in (1, 2, 2.5, 5, 10) if rough <= m * magnitude * 1.0001)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def si(value: float) -> str:
    """1200 -> 1.2k."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def smoothed(y: np.ndarray, window: int) -> np.ndarray:
    """Mean over about ``window`` values around each one (fewer at the ends), so that it does not lag behind."""
    half = max(0, window // 2)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    places = np.arange(len(y))
    half_here = np.minimum(half, np.minimum(places, len(y) - 1 - places))
    return (sums[places + half_here + 1] - sums[places - half_here]) / (2 * half_here + 1)


def _path(x: Sequence[float], y: Sequence[float], px: Scale, py: Scale) -> str:
    return "L".join(f"{px(a):.1f} {py(b):.1f}" for a, b in zip(x, y, strict=True))


def _line(line: Series, px: Scale, py: Scale) -> str:
    drawn = f'<path class="line {line.css}" d="M{_path(line.x, line.y, px, py)}"/>' if len(line.x) > 1 else ""
    if line.dots or len(line.x) == 1:
        drawn += "".join(f'<circle class="dot {line.css}" cx="{px(a):.1f}" cy="{py(b):.1f}" r="3.5">'
                         f'<title>step {a:,.0f}: {b:.4g}</title></circle>' for a, b in zip(line.x, line.y, strict=True))
    return drawn


def _band(band: Band, px: Scale, py: Scale) -> str:
    there = _path(band.x, band.high, px, py)
    back = _path(list(reversed(band.x)), list(reversed(band.low)), px, py)
    return f'<path class="band {band.css}" d="M{there}L{back}Z"/>'


def _levels(levels: list[tuple[str, float]], left: float, right: float, py: Scale) -> list[str]:
    """Dashed lines with their names at the right end, kept apart from each other."""
    parts, taken = [], -math.inf
    for name, level in sorted(levels, key=lambda item: -item[1]):
        y = float(py(level))
        text_y = max(y - 5, taken + TEXT_PX + 2) if y > 24 else y + TEXT_PX + 2
        taken = text_y
        parts.append(f'<path class="level" d="M{left:.1f} {y:.1f}H{right}"/><text class="name" text-anchor="end" '
                     f'x="{right}" y="{text_y:.1f}">{escape(name)}</text>')
    return parts
