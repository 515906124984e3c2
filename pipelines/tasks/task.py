"""What a sample is and what its loss is: all that training knows of what it trains on.

Runs on: ranks, and the process in which the driver lets a user's model be looked at.
Takes:   the batches of ``feed``, whose fields are the columns of the dataset; what the last layer of a model returns.
Gives:   ``Task``; ``table.py`` lists those there are.

A further task is a module here, a line in ``table.py``, its section of the recipe in ``config/tasks.py`` and a ``prepare`` of its
own, which writes the task's facts into the manifest (``lake/task_facts.py``). ``classification.py`` is a short one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from pipelines.config.recipe import Recipe
from pipelines.feed.batches import Batch
from pipelines.lake.exhibits import Exhibit
from pipelines.lake.findings import Findings
from pipelines.lake.metric_facts import Metrics
from pipelines.lake.store import Store
from pipelines.lake.task_facts import TaskFacts

IGNORED = -100  # a target that no loss counts (torch's default for cross_entropy)

AsTrained = Callable[[Batch, int], Batch]  # rows as training sees them in an epoch, counted from 0


class Mistakes(Protocol):
    """How bad what the model said of each sample is, in a few numbers that travel, so that the worst can be shown."""

    @property
    def num_facts(self) -> int:
        """How many numbers ``of`` gives for each sample."""

    def of(self, output: Any, targets: Tensor) -> Tensor:
        """float64 [B, num_facts]: first how bad it is, 0 where it is right or counts in nothing; then what the task shows."""

    def shown(self, facts: list[list[float]], rows: Batch) -> list[Exhibit]:
        """Of the worst samples, in their order: their facts, and their rows."""


class Task(Protocol):
    """One task on one dataset. A loss is a sum over what counts: the division by how much that is comes last, over all ranks."""

    @property
    def facts(self) -> TaskFacts:
        """What the dataset's manifest says of it."""

    @property
    def model_takes_and_gives(self) -> str:
        """What the layers of a model must fit, for the error of one that does not."""

    @property
    def exported_files(self) -> tuple[str, ...]:
        """Files of the dataset's folder that a trained model needs beside its weights."""

    def inputs_and_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the first layer takes, and what the loss compares the last layer's output with; both [B, ...]."""

    def loss_sum(self, output: Any, targets: Tensor) -> Tensor:
        """In nats (float32 scalar, differentiable), over the targets that count."""

    def num_counted(self, targets: Tensor) -> int:
        """How many units ``loss_sum`` is over."""

    @property
    def num_metric_sums(self) -> int:
        """How many numbers ``metric_sums`` gives."""

    def metric_sums(self, output: Any, targets: Tensor) -> Tensor:
        """Sums over the targets that count, of which ``metrics`` are made: float64 [num_metric_sums]. They are added up over
        micro-batches and ranks."""

    def metrics(self, loss: float, sums: Tensor, dataset: TaskFacts, split: str) -> Metrics:
        """Those of ``lake/metric_facts.py`` that this task has, beside the loss.

        Args:
            loss: the mean. sums: ``metric_sums`` of all samples. dataset, split: that the samples are of.
        """

    def findings(self, sums: Tensor) -> Findings:
        """What there is to say of these sums beside ``metrics``."""

    @property
    def mistakes(self) -> Mistakes | None:
        """None where no sample's mistake is worth showing."""

    def example(self, samples: int) -> Batch:
        """Made-up samples of full size that differ, for what looks at a model or measures it."""

    def exhibit_request(self, recipe: Recipe) -> dict[str, Any] | None:
        """What the best model is asked to show once training has ended (``train/exhibition.py``), as JSON holds it; None:
        nothing is wanted. ``train_rows`` and ``validation_rows`` in it are how many rows of these splits it wants to see."""

    def data_exhibits(self, rows: Batch, as_trained: AsTrained | None) -> list[Exhibit]:
        """What the data looks like.

        Args:
            rows: of the training split, as many as were asked for, or all where it has fewer; not called where none were.
            as_trained: None where training sees them as they are.
        """

    def exhibits(self, model: nn.Module, request: dict[str, Any], files: Store, rows: Batch | None) -> list[Exhibit]:
        """What the model shows.

        Args:
            model: whole, in evaluation mode. files: of the exported model, ``exported_files`` among them.
            rows: of the validation split, as many as were asked for, or all where it has fewer; None where none were.
        """
