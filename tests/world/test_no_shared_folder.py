"""Prepare, train and report where no machine sees a folder of another: as a user submits it, and when something fails."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.world.cluster import SLOTS, World, distance, kill_all
from tests.world.network import RunningHost, until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(560)]

STEPS, EVERY = 12, 6
HYBRID = ("--set", "layout.num_replicas=2", "--set", "layout.num_segments=2")
SEGMENTS = ("--set", "layout.num_replicas=1", "--set", "layout.num_segments=4")  # so that one replica spans both hosts
RANKS_END_S = 40.0
WHAT_A_HOST_SEES = """
import json, os, socket, sys
from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession
folders, environment = json.loads(sys.argv[1])
def seen(_):
    BarrierTaskContext.get().barrier()
    ours = [name for name in sys.path if name.endswith("pipelines")]
    try:
        import pipelines
        ours.append(pipelines.__file__)
    except ImportError:
        pass
    name = socket.gethostname()
    yield [name, socket.gethostbyname(name), [each for each in folders if os.path.exists(each)], ours]
context = SparkSession.builder.getOrCreate().sparkContext
print("SEEN", json.dumps(context.parallelize(range(4), 4).barrier().mapPartitions(seen).collect()))
"""


def left_behind(hosts: dict[str, RunningHost]) -> dict[str, list[str]]:
    """What a host's temporary folder has beside what is the worker's own, copies of the lake's objects, and torch's cache."""
    own = ("home", "work", "hsperfdata_", "spark-", "sparkring-cache", "torchinductor_")
    return {name: left for name, host in hosts.items()
            if (left := [each for each in host.files("/tmp") if not each.startswith(own)])}


def assert_each_step_and_rank_once(world: World, lake: str, steps: int) -> None:
    places = sorted((row["step"], row["rank"]) for row in world.rows(lake, "rank_steps"))
    assert places == [(step, rank) for step in range(1, steps + 1) for rank in range(2 * SLOTS)]


def test_hosts_see_nothing_of_the_driver_nor_of_each_other(world):
    script = world.folder / "what_a_host_sees.py"
    script.write_text(WHAT_A_HOST_SEES)
    folders = [str(each) for each in (world.folder, world.wheel, ROOT / "jobs", ROOT / "pipelines", ROOT / "README.md")]
    with world.workers() as hosts:
        command = [f"{sys.prefix}/bin/spark-submit", "--master", world.master, "--conf",
                   f"spark.driver.host={world.net.driver_address}", "--conf", "spark.executor.memory=512m", str(script),
                   json.dumps([folders, []])]
        done = subprocess.run(command, cwd=world.folder, env=world.environment(), capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        for host in hosts.values():
            assert "pytest-of-root" not in host.files("/tmp")
    seen = json.loads(done.stdout.partition("SEEN ")[2].splitlines()[0])
    assert sorted(map(tuple, (each[:2] for each in seen))) == sorted(
        (host.name, host.address) for host in world.net.hosts for _ in range(SLOTS))
    assert [each[2:] for each in seen] == [[[], []]] * 2 * SLOTS


def test_a_run_of_both_hosts_with_its_lake_on_a_store_is_that_of_one_rank_with_a_folder(world):
    recipe = world.recipe(world.url("texts"), STEPS, EVERY)
    with world.workers() as hosts:
        world.submit("pipeline", "lake", "--recipe", str(recipe), *HYBRID).well()
        assert left_behind(hosts) == {}
        assert {name: host.ranks() for name, host in hosts.items()} == {name: [] for name in hosts}
        again = world.submit("pipeline", "lake", "--recipe", str(recipe), *HYBRID).well()
        assert "is complete, nothing to do" in again.said
    assert_each_step_and_rank_once(world, "lake", STEPS)
    (run,) = world.rows("lake", "runs")
    assert (run["status"], sorted(run["placement"])) == ("completed", sorted([h.name for h in world.net.hosts] * SLOTS))
    run_id = world.run_id("lake")
    assert b"<html" in world.store.cat_file(f"{world.bucket}/lake/runs/{run_id}/report.html")
    logs = sorted(path.name for path in (world.folder / "tmp").rglob("rank-*.log"))
    assert logs == [f"rank-{rank:05d}.log" for rank in range(2 * SLOTS)]
    world.local(world.recipe("texts", STEPS, EVERY))
    assert distance(world.local_weights(), world.weights("lake")) < 1e-6


@pytest.mark.parametrize("lacking", ["credentials", "a way to the store"])
def test_a_host_that_does_not_reach_the_lake_is_named_with_the_remedy_and_nothing_is_published(world, lacking):
    lake, other = f"lake-{lacking.split()[-1]}", world.net.hosts[1]
    recipe = world.recipe(world.url("texts"), STEPS, EVERY)
    if lacking == "credentials":
        with world.workers(without_credentials=(other.name,)):
            ended = world.submit("pipeline", lake, "--recipe", str(recipe), *HYBRID)
    else:
        with world.workers(), other.without_store():
            ended = world.submit("pipeline", lake, "--recipe", str(recipe), *HYBRID)
    assert ended.code in (5, 8), ended.said[-6000:]
    (error,) = (line for line in ended.said.splitlines() if line.startswith("error:"))
    assert other.name in ended.said and "Traceback" not in ended.said, ended.said[-6000:]
    assert "credentials" in ended.said[ended.said.index(error):]
    assert not [key for key in world.objects(lake) if "manifest.json" in key or key.startswith(("runs/", "models/"))]


def test_a_killed_driver_leaves_no_rank_on_a_host_and_the_same_command_completes_the_run(world):
    steps = 400
    recipe = world.recipe(world.url("texts"), steps, 50)
    with world.workers() as hosts:
        driver = world.start(world.command("pipeline", "killed", "--recipe", str(recipe), *SEGMENTS))
        try:
            until(lambda: driver.poll() is not None or any(key.startswith("models/") for key in world.objects("killed")), 200,
                  "a model")
            assert driver.poll() is None, driver.stdout.read()[-6000:]
            assert sum(len(host.ranks()) for host in hosts.values()) == 2 * SLOTS
        finally:
            kill_all(driver.pid)
            driver.communicate()
        killed_s = time.monotonic()
        until(lambda: not any(host.ranks() for host in hosts.values()), RANKS_END_S, "the end of all ranks")
        print(f"the ranks were gone {time.monotonic() - killed_s:.1f} s after their driver")
        world.submit("pipeline", "killed", "--recipe", str(recipe), *SEGMENTS).well()
    assert_each_step_and_rank_once(world, "killed", steps)
    (run,) = world.rows("killed", "runs")
    assert run["status"] == "completed"
