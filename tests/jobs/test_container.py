"""What the image starts as driver and as executor, as Spark on Kubernetes would, here beside a real Spark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.jobs.test_standalone import LOOPBACK, SPARK_HOME, free_port, not_activated, start_daemon, wait_for

pytestmark = pytest.mark.processes

CONTAINER = ROOT / "setup/container.sh"
DRIVER = """
import json, sys, time
from pyspark import BarrierTaskContext, SparkConf, SparkContext

context = SparkContext(conf=SparkConf().setMaster(sys.argv[1]).set("spark.driver.host", "127.0.0.1"))
conf = context.getConf()
options = context._jvm.org.apache.spark.launcher.JavaModuleOptions.defaultModuleOptionArray()
url = f"spark://CoarseGrainedScheduler@127.0.0.1:{conf.get('spark.driver.port')}"
print(json.dumps({"url": url, "app": context.applicationId, "options": list(options)}), flush=True)
together = context.parallelize(range(2), 2).barrier().mapPartitions(lambda _: [len(BarrierTaskContext.get().getTaskInfos())])
until = time.monotonic() + 60
while context._jsc.sc().maxNumConcurrentTasks(context._jsc.sc().resourceProfileManager().defaultResourceProfile()) < 2:
    assert time.monotonic() < until
    time.sleep(0.1)
print(json.dumps(together.collect()), flush=True)
context.stop()
"""


def in_image(**variables):
    return not_activated(SPARK_HOME=str(SPARK_HOME), PYSPARK_PYTHON=sys.executable, **variables) | {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}


def test_any_other_command_is_run_as_it_is():
    told = subprocess.run([CONTAINER, "sh", "-c", "echo $0 $1; exit 3", "a b", "c"], capture_output=True, text=True, timeout=10)
    assert (told.stdout, told.returncode) == ("a b c\n", 3)


def test_a_driver_listens_where_it_is_told_and_runs_the_job(tmp_path):
    (tmp_path / "job.py").write_text(
        "import sys\nfrom pyspark import SparkContext\ncontext = SparkContext()\n"
        "print('bound to', context.getConf().get('spark.driver.bindAddress'), 'arguments', sys.argv[1:], context.master)\n")
    (tmp_path / "spark.properties").write_text("spark.master=local[1]\nspark.submit.deployMode=cluster\n")
    told = subprocess.run(
        [CONTAINER, "driver", "--properties-file", "spark.properties", "--class", "org.apache.spark.deploy.PythonRunner",
         "job.py", "--recipe", "r.yaml"], cwd=tmp_path, env=in_image(SPARK_DRIVER_BIND_ADDRESS=LOOPBACK), capture_output=True,
        text=True, timeout=120)
    assert "bound to 127.0.0.1 arguments ['--recipe', 'r.yaml'] local[1]" in told.stdout, told.stderr


def test_an_executor_joins_its_driver_and_runs_a_gang(tmp_path):
    port = free_port()
    (tmp_path / "driver.py").write_text(DRIVER)
    master, log = start_daemon(tmp_path, "master", "org.apache.spark.deploy.master.Master", "--host", LOOPBACK,
                               "--port", str(port), "--webui-port", "0")  # it has no worker: nobody else starts an executor
    started = [master]
    try:
        wait_for(log, "I have been elected leader")
        driver = subprocess.Popen([sys.executable, "driver.py", f"spark://{LOOPBACK}:{port}"], cwd=tmp_path, text=True,
                                  env=in_image(SPARK_LOCAL_IP=LOOPBACK), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(driver)
        told = json.loads(driver.stdout.readline())
        options = {f"SPARK_JAVA_OPT_{i}": option for i, option in enumerate(told["options"])}
        assert len(options) > 10  # more than one digit: their order counts
        executor = subprocess.Popen([CONTAINER, "executor"], cwd=tmp_path, stderr=subprocess.STDOUT,
                                    stdout=(tmp_path / "executor.log").open("wb"), env=in_image(
            SPARK_DRIVER_URL=told["url"], SPARK_APPLICATION_ID=told["app"], SPARK_EXECUTOR_ID="1", SPARK_EXECUTOR_CORES="2",
            SPARK_EXECUTOR_MEMORY="512m", SPARK_EXECUTOR_POD_IP=LOOPBACK, SPARK_EXECUTOR_POD_NAME="pod",
            SPARK_RESOURCE_PROFILE_ID="0", **options))
        started.append(executor)
        said, wrong = driver.communicate(timeout=120)
        assert said.split() == ["[2,", "2]"], wrong[-3000:] + (tmp_path / "executor.log").read_text(errors="replace")[-3000:]
        executor.wait(timeout=30)  # it leaves with its driver
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=30)
