"""The Spark session: settings, errors without Java traces, and nothing left behind.

Each session runs in a process of its own, so that the suite's shared one is not disturbed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyspark
import pytest
from pyspark.sql import SparkSession

from pipelines.config import Platform
from pipelines.spark.running_session import running_session
from pipelines.spark.session import spark_session

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
SPARK_HOME = Path(pyspark.__file__).parent
PREAMBLE = """
import json, os, sys, time
from pipelines.config import Platform
from pipelines.errors import SparkringError
from pipelines.spark.slots import slots_now
from pipelines.spark.session import spark_session
platform = Platform.model_validate(json.loads(os.environ["PLATFORM"]))
"""
REPORT_ERRORS = """
try:
    with spark_session(platform, "test") as spark:
        print("started", spark.sparkContext.master, slots_now(spark))
except SparkringError as error:
    print(type(error).__name__, error)
    sys.exit(error.exit_code)
"""


def environment(platform: dict[str, Any], **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_"))}
    return kept | {"PLATFORM": json.dumps(platform), "PYTHONPATH": str(ROOT)} | more


def run(code: str, platform: dict[str, Any], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PREAMBLE + code], env=environment(platform, **more),
                          capture_output=True, text=True, timeout=120)


def submit(tmp_path: Path, options: list[str], platform: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    job = tmp_path / "job.py"
    job.write_text(PREAMBLE + REPORT_ERRORS, encoding="utf-8")
    return subprocess.run([SPARK_HOME / "bin/spark-submit", *options, job], capture_output=True, text=True, timeout=120,
                          env=environment(platform, PYSPARK_PYTHON=sys.executable))


@contextmanager
def job_in_a_session(code: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A job whose Spark task is running, and all processes below it.

    A shell starts what it puts in the background with SIGINT ignored, and tests run there hand that on.
    """
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    with subprocess.Popen([sys.executable, "-c", PREAMBLE + code], stdout=subprocess.PIPE, text=True,
                          env=environment({"spark": {"master": "local[2]"}}), start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        below = psutil.Process(process.pid).children(recursive=True)
        try:
            yield process, below
        finally:
            for left in [*below, psutil.Process(process.pid)] if process.poll() is None else below:
                if left.is_running():
                    left.kill()


def test_a_session_is_local_quiet_and_in_utc():
    ended = run("""
with spark_session(platform, "test") as spark:
    conf = spark.sparkContext.getConf()
    worker = spark.sparkContext.parallelize([0], 1).map(lambda _: sys.executable).first()
    print(json.dumps([conf.get("spark.driver.host"), conf.get("spark.driver.bindAddress"), conf.get("spark.ui.enabled"),
                      conf.get("spark.speculation"), int(conf.get("spark.barrier.sync.timeout")),
                      spark.conf.get("spark.sql.session.timeZone"),
                      spark.conf.get("spark.sql.execution.arrow.pyspark.enabled"), worker, slots_now(spark)]))
""", {"spark": {"master": "local[2]"}, "launch": {"start_timeout_s": 33.5}})
    assert ended.stderr == ""
    assert json.loads(ended.stdout) == ["127.0.0.1", "127.0.0.1", "false", "false", 34, "UTC", "true",
                                        sys.executable, 2]


def test_the_platforms_conf_has_the_last_word():
    ended = run("""
with spark_session(platform, "test") as spark:
    task_cpus = spark.sparkContext.getConf().get("spark.task.cpus")
    java = spark._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments()
    compiler = [option for option in java if "TieredStopAtLevel" in option]
    print(spark.conf.get("spark.sql.session.timeZone"), task_cpus, slots_now(spark), *compiler)
""", {"spark": {"master": "local[4]", "conf": {"spark.sql.session.timeZone": "Asia/Tokyo", "spark.task.cpus": 2,
                                               "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=4"}}})
    assert ended.stdout == "Asia/Tokyo 2 2 -XX:TieredStopAtLevel=1 -XX:TieredStopAtLevel=4\n", ended.stderr


def test_a_second_session_in_one_process_starts_afresh():
    ended = run("""
for name in ("first", "second"):
    with spark_session(platform, name) as spark:
        print(spark.sparkContext.appName, spark.range(3).count())
""", {"spark": {"master": "local[1]"}})
    assert (ended.stdout, ended.stderr) == ("first 3\nsecond 3\n", "")


def test_a_running_session_is_used_and_left_running(spark: SparkSession):
    with spark_session(Platform.model_validate({"spark": {"master": "local[1]"}}), "inner") as inner:
        assert inner is spark
    assert spark.range(5).count() == 5


def test_a_thread_that_did_not_start_the_session_uses_it_all_the_same(spark: SparkSession):
    with ThreadPoolExecutor(1) as stranger:
        assert stranger.submit(running_session).result() is spark


def test_no_secret_is_on_a_command_line():
    ended = run("""
import psutil
with spark_session(platform, "test") as spark:
    command_line = psutil.Process(spark.sparkContext._gateway.proc.pid).cmdline()
    print(any("spark.app.name=test" in word for word in command_line), any("hidden" in word for word in command_line),
          spark.sparkContext.getConf().get("spark.my.password"))
""", {"spark": {"master": "local[1]", "conf": {"spark.my.password": "hidden"}}})
    assert ended.stdout == "True False hidden\n", ended.stderr


def test_nothing_is_left_when_the_block_ends():
    with job_in_a_session("""
with spark_session(platform, "test") as spark:
    spark.sparkContext.parallelize([0, 1], 2).map(lambda x: x).collect()
    print("running", flush=True)
    time.sleep(1)
print("ended", flush=True)
time.sleep(60)
""") as (process, below):
        assert below
        assert process.stdout is not None and process.stdout.readline() == "ended\n"
        assert psutil.Process(process.pid).children() == []
        assert psutil.wait_procs(below, timeout=10)[1] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_a_signal_in_the_middle_of_a_task(number: signal.Signals):
    with job_in_a_session("""
import threading
with spark_session(platform, "test") as spark:
    slow = spark.sparkContext.parallelize([0, 1], 2).map(lambda _: time.sleep(600))
    threading.Timer(3, print, ["running"], {"flush": True}).start()
    slow.collect()
""") as (process, below):
        assert any("pyspark" in " ".join(each.cmdline()) for each in below)
        process.send_signal(number)
        assert psutil.wait_procs(below, timeout=60)[1] == []
        assert process.wait(60) != 0


def left_behind(folder: Path) -> list[str]:
    """What a session leaves in the temporary folder, but for a log that its error names."""
    return sorted(each.name for each in folder.iterdir() if not each.name.startswith("hsperfdata"))


def test_a_killed_jvm_is_one_clear_error_and_leaves_only_the_log_that_it_names(tmp_path: Path):
    temporary, fast = tmp_path / "temporary mit Leerzeichen 日本", tmp_path / "fast disk"
    temporary.mkdir()
    for conf in ({}, {"spark.local.dir": str(fast)}):
        ended = run("""
import os, signal, threading
try:
    with spark_session(platform, "test") as spark:
        spark.range(10).repartition(2).persist().count()
        threading.Timer(1, os.kill, [spark.sparkContext._gateway.proc.pid, signal.SIGKILL]).start()
        spark.sparkContext.parallelize([0, 1], 2).map(lambda _: time.sleep(600)).collect()
except SparkringError as error:
    print(error)
    sys.exit(error.exit_code)
""", {"spark": {"master": "local[2]", "conf": conf}}, TMPDIR=str(temporary))
        assert ended.returncode == 5, ended.stdout + ended.stderr
        assert ended.stdout.startswith("Spark: its Java process was killed by SIGKILL (often: out of memory); ")
        (log,) = left_behind(temporary)
        assert str(temporary / log) in ended.stdout
        (temporary / log).unlink()
        assert "Traceback" not in ended.stderr
    assert left_behind(fast) == []


def test_nothing_is_left_in_the_temporary_folder_after_a_good_session_and_after_a_failure_in_it(tmp_path: Path):
    for last in ("pass", "raise ValueError('not about Spark')"):
        ended = run(f"""
with spark_session(platform, "test") as spark:
    spark.sparkContext.parallelize([0, 1], 2).map(lambda x: (x, x)).groupByKey().collect()
    {last}
""", {"spark": {"master": "local[2]"}}, TMPDIR=str(tmp_path))
        assert (ended.returncode == 0) == (last == "pass"), ended.stderr
        assert left_behind(tmp_path) == []


def test_missing_java_is_named_with_the_command_that_installs_it(tmp_path: Path):
    without_java = {"PATH": str(tmp_path), "JAVA_HOME": ""}
    ended = run(REPORT_ERRORS, {"spark": {"master": "local[1]"}}, **without_java)
    assert ended.returncode == 5
    assert "Java: not found" in ended.stdout and "apt-get install" in ended.stdout and "JAVA_HOME" in ended.stdout


def test_no_master_at_the_address_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    started = time.monotonic()
    ended = run(REPORT_ERRORS, {"spark": {"master": f"spark://127.0.0.1:{port}"}})
    assert ended.returncode == 5 and f"no Spark master answers at spark://127.0.0.1:{port}" in ended.stdout
    assert time.monotonic() - started < 30  # the issue's bound for a start that cannot work
    assert ended.stderr == ""


def test_a_port_in_use_is_said_without_a_java_trace():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run(REPORT_ERRORS, {"spark": {"master": "local[1]", "conf": {
            "spark.driver.port": taken.getsockname()[1], "spark.port.maxRetries": 0}}})
    assert ended.returncode == 5 and "Address already in use" in ended.stdout
    assert "\tat " not in ended.stdout + ended.stderr


def test_a_master_that_spark_does_not_know_is_said_without_a_java_trace():
    ended = run(REPORT_ERRORS, {"spark": {"master": "nonsense"}})
    assert ended.returncode == 5 and "Master must either be" in ended.stdout
    assert "\tat " not in ended.stdout + ended.stderr


def test_no_master_at_all_is_a_config_error():
    ended = run(REPORT_ERRORS, {"spark": {"master": None}})
    assert ended.returncode == 2 and "spark.master: null" in ended.stdout


def test_spark_submits_master_is_taken_where_the_platform_names_none(tmp_path: Path):
    ended = submit(tmp_path, ["--master", "local[3]"], {"spark": {"master": None}})
    assert "started local[3] 3" in ended.stdout, ended.stderr


def test_two_different_masters_are_refused(tmp_path: Path):
    ended = submit(tmp_path, ["--master", "local[3]"], {"spark": {"master": "local[2]"}})
    assert "spark.master: local[2], but spark-submit was given local[3]" in ended.stdout
    assert ended.returncode == 2


def test_dynamic_allocation_from_spark_submit_is_refused(tmp_path: Path):
    ended = submit(tmp_path, ["--master", "local[1]", "--conf", "spark.dynamicAllocation.enabled=true"],
                   {"spark": {"master": None}})
    assert "spark.dynamicAllocation.enabled: true" in ended.stdout and "--conf" in ended.stdout
    assert ended.returncode == 2


def test_dynamic_allocation_from_spark_defaults_is_refused_unless_the_platform_says_false(tmp_path: Path):
    (tmp_path / "spark-defaults.conf").write_text("spark.dynamicAllocation.enabled true\n", encoding="utf-8")
    refused = run(REPORT_ERRORS, {"spark": {"master": "local[1]"}}, SPARK_CONF_DIR=str(tmp_path))
    assert refused.returncode == 2 and "spark.dynamicAllocation.enabled: true" in refused.stdout
    taken = run(REPORT_ERRORS, {"spark": {"master": "local[1]", "conf": {"spark.dynamicAllocation.enabled": False}}},
                SPARK_CONF_DIR=str(tmp_path))
    assert taken.stdout == "started local[1] 1\n"
