"""The random generators that a model's code draws from unless it has its own: torch's, numpy's and Python's.

Runs on: ranks, and the driver's look at a user's model.
Takes:   a seed.
Gives:   all three seeded; their states, to see whether anything was drawn.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_everything(seed: int) -> tuple[object, ...]:
    """Seeds all three (0 <= seed < 2^32); their states afterwards."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    return random_states()


def random_states() -> tuple[object, ...]:
    """Comparable: another value once anything was drawn."""
    kind, numbers, *place = np.random.get_state(legacy=True)
    return torch.get_rng_state().numpy().tobytes(), kind, np.asarray(numbers).tobytes(), tuple(place), random.getstate()


def seed_of_rank(seed: int, rank: int) -> int:
    """A seed of its own for each rank, in [0, 2^32): ranks that share a model must not draw the same numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {rank}".encode()).digest()[:4], "little")
