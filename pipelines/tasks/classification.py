"""The task ``classification``: which of some classes an image is of.

Runs on: ranks, and the process in which the driver lets a user's model be looked at.
Takes:   batches with the fields ``image`` [B, C, H, W] and ``label`` [B], see ``prepare/images/image_rows.py``.
Gives:   ``Classification``, a ``Task``: a model of it goes from images to one logit per class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.config.recipe import Recipe
from pipelines.feed.batches import Batch
from pipelines.lake.exhibits import Exhibit
from pipelines.lake.findings import Findings
from pipelines.lake.image_facts import PIXEL_RANGE
from pipelines.lake.metric_facts import Metrics
from pipelines.lake.store import Store
from pipelines.lake.task_facts import TaskFacts
from pipelines.tasks.class_counts import ClassCounts
from pipelines.tasks.class_findings import ClassMistakes, class_findings, predictions_shown
from pipelines.tasks.image_samples import as_trained_shown, class_balance, rows_looked_at, samples_shown
from pipelines.tasks.task import IGNORED, AsTrained

SHOWN_PREDICTIONS = 10  # behind the end of a training


class Classification:
    """A ``Task``; its units are samples."""

    model_takes_and_gives = ("the first takes normalised images [B, channels, height, width], the last returns logits "
                             "[B, num_classes]")
    exported_files = ()

    def __init__(self, facts: TaskFacts) -> None:
        self.facts = facts
        self._num_classes = facts.sizes["num_classes"]
        deviation_C = [value or 1.0 for value in facts.facts["deviation"]]  # a channel that is the same everywhere has none
        self._factor_C11 = torch.tensor([1 / (PIXEL_RANGE * value) for value in deviation_C])[:, None, None]
        self._offset_C11 = torch.tensor([-mean / value for mean, value in zip(facts.facts["mean"], deviation_C, strict=True)]
                                        )[:, None, None]

    def inputs(self, images_BCHW: Tensor) -> Tensor:
        """What a model takes for pixels (uint8): float32, of mean 0 and deviation 1 in each channel of the training rows."""
        device = images_BCHW.device
        return torch.addcmul(self._offset_C11.to(device), images_BCHW.float(), self._factor_C11.to(device))

    def inputs_and_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """``inputs_BCHW``, and ``targets_B`` (int64): the labels, those of weight 0 ``IGNORED``."""
        targets_B = batch.fields["label"].long()
        return self.inputs(batch.fields["image"]), targets_B.masked_fill(batch.weights_B == 0, IGNORED)

    def loss_sum(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of ``logits_BK`` and ``targets_B``."""
        return functional.cross_entropy(output.float(), targets, ignore_index=IGNORED, reduction="sum")

    def num_counted(self, targets: Tensor) -> int:
        return int((targets != IGNORED).sum())

    @property
    def num_metric_sums(self) -> int:
        return ClassCounts.size(self._num_classes)

    def metric_sums(self, output: Tensor, targets: Tensor) -> Tensor:
        """See ``class_counts.py``."""
        return ClassCounts.sums_of(output, targets)

    def metrics(self, loss: float, sums: Tensor, dataset: TaskFacts, split: str) -> Metrics:
        return ClassCounts.of_sums(sums, self._num_classes).metrics()

    def findings(self, sums: Tensor) -> Findings:
        return class_findings(ClassCounts.of_sums(sums, self._num_classes), self.facts.facts["classes"])

    @property
    def mistakes(self) -> ClassMistakes:
        return ClassMistakes(self.facts.facts["classes"])

    def example(self, samples: int) -> Batch:
        """Pixels that count up from the sample's number, in steps of a prime."""
        image, label = self.facts.columns
        places_BN = torch.arange(samples)[:, None] + torch.arange(image.values)
        images_BCHW = (places_BN * 37 % (PIXEL_RANGE + 1)).to(torch.uint8).view(samples, *image.shape)
        labels_B = (torch.arange(samples) % self._num_classes).int()
        return Batch({image.name: images_BCHW, label.name: labels_B}, torch.ones(samples), torch.arange(samples))

    def exhibit_request(self, recipe: Recipe) -> dict[str, Any] | None:
        """Some images that it learns from, and some with what is said of them."""
        image, _ = self.facts.columns
        return {"train_rows": rows_looked_at(image.values), "validation_rows": SHOWN_PREDICTIONS}

    def data_exhibits(self, rows: Batch, as_trained: AsTrained | None) -> list[Exhibit]:
        classes, counts = self.facts.facts["classes"], self.facts.facts["class_counts"]
        changed = [] if as_trained is None else [as_trained_shown(rows, as_trained, classes)]
        return [class_balance(counts, classes), samples_shown(rows, classes), *changed]

    @torch.no_grad()
    def exhibits(self, model: nn.Module, request: dict[str, Any], files: Store, rows: Batch | None) -> list[Exhibit]:
        if rows is None:
            return []
        inputs, targets = self.inputs_and_targets(rows)
        return [predictions_shown(model(inputs), targets, rows.fields["image"], self.facts.facts["classes"])]
