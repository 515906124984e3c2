"""``runs/<run_id>/state.json``: one run as a whole; the row of table ``runs``.

Runs on: driver (the only writer).
Takes:   what the driver knows of a run.
Gives:   an atomically replaced JSON file; ``current_state``, the only answer to "how does this run stand?".
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.lake.claims import is_claimed
from pipelines.lake.paths import RunFolder
from pipelines.lake.rank_records import end_record
from pipelines.lake.store import write_file


@dataclass(frozen=True)
class RunState:
    """Status is ``running``, ``completed``, ``failed`` or ``interrupted``; see ``current_state`` for ``lost``."""

    run_id: str
    recipe_name: str
    recipe_hash: str
    dataset_name: str
    dataset_version: str
    num_replicas: int
    num_segments: int
    device: str
    precision: str
    planned_steps: int
    parameters: int
    status: str = "running"
    attempt: int = 0  # the newest one
    attempt_start_steps: tuple[int, ...] = (0,)  # last step already done when attempt i began
    started_s: float = 0.0  # Unix time
    ended_s: float | None = None
    exit_code: int | None = None
    error: str | None = None
    placement: tuple[str, ...] = ()  # host of each rank
    command: str = ""  # repeats the run
    model_code: dict[str, str] = field(default_factory=dict)  # of a user's model, see ``ModelFacts.code``
    environment: dict[str, Any] = field(default_factory=dict)  # machine and versions

    def changed(self, **facts: Any) -> RunState:
        return replace(self, **facts)

    def save(self, path: Path) -> None:
        write_file(path, json.dumps(asdict(self), indent=2))

    @staticmethod
    def load(path: Path) -> RunState | None:
        """The saved state, or None where the run has none."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for key in ("attempt_start_steps", "placement"):
                content[key] = tuple(content[key])
            return RunState(**content)
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(str(path), f"is not a run state ({error})", "move it away, or use another --run-id") from error


def current_state(run: RunFolder, *, ours: bool = False) -> RunState | None:
    """How a run stands, or None where there is none: what its driver wrote last, held against what is there.

    A run that every rank recorded as completed is ``completed``, whatever its driver met afterwards. A run is ``lost``
    when it says ``running`` and no process holds its claim: its driver was killed.

    Args:
        ours: this process holds the run's claim and is not executing it yet.
    """
    state = RunState.load(run.state)
    if state is None or state.status == "completed" or (not ours and is_claimed(run.claim)):
        return state
    state = RunState.load(run.state)  # once more: it may have ended between our look at it and at its claim
    if state is None or state.status == "completed":
        return state
    ends = [end_record(run.record(state.attempt, rank)) for rank in range(state.num_replicas * state.num_segments)]
    times_s = [end["time_s"] for end in ends if end is not None and end["status"] == "completed"]
    if len(times_s) == len(ends):
        return state.changed(status="completed", exit_code=0, error=None, ended_s=max(times_s))
    if state.status != "running":
        return state
    return state.changed(status="lost", error=f"driver on {state.environment.get('driver', 'an unknown host')}: ended without "
                         "saying how (it was killed, or its machine went down); the same command again starts the run anew")
