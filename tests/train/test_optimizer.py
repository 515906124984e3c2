"""Optimizers and schedules: what they are beside torch's own, what they keep, which runs they name."""

import pytest
import torch
from torch import nn

from pipelines.config.checks import contradictions
from pipelines.config.optimizers import AdamW, LinearSchedule, Muon, OneCycleSchedule, Sgd, StepSchedule, WsdSchedule
from pipelines.launch.identity import training_hash
from pipelines.models.gpt.facts import facts as gpt_facts
from pipelines.plan.layout import planned_split
from pipelines.plan.memory import FeedFacts, rank_bytes
from pipelines.train.optimizer import build_optimizer, learning_rate_at
from tests.support.example_data import example_config, language


@pytest.mark.parametrize("given", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.0},
                                   {"momentum": 0.5, "weight_decay": 0.1}], ids=str)
def test_sgd_updates_as_torchs_own_and_vectors_do_not_decay(given):
    settings = example_config(optimizer={"kind": "sgd", "learning_rate": 0.1, **given}).recipe.optimizer
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    decay = given.get("weight_decay", 0.0)
    rest = {key: value for key, value in given.items() if key != "weight_decay"}
    optimizers = [build_optimizer(ours, settings, ours), torch.optim.SGD(
        [{"params": [theirs.weight], "weight_decay": decay}, {"params": [theirs.bias]}], lr=0.1, **rest)]
    for _ in range(4):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight) and torch.allclose(ours.bias, theirs.bias)
    kept = sum(value.numel() for state in optimizers[0].state.values() for value in state.values()
               if isinstance(value, torch.Tensor))
    assert kept == settings.values_kept(sum(p.numel() for p in ours.parameters()), 0)


def test_nesterov_without_momentum_is_refused():
    config = example_config(optimizer={"kind": "sgd", "momentum": 0.0, "nesterov": True})
    assert [str(fault.place) for fault in contradictions(config.recipe, config.platform)] == ["optimizer.nesterov"]


def test_a_plan_counts_what_the_optimizer_keeps():
    recipe = example_config().recipe
    facts, feed = gpt_facts(recipe.model, language(32, 16)), FeedFacts(100, 1, 80, 4, 10_000)
    split = planned_split(facts, recipe, example_config(layout__num_replicas=1).platform.layout)
    adamw, muon, sgd, plain = (rank_bytes(facts, feed, split, kind)[0]
                               for kind in (AdamW(), Muon(), Sgd(), Sgd(momentum=0.0)))
    assert adamw - sgd == sgd - plain == 4 * facts.parameters
    assert adamw - muon == 4 * 2 * 12 * 16 * 16  # of the matrices of its blocks it keeps one value


def test_recipes_of_before_there_were_kinds_keep_their_run_ids():
    for change in ({}, {"optimizer": {"kind": "adamw", "learning_rate": 3e-3}}, {"model__dropout": 0.0}):
        assert training_hash(example_config(task__sample_tokens=8, **change).recipe, "v1", {}) == "f8ee6f98"
    assert training_hash(example_config(schedule={"kind": "constant", "warmup_steps": 2}, task__sample_tokens=8).recipe, "v1", {}
                         ) == "581e9f2a"  # as computed before there were kinds
    assert training_hash(example_config(task__sample_tokens=8, model__dropout=0.1).recipe, "v1", {}) != "f8ee6f98"


def test_the_step_schedule_goes_down_by_its_factor_at_its_steps():
    schedule = StepSchedule(every_steps=3, factor=0.5, warmup_steps=2)
    assert [learning_rate_at(step, 10, 8.0, schedule) for step in range(1, 11)] == pytest.approx(
        [8 / 3, 16 / 3, 8, 8, 8, 4, 4, 4, 2, 2])


def test_the_linear_schedule_ends_at_its_fraction():
    schedule = LinearSchedule(warmup_steps=1, final_fraction=0.25)
    assert [learning_rate_at(step, 5, 8.0, schedule) for step in range(1, 6)] == pytest.approx([4, 8, 6, 4, 2])


def test_warm_up_stable_decay_stays_and_then_goes_down_in_a_straight_line():
    schedule = WsdSchedule(warmup_steps=1, decay_fraction=0.4, final_fraction=0.0)
    assert [learning_rate_at(step, 10, 8.0, schedule) for step in range(1, 11)] == pytest.approx([4, 8, 8, 8, 8, 8, 6, 4, 2, 0])


def test_one_cycle_is_torchs_own():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2.0, total_steps=41, cycle_momentum=False,
                                                 pct_start=11 / 41)  # it counts from 1, we from 0
    rates = []
    for _ in range(41):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step() if len(rates) < 41 else None
    ours = [learning_rate_at(step, 41, 2.0, OneCycleSchedule(rise_fraction=0.25)) for step in range(1, 42)]
    assert ours == pytest.approx(rates, rel=1e-6)
    assert (ours[0], max(ours), ours[-1]) == pytest.approx((0.08, 2.0, 8e-6))
