"""Others who hold claims: a process that is told to, on a host of its own where it is given one; and ``take_over``.

Runs on: tests. Each line that the process reads is a command, and each is answered by a line.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from pipelines.errors import AlreadyRunningError
from pipelines.lake import claims, holders
from pipelines.lake.claim_sequence import ClaimEntry, ClaimSequence
from pipelines.lake.holders import Holder
from pipelines.lake.paths import Lake
from pipelines.lake.store import Store


def main(place: str, key: str, host: str, lease_s: float, beat_s: float) -> None:
    store, refusal = Lake.at(place).store, AlreadyRunningError("here", "refused")
    claims.LEASE_S, claims.BEAT_S = lease_s, beat_s
    if host:
        holders.host_facts = lambda: (host, "another boot", "another namespace")
    with ExitStack() as held:
        print("ready", flush=True)
        for line in sys.stdin:
            try:
                match line.split():
                    case ["take", patience_s]:
                        claim = held.enter_context(claims.claimed(store, key, refusal, float(patience_s)))
                    case ["check"]:
                        claim.check()
                    case ["give"]:
                        held.close()
                    case ["turns", number, log]:
                        for _ in range(int(number)):
                            _take_a_turn(store, key, log)
                print("done", flush=True)
            except AlreadyRunningError as error:
                print(error, flush=True)


def take_over(store: Store, key: str) -> None:
    """As a process on another host that has taken the claim's holder for dead."""
    sequence = ClaimSequence(store, key)
    newest = sequence.newest()
    assert newest is not None and newest.held
    assert sequence.add(ClaimEntry(newest.number + 1, True, "theirs", 0.0, Holder("theirs", "another boot", "another", 1, "1")))


def _take_a_turn(store: Store, key: str, log: str) -> None:
    with claims.claimed(store, key, AlreadyRunningError("here", "refused"), 60):
        for word in ("in", "out"):
            with open(log, "a", encoding="utf-8") as file:
                file.write(word + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]))
