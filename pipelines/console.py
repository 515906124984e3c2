"""What a person at the terminal sees: a progress bar there, plain lines in a log file.

Runs on: driver.
Takes:   the plan and rank 0's records as they come; the summary at the end.
Gives:   text on standard error (progress) and standard output (results).
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from pipelines.config import Config
from pipelines.flow.prepare_stage import dataset_lines
from pipelines.flow.stage import Job
from pipelines.flow.train_stage import layout_line
from pipelines.lake.metric_facts import METRIC_NAMES, metric_text, metric_title
from pipelines.plan.layout import Choice
from pipelines.plan.run_plan import RunPlan
from pipelines.printable import printable

PLAIN_LINE_EVERY_S = 5.0
TEXT_LINES = 12
MAX_PLACEMENT_LINES = 8
SMOOTHING = 0.9  # of the shown rate: one slow step must not make the time left jump

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line of progress; square brackets are text, not markup, and no text moves the cursor."""
    stderr.print(Text(printable(line)), soft_wrap=True)


class TrainingProgress:
    """An ``Observer`` (see ``launch/observer.py``) that draws a bar or prints a line every few seconds."""

    def __init__(self, stage: str = "train") -> None:
        self._stage = stage
        self._plan: RunPlan | None = None
        self._rate = 0.0  # units per second
        self._validation: float | None = None
        self._last_line_s = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def layout_chosen(self, choice: Choice) -> None:
        for line in choice.lines():
            self.say(line)

    def ranks_met(self, plan: RunPlan, starts: list[dict[str, Any]]) -> None:
        self._plan = plan
        hosts = list(dict.fromkeys(start["host"] for start in starts))
        steps = f", {plan.steps:,} steps of {plan.units_per_step:,} {plan.unit}" if self._stage == "train" else ""
        self.say(f"{len(starts)} ranks on {', '.join(hosts)}; {plan.parameters:,} parameters{steps}")
        if starts[-1]["segment_index"]:
            for line in placement_lines(starts):
                self.say(line)
        if stderr.is_terminal and self._stage == "train":
            self._bar = Progress(TextColumn("train"), BarColumn(), TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                                 TextColumn("{task.fields[figures]}"), TimeRemainingColumn(), console=stderr)
            self._task = self._bar.add_task("train", total=plan.steps, figures="")
            self._bar.start()

    def say(self, line: str) -> None:
        say(f"{self._stage}: {line}")

    def on_record(self, record: dict[str, Any]) -> None:
        if record["kind"] == "cut":
            parts = "; ".join(f"{i}: {part}" for i, part in enumerate(record["parts"]))
            self.say(f"the model is cut into parts {parts}")
        elif record["kind"] == "evaluation":
            self._validation = record["loss"]
            if self._bar is None:
                metrics = "".join(f", {metric_title(name)} {metric_text(name, record[name])}"
                                  for name in METRIC_NAMES if record.get(name) is not None)
                self.say(f"step {record['step']:,}: {record['split']} loss {record['loss']:.4f}{metrics}")
        elif record["kind"] == "step":
            rate = record["global_units"] / max(record["seconds"], 1e-9)
            self._rate = rate if not self._rate else SMOOTHING * self._rate + (1 - SMOOTHING) * rate
            if self._plan is not None:
                self._show(self._plan, record)

    def _show(self, plan: RunPlan, record: dict[str, Any]) -> None:
        figures = f"loss {record['loss']:.4f}"
        if self._validation is not None:
            figures += f", validation {self._validation:.4f}"
        figures += f", {self._rate:,.0f} {plan.unit}/s"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=record["step"], figures=figures)
        elif time.monotonic() - self._last_line_s >= PLAIN_LINE_EVERY_S or record["step"] == plan.steps:
            self._last_line_s = time.monotonic()
            left_s = (plan.steps - record["step"]) * plan.units_per_step / max(self._rate, 1e-9)
            self.say(f"step {record['step']:,}/{plan.steps:,}, {figures}, {left_s:.0f} s left")


def placement_lines(starts: list[dict[str, Any]]) -> list[str]:
    """Which rank holds which segment of which replica, and where; a few replicas, then the rest in one line."""
    lines = []
    num_segments = starts[-1]["segment_index"] + 1
    replicas = [starts[i : i + num_segments] for i in range(0, len(starts), num_segments)]
    for replica in replicas[:MAX_PLACEMENT_LINES]:
        ranks = ", ".join(f"segment {s['segment_index']} = rank {s['rank']} on {s['host']}" for s in replica)
        lines.append(f"replica {replica[0]['replica_index']}: {ranks}")
    if len(replicas) > MAX_PLACEMENT_LINES:
        lines.append(f"and {len(replicas) - MAX_PLACEMENT_LINES} more replicas (table runs has every rank's host)")
    return lines


def print_facts(title: str, facts: dict[str, str]) -> None:
    """A two-column list on standard output; values are never cut, so that a path can be copied."""
    width = max(map(len, facts))
    stdout.print(Text(printable(title), style="bold"))
    for name, value in facts.items():
        stdout.print(Text(printable(f"  {name:{width}}  {value}")))


def print_dataset(job: Job, manifest: Any) -> None:
    print_facts("dataset", dataset_lines(job, manifest))


def print_plan(config: Config, shown: dict[str, str]) -> None:
    """What ``--dry-run`` shows: the stages' lines between recipe and settings."""
    layout = layout_line(config.platform, config.platform.layout)
    print_facts("plan", {"recipe": config.recipe.name, "layout": layout} | shown | {"config": config.to_json()})


def print_summary(summary: dict[str, Any]) -> None:
    """What a run came to: did it learn, how fast, where the time went, what it writes, where everything lies."""
    print_facts(f"run {summary['run_id']}: {summary['status']}", summary_facts(summary))
    for exhibit in (summary["exhibits"] or {}).get("shown", ()):
        if exhibit["kind"] == "text":
            stdout.print(Text(f"\n{exhibit['title'].lower()}:"))
            for line in printable(exhibit["text"]).split("\n")[:TEXT_LINES]:
                stdout.print(Text(f"  | {line}"))
        elif exhibit["kind"] == "pictures":
            stdout.print(Text(printable(f"\n{exhibit['title'].lower()} (the report has the pictures):")))
            for picture in exhibit["pictures"][:TEXT_LINES]:
                stdout.print(Text(printable(f"  | {picture['caption']}")))


def print_evaluations(summary: dict[str, Any]) -> None:
    """What the job evaluate has found of a run so far, and where it lies."""
    for found in summary["evaluated"]:
        facts = {"dataset": f"{found['dataset_name']} {found['dataset_version']}", "samples": f"{found['samples']:,}",
                 "loss": metric_text("loss", found["loss"])}
        facts |= {metric_title(name): metric_text(name, found[name]) for name in METRIC_NAMES if found.get(name) is not None}
        print_facts(f"run {summary['run_id']}: {found['model']} model (step {found['step']:,}) on split {found['split']}", facts)
    tables = [summary["paths"]["tables"][name] for name in ("evaluations", "class_metrics", "confusions")]
    print_facts("see", {"report": summary["paths"]["report"], "tables": ", ".join(tables)})


def summary_facts(summary: dict[str, Any]) -> dict[str, str]:
    """The figures that are there; a run that failed early has few."""
    loss, throughput, share, paths = summary["loss"], summary["throughput"], summary["time_share"], summary["paths"]
    facts = {}
    if summary["error"]:
        facts["error"] = summary["error"]
    early = ", stopped early: no better evaluation" if summary["steps"]["stopped_early"] else ""
    facts["steps"] = f"{summary['steps']['done'] or 0:,} of {summary['steps']['planned']:,}{early}"
    for name, key in (("training loss", "train_last"), ("validation loss", "validation_last")):
        if loss[key] is not None:
            facts[name] = f"{loss[key]:.4f}"
    facts |= {f"  by {baseline['name']}": f"{baseline['loss']:.4f}" for baseline in reversed(summary["baselines"])}
    if summary["evaluations"]:
        last = summary["evaluations"][-1]
        facts |= {metric_title(name): metric_text(name, last[name]) for name in METRIC_NAMES if last.get(name) is not None}
    if throughput["units_per_s"]:
        facts["throughput"] = f"{throughput['units_per_s']:,.0f} {throughput['unit']}/s"
    if share:
        facts["time"] = ", ".join(f"{share[part]:.1%} {part.replace('_', ' ')}"
                                  for part in ("compute", "communication", "data_wait"))
    exhibits = summary["exhibits"]
    if exhibits is not None and exhibits["reason"]:
        facts["shown by the model"] = f"nothing: {exhibits['reason']}"
    facts["report"] = paths["report"]
    facts["tables"] = paths["tables"]["runs"].rpartition("/")[0]
    for which, path in paths["models"].items():
        facts[f"{which} model"] = path
    return facts
