"""Runs as the ranks and the driver leave them, small enough to check by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pipelines.lake.exhibits import TextExhibit, as_json
from pipelines.lake.manifest import Baseline, Manifest, Shard, row_group_runs
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordWriter
from pipelines.lake.runs import AttemptState, RunState
from pipelines.prepare.text.language_rows import language_facts

WriteRun = Callable[..., RunState]
START_S = 1_790_000_000.0
STEP_SECONDS, WAIT_S, COMPUTE_S, COMMUNICATION_S = 0.5, 0.05, 0.35, 0.1


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.at(tmp_path / "my lake")


def save_state(lake: Lake, run_id: str, start_steps: tuple[int, ...] = (0,), **facts: Any) -> RunState:
    """Writes how a run stands.

    Args:
        start_steps: of each attempt, the last step already done when it began.
        facts: of the run, or of its newest attempt; those before it failed.
    """
    of_attempt = {"num_replicas": 2, "num_segments": 1, "device": "cpu", "started_s": START_S, "command": "python jobs/train.py",
                  "placement": ("host-a", "host-b"), "environment": {"python": "3.11"}}
    of_run = {"recipe_name": "gpt-demo", "recipe_hash": "0123456789abcdef", "dataset_name": "gpt-demo", "dataset_version": "v1",
              "unit": "tokens", "precision": "fp32", "planned_steps": 20, "parameters": 1234}
    names = {field.name for field in fields(AttemptState)}
    newest = of_attempt | {name: value for name, value in facts.items() if name in names}
    run_facts = of_run | {name: value for name, value in facts.items() if name not in names}
    attempts = tuple(AttemptState(number=number, start_step=step,
                                  **(newest if number == len(start_steps) - 1 else of_attempt | {"status": "failed"}))
                     for number, step in enumerate(start_steps))
    for attempt in attempts:
        attempt.save(lake.run(run_id))
    state = RunState(run_id, attempts=attempts, **run_facts)
    state.save(lake.run(run_id))
    return state


def step_facts(step: int, *, loss: float | None = None, **facts: Any) -> dict[str, Any]:
    return {"step": step, "epoch": 0, "loss": 10.0 - step / 10 if loss is None else loss, "learning_rate": 1e-3,
            "gradient_norm": 1.5, "global_units": 200, "global_samples": 20, "units": 100, "samples": 10,
            "seconds": STEP_SECONDS, "data_wait_s": WAIT_S, "compute_s": COMPUTE_S, "communication_s": COMMUNICATION_S,
            "pipeline_wait_s": 0.0, "averaging_s": COMMUNICATION_S,
            "memory_bytes": 1000 + step, **facts}


def write_steps(lake: Lake, run_id: str, attempt: int, rank: int, steps: range, **facts: Any) -> None:
    """Records of one rank; a file that is there is continued."""
    path = lake.run(run_id).live(attempt).record(rank)
    fresh = not path.exists()
    with RecordWriter(path, rank, attempt) as records:
        if fresh:
            records.write("start", replica_index=rank, segment_index=0, num_ranks=2, host=f"host-{rank}", pid=1,
                          start_step=steps.start - 1, device="cpu", threads=1, versions={})
        for step in steps:
            records.write("step", **step_facts(step, **facts))


def write_evaluation(lake: Lake, run_id: str, attempt: int, step: int, loss: float) -> None:
    with RecordWriter(lake.run(run_id).live(attempt).record(0), 0, attempt) as records:
        records.write("evaluation", step=step, split="validation", loss=loss, samples=5, units=50, seconds=0.1)


@pytest.fixture
def write_run(lake: Lake) -> WriteRun:
    """Writes a run of one attempt with its dataset's manifest."""
    def write(run_id: str = "run-1", num_steps: int = 20, num_ranks: int = 2, text: str = "the end",
              **facts: Any) -> RunState:
        for rank in range(num_ranks):
            write_steps(lake, run_id, 0, rank, range(1, num_steps + 1))
        if num_steps:
            write_evaluation(lake, run_id, 0, num_steps // 2, 7.5)
            write_evaluation(lake, run_id, 0, num_steps, 8.0)
        with RecordWriter(lake.run(run_id).live(0).record(0), 0, 0) as records:
            records.write("exhibits", step=num_steps, reason=None, shown=[
                as_json(TextExhibit("What it writes", "Once", text))])
        state = save_state(lake, run_id, **{"num_replicas": num_ranks, "planned_steps": num_steps, "status": "completed",
                                            "exit_code": 0, "ended_s": START_S + 60, **facts})
        write_manifest(lake)
        return state
    return write


def write_manifest(lake: Lake) -> None:
    shards = (Shard("train-00000.parquet", row_group_runs([512, 100]), 5000, "0" * 64),
              Shard("train-00001.parquet", row_group_runs([300]), 2000, "1" * 64))
    task = language_facts(sequence_length=16, vocabulary_size=300, end_of_text_id=0, tokenizer_sha256="t" * 64)
    Manifest("gpt-demo", "v1", task, "f" * 16, "r" * 16,
             {"train": shards, "validation": (Shard("validation-00000.parquet", row_group_runs([40]), 900, "2" * 64),)},
             {"train": 9000, "validation": 400},
             {"input_records": 12, "documents": 9, "rejected_empty": 2, "rejected_undecodable": 1},
             (Baseline("guessing", 9.0), Baseline("token frequencies", 8.5, "how often each is")),
             ).save(lake.store.below(lake.dataset("gpt-demo", "v1")))
