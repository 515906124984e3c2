"""``runs/<run_id>/state.json``: one run as a whole; the row of table ``runs``.

Runs on: driver (the only writer).
Takes:   what the driver knows of a run.
Gives:   an atomically replaced JSON file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.tables.atomic import write_file


@dataclass(frozen=True)
class RunState:
    """Status is ``running``, ``completed``, ``failed`` or ``interrupted``."""

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
