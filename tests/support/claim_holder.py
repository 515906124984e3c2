"""A process that holds claims as it is told to, on a host of its own where it is given one.

Runs on: tests. Each line that it reads is a command, and each is answered by a line.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from pipelines.errors import AlreadyRunningError
from pipelines.lake import claims, holders
from pipelines.lake.paths import Lake


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


def _take_a_turn(store: claims.Store, key: str, log: str) -> None:
    with claims.claimed(store, key, AlreadyRunningError("here", "refused"), 60):
        for word in ("in", "out"):
            with open(log, "a", encoding="utf-8") as file:
                file.write(word + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]))
