"""Ctrl-C and SIGTERM end a run in an orderly way, wherever the main thread stands.

Runs on: driver.
Takes:   SIGINT and SIGTERM.
Gives:   ``Interrupt`` where the main thread stands, so that every ``finally`` ends what it started; further signals are
         ignored meanwhile, or an impatient second Ctrl-C would leave ranks behind. ``interrupts_as_errors`` turns it into
         an ``InterruptedRunError`` where a run's state is kept; ``held_interrupts`` holds it back for a moment;
         ``before_interrupts`` prepares for it.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipelines.errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt(BaseException):
    """A request to stop. No Exception: Py4J, for one, takes every Exception in its socket calls for a lost JVM."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)

    def as_error(self) -> InterruptedRunError:
        return InterruptedRunError(signal.Signals(self.number).name, "the run was asked to stop",
                                   "the same command again starts it anew; what was complete is kept")


class _Held:
    """Whether interrupts wait at the moment, and the signal that came meanwhile."""

    active = False
    number: int | None = None


_first: list[Callable[[], None]] = []  # what is done before an Interrupt is raised


def arm_interrupts() -> None:
    """Installs the handlers. ``spark/session.py`` keeps them in place of pyspark's."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def ignore_interrupts() -> None:
    """For a process that has been asked to stop and does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupts_as_errors() -> Iterator[None]:
    """Raises InterruptedRunError for an Interrupt; from then on no further one disturbs what is written of the run."""
    try:
        yield
    except Interrupt as interrupt:
        ignore_interrupts()
        raise interrupt.as_error() from None


def hold_interrupts() -> None:
    """Installs the handlers; an interrupt waits for ``release_interrupts``."""
    _Held.active = True
    arm_interrupts()


def release_interrupts() -> None:
    """Raises the Interrupt that came meanwhile, if one did."""
    _Held.active = False
    number, _Held.number = _Held.number, None
    if number is not None:
        _raise(number)


@contextmanager
def held_interrupts() -> Iterator[None]:
    """An interrupt in the block is raised at its end: for short work that must not be left half done.

    Only the main thread is interrupted, so in another one nothing need be held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Held.active = True
    try:
        yield
    finally:
        release_interrupts()


@contextmanager
def before_interrupts(call: Callable[[], None]) -> Iterator[None]:
    """Where an interrupt comes in the block, ``call`` is made first, in the main thread and at the place it had reached."""
    _first.append(call)
    try:
        yield
    finally:
        _first.remove(call)


def _raise(number: int) -> None:
    for call in _first:
        call()
    raise Interrupt(number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _Held.active:
        _Held.number = number
    elif not _stopping(sys.exception()):
        _raise(number)


def _stopping(error: BaseException | None) -> bool:
    """Whether the main thread is on its way out already; an interrupt that was raised where Python drops errors (in a
    ``__del__``) is not."""
    while error is not None:
        if isinstance(error, Interrupt | InterruptedRunError):
            return True
        error = error.__context__
    return False
