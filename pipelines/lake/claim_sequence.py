"""The objects of a claim: a sequence of which the newest says how the claim stands, and its holder's beat.

Runs on: driver.
Takes:   a store and the claim's key.
Gives:   ``ClaimSequence``: what is the newest, and to add the next one, which one of several can; ``ClaimEntry``.

    000007.json     held, or given back, and by whom: created, never changed; those before it are void
    beat-<token>    written anew every few seconds by the holder

Whoever adds a number removes what it makes void. So a number that is not there may have been taken by somebody else and removed
again while one was away; it must not be taken twice. That is why whoever added a number looks whether it is the newest. If it
is not, a newer one is always there to be seen: numbers are removed behind newer ones only, and the newest never is.
"""

from __future__ import annotations

import errno
import json
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

from pipelines.errors import StorageError
from pipelines.lake.holders import Holder
from pipelines.lake.store import Store

_NUMBER = re.compile(r"(\d{6,})\.json")
_AGAIN_S = 0.02


@dataclass(frozen=True)
class ClaimEntry:
    """An object of the sequence."""

    number: int
    held: bool  # or given back
    token: str  # of one claim of one process
    time_s: float  # Unix time, for people
    holder: Holder

    @property
    def content(self) -> str:
        return json.dumps({"state": "held" if self.held else "released", "token": self.token, "time_s": self.time_s,
                           **asdict(self.holder)})

    @staticmethod
    def of(number: int, content: bytes) -> ClaimEntry:
        """What cannot be read is held by somebody of whom nothing is known."""
        try:
            found = json.loads(content)
            return ClaimEntry(number, found["state"] != "released", str(found["token"]), float(found["time_s"]), Holder.of(found))
        except (KeyError, TypeError, ValueError):
            return ClaimEntry(number, True, "", 0.0, Holder())


@dataclass(frozen=True)
class ClaimSequence:
    """The objects of a claim."""

    store: Store
    key: str

    def newest(self) -> ClaimEntry | None:
        """None where nobody has ever held the claim."""
        while numbers := _numbers(self.store.names(self.key)):
            entry = self.at(numbers[-1])
            if entry is not None:
                return entry
            time.sleep(_AGAIN_S)  # a newer one has come meanwhile
        return None

    def at(self, number: int) -> ClaimEntry | None:
        content = self._read(_name(number))
        return None if content is None else ClaimEntry.of(number, content)

    def add(self, entry: ClaimEntry) -> bool:
        """Whether the entry is the newest now; what it makes void is removed.

        Raises:
            StorageError: it cannot be written.
        """
        key = f"{self.key}/{_name(entry.number)}"
        try:
            first = self.store.create(key, entry.content)
        except (StorageError, OSError):
            if max(_numbers(self.store.names(self.key)), default=0) < entry.number:
                raise
            first = False  # it, or somebody else's
        if not first and self.at(entry.number) != entry:  # it is ours where the answer to our creation got lost
            return False
        names = self.store.names(self.key)
        if _numbers(names)[-1:] != [entry.number]:  # we came so late that the number had been taken, and removed again
            self.store.remove(key)
            return False
        kept = (_name(entry.number), _beat_name(entry.token) if entry.held else "")
        for name in names:
            if name not in kept:
                with suppress(StorageError, OSError):  # the next one will
                    self.store.remove(f"{self.key}/{name}")
        return True

    def beat(self, token: str, beats: int) -> None:
        self.store.put(f"{self.key}/{_beat_name(token)}", json.dumps({"beats": beats, "time_s": time.time()}))

    def stop_beating(self, token: str) -> None:
        self.store.remove(f"{self.key}/{_beat_name(token)}")

    def sign_of_life(self, entry: ClaimEntry) -> tuple[int, str, bytes | None]:
        """Changes as long as a holder lives."""
        return entry.number, entry.token, self._read(_beat_name(entry.token))

    def beat_time_s(self, token: str) -> float:
        """Unix time of the holder's clock at its last beat; 0 before the first."""
        try:
            return float(json.loads(self._read(_beat_name(token)) or b"{}").get("time_s", 0.0))
        except (AttributeError, TypeError, ValueError):
            return 0.0

    def _read(self, name: str) -> bytes | None:
        try:
            return self.store.read(f"{self.key}/{name}")
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ESTALE:  # NFS: another host removed it when we had opened it
                return None
            raise


def _numbers(names: list[str]) -> list[int]:
    return sorted(int(match[1]) for name in names if (match := _NUMBER.fullmatch(name)))


def _name(number: int) -> str:
    return f"{number:06d}.json"


def _beat_name(token: str) -> str:
    return f"beat-{token}"
