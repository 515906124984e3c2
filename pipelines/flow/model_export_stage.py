"""The stage model export: a run's model as one file of another library's format.

Runs on: driver.
Takes:   the job's request: format, which model, output, type of the weights.
Gives:   the file, and what it is, in lines for people.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import ConfigError, SparkringError
from pipelines.flow.stage import Job, Planned
from pipelines.lake.exported import trained_model
from pipelines.models.gguf_file import TYPES, GgufPlan, planned_gguf, write_gguf
from pipelines.prepare.inputs import is_url

MODEL_FORMATS = ("gguf",)


def plan_model_export(job: Job) -> Planned:
    """Complete where the output is this export.

    Raises:
        ConfigError: there is no such format or type; the output is something else. DataError: there is no such model.
        CheckpointError: it cannot be written in this format.
    """
    form, which, output, kind = job.request
    for option, value, known in (("--format", form, MODEL_FORMATS), ("--type", kind, TYPES)):
        if value not in known:
            raise ConfigError(SparkringError(option, f"{value!r} is not one that is written", f"known: {', '.join(known)}"))
    if is_url(output):
        raise ConfigError(SparkringError("--output", f"{output} is a URL", "name a file of this machine"))
    target = Path(output).expanduser().absolute()
    plan = planned_gguf(trained_model(job.lake, str(job.run_id), which), f"{job.run_id} {which}", kind)
    there = target.exists()
    if there and not plan.is_in(target):
        raise ConfigError(SparkringError("--output", f"{target} exists, and is not this export",
                                         "name another file, or remove it"))
    lines = {"model": plan.files.place(), "file": f"{target} ({'complete, would be skipped' if there else 'would be written'})"}
    return Planned((plan, target), lines, _export_lines(plan, target) if there else None, f"file {target}")


def write_model_export(job: Job, planned: tuple[GgufPlan, Path]) -> dict[str, str]:
    plan, target = planned
    write_gguf(plan, target)
    return _export_lines(plan, target)


def _export_lines(plan: GgufPlan, target: Path) -> dict[str, str]:
    return {"model": f"{plan.name} ({plan.config['model_type']}, {plan.type})", "file": str(target),
            "bytes": f"{target.stat().st_size:,}"}
