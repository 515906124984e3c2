"""A cluster's hosts that are not as the driver are named before ranks start there."""

import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from pipelines.errors import ResourceError, StalledError
from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore
from pipelines.launch import hosts
from pipelines.launch.hosts import check_hosts, differences, report_of_host

HERE = socket.gethostname()


def found(began_s=0.0, ended_s=10.0, **changed):
    """What is said of a host that is as the driver but for what is changed; it answered at 5 s."""
    own = replace(report_of_host(), time_s=5.0)
    versions = own.versions | changed.pop("versions", {})
    return [each.problem for each in differences(replace(own, versions=versions, **changed), own, began_s, ended_s, "/lake")]


def test_a_host_that_is_as_the_driver_passes():
    assert found() == []
    build = report_of_host().versions["torch"].partition("+")[0] + "+cu130"
    assert found(versions={"torch": build}) == []  # the same release, built for GPUs
    assert found(time_s=-50.0) == found(time_s=60.0) == []


@pytest.mark.parametrize(("changed", "said"), [
    ({"versions": {"horovod": "missing"}}, "horovod missing, the driver has 0.28.1"),
    ({"versions": {"torch": "2.12.0+cpu"}}, "torch 2.12.0+cpu, the driver has "),
    ({"versions": {"Python": "3.12"}}, "Python 3.12, the driver has 3.11"),
    ({"source": "another"}, "another source of sparkring than the driver's"),
    ({"time_s": 3610.0}, "the clock is 3,600 s ahead of the driver's"),
    ({"time_s": -3600.0}, "the clock is 3,600 s behind the driver's"),
    ({"lake": "cannot be read: Permission denied"}, "storage.root /lake is not the driver's: cannot be read: Permission denied"),
])
def test_what_differs_is_said(changed, said):
    (problem,) = found(**changed)
    assert problem.startswith(said)


@pytest.mark.parametrize(("message", "said"), [
    ("ModuleNotFoundError: No module named 'pipelines'", "have no sparkring; start with spark-submit --py-files"),
    ("ModuleNotFoundError: No module named 'pyarrow'", "have no pyarrow; install the packages of requirements.lock there"),
    ("pyspark.errors.PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12 than 3.11",
     "do not have the driver's Python: pyspark.errors.PySparkRuntimeError: [PYTHON_VERSION_MISMATCH]"),
    ('java.io.IOException: Cannot run program "/opt/none/python": error=2, No such file', "do not have the driver's Python"),
    ("org.apache.spark.SparkException: [SPARK-24819]: Barrier execution mode", "could not be asked: org.apache.spark"),
])
def test_a_host_that_cannot_even_answer_is_told_with_what_it_lacks(message, said):
    assert str(hosts._unasked(message)).startswith(f"the cluster's hosts: {said}")


@pytest.mark.processes
def test_the_source_is_the_same_in_a_wheel_that_is_not_unpacked(wheel):
    ask = "import pipelines.launch.hosts as hosts; print(hosts.__file__); print(hosts.report_of_host().source)"
    told = subprocess.run([sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(wheel)!r}); {ask}"], cwd="/",
                          capture_output=True, text=True, check=True, timeout=60)
    file, source = told.stdout.split()
    assert ".whl" in file
    assert source == report_of_host().source


@pytest.mark.processes
def test_slots_of_one_machine_pass_and_leave_nothing_in_the_lake(spark, tmp_path):
    check_hosts(spark, 2, Lake.at(tmp_path), timeout_s=60)
    assert list(tmp_path.iterdir()) == []
    assert spark.sparkContext.getLocalProperty("spark.jobGroup.id") is None


@pytest.mark.processes
def test_all_that_differs_is_told_with_its_hosts_and_remedies(spark, tmp_path, monkeypatch):
    own = report_of_host()
    monkeypatch.setattr(hosts, "report_of_host", lambda: replace(own, source="", versions=own.versions | {"torch": "1.0"}))
    (tmp_path / "theirs").mkdir()
    with pytest.raises(ResourceError) as caught:
        check_hosts(spark, 2, Lake(FolderStore(tmp_path / "ours"), str(tmp_path / "theirs"), tmp_path / "theirs"), timeout_s=60)
    first, *lines = str(caught.value).splitlines()
    assert first == "the cluster's hosts: are not as the driver:"
    assert [line.partition(";")[0] for line in lines] == [
        f"  {HERE}: torch {own.versions['torch']}, the driver has 1.0",
        f"  {HERE}: another source of sparkring than the driver's",
        f"  {HERE}: storage.root {tmp_path}/ours is not the driver's: what the driver has just written is not there"]
    assert list((tmp_path / "ours").iterdir()) == list((tmp_path / "theirs").iterdir()) == []


@pytest.mark.processes
def test_slots_that_another_job_holds_are_waited_for_no_longer_than_allowed(spark, tmp_path):
    slots, release = spark.sparkContext.defaultParallelism, tmp_path / "release"

    def hold(_):
        while not release.exists():
            time.sleep(0.05)
        yield 1

    holding = threading.Thread(target=lambda: spark.sparkContext.parallelize(range(slots), slots).mapPartitions(hold).count())
    holding.start()
    try:
        while not spark.sparkContext.statusTracker().getActiveStageIds():
            time.sleep(0.05)
        (tmp_path / "lake").mkdir()
        with pytest.raises(StalledError, match=r"launch.start_timeout_s: 2 slots were not free at once within 1 s"):
            check_hosts(spark, 2, Lake.at(tmp_path / "lake"), timeout_s=1)
    finally:
        release.touch()
        holding.join(60)
    assert list((tmp_path / "lake").iterdir()) == []
