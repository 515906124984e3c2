"""Initial values of parameters, each from a generator of its own: the same whichever layers a rank fills.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   the seed and the name of a parameter.
Gives:   ``generator_of``; ``fill_by_inputs``, torch's own rule for linear and convolution layers.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from pipelines.models.layered import LayeredModel


def generator_of(seed: int, name: str) -> torch.Generator:
    own_seed = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(own_seed)


def fill_by_inputs(model: LayeredModel, name: str, parameter: Tensor, seed: int) -> None:
    """Weight or bias of a linear or convolution layer: uniform, within 1 / sqrt(number of inputs of an output)."""
    weight = model.get_parameter(f"{name.rpartition('.')[0]}.weight")
    bound = 1.0 / math.sqrt(weight[0].numel())
    parameter.uniform_(-bound, bound, generator=generator_of(seed, name))
