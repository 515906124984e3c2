"""What an evaluation of a run's model would be, and whether it can be.

Runs on: driver.
Takes:   config, how the run stands, which of its models, the dataset and the split.
Gives:   ``EvaluationPlan``, which ``--dry-run`` shows and ``launch/evaluating.py`` does.

What is evaluated names the evaluation: model, step, split and dataset version. On which layout is not a part of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pipelines.config.checks import contradictions
from pipelines.config.load import Config
from pipelines.errors import AlreadyRunningError, CheckpointError, ConfigError, DataError, SparkringError
from pipelines.lake.exported import described, model_step
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake, RunFolder
from pipelines.lake.runs import RunState
from pipelines.lake.store import Store
from pipelines.launch.planning import TrainPlan, plan_ranks


@dataclass(frozen=True)
class EvaluationPlan:
    """One model on one split."""

    ranks: TrainPlan
    model: str  # best | last
    step: int  # after which it was exported
    split: str

    @property
    def content(self) -> dict[str, object]:
        """What is evaluated, for the ranks and in the result."""
        manifest = self.ranks.manifest
        return {"run_id": self.ranks.run_id, "model": self.model, "step": self.step, "split": self.split,
                "dataset_name": manifest.name, "dataset_version": manifest.version}

    @property
    def folder(self) -> RunFolder:
        identity = hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()[:8]
        return self.ranks.run.evaluated(f"{self.model}-{self.split}-{identity}")

    @property
    def complete(self) -> bool:
        return self.ranks.lake.store.facts(self.folder.result) is not None

    def __str__(self) -> str:
        return f"{self.model} model of run {self.ranks.run_id} (step {self.step:,}) on split {self.split}"


def plan_evaluation(config: Config, lake: Lake, state: RunState, manifest: Manifest, model: str, split: str) -> EvaluationPlan:
    """Starts nothing and writes nothing.

    Args:
        config: the run's recipe, on the platform of now. manifest: of the data to evaluate on.
    Raises:
        DataError: no such split, or an empty one; data of another task than the model's. ConfigError: a user's code has changed;
            recipe and platform do not go together.
        CheckpointError: there is no such model. AlreadyRunningError: the run is still training.
    """
    if faults := contradictions(config.recipe, config.platform):
        raise ConfigError(faults)
    dataset = lake.store.place(lake.dataset(manifest.name, manifest.version))
    rows = {name: sum(shard.rows for shard in shards) for name, shards in manifest.splits.items()}
    if not rows.get(split):
        there = ", ".join(f"{name} ({count:,} rows)" for name, count in rows.items() if count)
        raise DataError(dataset, f"its split {split} is empty" if split in rows else f"has no split {split}",
                        f"use --split with one of: {there}; or prepare with more rows in it")
    if state.status == "running":
        raise AlreadyRunningError(f"run {state.run_id}", "is still training, and its models are still replaced",
                                  "wait for its end, or end it")
    step = _check_model(lake, state, model, manifest, dataset)
    config = _with_exported(config, lake.store.below(lake.model(state.run_id, model)))
    ranks = plan_ranks(config, lake, manifest, state.run_id, state)
    if ranks.attempt is not None:
        check_code_as_trained(state, ranks.attempt.model_code)
    return EvaluationPlan(ranks, model, step, split)


def _check_model(lake: Lake, state: RunState, which: str, manifest: Manifest, dataset: str) -> int:
    """The step after which the model was exported."""
    files = lake.store.below(lake.model(state.run_id, which))
    there = [name for name in lake.store.names(lake.models(state.run_id)) if not name.startswith(".")]
    if which not in there:
        remedy = f"there is: {', '.join(there)}" if there else "train the run first: the same command again goes on"
        raise CheckpointError(files.place(), f"run {state.run_id} ({state.status}) has no {which} model", remedy)
    try:
        step, task = model_step(files), described(files)[1]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(files.place(), f"is not an exported model ({error})", "train the run again") from error
    difference = manifest.task.difference_from(task)
    if difference is not None:
        raise DataError(dataset, difference, "give --dataset a recipe whose data is prepared as the model's was")
    return step


def _with_exported(config: Config, files: Store) -> Config:
    """Where a model went on from a folder, its own says now what it is."""
    if config.recipe.model.origin is None:
        return config
    return Config(config.recipe.with_model(described(files)[0]), config.platform)


def check_code_as_trained(state: RunState | None, code: dict[str, str]) -> None:
    """Raises ConfigError where the code of a user's model is not that which was trained."""
    if state is not None and code and code != state.model_code:
        changed = sorted(name for name in code | state.model_code if code.get(name) != state.model_code.get(name))
        raise ConfigError(SparkringError(f"--run-id {state.run_id}", "the code of its model has changed since it was trained "
                                         f"({', '.join(changed)})", "restore it, or train again and evaluate that run"))
