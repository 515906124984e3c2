"""Batch normalisation over groups of the recipe: torch's own of each group, whatever else is in the micro-batch."""

import pytest
import torch
from torch import nn

from pipelines.models.grouped_norm import GroupedBatchNorm
from pipelines.models.layered import LayeredModel, evaluation_mode


def normalising(group_samples=4):
    norm = GroupedBatchNorm(3, group_samples)
    model = LayeredModel([("norm", norm)])
    norm.current = model.current
    return model, norm


def test_each_group_is_normalised_as_torch_does_and_alone_as_in_company():
    model, norm = normalising()
    hidden = torch.randn(8, 3, 5, 5)
    model.current.at(0, torch.arange(8))
    together = model(hidden)
    theirs = nn.BatchNorm2d(3)
    assert torch.allclose(together, torch.cat([theirs(hidden[:4]), theirs(hidden[4:])]), atol=1e-6)
    for first in (0, 4):
        model.current.at(0, torch.arange(first, first + 4))
        assert torch.equal(model(hidden[first : first + 4]), together[first : first + 4])
    assert torch.equal(norm.running_mean, torch.zeros(3))  # a forward changes nothing


def test_padding_takes_no_part_and_a_group_of_one_is_normalised_by_the_running_statistics():
    model, norm = normalising()
    norm.settle(torch.cat([torch.full((3,), 5.0), torch.full((3,), 2.0), torch.ones(1)]).double())
    assert norm.running_mean.tolist() == pytest.approx([0.5] * 3) and norm.running_var.tolist() == pytest.approx([1.1] * 3)
    hidden = torch.randn(8, 3, 2)
    model.current.at(0, torch.tensor([7, 3, 5, -1, 9, -1, -1, -1]))
    result = model(hidden)
    assert torch.allclose(result[:3], nn.BatchNorm1d(3)(hidden[:3]), atol=1e-6)
    with evaluation_mode(model):
        assert torch.allclose(result[4], model(hidden)[4])
    assert norm.noted()[-1] == 1  # the group of one tells nothing
    other = hidden.clone()
    other[3], other[5:] = 100.0, -100.0
    assert torch.equal(model(other)[[0, 1, 2, 4]], result[[0, 1, 2, 4]])


def test_what_groups_came_to_is_noted_once_and_settled_as_one_update():
    model, norm = normalising(group_samples=2)
    hidden = torch.randn(6, 3, 7)
    for first in (0, 2):
        model.current.at(0, torch.arange(first, first + 4))
        model(hidden[first : first + 4])
    total = norm.noted()
    assert norm.noted().tolist() == [0.0] * 7
    groups = [hidden[0:2], hidden[2:4], hidden[2:4], hidden[4:6]]
    expected = torch.stack([torch.cat([g.mean((0, 2)), g.transpose(0, 1).flatten(1).var(1)]) for g in groups]).double().sum(0)
    assert torch.allclose(total, torch.cat([expected, torch.tensor([4.0])]), rtol=1e-5)
    norm.settle(total)
    assert torch.allclose(norm.running_mean, 0.1 * expected[:3].float() / 4, atol=1e-7)
    before = norm.running_var.clone()
    norm.settle(torch.zeros(7, dtype=torch.float64))  # a step of groups of one
    assert torch.equal(norm.running_var, before)


def test_a_micro_batch_that_parts_a_group_is_refused():
    model, _ = normalising()
    model.current.at(0, torch.arange(6))
    with pytest.raises(ValueError, match=r"groups of 4 samples takes \(6, 3, 2\) in a micro-batch of 6"):
        model(torch.randn(6, 3, 2))
