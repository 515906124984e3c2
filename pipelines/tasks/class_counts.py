"""What answers of one class for each sample came to: sums that travel, and the metrics that are made of them last.

Runs on: ranks.
Takes:   logits [B, K] and targets [B]; sums over any number of samples and ranks.
Gives:   ``ClassCounts``: accuracy, each class's precision and recall, the confusion matrix, calibration.

The sums are flat float64: of each class how often it was said rightly, was said, was true [3 * K]; of no more than
``MOST_CONFUSED`` classes, how often each was said where each was true [K * K]; how often the true one was among the five
likeliest [1]; and of each bin of the probability of what was said its samples, its right ones and the sum of that
probability [3 * BINS].

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (expected calibration error).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.lake.metric_facts import Metrics
from pipelines.tasks.task import IGNORED

BINS = 15
TOP = 5
MOST_CONFUSED = 1000  # classes: 8 MB of sums on every rank


@dataclass(frozen=True)
class ClassCounts:
    """Of some samples; all of them float64."""

    right_K: Tensor
    said_K: Tensor
    there_K: Tensor
    confusions_KK: Tensor | None  # row: true, column: said
    among_top: Tensor  # scalar
    bins_3N: Tensor  # samples, right ones, sum of the probability of what was said

    @staticmethod
    def size(num_classes: int) -> int:
        return sum(ClassCounts._sizes(num_classes))

    @staticmethod
    def _sizes(num_classes: int) -> list[int]:
        pairs = num_classes**2 if num_classes <= MOST_CONFUSED else 0
        return [num_classes, num_classes, num_classes, pairs, 1, 3 * BINS]

    @staticmethod
    def of_sums(sums: Tensor, num_classes: int) -> ClassCounts:
        right_K, said_K, there_K, pairs, among, bins = sums.split(ClassCounts._sizes(num_classes))
        return ClassCounts(right_K, said_K, there_K, pairs.view(num_classes, num_classes) if len(pairs) else None, among[0],
                           bins.view(3, BINS))

    @staticmethod
    def sums_of(logits_BK: Tensor, targets_B: Tensor) -> Tensor:
        """Of the targets that count."""
        counted_B = targets_B != IGNORED
        logits_BK, targets_B = logits_BK[counted_B].float(), targets_B[counted_B]
        num_classes = logits_BK.shape[1]
        probability_B, said_B = logits_BK.softmax(1).max(1)
        right_B = said_B == targets_B
        among_B = (logits_BK.topk(min(TOP, num_classes), 1).indices == targets_B[:, None]).any(1)
        bin_B = (probability_B * BINS).ceil().long().clamp(1, BINS) - 1  # bins are open at their lower end
        of_classes = [torch.bincount(which, minlength=num_classes).double() for which in (said_B[right_B], said_B, targets_B)]
        pairs = (torch.bincount(targets_B * num_classes + said_B, minlength=num_classes**2).double()
                 if num_classes <= MOST_CONFUSED else logits_BK.new_zeros(0, dtype=torch.float64))
        bins = [torch.bincount(bin_B, weights, minlength=BINS).double()
                for weights in (None, right_B.double(), probability_B.double())]
        return torch.cat([*of_classes, pairs, among_B.sum().double()[None], *bins])

    @property
    def samples(self) -> float:
        return self.there_K.sum().item()

    @property
    def accuracy(self) -> float | None:
        return _share(self.right_K.sum().item(), self.samples)

    @property
    def top5_accuracy(self) -> float | None:
        """None where there are no more than five classes."""
        return _share(self.among_top.item(), self.samples) if len(self.there_K) > TOP else None

    @property
    def calibration_error(self) -> float | None:
        """How far, on average over the samples, a bin's share of right answers is from the mean probability of what was said."""
        _, right_N, probability_N = self.bins_3N
        return _share((right_N - probability_N).abs().sum().item(), self.samples)

    def of_class(self, index: int) -> tuple[float | None, float | None, float | None]:
        """Precision, recall and their harmonic mean; None where nothing tells: never said, none there, neither."""
        right, said, there = (counts_K[index].item() for counts_K in (self.right_K, self.said_K, self.there_K))
        return _share(right, said), _share(right, there), _share(2 * right, said + there)

    def metrics(self) -> Metrics:
        """By ``lake/metric_facts.py``."""
        found = [of_class for k in range(len(self.there_K)) if (of_class := self.of_class(k))[2] is not None]
        macro = [_share(sum(each[part] or 0.0 for each in found), len(found)) for part in range(3)]
        return {"accuracy": self.accuracy, "top5_accuracy": self.top5_accuracy, "macro_precision": macro[0],
                "macro_recall": macro[1], "macro_f1": macro[2], "calibration_error": self.calibration_error}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
