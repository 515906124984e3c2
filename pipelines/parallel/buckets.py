"""Gradients summed over the replicas in flat buckets.

Runs on: ranks.
Takes:   the parameters of this rank, in the order in which backward makes their gradients.
Gives:   ``GradientAverage``: every bucket's sum, started as soon as its gradients are whole and finished late;
         ``squared_norm`` of gradients.

Buckets are filled in the order in which backward makes the gradients. Backward writes gradients of its own that are
copied into the bucket once: adding into a zeroed bucket passes over the memory twice more (2.5 % of a step of a 6 M GPT
on one core).

Source: Li et al. 2020 (PyTorch DDP: gradient buckets); Sergeev & Del Balso 2018 (Horovod).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError, SparkringError
from pipelines.parallel.ring import WIRE_DTYPES, Ring

NORM_ROW = 1024  # values whose squares are added in their own precision


class GradientBucket:
    """Consecutive parameters whose gradients travel as one flat tensor."""

    def __init__(self, parameters: list[nn.Parameter], name: str) -> None:
        self.name = name
        self.parameters = parameters
        first = parameters[0]
        self.flat = torch.zeros(sum(p.numel() for p in parameters), dtype=first.dtype, device=first.device)
        self._views = []
        offset = 0
        for parameter in parameters:
            # in the parameter's own order in memory: fused optimizers take both as they lie
            dense = torch.empty_like(parameter, device="meta")
            self._views.append(self.flat.as_strided(parameter.shape, dense.stride(), offset))
            offset += parameter.numel()

    def fill(self) -> None:
        """Copies the parameters' gradients in and makes ``grad`` a view of the bucket, where the sum will appear."""
        for parameter, view in zip(self.parameters, self._views, strict=True):
            view.copy_(gradient_of(parameter))
            parameter.grad = view


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """The gradient of a parameter, zero if it took no part: what the optimizer sees on any layout.

    Left out of the step instead, it would depend on who asks: no sample of this micro-batch, of this replica, or of the
    whole batch needed the parameter. The gradient of the batch's mean loss is zero either way, as it is for the row of an
    embedding whose token did not occur. What must not be updated at all does not require a gradient.
    """
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def cut_into_buckets(parameters: Iterable[nn.Parameter], bucket_bytes: int) -> list[GradientBucket]:
    """Buckets of at most ``bucket_bytes`` (a larger parameter has one of its own), in the given order.

    Parameters of another type or device never share a bucket.
    """
    groups: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        parameter_bytes = parameter.numel() * parameter.element_size()
        alike = bool(groups) and (groups[-1][0].dtype, groups[-1][0].device) == (parameter.dtype, parameter.device)
        if not alike or size + parameter_bytes > bucket_bytes:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += parameter_bytes
    return [GradientBucket(group, f"gradients.{i}") for i, group in enumerate(groups)]


class GradientAverage:
    """The sums of one rank's gradients over the replicas; built once per run on every rank."""

    def __init__(self, trained: dict[nn.Parameter, int], ring: Ring, *, bucket_bytes: int, gradient_wire: str, overlap: bool
                 ) -> None:
        """
        Args:
            trained: the parameters, first the one whose gradient backward makes first; and how many backwards of one
                micro-batch add to each.
            gradient_wire: ``fp32``, ``fp16`` or ``bf16``: what the allreduce sends.
            overlap: start a bucket's sum when the last of its gradients is there, while backward still runs.
        """
        self._trained, self._ring, self._wire = trained, ring, WIRE_DTYPES.get(gradient_wire)
        self.buckets = cut_into_buckets(trained, bucket_bytes) if ring.place.num_replicas > 1 else []
        self._bucket_of: dict[Tensor, int] = {p: i for i, bucket in enumerate(self.buckets) for p in bucket.parameters}
        self._missing: list[int] = []  # additions to each bucket's gradients that are still to come in this step
        self._finishes: dict[int, Callable[[], None]] = {}
        if overlap:
            for parameter in self._bucket_of:
                parameter.register_post_accumulate_grad_hook(self._on_gradient)

    def begin(self, num_micro_batches: int) -> None:
        """Forgets the last step's gradients."""
        for parameter in self._trained:
            parameter.grad = None
        self._missing = [num_micro_batches * sum(self._trained[p] for p in bucket.parameters) for bucket in self.buckets]

    def _on_gradient(self, parameter: Tensor) -> None:
        """Starts the sums of buckets that are complete; in bucket order, which is the same on every replica."""
        self._missing[self._bucket_of[parameter]] -= 1
        if self._missing[self._bucket_of[parameter]] < 0:  # its sum is under way, and would lack this
            raise ConfigError(SparkringError(
                "communication.overlap", "true: backward adds to a gradient more than once in a micro-batch (a layer with "
                "re-entrant checkpointing, or with a backward of its own)", "set communication.overlap: false"))
        for index, missing in enumerate(self._missing):
            if missing:
                break
            self._start(index)

    def _start(self, index: int) -> None:
        if index in self._finishes:
            return
        bucket = self.buckets[index]
        bucket.fill()
        if self._wire is None:
            self._finishes[index] = self._ring.start_sum(bucket.flat, bucket.name)
        else:
            self._finishes[index] = self._ring.start_narrow_sum(bucket.flat, self._wire, bucket.name)

    def finish(self) -> None:
        """Waits for every bucket; those not yet started are started first. Every gradient is there afterwards."""
        for index in range(len(self.buckets)):
            self._start(index)
        for index in range(len(self.buckets)):
            self._finishes.pop(index)()
        for parameter in self._trained:
            gradient_of(parameter)

    def scale(self, factor: float) -> None:
        """Multiplies every gradient, in place: the buckets, or with one replica the parameters' own."""
        if factor != 1.0:
            for gradient in [bucket.flat for bucket in self.buckets] or map(gradient_of, self._trained):
                gradient.mul_(factor)


def squared_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Sum of the squares of all values, float64 [], whatever tensors they lie in: short rows in float32, the rest in float64.

    float32 alone makes the norm depend on how many values lie in one tensor, and so on the layout: for one of 2 million it
    is off by 3e-5, of 20 million by 1e-3; rows of 1,024 by 2e-9, in the same time (20 million values on one core: 2.6 ms;
    torch.linalg.vector_norm in float64 79 ms, converted in chunks 9 ms).
    """
    norms: list[Tensor] = []
    for gradient in gradients:
        flat = gradient.reshape(-1)
        dtype = torch.promote_types(flat.dtype, torch.float32)
        in_rows = len(flat) // NORM_ROW * NORM_ROW
        if in_rows:
            norms.append(torch.linalg.vector_norm(flat[:in_rows].view(-1, NORM_ROW), dim=1, dtype=dtype))
        if in_rows < len(flat):
            norms.append(torch.linalg.vector_norm(flat[in_rows:], dtype=dtype).view(1))
    return torch.cat(norms).double().square().sum() if norms else torch.zeros((), dtype=torch.float64)
