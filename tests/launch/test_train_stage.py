"""The train stage on a real Spark session: ranks start, train, fail and end as they should."""

import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pipelines.errors import (
    AlreadyRunningError,
    ConfigError,
    DataError,
    InterruptedRunError,
    RankFailedError,
    ResourceError,
    StalledError,
)
from pipelines.interrupts import SIGNALS, arm_interrupts
from pipelines.lake import claims
from pipelines.lake.claim_sequence import ClaimSequence
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.lake.store import FolderStore
from pipelines.launch.execution import driver_address
from pipelines.launch.identity import claim_run
from pipelines.launch.planning import plan_train
from pipelines.launch.train import train
from tests.support.claim_holder import take_over
from tests.support.example_data import example_config, publish_example

pytestmark = pytest.mark.processes


class Seen:
    """An observer that remembers, and may act on a record."""

    def __init__(self, act=None):
        self.starts, self.records, self.said, self._act = [], [], [], act

    def layout_chosen(self, choice):
        """Nothing is chosen here."""

    def say(self, line):
        self.said.append(line)

    def ranks_met(self, plan, starts):
        self.starts = starts

    def on_record(self, record):
        self.records.append(record)
        if self._act is not None:
            self._act(self, record)


def run_stage(spark, folder, observer=None, run_id=None, manifest=None, **overrides):
    lake = Lake.at(folder)
    manifest = manifest or publish_example(lake)
    plan = plan_train(example_config(**overrides), lake, manifest, run_id)
    return train(spark, plan, "the command", observer or Seen()), lake, manifest


@pytest.fixture
def armed():
    """Signals arrive as in a job; afterwards as in a test run."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    arm_interrupts()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ranks_alive(folder):
    """Worker processes of runs below a folder."""
    return [p for p in psutil.process_iter(["cmdline"])
            if p.info["cmdline"] and "pipelines.train.worker" in p.info["cmdline"] and str(folder) in " ".join(p.info["cmdline"])]


def wait_until_gone(folder, bound_s=10):
    until = time.monotonic() + bound_s
    while ranks_alive(folder) and time.monotonic() < until:
        time.sleep(0.05)
    return not ranks_alive(folder)


def test_two_ranks_train_to_the_end_and_a_second_time_nothing_happens(spark, tmp_path):
    seen = Seen()
    outcome, lake, manifest = run_stage(spark, tmp_path, seen, task__sample_tokens=8)
    assert (outcome.fresh, outcome.state.status, outcome.state.newest.exit_code, outcome.state.newest.number) == (
        True, "completed", 0, 0)
    assert [start["rank"] for start in seen.starts] == [0, 1]
    assert len(outcome.state.newest.placement) == 2
    assert [r["step"] for r in seen.records if r["kind"] == "step"] == list(range(1, 11))
    assert [r["kind"] for r in seen.records if r["kind"] in ("exhibits", "end")] == ["end", "exhibits"]
    for which in ("best", "last"):
        assert (lake.root / lake.model(outcome.state.run_id, which) / "model.safetensors").exists()
    live = lake.run(outcome.state.run_id).live(0)
    assert sorted(path.name for path in live.path.iterdir()) == [
        "config.json", "plan.json", "rank-00000.jsonl", "rank-00000.log", "rank-00001.jsonl", "rank-00001.log", "state.json"]
    assert list(Path(tempfile.gettempdir()).glob(f"sparkring-{outcome.state.run_id}-attempt-*")) == []
    again, *_ = run_stage(spark, tmp_path, seen, manifest=manifest, task__sample_tokens=8)
    assert again.fresh is False
    assert not lake.run(outcome.state.run_id).live(1).path.exists()
    assert wait_until_gone(tmp_path, 1)


def kill_rank(rank, number):
    def act(seen, record):
        if record["kind"] == "step" and record["step"] == 3:
            os.kill(seen.starts[rank]["pid"], number)
    return act


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_with_its_name_and_the_next_launch_works(spark, tmp_path, rank):
    with pytest.raises(RankFailedError, match=rf"rank {rank} on .*: was killed by SIGKILL") as caught:
        run_stage(spark, tmp_path, Seen(kill_rank(rank, signal.SIGKILL)), train__steps=5000, train__evaluate_every_steps=5000)
    assert caught.value.exit_code == 6
    assert wait_until_gone(tmp_path)
    lake = Lake.at(tmp_path)
    (run,) = (lake.root / lake.runs()).iterdir()
    assert '"status": "failed"' in (run / "attempt-000" / "state.json").read_text()
    outcome, *_ = run_stage(spark, tmp_path / "next")
    assert outcome.state.status == "completed"


def test_a_failed_run_is_tried_anew_as_the_next_attempt(spark, tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_example(lake)
    with pytest.raises(RankFailedError):
        run_stage(spark, tmp_path, Seen(kill_rank(1, signal.SIGTERM)), manifest=manifest, train__steps=400)
    outcome, *_ = run_stage(spark, tmp_path, manifest=manifest, train__steps=400)
    assert [attempt.status for attempt in outcome.state.attempts] == ["failed", "completed"]


def test_more_ranks_than_slots_fail_within_seconds_naming_the_setting(spark, tmp_path):
    began = time.monotonic()
    with pytest.raises(ResourceError, match=r"layout.num_replicas: 4 x 1 segments need 4 slots, .* has 2") as caught:
        run_stage(spark, tmp_path, layout__num_replicas=4)
    assert time.monotonic() - began < 30  # what the launcher promises
    assert caught.value.exit_code == 5
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/attempt-*"))


def test_more_segments_than_slots_are_told_with_what_would_fit(spark, tmp_path):
    with pytest.raises(ResourceError, match=r"1 x 3 segments need 3 slots, .* has 2; set layout.num_segments to at most 2"):
        run_stage(spark, tmp_path, layout__num_replicas=1, layout__num_segments=3, model__num_layers=4)


def test_ranks_that_do_not_meet_in_time_are_named_and_ended(spark, tmp_path):
    with pytest.raises(StalledError, match=r"launch.start_timeout_s: after 0.2 s ranks 0, 1 of 2 have not started"):
        run_stage(spark, tmp_path, launch__start_timeout_s=0.2)
    assert wait_until_gone(tmp_path)


def test_ranks_that_outlive_the_bound_of_their_stop_are_told_and_end_all_the_same(spark, tmp_path):
    seen = Seen()
    with pytest.raises(StalledError):
        run_stage(spark, tmp_path, seen, launch__start_timeout_s=0.2, launch__stop_timeout_s=0.001)
    assert seen.said == ["the ranks were not seen to end within 0.001 s (launch.stop_timeout_s)"]
    assert wait_until_gone(tmp_path)


def test_a_rank_that_is_frozen_is_found_by_the_stall_bound_and_named(spark, tmp_path):
    with pytest.raises(StalledError, match="launch.stall_timeout_s: no rank has recorded anything for 6 s; the oldest news is "
                       r"of rank \d on .*: (after step \d+, training|before its first step, .*); "
                       r"rank 1 on \S+ was stopped \(SIGSTOP\); see") as caught:
        run_stage(spark, tmp_path, Seen(kill_rank(1, signal.SIGSTOP)), launch__stall_timeout_s=6, train__steps=5000,
                  train__evaluate_every_steps=5000)
    assert str(caught.value).count("SIGSTOP") == 1
    assert wait_until_gone(tmp_path)


def test_a_gang_that_dies_of_anything_is_a_failure(spark, tmp_path, monkeypatch):
    def broken(order):
        raise KeyError("a fault that nobody thought of")

    monkeypatch.setattr("pipelines.launch.gang._task_body", broken)
    with pytest.raises(RankFailedError, match="KeyError: 'a fault that nobody thought of'"):
        run_stage(spark, tmp_path, run_id="r")
    assert '"status": "failed"' in (tmp_path / "runs/r/attempt-000/state.json").read_text()


def test_what_is_complete_when_an_interrupt_arrives_is_not_trained_again(spark, tmp_path, armed):
    """A real signal, when both ranks have recorded their ends and the driver is still waiting for them to leave."""
    def interrupt(seen, record):
        if record["kind"] == "end":
            other = RecordTail(Lake.at(tmp_path).run("r").live(0).record(1))
            until = time.monotonic() + 30
            while not any(record["kind"] == "end" for record in other.new_records()):
                assert time.monotonic() < until
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError, match="SIGTERM: the run was asked to stop when its ranks had just completed it"):
        run_stage(spark, tmp_path, Seen(interrupt), run_id="r")
    arm_interrupts()
    manifest = Manifest.load(FolderStore(tmp_path / "datasets/example/v1"))
    again, lake, _ = run_stage(spark, tmp_path, Seen(), run_id="r", manifest=manifest)
    assert (again.fresh, again.state.status, again.state.newest.exit_code, len(again.state.newest.placement)) == (
        False, "completed", 0, 2)
    assert not lake.run("r").live(1).path.exists()


def test_a_changed_shard_is_found_by_its_checksum_and_named(spark, tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_example(lake)
    shard = lake.root / lake.dataset("example", "v1") / manifest.shards("train")[1].path
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(bytes(content))
    with pytest.raises(DataError, match=shard.name) as caught:
        run_stage(spark, tmp_path, manifest=manifest)
    assert caught.value.exit_code == 3


def test_a_truncated_or_missing_shard_is_named_before_any_rank_starts(spark, tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_example(lake)
    shard = lake.root / lake.dataset("example", "v1") / manifest.shards("train")[0].path
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(DataError, match=r"has \d+ bytes, the manifest says \d+"):
        run_stage(spark, tmp_path, manifest=manifest)
    shard.unlink()
    with pytest.raises(DataError, match="is missing"):
        run_stage(spark, tmp_path, manifest=manifest)
    assert not list((lake.root / lake.runs()).glob("*/attempt-*"))


def test_a_run_held_by_another_process_is_refused(spark, tmp_path):
    lake = Lake.at(tmp_path)
    with claim_run(lake.run("held"), "held"), pytest.raises(AlreadyRunningError, match="run held") as caught:
        run_stage(spark, tmp_path, run_id="held")
    assert caught.value.exit_code == 4


def test_a_run_that_was_taken_over_is_ended_and_told_by_its_new_holder_alone(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.05)
    run = Lake.at(tmp_path).run("taken")

    def meanwhile(seen, record):
        if record["kind"] == "step" and record["step"] == 3:
            take_over(run.store, run.claim)

    with pytest.raises(AlreadyRunningError, match="run taken: another process took it over") as caught:
        run_stage(spark, tmp_path, Seen(meanwhile), run_id="taken", train__steps=100_000)
    assert caught.value.exit_code == 4
    assert wait_until_gone(tmp_path)
    assert '"status": "running"' in run.store.read(run.attempt_state(0)).decode()
    assert ClaimSequence(run.store, run.claim).newest().token == "theirs"


def test_a_run_id_of_another_recipe_is_refused(spark, tmp_path):
    _, _, manifest = run_stage(spark, tmp_path, run_id="mine")
    with pytest.raises(ConfigError, match="--run-id mine: belongs to another recipe or dataset"):
        run_stage(spark, tmp_path, run_id="mine", manifest=manifest, train__steps=11)


def test_nothing_but_the_hub_listens_once_the_ranks_have_met(spark, tmp_path):
    listening = []

    def look(seen, record):
        if record["kind"] == "step" and not listening:
            ours = psutil.Process()
            listening.append([c.laddr for c in ours.net_connections() if c.status == "LISTEN"])
            for start in seen.starts:
                listening.append([c.laddr.ip for c in psutil.Process(start["pid"]).net_connections() if c.status == "LISTEN"])

    before = [c.laddr for c in psutil.Process().net_connections() if c.status == "LISTEN"]
    run_stage(spark, tmp_path, Seen(look), train__steps=400)
    (hub,) = set(listening[0]) - set(before)
    assert hub.ip == "127.0.0.1"
    assert {ip for addresses in listening[1:] for ip in addresses} <= {"127.0.0.1"}


def test_records_can_be_followed_while_the_ranks_write(spark, tmp_path):
    seen_early = threading.Event()

    def early(seen, record):
        lake = Lake.at(tmp_path)
        (run,) = (lake.root / lake.runs()).iterdir()
        if record["kind"] == "step" and RecordTail(run / "attempt-000" / "rank-00001.jsonl").new_records()[-1]["kind"] != "end":
            seen_early.set()

    run_stage(spark, tmp_path, Seen(early), train__steps=300)
    assert seen_early.is_set()


def test_a_driver_whose_name_does_not_resolve_is_told_with_its_setting():
    conf = SimpleNamespace(get=lambda key, default: "no-such-host.invalid")
    spark = SimpleNamespace(sparkContext=SimpleNamespace(getConf=lambda: conf))
    with pytest.raises(ResourceError, match=r"spark.driver_host: no-such-host.invalid has no address here \(.*numeric address"):
        driver_address(spark)


def test_an_interface_that_a_host_lacks_ends_the_run_as_failed(spark, tmp_path):
    with pytest.raises(RankFailedError, match=r"launch.network_interface: there is no 'eth99' on this host; use one of "):
        run_stage(spark, tmp_path, launch__network_interface="eth99")
    (run,) = (tmp_path / "runs").iterdir()
    assert '"status": "failed"' in (run / "attempt-000" / "state.json").read_text()
