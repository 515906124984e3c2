"""Data parallelism: every rank holds the whole model; gradients are summed over the ranks in flat buckets.

Runs on: ranks.
Takes:   a layered model, its loss, and this replica's micro-batches of a step.
Gives:   in every parameter's ``grad`` the gradient of the global batch's mean loss per token, equal on all ranks.

Buckets are filled in the order in which backward makes the gradients, and each one's allreduce starts as soon as it
is full in the last micro-batch. Backward writes gradients of its own that are copied into the bucket once: adding into
a zeroed bucket passes over the memory twice more (2.5 % of a step of a 6 M GPT on one core). Weighting is exact: ranks
sum losses and count tokens; the division by the global number of tokens comes last, so a padded or short sample shifts
no weight to its neighbours.

Source: Li et al. 2020 (PyTorch DDP: gradient buckets, overlap); Sergeev & Del Balso 2018 (Horovod).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.parallel.comms import WIRE_DTYPES, Ring

# (tokens_BT1, lengths_B, weights_B) -> (loss summed over tokens, tokens counted)
LossSum = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, int]]


@dataclass(frozen=True)
class StepOutcome:
    """What one step's forward, backward and averaging gave; losses in nats."""

    loss: float  # mean over the global batch's tokens
    global_tokens: int
    global_samples: int
    tokens: int  # of this rank
    gradient_norm: float  # before clipping
    communication_s: float  # time in which this rank only waited for the ring
    finite: bool
    first_bad_rank: int | None  # lowest rank whose own loss is not finite


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
            self._views.append(self.flat[offset : offset + parameter.numel()].view_as(parameter))
            offset += parameter.numel()

    def fill(self) -> None:
        """Copies the parameters' gradients in and makes ``grad`` a view of the bucket, where the sum will appear."""
        for parameter, view in zip(self.parameters, self._views, strict=True):
            if parameter.grad is None:  # took no part in this step
                view.zero_()
            else:
                view.copy_(parameter.grad)
            parameter.grad = view


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


class DataParallel:
    """Runs steps of one replica; built once per run on every rank."""

    def __init__(self, model: nn.Module, loss_sum: LossSum, ring: Ring, *, bucket_bytes: int, overlap: bool,
                 gradient_wire: str, expected_tokens: int) -> None:
        """
        Args:
            loss_sum: differentiable sum of the loss over a micro-batch, and how many tokens it counted.
            gradient_wire: ``fp32``, ``fp16`` or ``bf16``: what the allreduce sends.
            expected_tokens: of a full global batch; scales backward so that narrow gradients neither over- nor underflow.
        """
        self._loss_sum, self._ring, self._scale = loss_sum, ring, 1.0 / expected_tokens
        self._wire = WIRE_DTYPES.get(gradient_wire)
        trained = [p for p in dict.fromkeys(model.parameters()) if p.requires_grad]
        self._trained = trained
        self.buckets = cut_into_buckets(reversed(trained), bucket_bytes) if ring.place.num_ranks > 1 else []
        self._bucket_of: dict[Tensor, int] = {p: i for i, bucket in enumerate(self.buckets) for p in bucket.parameters}
        self._overlap = overlap and ring.place.num_ranks > 1
        self._missing = [0] * len(self.buckets)
        self._finishes: dict[int, Callable[[], None]] = {}
        self._last_micro_batch = False
        self._correction = 1.0
        if self._overlap:
            for parameter in trained:
                parameter.register_post_accumulate_grad_hook(self._on_gradient)

    def run_step(self, micro_batches: list[tuple[Tensor, Tensor, Tensor]]) -> StepOutcome:
        """Forward and backward over the micro-batches, then the global gradient in every ``grad``.

        Raises:
            PeerLostError: another rank went away.
        """
        for parameter in self._trained:
            parameter.grad = None
        self._missing = [len(bucket.parameters) for bucket in self.buckets]
        self._finishes.clear()
        loss_total, tokens, samples = 0.0, 0, 0
        for i, micro_batch in enumerate(micro_batches):
            self._last_micro_batch = i == len(micro_batches) - 1
            loss_sum, counted = self._loss_sum(*micro_batch)
            (loss_sum * self._scale).backward()
            loss_total += loss_sum.item()
            tokens += counted
            samples += int((micro_batch[2] > 0).sum())
        return self._average(loss_total, tokens, samples)

    def _on_gradient(self, parameter: Tensor) -> None:
        """Starts a bucket's sum when its last gradient of the step has been added; in bucket order on every rank."""
        if not self._last_micro_batch:
            return
        self._missing[self._bucket_of[parameter]] -= 1
        for i, missing in enumerate(self._missing):
            if missing:
                break
            if i not in self._finishes:
                self._finishes[i] = self._start(i)

    def _start(self, index: int) -> Callable[[], None]:
        bucket = self.buckets[index]
        bucket.fill()
        if self._wire is None:
            return self._ring.start_sum(bucket.flat, bucket.name)
        return self._ring.start_narrow_sum(bucket.flat, self._wire, bucket.name)

    def _average(self, loss_total: float, tokens: int, samples: int) -> StepOutcome:
        waited_from = time.perf_counter()
        num_ranks, rank = self._ring.place.num_ranks, self._ring.place.rank
        finite = math.isfinite(loss_total)
        # one slot per rank tells everybody who met a loss that is not finite
        facts = torch.zeros(3 + num_ranks, dtype=torch.float64)
        facts[:3] = torch.tensor([loss_total if finite else 0.0, tokens, samples], dtype=torch.float64)
        facts[3 + rank] = 0.0 if finite else 1.0
        finish_facts = self._ring.start_sum(facts, "step.facts")
        for i in range(len(self.buckets)):
            if i not in self._finishes:
                self._finishes[i] = self._start(i)
        for i in range(len(self.buckets)):
            self._finishes[i]()
        finish_facts()
        communication_s = time.perf_counter() - waited_from
        bad_ranks = facts[3:].nonzero().flatten().tolist()
        global_tokens = int(facts[1].item())
        self._correction = 1.0 / (self._scale * max(global_tokens, 1))
        gradient_norm = nn.utils.get_total_norm(self._gradients()).item() * self._correction
        return StepOutcome(
            loss=facts[0].item() / max(global_tokens, 1), global_tokens=global_tokens,
            global_samples=int(facts[2].item()), tokens=tokens, gradient_norm=gradient_norm,
            communication_s=communication_s if num_ranks > 1 else 0.0,
            finite=not bad_ranks and math.isfinite(gradient_norm), first_bad_rank=bad_ranks[0] if bad_ranks else None)

    def scale_gradients(self, factor: float) -> None:
        """Turns the summed gradients into the mean's, times ``factor`` (the clipping); once per step."""
        factor *= self._correction
        if factor != 1.0:
            for gradient in self._gradients():
                gradient.mul_(factor)

    def _gradients(self) -> list[Tensor]:
        """All gradients in as few tensors as there are: the buckets, or on one rank the parameters' own."""
        if self.buckets:
            return [bucket.flat for bucket in self.buckets]
        return [parameter.grad for parameter in self._trained if parameter.grad is not None]
