"""Metrics of a classification, from sums that may be taken of any parts of the samples."""

from __future__ import annotations

import pytest
import torch

from pipelines.lake.metric_facts import METRIC_NAMES
from pipelines.tasks.class_counts import BINS, ClassCounts
from pipelines.tasks.class_findings import class_findings
from pipelines.tasks.task import IGNORED


def logits_saying(said: list[int], probabilities: list[float], num_classes: int) -> torch.Tensor:
    """Logits whose softmax gives each class that is said its probability, and the others the rest in equal parts."""
    rest = (1 - torch.tensor(probabilities)) / (num_classes - 1)
    probabilities_BK = rest[:, None].repeat(1, num_classes)
    probabilities_BK[torch.arange(len(said)), torch.tensor(said)] = torch.tensor(probabilities)
    return probabilities_BK.log()


def test_counts_and_metrics_of_a_case_done_by_hand() -> None:
    true, said = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 1]  # class 2 is there and never said, class 3 is neither
    logits = logits_saying(said, [0.9, 0.9, 0.9, 0.6, 0.6, 0.6], 4)
    counts = ClassCounts.of_sums(ClassCounts.sums_of(logits, torch.tensor(true)), 4)
    assert counts.confusions_KK.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert counts.of_class(0) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert counts.of_class(1) == pytest.approx((1 / 3, 1 / 2, 2 / 5))
    assert counts.of_class(2) == (None, 0, 0)
    assert counts.of_class(3) == (None, None, None)
    metrics = counts.metrics()
    assert metrics["accuracy"] == pytest.approx(3 / 6)
    assert metrics["top5_accuracy"] is None  # of four classes
    assert metrics["macro_precision"] == pytest.approx((2 / 3 + 1 / 3) / 3)
    assert metrics["macro_recall"] == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 2 / 5) / 3)
    assert metrics["calibration_error"] == pytest.approx((abs(2 - 2.7) + abs(1 - 1.8)) / 6, abs=1e-6)
    assert metrics.keys() <= set(METRIC_NAMES)


def test_sums_over_any_parts_are_those_of_the_whole_and_what_is_ignored_counts_nowhere() -> None:
    torch.manual_seed(3)
    logits, targets = torch.randn(57, 12), torch.randint(0, 12, (57,))
    targets[[5, 30]] = IGNORED
    whole = ClassCounts.sums_of(logits, targets)
    parts = sum(ClassCounts.sums_of(logits[at], targets[at]) for at in torch.arange(57).split(7))
    assert whole.shape == (ClassCounts.size(12),)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    counts = ClassCounts.of_sums(whole, 12)
    assert counts.samples == 55 == counts.bins_3N[0].sum()
    top = logits.topk(5, 1).indices
    assert counts.top5_accuracy == sum(int(t) in row for t, row in zip(targets, top.tolist(), strict=True)) / 55


def test_a_probability_on_a_bins_border_is_in_the_bin_below_and_one_is_in_the_last() -> None:
    counts = ClassCounts.of_sums(ClassCounts.sums_of(torch.tensor([[200.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0])), 2)
    samples = counts.bins_3N[0].tolist()
    assert (samples[-1], samples[BINS // 2], sum(samples)) == (1, 1, 2)


def test_of_no_sample_there_is_no_metric() -> None:
    counts = ClassCounts.of_sums(ClassCounts.sums_of(torch.zeros(1, 7), torch.tensor([IGNORED])), 7)
    assert set(counts.metrics().values()) == {None}


def test_of_very_many_classes_no_pairs_are_counted_and_everything_else_is():
    few, many = 1000, 1001
    targets = torch.arange(200) * 5
    logits = torch.nn.functional.one_hot(targets.where(targets % 2 == 0, targets + 1), few).double() * 3
    wide = torch.cat([logits, torch.full((200, 1), -9.0)], 1)
    (some, some_more) = (ClassCounts.of_sums(ClassCounts.sums_of(each, targets), each.shape[1]) for each in (logits, wide))
    assert some.confusions_KK is not None and some_more.confusions_KK is None
    assert ClassCounts.size(many) == 3 * many + 1 + 3 * BINS
    for name in ("accuracy", "macro_recall", "macro_precision", "macro_f1"):
        assert some.metrics()[name] == some_more.metrics()[name]
    assert some.accuracy == 0.5
    findings = class_findings(some_more, [str(k) for k in range(many)])
    assert findings.confusions == () and [exhibit.kind for exhibit in findings.exhibits] == ["table"]
    assert findings.classes[5].samples == 1
