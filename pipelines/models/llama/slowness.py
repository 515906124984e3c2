"""How many times as slowly positions turn each pair of a head, where a window is made longer as in Llama 3.

Runs on: driver, ranks, and anywhere an exported model is loaded (no torch).
Takes:   the pairs' speeds, in radians from one position to the next; ``RopeScaling``.
Gives:   ``slowness``, at least 1.

Source: transformers, ``modeling_rope_utils.py`` (llama3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.models.llama.settings import RopeScaling


def slowness(speed_f: NDArray[np.float64], scaling: RopeScaling) -> NDArray[np.float64]:
    turns_f = scaling.first_positions * speed_f / (2 * np.pi)
    left_f = ((turns_f - scaling.low_turns) / (scaling.high_turns - scaling.low_turns)).clip(0.0, 1.0)
    slow_f: NDArray[np.float64] = 1.0 / ((1.0 - left_f) / scaling.factor + left_f)
    return slow_f
