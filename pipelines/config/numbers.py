"""Numbers that would do, for the remedy of an error.

Runs on: driver.
Takes:   the number that does not do, and what it must fit.
Gives:   the candidates, and how they are listed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def nearest_multiples(number: int, of: int) -> str:
    below = number // of * of
    return one_of([n for n in (below, below + of) if n > 0])


def one_of(numbers: Sequence[object]) -> str:
    if len(numbers) > 8:  # long lists help nobody: the small ones and the largest
        numbers = [*numbers[:7], numbers[-1]]
    *head, last = [str(n) for n in numbers]
    return f"{', '.join(head)} or {last}" if head else last
