"""The stage export: a dataset version as another library's format, in a folder of the user's.

Runs on: driver.
Takes:   the dataset's manifest.
Gives:   the folder.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import ConfigError, SparkringError
from pipelines.flow.stage import Job, Planned
from pipelines.lake.manifest import Manifest
from pipelines.prepare.petastorm_export import export_petastorm, exported_version

EXPORTS = ("petastorm",)


def plan_export(job: Job, manifest: Manifest) -> Planned:
    """Complete where the folder holds this version."""
    folder, version = _folder(job), f"{manifest.name} {manifest.version}"
    found = exported_version(folder)
    if found not in (None, version):
        raise ConfigError(SparkringError("--export", f"{str(folder)!r} holds dataset {found}, not {version}",
                                         "name another folder, or remove it"))
    state = "would be written" if found is None else "complete, would be skipped"
    return Planned(manifest, {"export": f"{folder} ({state})"}, None if found is None else folder, f"export {folder}")


def check_export(job: Job) -> None:
    """
    Raises:
        ConfigError: there is no such format; the folder holds something else.
    """
    exported_version(_folder(job))


def write_export(job: Job, manifest: Manifest) -> Path:
    folder = _folder(job)
    export_petastorm(job.spark, manifest, job.lake, folder)
    job.say(f"export: wrote {folder}")
    return folder


def _folder(job: Job) -> Path:
    kind, folder = job.request or ("", "")
    if kind not in EXPORTS:
        raise ConfigError(SparkringError(f"--export {kind}", "is not a format that is written", f"known: {', '.join(EXPORTS)}"))
    return Path(folder).expanduser().resolve()
