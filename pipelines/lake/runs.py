"""How a run and each attempt at it stand: ``runs/<run_id>/state.json`` and ``attempt-NNN/state.json``.

Runs on: driver (the only writer).
Takes:   what the driver knows of a run and of an attempt.
Gives:   atomically replaced JSON files; ``current_state``, the only answer to "how does this run stand?".

A run's own file says what recipe and data decide and never changes; it is written behind the first attempt's files, so a run
that is there has an attempt. What an attempt came to is in its own file alone, so nothing is told in two places.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from pipelines.errors import DataError
from pipelines.lake.claims import is_claimed
from pipelines.lake.paths import RunFolder
from pipelines.lake.rank_records import end_record
from pipelines.lake.store import Store

RUN_FORMAT = 2  # 1 had no number: one file for the run and its newest attempt
_ATTEMPT = re.compile(r"attempt-(\d{3,})")
StateT = TypeVar("StateT", "AttemptState", "RunState")


class OlderRunError(DataError):
    """A run that another version of this project made."""


@dataclass(frozen=True)
class AttemptState:
    """One launch of a run. Status is ``running``, ``completed``, ``failed`` or ``interrupted``; see ``current_state`` for
    ``lost``."""

    number: int
    num_replicas: int
    num_segments: int
    device: str
    status: str = "running"
    start_step: int = 0  # the last step already done when it began
    started_s: float = 0.0  # Unix time
    ended_s: float | None = None
    exit_code: int | None = None
    error: str | None = None
    placement: tuple[str, ...] = ()  # host of each rank
    command: str = ""  # repeats it
    environment: dict[str, Any] = field(default_factory=dict)  # machine and versions

    @property
    def num_ranks(self) -> int:
        return self.num_replicas * self.num_segments

    def changed(self, **facts: Any) -> AttemptState:
        return replace(self, **facts)

    def save(self, run: RunFolder) -> None:
        run.store.put(run.attempt_state(self.number), json.dumps(asdict(self), indent=2))


@dataclass(frozen=True)
class RunState:
    """One recipe on one dataset version, and the attempts at it; as a whole, the row of table ``runs``."""

    run_id: str
    recipe_name: str
    recipe_hash: str
    dataset_name: str
    dataset_version: str
    unit: str  # what a step counts beside its samples, see ``TaskFacts.unit``
    precision: str
    planned_steps: int
    parameters: int
    model_code: dict[str, str] = field(default_factory=dict)  # see ``ModelFacts.code``
    attempts: tuple[AttemptState, ...] = ()  # oldest first, one at least where the run is there

    @property
    def newest(self) -> AttemptState:
        return self.attempts[-1]

    @property
    def status(self) -> str:
        """The newest attempt's."""
        return self.newest.status

    def save(self, run: RunFolder) -> None:
        """Without the attempts, which have files of their own."""
        content = {name: value for name, value in asdict(self).items() if name != "attempts"}
        run.store.put(run.state, json.dumps({"format": RUN_FORMAT, **content}, indent=2))

    @staticmethod
    def load(run: RunFolder) -> RunState | None:
        """As it is saved, or None where there is no such run.

        Raises:
            OlderRunError: made by another version. DataError: damaged.
        """
        content = _read(run.store, run.state)
        if content is None:
            return None
        if content.pop("format", 1) != RUN_FORMAT:
            raise OlderRunError(f"run {run.run_id}", f"was made by another version of this project ({run.store.place(run.state)} "
                                f"does not have format {RUN_FORMAT})",
                                f"use another --run-id, or move {run.store.place(run.key)} away")
        numbers = sorted(int(match[1]) for name in run.store.names(run.key) if (match := _ATTEMPT.fullmatch(name)))
        found = [(run.store.place(run.attempt_state(number)), _read(run.store, run.attempt_state(number))) for number in numbers]
        attempts = tuple(_made(AttemptState, {**each, "placement": tuple(each.get("placement", ()))}, path)
                         for path, each in found if each is not None)
        if not attempts:
            raise DataError(run.store.place(run.key), "has no attempt", "use another --run-id, or move it away")
        return _made(RunState, {**content, "attempts": attempts}, run.store.place(run.state))


def _read(store: Store, key: str) -> dict[str, Any] | None:
    try:
        content = json.loads(store.read(key))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(store.place(key), error) from error
    if not isinstance(content, dict):
        raise _damaged(store.place(key), "no JSON object")
    return content


def _made(kind: type[StateT], content: dict[str, Any], place: str) -> StateT:
    try:
        return kind(**content)
    except TypeError as error:
        raise _damaged(place, error) from error


def _damaged(place: str, why: object) -> DataError:
    return DataError(place, f"is not a run's state ({why})", "use another --run-id, or move the run's folder away")


def current_state(run: RunFolder, *, ours: bool = False) -> RunState | None:
    """How a run stands, or None where there is none: what its driver wrote last, held against what is there.

    An attempt that every rank recorded as completed is ``completed``, whatever its driver met afterwards. One is ``lost``
    that says ``running`` and whose driver is gone: no process holds the run's claim, or a later attempt has begun.

    Args:
        ours: this process holds the run's claim and is not executing it yet.
    """
    state = RunState.load(run)
    if state is not None and state.status != "completed" and (ours or not is_claimed(run.store, run.claim)):
        state = RunState.load(run)  # once more: it may have ended between our look at it and at its claim
        if state is not None:
            state = replace(state, attempts=(*state.attempts[:-1], _ended(run, state.newest)))
    if state is None:
        return None
    return replace(state, attempts=(*map(_lost_if_running, state.attempts[:-1]), state.newest))


def _ended(run: RunFolder, attempt: AttemptState) -> AttemptState:
    """What an attempt that nobody executes came to."""
    if attempt.status == "completed":
        return attempt
    ends = [end_record(run.live(attempt.number).record(rank)) for rank in range(attempt.num_ranks)]
    times_s = [end["time_s"] for end in ends if end is not None and end["status"] == "completed"]
    if len(times_s) == len(ends):
        return attempt.changed(status="completed", exit_code=0, error=None, ended_s=max(times_s))
    return _lost_if_running(attempt)


def _lost_if_running(attempt: AttemptState) -> AttemptState:
    if attempt.status != "running":
        return attempt
    return attempt.changed(
        status="lost", error=f"driver on {attempt.environment.get('driver', 'an unknown host')}: ended without saying how (it "
        "was killed, or its machine went down); the same command again starts the run anew")
