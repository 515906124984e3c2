"""The stage prepare: raw input to one immutable dataset version.

Runs on: driver.
Takes:   the recipe's inputs.
Gives:   the dataset's ``Manifest``.
"""

from __future__ import annotations

from pipelines.flow.stage import Job, Planned
from pipelines.lake.manifest import Manifest
from pipelines.prepare.prepare import PreparePlan, plan_prepare, prepare_planned
from pipelines.spark.session import requested_master


def plan_dataset(job: Job) -> Planned:
    """Complete where the version that inputs and recipe make is there."""
    begins = job.build_begins
    plan = plan_prepare(job.config.recipe, job.lake, None if begins is None else lambda _: begins())
    version = plan.version or "version known once the input is read"
    if plan.version is None or not plan.exists:
        return Planned(plan, {"dataset": f"{version} (would be made)"})
    manifest = Manifest.load(job.lake.store.below(job.lake.dataset(plan.name, plan.version)))
    return Planned(plan, {"dataset": f"{version} (complete, would be skipped)"}, manifest,
                   f"dataset {manifest.name} {manifest.version}")


def dataset_lines(job: Job, manifest: Manifest) -> dict[str, str]:
    """A dataset for people."""
    return {"name": manifest.name, "version": manifest.version,
            "folder": job.lake.store.place(job.lake.dataset(manifest.name, manifest.version)),
            **{name: f"{count:,}" for name, count in manifest.counts.items()}}


def check_build(job: Job) -> None:
    """Raises ConfigError where there is no master."""
    requested_master(job.config.platform)


def make_dataset(job: Job, plan: PreparePlan) -> Manifest:
    return prepare_planned(job.spark, plan, job.config.recipe, job.lake, job.say)
