"""A chart that tells its values: to a pointer, a finger, the arrow keys and a screen reader.

Runs on: driver.
Takes:   a ``Chart`` and the sizes at which the page shows it.
Gives:   ``Markup``: the chart at each size, the text of its last point, and the texts of all points for ``report.js.j2``.
"""

from __future__ import annotations

import bisect
import json

from markupsafe import Markup, escape

from pipelines.track.report.charts import Chart, Series, line_chart

Sizes = tuple[tuple[str, int, int], ...]  # (CSS class that shows it, width, height)


def readable_chart(chart: Chart, sizes: Sizes) -> Markup:
    """The chart with a line of text above it that says what it shows at one step; nothing where it has no point."""
    points = readings(chart)
    if not points:
        return Markup("")
    drawn = "".join(f'<div class="only-{css}">{line_chart(chart, width, height)}</div>' for css, width, height in sizes)
    return Markup(f'<div class="chart" data-title="{escape(chart.title)}" data-points="{escape(json.dumps(points))}">'  # noqa: S704
                  f'<p class="readout">{escape(points[-1][1])}</p>{drawn}</div>')  # numbers, and texts that were escaped


def readings(chart: Chart) -> list[tuple[float, str]]:
    """(step, what each curve says there), at every step that a curve has a point at.

    A curve without a point at the step tells its latest one, and where that was.
    """
    return [(step, f"step {step:,.0f}: " + ", ".join(_reading(chart, line, step) for line in chart.lines if line.x[0] <= step))
            for step in sorted({x for line in chart.lines for x in line.x})]


def _reading(chart: Chart, line: Series, step: float) -> str:
    place = bisect.bisect_right(line.x, step) - 1
    text = f"{line.name} {chart.format_value(line.y[place])}"
    for band in (band for band in chart.bands if band.css == line.css):
        low, high = chart.format_value(band.low[place]), chart.format_value(band.high[place])
        text += f" ({low} to {high})" if low != high else ""
    return text if line.x[place] == step or not line.dots else f"{text} at step {line.x[place]:,.0f}"
