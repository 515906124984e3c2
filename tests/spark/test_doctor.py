"""Each check of the doctor, well and ill."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import psutil
import pytest

from pipelines import cluster_commands
from pipelines.cli import main
from pipelines.config import Platform
from pipelines.spark import doctor
from pipelines.spark import slots as slots_module
from pipelines.spark.doctor import GIB, Check


def platform(**sections: object) -> Platform:
    return Platform.model_validate(sections)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.mark.processes
def test_this_machine_passes(tmp_path: Path):
    checks = doctor.check_all(platform(storage={"root": str(tmp_path)}, spark={"master": "local[2]"}))
    assert [check for check in checks if check.status == "FAIL"] == []
    assert [check.name for check in checks] == ["Java", "Python", "Spark", "pyarrow", "Horovod", "loopback",
                                                "host name", "storage", "memory", "slots"]


def test_java_off_the_path_fails_with_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    check = doctor.check_java()
    assert check.status == "FAIL" and "not found" in check.found and "apt-get install" in check.fix


@pytest.mark.parametrize(("says", "found"), [
    ('openjdk version "11.0.2" 2019-01-15', "is Java 11"),
    ('java version "1.8.0_402"', "is Java 8"),
    ("Segmentation fault", "does not tell its version"),
])
@pytest.mark.processes
def test_a_java_that_cannot_run_spark_fails(says: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    java = tmp_path / "bin/java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n", encoding="utf-8")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    check = doctor.check_java()
    assert check.status == "FAIL" and found in check.found and check.fix


def test_a_java_home_without_java_fails_naming_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    check = doctor.check_java()
    assert check.status == "FAIL" and "JAVA_HOME" in check.found and str(tmp_path) in check.found


def test_another_python_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "version_info", (3, 12, 1, "final", 0))
    check = doctor.check_python()
    assert check.status == "FAIL" and "3.12.1" in check.found


@pytest.mark.processes
def test_a_spark_that_does_not_load_fails_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pyspark.py").write_text("raise OSError('broken for the test')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = doctor.check_spark()
    assert check.status == "FAIL" and "broken for the test" in check.found and check.fix


@pytest.mark.processes
def test_a_spark_home_of_another_version_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "RELEASE").write_text("Spark 3.5.1 (git revision fd86f85e181) built for Hadoop 3.3.4", encoding="utf-8")
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    check = doctor.check_spark()
    assert check.status == "WARN" and str(tmp_path) in check.found


def test_a_pyarrow_that_petastorm_cannot_read_with_fails_for_that_reader_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "15.0.0")
    assert doctor.check_pyarrow(platform(reader={"kind": "petastorm"})).status == "FAIL"
    assert doctor.check_pyarrow(platform(reader={"kind": "arrow"})).status == "OK"


@pytest.mark.parametrize(("change", "status"), [
    ({}, "OK"), ({"torch": "2.14.0"}, "FAIL"), ({"gloo": False}, "FAIL"),
])
def test_horovod_fails_when_built_for_another_torch_or_without_gloo(
        change: dict[str, object], status: str, monkeypatch: pytest.MonkeyPatch):
    built = {"version": "0.28.1", "built": "2.13.0", "torch": "2.13.0", "gloo": True, "nccl": False, "cuda": False}
    monkeypatch.setattr(doctor, "_probe", lambda code: (built | change, ""))
    assert doctor.check_horovod(platform())[0].status == status


@pytest.mark.parametrize(("found", "status"), [
    ({"cuda": False, "nccl": False}, "FAIL"),
    ({"cuda": True, "nccl": False}, "FAIL"),
    ({"cuda": True, "nccl": True}, "OK"),
])
def test_a_gpu_is_looked_for_where_the_platform_asks_for_one(
        found: dict[str, bool], status: str, monkeypatch: pytest.MonkeyPatch):
    built = {"version": "0.28.1", "built": "2.13.0", "torch": "2.13.0", "gloo": True}
    monkeypatch.setattr(doctor, "_probe", lambda code: (built | found, ""))
    assert by_name(doctor.check_horovod(platform(layout={"device": "cuda"})))["GPU"].status == status


def test_the_transport_is_told_with_the_reason_that_set_up_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built = {"version": "0.28.1", "built": "2.13.0", "torch": "2.13.0", "gloo": True, "nccl": False, "cuda": False}
    monkeypatch.setattr(doctor, "_probe", lambda code: (built, ""))
    monkeypatch.setattr(doctor.sys, "prefix", str(tmp_path))
    (alone,) = doctor.check_horovod(platform())
    assert alone.found.endswith("gradients travel by Gloo")  # Horovod that something else than our set-up installed
    (tmp_path / "horovod-transport").write_text("gloo: torch is a CPU build\n", encoding="utf-8")
    (explained,) = doctor.check_horovod(platform())
    assert explained.found.endswith("gradients travel by Gloo: torch is a CPU build")
    built["nccl"] = True  # another Horovod was installed since: its own word counts
    (replaced,) = doctor.check_horovod(platform())
    assert replaced.found.endswith("gradients travel by NCCL (and by Gloo on CPUs)")
    (tmp_path / "horovod-transport").write_text("nccl: NCCL 2.29.7, CUDA 13.0\n", encoding="utf-8")
    (with_nccl,) = doctor.check_horovod(platform())
    assert with_nccl.found.endswith("gradients travel by NCCL (and by Gloo on CPUs): NCCL 2.29.7, CUDA 13.0")


def test_a_gpu_without_nccl_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built = {"version": "0.28.1", "built": "2.13.0", "torch": "2.13.0", "gloo": True, "nccl": False, "cuda": True}
    monkeypatch.setattr(doctor, "_probe", lambda code: (built, ""))
    monkeypatch.setattr(doctor.sys, "prefix", str(tmp_path))
    (tmp_path / "horovod-transport").write_text("gloo: there is no CUDA toolkit (nvcc)\n", encoding="utf-8")
    gpu = by_name(doctor.check_horovod(platform(layout={"device": "cuda"})))["GPU"]
    assert gpu.status == "FAIL" and "there is no CUDA toolkit" in gpu.found and doctor.REINSTALL in gpu.fix
    one_replica = doctor.check_horovod(platform(layout={"device": "cuda", "num_replicas": 1, "num_segments": 2}))
    assert by_name(one_replica)["GPU"].status == "OK"  # nobody to average with


@pytest.mark.processes
def test_a_probe_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "PROBE_TIMEOUT_S", 0.2)
    assert "does not load within" in doctor._probe("import time; time.sleep(60)")[1]


def test_a_host_name_without_an_address_fails_naming_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.socket, "gethostname", lambda: "nobody.invalid")
    check = by_name(doctor.check_network(platform()))["host name"]
    assert check.status == "FAIL" and "nobody.invalid" in check.found and "/etc/hosts" in check.fix


def test_a_driver_port_in_use_fails():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        checks = doctor.check_network(platform(spark={"conf": {"spark.driver.port": port}}))
    assert by_name(checks)["driver port"].status == "FAIL" and str(port) in by_name(checks)["driver port"].found


def test_a_master_that_does_not_answer_fails_and_one_that_does_is_ok():
    with socket.create_server(("127.0.0.1", 0)) as server:
        master = f"spark://127.0.0.1:{server.getsockname()[1]}"
        assert by_name(doctor.check_network(platform(spark={"master": master})))["Spark master"].status == "OK"
    assert by_name(doctor.check_network(platform(spark={"master": master})))["Spark master"].status == "FAIL"


def test_an_unknown_network_interface_fails_naming_those_that_exist():
    check = by_name(doctor.check_network(platform(launch={"network_interface": "eth99"})))["interface"]
    assert check.status == "FAIL" and "lo" in check.fix
    assert "interface" not in by_name(doctor.check_network(platform(launch={"network_interface": "lo"})))


def test_storage_under_a_file_fails(tmp_path: Path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert doctor.check_storage(platform(storage={"root": str(tmp_path / "file" / "lake")})).status == "FAIL"


@pytest.mark.parametrize(("free", "status"), [(GIB // 4, "FAIL"), (GIB, "WARN"), (100 * GIB, "OK")])
def test_little_free_space_is_warned_of_and_hardly_any_fails(
        free: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type(psutil.disk_usage("/"))(free, 0, free, 0.0))
    root = tmp_path / "not" / "there" / "yet"
    assert doctor.check_storage(platform(storage={"root": str(root)})).status == status
    assert not root.parent.exists()


def test_more_ranks_than_memory_is_warned_of():
    many = {"num_replicas": 100_000}
    assert doctor.check_memory(platform(layout=many)).status == "WARN"
    assert doctor.check_memory(platform(layout=many, spark={"master": "spark://host:7077"})).status == "OK"


@pytest.mark.parametrize(("master", "ranks", "threads", "status"), [
    ("local[4]", 2, 1, "OK"), ("local[*]", 2, 1, "OK"), ("local[1]", 2, 1, "FAIL"), ("local", 2, 1, "FAIL"),
    ("local[8]", 2, 8, "WARN"), ("spark://h:1", 99, 1, "OK"), (None, 99, 1, "OK"),
    ("local-cluster[2,2,512]", 4, 1, "OK"), ("local-cluster[2,2,512]", 5, 1, "FAIL"),
])
def test_fewer_slots_than_ranks_fails_and_fewer_cores_than_threads_is_warned_of(
        master: str | None, ranks: int, threads: int, status: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(slots_module.os, "cpu_count", lambda: 4)
    layout = {"num_replicas": ranks, "threads_per_rank": threads}
    assert doctor.check_promised_slots(platform(spark={"master": master}, layout=layout)).status == status


@pytest.mark.parametrize(("master", "found"), [
    ("local[3]", "auto: a layout of at most 3 ranks will be chosen"),
    ("local[64]", "auto: a layout of at most 4 ranks will be chosen"),  # as many as there are cores
    ("spark://h:1", "auto: the layout is chosen when a run starts, from the cluster's slots"),
])
def test_an_automatic_layout_is_told_as_what_it_can_become(master: str, found: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(slots_module.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(slots_module, "running_session", lambda: None)  # the tests' own would be the one to be used
    automatic = platform(spark={"master": master}, layout="auto")
    slots, memory = doctor.check_promised_slots(automatic), doctor.check_memory(automatic)
    assert slots.status == "OK" and slots.found.startswith(found)
    assert "0 ranks" not in slots.found + memory.found


def test_the_command_alone_assumes_a_platform_and_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capfd: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster_commands, "check_all",
                        lambda checked: [doctor.check_storage(checked), doctor.check_promised_slots(checked)])
    assert main(["doctor"]) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "no --platform given; assumed: Spark local[4], 2 replicas x 1 segments on cpu, storage.root ./lake" in said
    assert main(["doctor", "--set", "layout=auto", "--set", "spark.master=local[2]"]) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "assumed: Spark local[2], layout auto on cpu" in said and "layout of at most 2 ranks" in said
