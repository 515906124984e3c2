"""Which GPU is which rank's.

Runs on: executors, inside a task of the barrier stage (pure).
Takes:   what Spark assigned to each task (``TaskContext.resources``), and the ranks' seats.
Gives:   the GPU of a task; a refusal where two ranks were given the same. Where Spark assigns none, a rank takes the one
         of its local rank (``train/device.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import ResourceError
from pipelines.plan.places import Seat


def assigned_gpu(resources: Mapping[str, Any]) -> str | None:
    """The address of a task's GPU, as ``CUDA_VISIBLE_DEVICES`` takes it; the first where it has several.

    Args:
        resources: ``pyspark.resource.ResourceInformation`` by name.
    """
    gpu = resources.get("gpu")
    return str(gpu.addresses[0]) if gpu is not None and gpu.addresses else None


def check_gpus(seats: Sequence[Seat], gpus: Sequence[str | None]) -> None:
    """Raises ResourceError where ranks of one host share a GPU: Spark gives fractions of one, a rank needs it whole.

    Args:
        gpus: of each seat.
    """
    ranks_of: dict[tuple[str, str], list[int]] = defaultdict(list)
    for seat, gpu in zip(seats, gpus, strict=True):
        if gpu is not None:
            ranks_of[seat.host, gpu].append(seat.rank)
    for (host, gpu), ranks in sorted(ranks_of.items()):
        if len(ranks) > 1:
            raise ResourceError("spark.task.resource.gpu.amount", f"ranks {', '.join(map(str, sorted(ranks)))} on {host} were "
                                f"all given GPU {gpu}", "set it to 1, so that each rank has a GPU of its own")
