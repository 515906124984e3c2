"""The plan of a run's next attempt: made once, and again only where an automatic layout finds other room than was known."""

from types import SimpleNamespace

import pytest

from pipelines.config.platform import ALL_AUTO
from pipelines.lake.paths import Lake
from pipelines.launch import planning
from pipelines.launch.planning import attempt_plan, plan_train
from pipelines.plan.layout import Room
from pipelines.plan.run_plan import RunPlan
from tests.support.example_data import example_config, publish_example

ROOM = Room(slots=4, memory_bytes=4 * 1024**3, most_replicas=8)


@pytest.fixture
def lake(tmp_path):
    return Lake.at(tmp_path)


@pytest.fixture
def planned(lake, monkeypatch):
    """Plans a run on the room that is known before; counts how often an attempt is planned."""
    manifest, counted, plan_run = publish_example(lake), [], planning.plan_run

    def counting(*arguments):
        counted.append(arguments)
        return plan_run(*arguments)

    def plan(known, **overrides):
        monkeypatch.setattr(planning, "room_known", lambda platform: known)
        return plan_train(example_config(**overrides), lake, manifest, None)

    monkeypatch.setattr(planning, "plan_run", counting)
    return SimpleNamespace(plan=plan, counted=counted)


def there(monkeypatch, room):
    monkeypatch.setattr(planning, "room_there", lambda spark, platform, say: room)


def test_what_was_planned_before_the_launch_is_what_is_launched(planned, monkeypatch):
    there(monkeypatch, ROOM)
    for plan in (planned.plan(None), planned.plan(ROOM, layout=ALL_AUTO)):
        assert attempt_plan(plan, None, print) is plan.attempt
    assert len(planned.counted) == 2


def test_an_automatic_layout_is_planned_again_only_where_other_room_is_there_than_was_known(planned, monkeypatch):
    plan = planned.plan(ROOM, layout=ALL_AUTO)
    assert plan.attempt.layout.num_replicas == 4
    there(monkeypatch, Room(slots=2, memory_bytes=ROOM.memory_bytes, most_replicas=8))
    assert attempt_plan(plan, None, print).layout.num_replicas == 2


def test_where_only_the_executors_can_tell_the_attempt_is_planned_once_they_are_there(planned, monkeypatch):
    plan = planned.plan(None, layout=ALL_AUTO)
    assert (plan.attempt, planned.counted) == (None, [])
    there(monkeypatch, ROOM)
    assert attempt_plan(plan, None, print).choice.layout.num_replicas == 4


@pytest.mark.parametrize("layout", [{"num_segments": 2, "micro_batch_samples": 2}, ALL_AUTO])
def test_a_plan_is_stored_whole(planned, layout):
    plan = planned.plan(ROOM, layout=layout)
    attempt = plan.attempt
    attempt.save(plan.run, 0)
    assert RunPlan.load(plan.run, 0) == attempt
    assert attempt.cut_is_measured == (attempt.layout.num_segments > 1)
