"""What several commands have in common: options, and the command line that repeats one.

Runs on: driver.
Takes:   nothing.
Gives:   ``RecipeOption``, ``PlatformOption``, ``SetOption``, ``DryRunOption``; ``repeating``.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipelines.config.secrets import masked_override

RecipeOption = Annotated[Path, typer.Option("--recipe", metavar="FILE", help="What is learned (conf/recipes/*.yaml).")]
PlatformOption = Annotated[Path, typer.Option("--platform", metavar="FILE",
                                              help="Where it runs (conf/platforms/*.yaml).")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE",
                                                     help="Change one setting, e.g. train.steps=100. May be repeated.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]


def repeating(job: str, recipe: Path | None, platform: Path, overrides: list[str] | None, run_id: str | None) -> str:
    """A command line that repeats this execution from any folder; secrets in it are masked, since it is stored."""
    parts = ["sparkring", job, *([] if recipe is None else ["--recipe", str(recipe.absolute())]),
             "--platform", str(platform.absolute())]
    for override in overrides or []:
        parts += ["--set", masked_override(override)]
    if run_id is not None:
        parts += ["--run-id", run_id]
    return shlex.join(parts)
