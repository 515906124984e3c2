"""``report.html``: one run on one page that needs no network and no other file.

Runs on: driver (no Spark).
Takes:   the run's summary and its figures.
Gives:   ``runs/<run_id>/report.html``, below 2 MB for any number of steps and ranks.

What comes from data or models is text, never HTML: the template escapes everything, and the page's own
Content-Security-Policy forbids loads, and every script but the one that reads values off the charts (named by its hash).
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import jinja2
from markupsafe import Markup

from pipelines.lake.metric_facts import METRIC_NAMES, metric_text, metric_title
from pipelines.lake.paths import Lake
from pipelines.track.report.formats import FILTERS
from pipelines.track.report.run_charts import loss_chart, small_charts, spread, time_bar, timelines
from pipelines.track.summary import Measured, time_shares
from pipelines.track.verdict import verdict

MAX_RANKS, MAX_EVALUATIONS = 64, 16
OPEN_RANKS = 8  # further ones are folded


def write_report(lake: Lake, run_id: str | None = None) -> tuple[dict[str, Any], bool]:
    """The summary of a run (of the newest where no id is given), and whether its page had to be written: not where it
    shows just that already.

    Raises:
        DataError: no such run.
        StorageError: the page cannot be written.
    """
    measured = Measured.of(lake, run_id)
    page, key = render(measured).encode("utf-8", "replace"), lake.run(measured.summary["run_id"]).report
    fresh = lake.store.facts(key) is None or lake.store.read(key) != page
    if fresh:
        lake.store.put(key, page)
    return measured.summary, fresh


def render(measured: Measured) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("pipelines.track.report", ""), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= FILTERS | {"metric_title": metric_title, "metric_text": metric_text}
    summary, loss = measured.summary, measured.steps.curve("loss")
    ranks = longest_computing_first(summary["ranks"])[:MAX_RANKS]
    script = environment.get_template("report.js.j2").render()
    return environment.get_template("report.html.j2").render(
        run=summary, verdict=verdict(summary), loss=loss_chart(summary, loss), ranged=not loss.single,
        charts=small_charts(measured.steps, measured.ranks, summary["throughput"]["unit"]),
        evaluations=spread(summary["evaluations"], MAX_EVALUATIONS),
        metric_names=METRIC_NAMES,
        metrics=[name for name in METRIC_NAMES if any(name in each for each in summary["evaluations"])],
        timelines=timelines(summary["split_step"]), open_ranks=OPEN_RANKS,
        ranks=[(rank, shares, time_bar(shares)) for rank in ranks if (shares := time_shares([rank])) is not None],
        script=Markup(script), script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode())  # noqa: S704


def longest_computing_first(ranks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where not all ranks are shown at once, those first that computed longest: the others wait for them."""
    if len(ranks) <= OPEN_RANKS:
        return ranks
    slowest = sorted(ranks, key=lambda rank: rank["compute_s"], reverse=True)[:OPEN_RANKS]
    return [*slowest, *(rank for rank in ranks if rank not in slowest)]
