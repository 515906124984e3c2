"""The charts of one run.

Runs on: driver.
Takes:   the run's summary and its figures by step and by rank.
Gives:   ``Markup`` to put into the page.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from pipelines.track.curves import Curve
from pipelines.track.figures import RankFigures, StepFigures
from pipelines.track.report.charts import Band, Chart, Series, si, smoothed, stacked_bar, timeline_chart
from pipelines.track.report.formats import bytes_of_unit, percent
from pipelines.track.report.readouts import Sizes, readable_chart
from pipelines.track.summary import TIME_PARTS

MAX_EVALUATION_POINTS = 60
LOSS_SIZES: Sizes = (("narrow", 340, 260), ("medium", 640, 300), ("wide", 1076, 340))  # CSS shows the one that fits
SMALL_SIZES: Sizes = (("narrow", 340, 190), ("broad", 512, 190))


class SmallChart(NamedTuple):
    """``legend`` has (CSS class, name) of each thing drawn; it is empty where there is one only."""

    title: str
    unit: str
    legend: list[tuple[str, str]]
    drawn: Markup


def loss_chart(summary: dict[str, Any], curve: Curve) -> Markup:
    """Train loss (smoothed, over the range of single steps), validation points and the baselines."""
    evaluations = summary["evaluations"]
    lines, bands = [], []
    at = curve.steps.tolist()
    if at:
        lines.append(Series("train", "train", at, smoothed(curve.means, len(at) // 100).tolist()))
        if not curve.single:  # else the curve shows every step
            bands.append(Band("train", at, curve.lows.tolist(), curve.highs.tolist()))
    if evaluations:
        kept = spread(evaluations, MAX_EVALUATION_POINTS)
        lines.append(Series("validation", "validation", [e["step"] for e in kept], [e["loss"] for e in kept], dots=True))
    levels = [(baseline["name"], baseline["loss"]) for baseline in summary["baselines"]]
    restarts = [float(step) for step in summary["steps"]["attempt_start_steps"][1:] if step]
    return readable_chart(Chart("Loss by step: train, validation, and the baselines", lines, bands, levels, restarts,
                                format_value=lambda value: f"{value:.3f}"), LOSS_SIZES)


def small_charts(steps: StepFigures, ranks: RankFigures, unit: str) -> list[SmallChart]:
    """Throughput, learning rate, gradient norm and memory; those that have a point."""
    charts = [_mean_chart("Throughput", f"{unit}/s", f"{unit}/s", steps.curve("units_per_s")),
              _mean_chart("Learning rate", "", "learning rate", steps.curve("learning_rate"), with_range=False),
              _mean_chart("Gradient norm", "before clipping", "norm", steps.curve("gradient_norm"))]
    return [chart for chart in (*charts, _memory_chart(ranks)) if chart.drawn]


def _mean_chart(title: str, unit: str, name: str, curve: Curve, *, with_range: bool = True) -> SmallChart:
    """The mean of each point's steps, over their range where they are several."""
    at = curve.steps.tolist()
    ranged = with_range and bool(at) and not curve.single
    bands = [Band("plain", at, curve.lows.tolist(), curve.highs.tolist())] if ranged else []
    chart = Chart(f"{title} by step", [Series("plain", name, at, curve.means.tolist())] if at else [], bands,
                  from_zero=True, format_y=si, format_value=lambda value: f"{value:,.0f}" if value >= 1000 else f"{value:.4g}")
    return SmallChart(title, unit, [("plain", "mean"), ("range", "single steps")] if ranged else [],
                      readable_chart(chart, SMALL_SIZES))


def _memory_chart(ranks: RankFigures) -> SmallChart:
    memory = ranks.memory_bytes
    at = memory.steps.tolist()
    if not at:
        return SmallChart("Memory", "", [], Markup(""))
    size, unit = bytes_of_unit(float(memory.highest.max()))
    lines = [Series("plain", "fullest rank", at, (memory.highest / size).tolist())]
    if len(ranks.steps_R) > 1:
        lines.append(Series("second", "median rank", at, (memory.median / size).tolist()))
    chart = Chart("Memory of the ranks by step", lines, from_zero=True, format_value=lambda value: f"{value:.2f} {unit}")
    return SmallChart("Memory", unit, [(line.css, line.name) for line in lines] if len(lines) > 1 else [],
                      readable_chart(chart, SMALL_SIZES))


def time_bar(shares: dict[str, float]) -> Markup:
    """Compute, communication, data wait and the rest as one bar."""
    title = ", ".join(f"{part.replace('_', ' ')} {percent(share)}" for part, share in shares.items())
    return stacked_bar([(part, shares[part]) for part in (*TIME_PARTS, "other")], title)


def timelines(split_step: dict[str, Any] | None) -> list[tuple[str, Markup]]:
    """The step's timeline at the widths of the loss chart: one lane per segment of the first replica."""
    if split_step is None:
        return []
    rows = [(f"segment {i}", [(one["kind"], one["begin_s"], one["end_s"], str(one["micro_batch"])) for one in segment])
            for i, segment in enumerate(split_step["segments"])]
    title = f"Step {split_step['step']}: what each segment computed when, by micro-batch"
    return [(css, timeline_chart(rows, width, title)) for css, width, _ in LOSS_SIZES]


def spread(values: list[Any], at_most: int) -> list[Any]:
    """Some of the values, evenly apart, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(len(values), at_most)).round().astype(int)
    return [values[place] for place in places]
