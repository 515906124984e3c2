"""The task classification: what a model is given, what counts, what an untrained model loses."""

from __future__ import annotations

import math

import pytest
import torch

from pipelines.feed.batches import Batch
from pipelines.models.build import build_model
from pipelines.models.cnn.settings import CnnModel
from pipelines.prepare.images.image_rows import classification_facts
from pipelines.tasks.table import task_of
from pipelines.tasks.task import IGNORED
from tests.support.image_data import patterns


def test_pixels_are_normalised_channel_by_channel_and_labels_of_weight_zero_are_not_counted() -> None:
    task = task_of(classification_facts(channels=2, height=1, width=2, classes=["a", "b"], mean=[0.2, 1.0], deviation=[0.4, 0.0],
                                        class_counts=[1, 1]))
    batch = Batch({"image": torch.tensor([[[[51, 255]], [[255, 0]]]] * 3, dtype=torch.uint8), "label": torch.tensor([1, 0, 1])},
                  torch.tensor([1.0, 1.0, 0.0]), torch.arange(3))
    inputs, targets = task.inputs_and_targets(batch)
    assert inputs.dtype == torch.float32
    # a channel without deviation is only shifted
    assert inputs[0].flatten().tolist() == pytest.approx([0.0, 2.0, 0.0, -1.0], abs=1e-6)
    assert targets.tolist() == [1, 0, IGNORED]
    assert task.num_counted(targets) == 2
    assert task.loss_sum(torch.zeros(3, 2), targets).item() == pytest.approx(2 * math.log(2))
    sums = task.metric_sums(torch.tensor([[0.0, 3.0]] * 3), targets)
    assert len(sums) == task.num_metric_sums
    assert task.metrics(0.5, sums, task.facts, "validation")["accuracy"] == 0.5


def test_an_example_has_the_columns_of_a_row_and_an_untrained_model_is_about_as_good_as_guessing() -> None:
    task = task_of(patterns())
    example = task.example(8)
    for column in task.facts.columns:
        assert example.fields[column.name].shape == (8, *column.shape)
        assert str(example.fields[column.name].dtype) == f"torch.{column.dtype}"
    assert len({tuple(image.flatten().tolist()) for image in example.fields["image"]}) == 8
    inputs, targets = task.inputs_and_targets(example)
    model = build_model(CnnModel(), task.facts.sizes, seed=1).eval()
    assert (task.loss_sum(model(inputs), targets) / task.num_counted(targets)).item() == pytest.approx(math.log(4), rel=0.15)
