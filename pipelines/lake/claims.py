"""A claim: what one process at a time holds, on any store. It is the only lock there is: of a run, of a run's tables, of a
dataset version that is prepared, of a folder of predictions.

Runs on: driver.
Takes:   a store and the claim's key, and what to say where another process holds it.
Gives:   ``claimed``, a block that holds it; ``Claim``, by which the block sees that it still does; ``is_claimed``.

Below the key lies a sequence of small objects, each created and never changed, of which the newest says how the claim stands:

    000007.json     held by process 4711 of host a; those before it are void, and removed by whoever added this one
    beat-<token>    written anew every BEAT_S by the same holder; read by other hosts only

To take the claim, to go on holding it (``Claim.check``) and to give it back is to add the next number, which a store lets only
one of several do. So a holder that was taken for dead meanwhile fails at its next step. Who is taken for dead:

    on this host        one whose process is gone, at once
    on another host     one whose number and beat have not changed for LEASE_S of the watcher's own clock

No clock of another machine and no time of an object counts, nor need the holder do anything when it ends: its objects stay until
the next one comes. An ended claim leaves one object, which keeps the numbers going up.

Source: Gray and Cheriton, Leases, SOSP 1989; the fencing is Kleppmann's, with the number as the token.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pipelines.errors import AlreadyRunningError, StorageError
from pipelines.lake.claim_sequence import ClaimEntry, ClaimSequence
from pipelines.lake.holders import this_process
from pipelines.lake.store import Store

log = logging.getLogger(__name__)
LEASE_S = 30.0
BEAT_S = 5.0  # several in a lease: one may fail, or take long
PATIENCE_S = 1.0  # a load, or a command that finds nothing to do, holds a claim for a moment
_POLL_S, _LONGEST_POLL_S = 0.02, 0.5
_ours: set[str] = set()  # tokens of this process: one whose giving back failed does not hold on until the process ends


@contextmanager
def claimed(store: Store, key: str, refusal: AlreadyRunningError, patience_s: float = PATIENCE_S) -> Iterator[Claim]:
    """Holds the claim for the block.

    Raises:
        AlreadyRunningError: ``refusal``, where another process held it all through ``patience_s``. Whether one on another host
            lives takes up to LEASE_S to see.
        StorageError: the store cannot be written.
    """
    sequence, token = ClaimSequence(store, key), uuid.uuid4().hex
    _ours.add(token)
    try:
        claim = Claim(sequence, _taken(sequence, token, refusal, patience_s), refusal)
        try:
            yield claim
        finally:
            claim.give_back()
    finally:
        _ours.remove(token)


def is_claimed(store: Store, key: str) -> bool:
    """Whether a process holds the claim now, for people to read: of one on another host, whether it said so within twice LEASE_S
    by its clock and ours."""
    sequence = ClaimSequence(store, key)
    newest = sequence.newest()
    if newest is None or not newest.held:
        return False
    lives = _lives(newest)
    if lives is None:
        return abs(time.time() - max(newest.time_s, sequence.beat_time_s(newest.token))) <= 2 * LEASE_S
    return lives


class Claim:
    """A claim that is held, until it is given back or lost."""

    def __init__(self, sequence: ClaimSequence, entry: ClaimEntry, refusal: AlreadyRunningError) -> None:
        self._sequence, self._entry, self._place = sequence, entry, refusal.place
        self._lost = False
        self._turn = threading.Lock()  # of the holder and its beat
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, name=f"claim {sequence.key}", daemon=True)
        self._beating.start()

    def check(self) -> None:
        """Before something is published. Nobody on another host takes the claim within the next LEASE_S.

        Raises:
            AlreadyRunningError: another process took it over. StorageError: the store cannot be written.
        """
        with self._turn:
            self._lost = self._lost or not self._add(held=True)
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """The same as far as the last beat has seen; asks nobody, so it can be called often."""
        if self._lost:
            raise AlreadyRunningError(self._place, "another process took it over, as this one gave no sign of life for "
                                      f"{LEASE_S:g} s (it was stopped, or did not reach the store)",
                                      "the same command again goes on from what is there")

    def give_back(self) -> None:
        """At the block's end; a store that fails now must not hide how the block ended."""
        self._ended.set()
        with self._turn:
            try:
                if not self._lost:
                    self._add(held=False)
            except (StorageError, OSError) as error:
                log.warning("the claim %s could not be given back; it is free when this process has ended: %s",
                            self._sequence.key, error)
        self._beating.join()

    def _add(self, held: bool) -> bool:
        """Adds the next number; False where somebody else did."""
        entry = self._entry
        while True:
            entry = replace(entry, number=entry.number + 1, held=held, time_s=time.time())
            if self._sequence.add(entry):
                self._entry = entry
                return True
            there = self._sequence.at(entry.number)
            if there is None or there.token != entry.token:  # ours: a number of which we were told that it failed
                return False

    def _beat(self) -> None:
        """In a thread of its own, until the claim is given back or lost."""
        beats, failing = 0, False
        while not self._ended.wait(BEAT_S):
            beats += 1
            try:
                with self._turn:
                    if self._ended.is_set() or self._lost:
                        return
                    self._sequence.beat(self._entry.token, beats)
                    newest = self._sequence.newest()
                    self._lost = newest is None or newest.token != self._entry.token
                    if self._lost:
                        self._sequence.stop_beating(self._entry.token)
                failing = False
            except (StorageError, OSError) as error:  # it may be back before others think that we are dead
                if not failing:
                    log.warning("the claim %s cannot be renewed now, and is lost if that lasts for %g s: %s",
                                self._sequence.key, LEASE_S, error)
                failing = True


class _Watch:
    """Whether a holder that cannot be seen lives: None until that is known."""

    def __init__(self) -> None:
        self._sign: object = None
        self._since_s = 0.0
        self._lives: bool | None = None

    def look(self, sign: object) -> bool | None:
        now_s = time.monotonic()
        if sign != self._sign:
            self._lives = None if self._sign is None else True
            self._sign, self._since_s = sign, now_s
        elif now_s - self._since_s >= LEASE_S:
            self._lives = False
        return self._lives


def _taken(sequence: ClaimSequence, token: str, refusal: AlreadyRunningError, patience_s: float) -> ClaimEntry:
    """The entry by which the claim is ours."""
    until_s, pause_s, watch = time.monotonic() + patience_s, _POLL_S, _Watch()
    while True:
        newest = sequence.newest()
        lives: bool | None = False
        if newest is not None and newest.held:
            lives = _lives(newest)
            if lives is None:
                lives = watch.look(sequence.sign_of_life(newest))
        if lives is False:
            entry = ClaimEntry(1 if newest is None else newest.number + 1, True, token, time.time(), this_process())
            if sequence.add(entry):
                return entry
        elif lives and time.monotonic() > until_s:
            raise refusal
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _LONGEST_POLL_S)


def _lives(entry: ClaimEntry) -> bool | None:
    """Whether its holder does; None where that cannot be seen from here."""
    holder = entry.holder
    if holder.pid == os.getpid() and holder.is_here:
        return entry.token in _ours
    return holder.lives
