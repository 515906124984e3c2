"""Who wants to see a run go on, such as a progress bar; and that it can never end the run.

Runs on: driver.
Takes:   what the launcher tells.
Gives:   ``Observer``, the interface; ``Guarded``, an observer around any other that keeps its faults from the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol

from pipelines.errors import InterruptedRunError
from pipelines.plan.layout import Choice
from pipelines.plan.run_plan import RunPlan

log = logging.getLogger(__name__)


class Observer(Protocol):
    """What a run tells while it goes on, in the thread that launched it."""

    def layout_chosen(self, choice: Choice) -> None:
        """``layout: auto`` has become numbers."""

    def ranks_met(self, plan: RunPlan, starts: list[dict[str, Any]]) -> None:
        """All ranks have met; what they are going to do, and their start records by rank."""

    def on_record(self, record: dict[str, Any]) -> None:
        """A record of rank 0."""

    def say(self, line: str) -> None:
        """Something that a person should know and that is no failure."""


class Guarded:
    """Passes everything on until the observer fails; that is said once in the log, and the run goes on unseen."""

    def __init__(self, observer: Observer) -> None:
        self._observer, self._failed = observer, False

    def layout_chosen(self, choice: Choice) -> None:
        self._pass_on(lambda: self._observer.layout_chosen(choice))

    def ranks_met(self, plan: RunPlan, starts: list[dict[str, Any]]) -> None:
        self._pass_on(lambda: self._observer.ranks_met(plan, starts))

    def on_record(self, record: dict[str, Any]) -> None:
        self._pass_on(lambda: self._observer.on_record(record))

    def say(self, line: str) -> None:
        self._pass_on(lambda: self._observer.say(line))

    def _pass_on(self, call: Callable[[], None]) -> None:
        if not self._failed:
            with ExitStack() as stack:
                stack.push(self._keep)
                call()

    def _keep(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """True for a fault of the observer; a signal that arrived while it was called is none."""
        self._failed = isinstance(error, Exception) and not isinstance(error, InterruptedRunError)
        if self._failed:
            log.warning("progress is no longer shown, the run goes on: %s", repr(error))
        return self._failed
