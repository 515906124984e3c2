"""The task language: what is predicted, what counts, what an untrained model loses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pipelines.errors import DataError
from pipelines.feed.batches import Batch
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.build import build_model
from pipelines.models.gpt.settings import GptModel
from pipelines.prepare.text.language_rows import language_columns
from pipelines.tasks.table import task_of
from pipelines.tasks.task import IGNORED
from tests.support.example_data import example_config, language, sizes


def test_targets_past_a_rows_length_and_of_weight_zero_are_not_counted() -> None:
    task = task_of(language(10, 9))
    batch = Batch({"tokens": torch.arange(10, dtype=torch.int32).repeat(3, 1), "length": torch.tensor([10, 4, 10])},
                  torch.tensor([1.0, 1.0, 0.0]), torch.arange(3))
    inputs, targets = task.inputs_and_targets(batch)
    assert inputs.tolist() == [list(range(9))] * 3
    assert targets.tolist() == [list(range(1, 10)), [1, 2, 3] + [IGNORED] * 6, [IGNORED] * 9]
    assert task.num_counted(targets) == 12
    logits = torch.zeros(3, 9, 10)
    assert task.loss_sum(logits, targets).item() == pytest.approx(12 * math.log(10))


def test_an_untrained_model_is_as_good_as_guessing() -> None:
    task = task_of(language(50, 8))
    inputs, targets = task.inputs_and_targets(task.example(64))
    model = build_model(GptModel(num_layers=2, num_heads=2, width=16), sizes(50, 8), seed=1)
    assert (task.loss_sum(model(inputs), targets) / task.num_counted(targets)).item() == pytest.approx(math.log(50), rel=0.02)


def test_an_example_has_the_columns_of_a_row_and_counts_in_full() -> None:
    example = task_of(language(50, 8)).example(3)
    assert len({tuple(row) for row in example.fields["tokens"].tolist()}) == 3 == example.samples
    assert task_of(language(50, 8)).num_counted(task_of(language(50, 8)).inputs_and_targets(example)[1]) == 3 * 8
    for column in language_columns(8, 49):
        assert example.fields[column.name].shape == (3, *column.shape)
        assert str(example.fields[column.name].dtype) == f"torch.{column.dtype}"


def test_a_text_is_asked_for_unless_the_recipe_wants_none() -> None:
    task = task_of(language(50, 8))
    assert task.exhibit_request(example_config(task__sample_tokens=0).recipe) is None
    assert task.exhibit_request(example_config(task__sample_tokens=7).recipe) == {"prompt": "a", "num_tokens": 7}


def test_a_dataset_of_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="for the task 'chess'; there are: language"):
        task_of(TaskFacts("chess", (), {}, "games", 1, "nats per game"))


def test_accuracy_is_of_the_tokens_that_count_and_bits_are_of_the_bytes_of_the_splits_text() -> None:
    task = task_of(language(10, 4))
    targets = torch.tensor([[1, 2, 3, IGNORED], [4, 5, IGNORED, IGNORED]])
    logits = torch.nn.functional.one_hot(torch.tensor([[1, 2, 9, 9], [4, 9, 9, 9]]), 10).float()
    sums = task.metric_sums(logits, targets)
    assert (sums.tolist(), sums.dtype, task.num_metric_sums) == ([3, 5], torch.float64, 2)
    dataset = replace(task.facts, facts={"token_bytes": {"validation": 2.5}})
    found = task.metrics(2.0, sums, dataset, "validation")
    assert found == pytest.approx({"perplexity": math.exp(2), "bits_per_byte": 2 / math.log(2) / 2.5, "accuracy": 3 / 5})
    assert task.metrics(2.0, sums, task.facts, "validation")["bits_per_byte"] is None  # an older manifest
    assert task.metrics(1e4, sums, task.facts, "validation")["perplexity"] is None
