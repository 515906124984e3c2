"""What a lake relies on of the place where it lies, tried out there.

Runs on: driver (``sparkring doctor --storage``); tests, on every kind of store.
Takes:   a store below a prefix of its own, to which nobody else writes.
Gives:   ``tried``: of each rule, whether it holds and what was found. What was written is removed again.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pipelines.errors import SparkringError
from pipelines.lake.store import Store

LARGE_BYTES = 24 * 1024**2  # more than one request where uploads come in parts
RIVALS = 8
ROUNDS = 4  # of rivals: a store that looks first and writes then is lucky once


class TriedRule(NamedTuple):
    """Of one rule."""

    rule: str
    holds: bool
    said: str


class _BrokenRuleError(Exception):
    """In words."""


def tried(store: Store) -> Iterator[TriedRule]:
    """Goes on behind a rule that does not hold."""
    for rule, trial in _TRIALS.items():
        began = time.monotonic()
        try:
            said = trial(store)
        except _BrokenRuleError as error:
            yield TriedRule(rule, False, str(error))
        except FileNotFoundError as error:
            yield TriedRule(rule, False, f"{error} is not there, and was written")
        except SparkringError as error:
            yield TriedRule(rule, False, f"{error.place} {error.problem}")
            if rule == _FIRST:  # nothing else would do better
                return
        else:
            yield TriedRule(rule, True, said or f"{time.monotonic() - began:.2f} s")


def _is_read_as_written(store: Store) -> str:
    content = secrets.token_bytes(1000)
    times_s = []
    for number in range(3):
        began = time.monotonic()
        store.put(f"small-{number}", content)
        _require(store.read(f"small-{number}") == content, "another content came back")
        times_s.append(time.monotonic() - began)
        facts = store.facts(f"small-{number}")
        _require(facts is not None and facts.bytes == len(content), "its size is told as another")
        store.remove(f"small-{number}")
    return f"a small object is written and read in {min(times_s) * 1000:.0f} ms"


def _is_large(store: Store) -> str:
    content = secrets.token_bytes(LARGE_BYTES)
    began = time.monotonic()
    with store.writer("large") as file:
        file.write(content[:LARGE_BYTES // 2])
        file.write(content[LARGE_BYTES // 2:])
    written = time.monotonic()
    _require(store.local_path("large").read_bytes() == content, "another content came back")
    read = time.monotonic()
    store.remove("large")
    megabytes = LARGE_BYTES / 1e6
    return f"{megabytes / (written - began):,.0f} MB/s written, {megabytes / (read - written):,.0f} MB/s read"


def _is_whole_or_not_there(store: Store) -> str:
    try:
        with store.writer("cut-off") as file:
            file.write(secrets.token_bytes(LARGE_BYTES))
            raise _BrokenRuleError
    except _BrokenRuleError:
        _require(store.facts("cut-off") is None, "what a writer left half-way is there")
    return "nothing of an object that its writer gave up"


def _is_replaced(store: Store) -> str:
    versions = []
    for content in (b"a", b"b"):
        store.put("replaced", content)
        _require(store.read("replaced") == content, "an old content came back")
        versions.append(getattr(store.facts("replaced"), "version", None))
    _require(versions[0] != versions[1], "the version is told as the same")
    store.remove("replaced")
    _require(store.facts("replaced") is None, "it is still there behind its removal")
    return "seen at once, as its removal is"


def _is_created_once(store: Store) -> str:
    _require(store.create("sequence/0", b"") and not store.create("sequence/0", b""), "a second one was created over the first")
    for number in range(1, ROUNDS + 1):
        ready = threading.Barrier(RIVALS)

        def rival(own: int, key: str = f"sequence/{number}", ready: threading.Barrier = ready) -> bool:
            ready.wait(timeout=60)
            return store.create(key, str(own))

        with ThreadPoolExecutor(RIVALS) as threads:
            won = [own for own, created in enumerate(threads.map(rival, range(RIVALS))) if created]
        _require(len(won) == 1, f"of {RIVALS} that created one at the same time, {len(won)} were told that they did")
        _require(store.read(f"sequence/{number}") == str(won[0]).encode(), "the content is another's")
    for number in range(ROUNDS + 1):
        store.remove(f"sequence/{number}")
    return f"of {RIVALS} at the same time one is told that it did"


def _is_listed(store: Store) -> str:
    keys = ["listed/a", "listed/b/c", "listed/b/d"]
    for key in keys:
        store.put(key, b"x")
    _require(store.names("listed") == ["a", "b"], f"listed as {store.names('listed')}")
    for key in keys:
        store.remove(key)
    return ""


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _BrokenRuleError(otherwise)


_FIRST = "what is written is read"
_TRIALS: dict[str, Callable[[Store], str]] = {
    _FIRST: _is_read_as_written, "an object that is replaced": _is_replaced,
    "an object is created by one of several": _is_created_once, "a large object": _is_large,
    "an object is whole or not there": _is_whole_or_not_there, "a listing": _is_listed}
