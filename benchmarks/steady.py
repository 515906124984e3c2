"""Ranks of ours, started without Spark, and what their steady steps took.

Runs on: driver.
Takes:   a published dataset; model, training and platform settings.
Gives:   ``steady_steps``: each rank's step records behind the warm-up; ``tokens_per_s`` of them.
"""

from __future__ import annotations

import json
from typing import Any

from pipelines.config import Config
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.launch.local import prepare_run, run_attempt

TIMEOUT_S = 500


def steady_steps(lake: Lake, manifest: Manifest, name: str, *, model: dict[str, Any], train: dict[str, Any],
                 platform: dict[str, Any], warmup: int) -> list[list[dict[str, Any]]]:
    """Step records of each rank.

    Args:
        name: of the recipe, one per measurement. train: with ``steps``; nothing is evaluated before the last one.
    """
    config = Config.from_json(json.dumps({
        "recipe": {"name": name,
                   "prepare": {"inputs": [{"path": "-"}], "sequence_length": manifest.task.sizes["sequence_length"]},
                   "data": {"num_lanes": 8}, "model": model, "schedule": {"warmup_steps": 2},
                   "train": {"evaluate_every_steps": train["steps"], **train}, "task": {"sample_tokens": 0}},
        "platform": platform}))
    run = prepare_run(lake, config, manifest)
    run_attempt(run, timeout_s=TIMEOUT_S)
    return [[record for record in RecordTail(run.live(0).record(rank)).new_records() if record["kind"] == "step"][warmup:]
            for rank in range(config.platform.layout.num_ranks)]


def tokens_per_s(steps: list[dict[str, Any]]) -> float:
    """Of the whole job, by one rank's steps."""
    return sum(step["global_units"] for step in steps) / sum(step["seconds"] for step in steps)
