"""``report.html``: one run on one page that needs no network, no script and no other file.

Runs on: driver (no Spark).
Takes:   the run's summary and its rows in the tables.
Gives:   ``runs/<run_id>/report.html``, below 2 MB for any number of steps.

What comes from data or models is text, never HTML: the template escapes everything, and the page's own
Content-Security-Policy forbids scripts and loads.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from pipelines.tables.atomic import write_file
from pipelines.tables.paths import Lake
from pipelines.track.charts import Band, Chart, Series, buckets, line_chart, si, smoothed, stacked_bar, timeline_chart
from pipelines.track.figures import STEP_COLUMNS, Steps
from pipelines.track.parts import read_rows
from pipelines.track.summary import TIME_PARTS, summarize, time_shares
from pipelines.track.verdict import verdict

CURVE_POINTS = 320  # more than the widest chart can show
MAX_RANKS, MAX_EVALUATIONS, MAX_TEXT = 32, 16, 20_000
LOSS_SIZES = (("narrow", 340, 260), ("medium", 640, 300), ("wide", 1076, 340))  # CSS shows the one that fits
SMALL_SIZE = (330, 190)


def write_report(lake: Lake, run_id: str | None = None) -> Path:
    """Writes the page of a run (the newest where no id is given) and returns its path.

    Raises:
        DataError: no such run.
        StorageError: the page cannot be written.
    """
    summary = summarize(lake, run_id)
    steps = Steps.of(read_rows(lake, "steps", summary["run_id"], STEP_COLUMNS))
    path = lake.run(summary["run_id"]).report
    write_file(path, render(summary, steps).encode("utf-8", "replace"))
    return path


def render(summary: dict[str, Any], steps: Steps) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("pipelines.track", ""), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"count": _count, "si": _si, "fixed": _fixed, "percent": _percent, "bytes": _bytes,
                            "duration": _duration, "printable": printable}
    evaluations = summary["evaluations"]
    shown = [evaluations[i] for i in sorted({round(i) for i in np.linspace(0, len(evaluations) - 1, MAX_EVALUATIONS)})
             ] if len(evaluations) > MAX_EVALUATIONS else evaluations
    return environment.get_template("report.html.j2").render(
        run=summary, verdict=verdict(summary), loss_charts=_loss_charts(summary, steps),
        single_steps=len(steps) > CURVE_POINTS, charts=_small_charts(steps),
        evaluations=shown, timelines=_timelines(summary["pipeline"]),
        ranks=[(rank, shares, time_bar(shares)) for rank in summary["ranks"][:MAX_RANKS]
               if (shares := time_shares([rank])) is not None])


def time_bar(shares: dict[str, float] | None) -> Markup:
    """Compute, communication, data wait and the rest as one bar."""
    if shares is None:
        return Markup("")
    title = ", ".join(f"{part.replace('_', ' ')} {_percent(share)}" for part, share in shares.items())
    return stacked_bar([(part, shares[part]) for part in (*TIME_PARTS, "other")], title)


def _loss_charts(summary: dict[str, Any], steps: Steps) -> list[tuple[str, Markup]]:
    """Train loss (smoothed, over the range of single steps), validation points and the baselines."""
    evaluations, loss = summary["evaluations"], summary["loss"]
    lines, bands = [], []
    if len(steps):
        pieces = buckets(steps.step, CURVE_POINTS)
        smooth = smoothed(steps.loss, len(steps) // 100)
        at = [float(steps.step[piece[-1]]) for piece in pieces]
        if len(steps) > CURVE_POINTS:  # else the curve shows every step
            bands.append(Band("train", at, [float(steps.loss[piece].min()) for piece in pieces],
                              [float(steps.loss[piece].max()) for piece in pieces]))
        lines.append(Series("train", at, [float(smooth[piece[-1]]) for piece in pieces]))
    if evaluations:
        kept = [evaluations[piece[-1]] for piece in buckets(np.arange(len(evaluations)), 60)]
        lines.append(Series("validation", [e["step"] for e in kept], [e["loss"] for e in kept], dots=True))
    levels = [(name, loss[key]) for name, key in (("blind guess", "uniform"), ("token frequency", "unigram"))
              if loss[key] is not None]
    chart = Chart("Loss by step: train, validation, and the two baselines", lines, bands, levels, _restarts(summary))
    return [(css, line_chart(chart, width, height)) for css, width, height in LOSS_SIZES] if lines else []


def _timelines(pipeline: dict[str, Any] | None) -> list[tuple[str, Markup]]:
    """The step's timeline at the widths of the loss chart: one lane per segment of the first replica."""
    if pipeline is None:
        return []
    rows = [(f"segment {i}", [(one["kind"], one["begin_s"], one["end_s"], str(one["micro_batch"])) for one in segment])
            for i, segment in enumerate(pipeline["segments"])]
    title = f"Step {pipeline['step']}: what each segment computed when, by micro-batch"
    return [(css, timeline_chart(rows, width, title)) for css, width, _ in LOSS_SIZES]


def _small_charts(steps: Steps) -> list[tuple[str, str, Markup]]:
    """(title, unit, chart) of throughput, learning rate and gradient norm."""
    if not len(steps):
        return []
    pieces = buckets(steps.step, CURVE_POINTS // 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = [float(steps.tokens_each[piece].sum() / steps.seconds[piece].sum()) for piece in pieces]
    found = []
    for title, unit, values, from_zero in (
            ("Throughput", "tokens/s", speed, True),
            ("Learning rate", "", [float(steps.learning_rate[piece[-1]]) for piece in pieces], True),
            ("Gradient norm", "before clipping", [float(steps.gradient_norm[piece].mean()) for piece in pieces], True)):
        points = [(float(steps.step[piece[-1]]), value) for piece, value in zip(pieces, values, strict=True)
                  if math.isfinite(value)]
        if points:
            curve = Series("plain", [x for x, _ in points], [y for _, y in points])
            chart = Chart(f"{title} by step", [curve], from_zero=from_zero, format_y=si)
            found.append((title, unit, line_chart(chart, *SMALL_SIZE)))
    return found


def _restarts(summary: dict[str, Any]) -> list[float]:
    return [float(step) for step in summary["steps"]["attempt_start_steps"][1:] if step]


def printable(text: str) -> str:
    """Text that a page can hold: control characters show as the replacement character; very long text is cut."""
    text = text.encode("utf-8", "replace").decode()
    cut = text[:MAX_TEXT] + (" […]" if len(text) > MAX_TEXT else "")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", cut)


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _si(value: float | None) -> str:
    return "–" if value is None else si(value)


def _fixed(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"


def _bytes(value: float | None) -> str:
    if value is None:
        return "–"
    for limit, unit in ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f} B"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
