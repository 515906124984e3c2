"""What a stage of the flow is, as data, and what a job gives to its stages.

Runs on: driver.
Takes:   nothing.
Gives:   ``Stage``, ``Planned``, ``Job``. ``flow.py`` has the stages in order; each is planned once and done once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from pyspark.sql import SparkSession

from pipelines.config.load import Config
from pipelines.lake.paths import Lake
from pipelines.launch.observer import Observer
from pipelines.spark.session_start import SessionStart


@dataclass
class Job:
    """One command: what it was asked for, and what its stages use. Spark starts when it is first needed."""

    config: Config
    run_id: str | None  # None: the recipe's own
    command: str  # repeats it
    say: Callable[[str], None]
    observer: Observer
    request: Any = None  # what a stage was asked for that no recipe describes: predictions, an export
    build_begins: Callable[[], None] | None = None  # called while the input is read, where it will have to be prepared
    _stack: ExitStack = field(default_factory=ExitStack)
    _session_start: SessionStart | None = None

    @property
    def lake(self) -> Lake:
        return Lake.at(self.config.platform.storage.address)

    def start_spark(self) -> SessionStart:
        """Lets Spark start while the job goes on."""
        if self._session_start is None:
            self._session_start = self._stack.enter_context(SessionStart(self.config.platform, self.config.recipe.name))
        return self._session_start

    def spark(self) -> SparkSession:
        """The session, stopped at the job's end."""
        return self.start_spark().session()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)


@dataclass(frozen=True)
class Planned:
    """What a stage would do: shown by ``--dry-run``, done by the run."""

    content: Any  # for the stage's own ``run``
    shown: dict[str, str]
    result: Any = None  # what the stage gives, where it is complete already
    done: str = ""  # names what is complete


def _nothing(job: Job) -> None:
    """Most stages cannot be refused in advance."""


@dataclass(frozen=True)
class Stage:
    """One stage. It is planned as soon as what it needs is there: before the run, or after the stages that make it."""

    name: str
    needs: tuple[str, ...]  # names of stages before it; their results come behind the job in ``plan``
    plan: Callable[..., Planned]  # starts nothing, writes nothing
    run: Callable[[Job, Any], Any]  # of a plan's content; gives the stage's result
    check: Callable[[Job], None] = _nothing  # refuses, before anything is started, what it could not do
    admit: Callable[[Job], None] = _nothing  # the same with a session, before stages that it waits for take hours
