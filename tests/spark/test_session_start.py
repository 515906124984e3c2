"""Spark starts beside what its job does first; nothing of it is left, however either ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Platform
from pipelines.errors import InterruptedRunError, ResourceError
from pipelines.interrupts import Interrupt
from pipelines.spark import jvm, session_start
from pipelines.spark.session_start import SessionStart

OPENED = object()
Opening = Callable[[], Any]


class Opened:
    """Stands for Spark: what ``spark_session`` does, when it does it, and whether it was closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, open_session: Opening) -> None:
        self.closed = 0

        @contextmanager
        def spark_session(platform: Platform, app_name: str) -> Iterator[Any]:
            spark = open_session()
            try:
                yield spark
            finally:
                self.closed += 1

        monkeypatch.setattr(session_start, "spark_session", spark_session)
        monkeypatch.setattr(session_start, "running_session", lambda: None)


def test_the_job_goes_on_while_spark_starts_and_waits_for_it_when_it_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    job_went_on = threading.Event()
    opened = Opened(monkeypatch, lambda: job_went_on.wait(60) and OPENED)
    with SessionStart(Platform(), "test") as start:
        job_went_on.set()
        assert start.session() is OPENED
        assert opened.closed == 0
    assert opened.closed == 1


def test_why_spark_did_not_start_is_told_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ResourceError("Spark", "no Java", "install it")

    opened = Opened(monkeypatch, refuse)
    with SessionStart(Platform(), "test") as start, pytest.raises(ResourceError, match="no Java"):
        start.session()
    assert opened.closed == 0


def test_a_job_that_is_interrupted_while_spark_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = threading.Event()
    opened = Opened(monkeypatch, lambda: interrupted.wait(60) and OPENED)
    with pytest.raises(InterruptedRunError), SessionStart(Platform(), "test"):
        interrupted.set()
        raise InterruptedRunError("SIGTERM", "the run was asked to stop", "give the command again")
    assert opened.closed == 1


def test_a_job_that_is_interrupted_while_it_waits_for_spark_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    interrupted = threading.Event()

    def arrive(number: int, frame: Any) -> None:
        interrupted.set()
        raise Interrupt(number)

    opened = Opened(monkeypatch, lambda: (interrupted.wait(60) and time.sleep(0.5)) or OPENED)
    signal.signal(signal.SIGTERM, arrive)
    try:
        with pytest.raises(Interrupt), SessionStart(Platform(), "test") as start:
            threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
            start.session()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert opened.closed == 1


def test_java_starts_quickly_and_the_users_own_options_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "a folder" / "classes.jsa"
    monkeypatch.setenv(jvm.OPTIONS_VARIABLE, "-XX:TieredStopAtLevel=4")
    with jvm.quick_start(archive):
        assert os.environ[jvm.OPTIONS_VARIABLE] == "-XX:TieredStopAtLevel=1 -XX:TieredStopAtLevel=4"
    archive.parent.mkdir()
    archive.touch()
    with jvm.quick_start(archive):
        assert f'"-XX:SharedArchiveFile={archive}" -XX' in os.environ[jvm.OPTIONS_VARIABLE]
    assert os.environ[jvm.OPTIONS_VARIABLE] == "-XX:TieredStopAtLevel=4"
    monkeypatch.delenv(jvm.OPTIONS_VARIABLE)
    with jvm.quick_start(archive):
        pass
    assert jvm.OPTIONS_VARIABLE not in os.environ
