"""One attempt at a run: its folder with all that its ranks read, and how it began and ended.

Runs on: driver, which holds the run's claim.
Takes:   config and plan; at the end what the ranks have recorded.
Gives:   ``begin_attempt``, ``end_attempt``: how the run then stands, as it is saved.
"""

from __future__ import annotations

import time
from dataclasses import replace

from pipelines.errors import InterruptedRunError, SparkringError
from pipelines.lake.paths import RunFolder
from pipelines.lake.runs import AttemptState, RunState
from pipelines.launch.environment import environment
from pipelines.launch.identity import next_attempt, training_hash
from pipelines.launch.news import News
from pipelines.launch.planning import TrainPlan
from pipelines.plan.run_plan import RunPlan


def begin_attempt(of: TrainPlan, plan: RunPlan, command: str, earlier: RunState | None) -> RunState:
    """The run with its next attempt. An attempt's state comes last and makes it one, and the run's comes behind its first.

    Args:
        earlier: how the run stands, where it has begun.
    """
    run, recipe, manifest, layout = of.run, of.config.recipe, of.manifest, plan.layout
    number = next_attempt(run)
    run.live(number).make()
    run.store.put(run.config(number), of.config.with_layout(layout).to_json())
    plan.save(run, number)
    attempt = AttemptState(number=number, num_replicas=layout.num_replicas, num_segments=layout.num_segments,
                           device=layout.device, started_s=time.time(), command=command, environment=environment())
    attempt.save(run)
    if earlier is not None:
        return replace(earlier, attempts=(*earlier.attempts, attempt))
    state = RunState(
        run_id=plan.run_id, recipe_name=recipe.name, recipe_hash=training_hash(recipe, manifest.version, plan.model_code),
        model_code=plan.model_code, dataset_name=manifest.name, dataset_version=manifest.version, unit=plan.unit,
        precision=recipe.train.precision, planned_steps=plan.steps, parameters=plan.parameters, attempts=(attempt,))
    state.save(run)
    return state


def end_attempt(run: RunFolder, state: RunState, news: News, error: SparkringError | None) -> RunState:
    """How the newest attempt stands now that its gang is gone: what every rank has recorded as completed is complete."""
    for _ in news.new_records():  # those of the last moment
        pass
    status, exit_code, said = "completed", 0, None
    if error is not None and not news.completed:
        status = "interrupted" if isinstance(error, InterruptedRunError) else "failed"
        exit_code, said = error.exit_code, str(error)
    attempt = state.newest.changed(status=status, exit_code=exit_code, error=said, ended_s=time.time(),
                                   placement=tuple(start["host"] for start in news.starts() if news.met))
    attempt.save(run)
    run.live(attempt.number).keep()
    return replace(state, attempts=(*state.attempts[:-1], attempt))
