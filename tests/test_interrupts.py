"""Ctrl-C and SIGTERM in the main thread: once, twice, early, and where errors are dropped."""

import os
import signal

import pytest

from pipelines.errors import InterruptedRunError
from pipelines.interrupts import (
    SIGNALS,
    Interrupt,
    arm_interrupts,
    before_interrupts,
    held_interrupts,
    hold_interrupts,
    ignore_interrupts,
    interrupts_as_errors,
    release_interrupts,
)


@pytest.fixture(autouse=True)
def own_handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    arm_interrupts()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_library_that_catches_every_exception_does_not_catch_an_interrupt(number):
    with pytest.raises(Interrupt) as caught:
        try:
            interrupt(number)
        except Exception as error:
            raise RuntimeError("lost the JVM") from error
    assert caught.value.as_error().exit_code == 9
    assert str(caught.value.as_error()).startswith(f"{number.name}: the run was asked to stop; the same command again")


def test_an_impatient_second_one_does_not_disturb_the_end():
    ended = []
    with pytest.raises(InterruptedRunError, match="SIGTERM"):
        try:
            with interrupts_as_errors():
                try:
                    interrupt(signal.SIGTERM)
                finally:
                    interrupt()
                    ended.append("ranks")
        except InterruptedRunError:
            ended.append("error")
            raise
    interrupt()  # outside of any handler, such as while the run's state is written
    assert ended == ["ranks", "error"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_python_drops_does_not_make_the_run_unstoppable():
    class Dying:
        def __del__(self):
            interrupt()

    with pytest.raises(Interrupt):
        Dying()  # raised there, and dropped
        interrupt()


def test_in_a_held_block_it_waits_for_the_end():
    done = []
    with pytest.raises(Interrupt, match="SIGTERM"), held_interrupts():
        interrupt(signal.SIGTERM)
        done.append("a JVM has been started")
    assert done == ["a JVM has been started"]
    with held_interrupts():
        pass  # nothing came


def test_what_must_come_first_is_done_at_the_place_that_was_reached():
    done = []
    with pytest.raises(Interrupt), before_interrupts(lambda: done.append("connection dropped")):
        interrupt()
        done.append("never")
    assert done == ["connection dropped"]
    with pytest.raises(Interrupt):
        interrupt()
    assert len(done) == 1


def test_before_a_command_can_begin_it_is_kept():
    hold_interrupts()
    interrupt()
    with pytest.raises(Interrupt, match="SIGINT"):
        release_interrupts()
    release_interrupts()  # once


def test_who_has_been_told_is_not_interrupted_again():
    ignore_interrupts()
    interrupt()
