"""A replica of one rank: it holds the whole model.

Runs on: ranks.
Takes:   a layered model, the task, this replica's micro-batches.
Gives:   a ``Replica``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from pipelines.feed.batches import Batch
from pipelines.models.layered import LayeredModel, evaluation_mode
from pipelines.parallel.replica.compiled import compiled_module
from pipelines.parallel.replica.replica import Computed
from pipelines.parallel.steps import See, Totals
from pipelines.plan.places import Place
from pipelines.tasks.task import Task


class WholeReplica:
    """See ``Replica``."""

    hooks_tell = True

    def __init__(self, model: LayeredModel, task: Task, place: Place, *, device: torch.device, precision: str,
                 compiled: bool = False) -> None:
        """``model`` is filled, and goes to the device.

        Where it may be, kernels have all channels of a pixel together in memory, and with them what convolutions give: forward
        and backward of the classic network take 28 ms instead of 33 (32 digits, one core). A split model keeps torch's order:
        what a segment sends has to lie in it.
        """
        self.specs = model.specs()  # a device gives every name of a tied buffer one of its own
        self.place, self.held = place, model.to(device)
        if model.any_pixel_order:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub lacks it
        self._model, self._task, self._device, self._precision = model, task, device, precision
        self._forward: nn.Module = compiled_module(model, device) if compiled else model
        self.counted = [p for p in dict.fromkeys(model.parameters()) if p.requires_grad]
        self.additions = dict.fromkeys(self.counted[::-1], 1)

    def num_micro_batches(self, micro_batches: list[Batch]) -> int:
        return len(micro_batches)

    def compute(self, micro_batches: list[Batch], scale: float, epoch: int) -> Computed:
        total = Totals(0.0, 0, 0)
        for micro_batch in micro_batches:
            self._model.current.at(epoch, micro_batch.sample_ids_B)
            loss_sum, own = self._loss_of(micro_batch)
            (loss_sum * scale).backward()
            total += own
        self._model.current.leave()
        return Computed(total)

    def join_copies(self) -> None:
        """There is one of everything."""

    def sum_over_segments(self, values: Tensor) -> None:
        """This rank is all there is."""

    @torch.no_grad()
    def evaluate(self, micro_batches: Iterable[Batch], num_micro_batches: int, see: See) -> Totals:
        with evaluation_mode(self._model):
            return sum((self._loss_of(micro_batch, see)[1] for micro_batch in micro_batches), Totals(0.0, 0, 0))

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        if self.place.rank == 0:
            state = dict(self._model.named_state())
            for name in self.specs:
                yield name, state[name].detach().cpu()

    def _loss_of(self, micro_batch: Batch, see: See | None = None) -> tuple[Tensor, Totals]:
        """The differentiable sum of the loss, and the totals."""
        inputs, targets = self._task.inputs_and_targets(micro_batch)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._precision == "bf16"):
            output = self._forward(inputs)
        loss_sum = self._task.loss_sum(output, targets)
        if see is not None:
            see(output, targets, micro_batch.sample_ids_B)
        return loss_sum, Totals(loss_sum.item(), self._task.num_counted(targets), micro_batch.samples)
