"""Several threads that call a store one at a time, in an order that a seed decides.

Runs on: tests.
Takes:   a seed, and what each thread does with the store.
Gives:   ``interleaved``; ``SharedStore``, some of whose answers get lost.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from random import Random

from pipelines.errors import StorageError

STAYS = 0.7  # mostly the one that went last goes on, so that others are away for long


class SharedStore:
    """What claims ask of a store, in memory. Before each call it waits for its turn."""

    def __init__(self, random: Random) -> None:
        self.random, self.objects = random, dict[str, bytes]()
        self.wait: Callable[[], None] = lambda: None

    def create(self, key: str, content: str) -> bool:
        self.wait()
        if key in self.objects:
            return False
        self.objects[key] = content.encode()
        match self.random.randrange(10):
            case 0:
                raise StorageError(key, "the answer got lost")
            case 1:
                return False  # the store asked itself again
        return True

    def put(self, key: str, content: str) -> None:
        self.wait()
        self.objects[key] = content.encode()

    def read(self, key: str) -> bytes:
        self.wait()
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key]

    def remove(self, key: str) -> None:
        self.wait()
        self.objects.pop(key, None)

    def names(self, prefix: str) -> list[str]:
        self.wait()
        return sorted(key.removeprefix(f"{prefix}/") for key in self.objects if key.startswith(f"{prefix}/"))


def interleaved(store: SharedStore, actors: list[Callable[[], None]]) -> None:
    """Returns when all have ended; an error of one is raised."""
    arrivals: queue.Queue[threading.Semaphore | BaseException | None] = queue.Queue()
    waiting: list[threading.Semaphore] = []

    def wait() -> None:
        turn = threading.Semaphore(0)
        arrivals.put(turn)
        turn.acquire()

    def run(actor: Callable[[], None]) -> None:
        try:
            wait()
            actor()
            arrivals.put(None)
        except BaseException as error:
            arrivals.put(error)

    store.wait = wait
    for actor in actors:  # one by one, so that their order is the same each time
        threading.Thread(target=run, args=(actor,), daemon=True).start()
        _arrive(arrivals, waiting)
    while waiting:
        stays = store.random.random() < STAYS
        waiting.pop(-1 if stays else store.random.randrange(len(waiting))).release()
        _arrive(arrivals, waiting)
    store.wait = lambda: None


def _arrive(arrivals: queue.Queue[threading.Semaphore | BaseException | None], waiting: list[threading.Semaphore]) -> None:
    """Waits until the one thread that runs waits for its next turn, or has ended."""
    arrived = arrivals.get(timeout=60)
    if isinstance(arrived, BaseException):
        raise arrived
    if arrived is not None:
        waiting.append(arrived)
