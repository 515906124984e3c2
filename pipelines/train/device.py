"""The device that a rank computes on.

Runs on: ranks.
Takes:   ``layout.device``; which of the visible GPUs is this rank's.
Gives:   ``training_device``; a refusal, before training, where ranks would share a GPU.
"""

from __future__ import annotations

import os

import torch

from pipelines.config.platform import Layout
from pipelines.errors import ResourceError
from pipelines.train import rank_variables


def training_device(layout: Layout) -> torch.device:
    """The device of this rank: the GPU that Spark gave it, or on a host with several the one of its local rank.

    Raises:
        ResourceError: there is none, or none is left for it.
    """
    if layout.device == "cpu":
        return torch.device("cpu")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = torch.device("cuda", gpu_index(int(os.environ.get(rank_variables.GPU_INDEX, "0")), there))
    torch.cuda.set_device(device)
    return device


def gpu_index(wanted: int, there: int) -> int:
    """``wanted``, where so many GPUs are there.

    Raises:
        ResourceError: they are not: two ranks on one GPU would each get half of it, and run out of its memory.
    """
    if there == 0:
        raise ResourceError("layout.device", "cuda: this host has no usable GPU", "set layout.device: cpu")
    if wanted >= there:
        raise ResourceError("layout.device", f"cuda: rank {wanted} of this host (counted from 0) finds {there} GPUs here",
                            "let Spark give each rank its own (spark.task.resource.gpu.amount: 1 with "
                            "spark.executor.resource.gpu.amount), or run no more ranks on a host than it has GPUs")
    return wanted
