"""Work on many files that is mostly waiting for a file system: several threads do it.

Runs on: driver.
Takes:   a function of one item, and items.
Gives:   ``in_threads``: its results, in the order of the items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

WAITING_THREADS = 16  # more than cores: a file system of the network answers many at a time
MAX_GROUP = 16  # items given to a thread at once: a million small items are cheap to hand out

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(call: Callable[[Item], Result], items: Sequence[Item], threads: int = WAITING_THREADS) -> Iterator[Result]:
    """What ``call`` returns for each item; an error of it comes at its item's place. A few groups ahead at most."""
    size = max(1, min(MAX_GROUP, len(items) // (4 * threads)))

    def results(at: int) -> list[Result]:
        return [call(item) for item in items[at:at + size]]

    waiting: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for at in range(0, len(items), size):
            waiting.append(pool.submit(results, at))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
