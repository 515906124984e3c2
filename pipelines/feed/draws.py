"""Random numbers that belong to a sample: the same wherever, whenever and in whatever company it is computed.

Runs on: ranks (no torch).
Takes:   seed, the place that draws (such as a layer's name), epoch, the samples' numbers.
Gives:   ``draws``: so many 16-bit numbers for each sample.

A counter-based generator has no state: block i of a sample's numbers is a function of (key, i), and here

    key      the first 16 bytes of the SHA-256 of "<seed> <place>"
    counter  (block from 1 on, sample id, epoch, turn), 64 bits each; a block is four words, each four numbers, lowest bits first

so that no rank has to know what others have drawn. numpy promises never to change Philox's raw output.
``models/device_draws.py`` gives the same numbers on a GPU.

Source: Salmon et al. 2011 (Philox4x64-10, "Parallel random numbers: as easy as 1, 2, 3").
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUMBERS = 1 << 16  # a draw is below this
NUMBERS_PER_BLOCK = 16


class DrawKey(NamedTuple):
    """What all draws of one place have in common."""

    low: int
    high: int

    @staticmethod
    def of(seed: int, place: str) -> DrawKey:
        digest = hashlib.sha256(f"{seed} {place}".encode()).digest()
        return DrawKey(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little"))


def draws(key: DrawKey, epoch: int, sample_ids_B: NDArray[np.int64], count: int, turn: int = 0) -> NDArray[np.uint16]:
    """``[B, count]``, each between 0 and ``NUMBERS`` - 1.

    Args:
        turn: which time it is that the place draws for the same samples.
    """
    blocks = -(-count // NUMBERS_PER_BLOCK)
    words_BW = np.empty((len(sample_ids_B), 4 * blocks), dtype="<u8")
    philox = np.random.Philox(key=np.array(key, dtype=np.uint64))
    state = philox.state
    for row, sample_id in enumerate(sample_ids_B.astype(np.uint64)):
        state["state"]["counter"][:] = (0, sample_id, epoch, turn)
        philox.state = state  # with nothing left of an earlier block: a fresh generator's state
        words_BW[row] = philox.random_raw(4 * blocks)
    return words_BW.view("<u2")[:, :count]
