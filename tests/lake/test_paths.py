"""Every thing of the lake lies below its root, what is published under a key and what is live in a folder."""

from __future__ import annotations

import pytest

from pipelines.errors import ConfigError, StorageError
from pipelines.lake.paths import Lake


@pytest.mark.parametrize("run_id", ["../../evil", "/tmp/evil", "a/b", "a b", ".hidden", "..", "", "x\n", "a" * 101, "ä"])
def test_a_run_id_that_is_no_plain_name_is_refused(tmp_path, run_id):
    with pytest.raises(ConfigError, match="is not a name that files and tables can have"):
        Lake.at(tmp_path).run(run_id)


@pytest.mark.parametrize("run_id", ["a", "gpt-demo-0f3a", "2026-11-24_x.y", "a" * 100])
def test_a_plain_name_is_a_key_below_runs(tmp_path, run_id):
    assert Lake.at(tmp_path).run(run_id).key == f"runs/{run_id}"


def test_keys_are_relative_and_lead_to_their_place_below_the_root(tmp_path):
    lake = Lake.at(tmp_path)
    run = lake.run("r")
    keys = [lake.dataset("d", "v1"), lake.model("r", "best"), lake.table("steps"), lake.profiles(), run.state, run.report,
            run.attempt_state(3), run.config(3), run.plan(3)]
    assert not [key for key in keys if key.startswith("/") or ".." in key]
    assert lake.store.place(run.plan(3)) == str(tmp_path / "runs/r/attempt-003/plan.json")


def test_the_live_traffic_of_an_attempt_is_told_apart_by_rank(tmp_path):
    live = Lake.at(tmp_path).run("r").live(1)
    assert live.records() == {}
    live.make()
    with pytest.raises(StorageError, match="attempt-001"):
        live.make()
    for rank in (12, 100_000, 3):
        live.record(rank).touch()
        live.log(rank).touch()
    assert live.records() == {3: live.record(3), 12: live.record(12), 100_000: live.record(100_000)}
