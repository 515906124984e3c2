"""The command that submits a job: what is asked of each manager, and that Spark's own parser takes it so."""

from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError

from pipelines.config import Platform
from pipelines.errors import ConfigError
from pipelines.spark.submit_command import DeployMode, Manager, Wish, command_lines, submit_command

STANDALONE = Wish(Manager.standalone, "spark://host:7077", package="dist/sparkring-0.1.0-py3-none-any.whl")
YARN = Wish(Manager.yarn, package="dist/environment.tar.gz")
YARN_CLUSTER = Wish(Manager.yarn, deploy_mode=DeployMode.cluster, package="dist/environment.tar.gz")
MIB = 1024**2


def submitted(wish, *arguments, conf=None, **layout):
    platform = Platform.model_validate({"layout": {"num_replicas": 4, **layout}, "spark": {"master": None, "conf": conf or {}}})
    return submit_command(wish, Path("/repo/jobs/pipeline.py"), arguments, platform, name="my run", rank_bytes=1000 * MIB,
                          own_python="/venv/bin/python")


def settings(command):
    words = [command[i + 1] for i, word in enumerate(command) if word == "--conf"]
    return dict(word.split("=", 1) for word in words)


def refusal(wish, **changed):
    with pytest.raises(ConfigError) as caught:
        submitted(wish, **changed)
    return str(caught.value)


def test_executors_have_room_for_their_ranks_and_no_more_come():
    conf = settings(submitted(YARN, threads_per_rank=2))
    assert conf["spark.executor.instances"] == "4" and conf["spark.executor.cores"] == conf["spark.task.cpus"] == "2"
    assert conf["spark.executor.memoryOverhead"] == "1484m"  # 1.1 x 1000 MiB + 384 MiB
    assert conf["spark.dynamicAllocation.enabled"] == conf["spark.speculation"] == "false"
    two = Wish(Manager.yarn, package="e.zip", ranks_per_executor=2)
    conf = settings(submitted(two, num_segments=3))
    assert (conf["spark.executor.instances"], conf["spark.executor.cores"]) == ("6", "2")
    assert conf["spark.executor.memoryOverhead"] == "2584m"
    conf = settings(submitted(STANDALONE, threads_per_rank=2))
    assert conf["spark.cores.max"] == "8" and "spark.executor.memoryOverhead" not in conf


def test_what_the_platform_says_goes_before_and_its_secrets_stay_out():
    conf = settings(submitted(YARN, conf={"spark.executor.memoryOverhead": "9g", "spark.driver.memory": "3g", "a.flag": True,
                                          "spark.hadoop.fs.s3a.secret.key": "hush"}))
    assert (conf["spark.executor.memoryOverhead"], conf["spark.driver.memory"], conf["a.flag"]) == ("9g", "3g", "true")
    assert "hush" not in " ".join(submitted(YARN, conf={"spark.hadoop.fs.s3a.secret.key": "hush"}))


def test_executors_run_the_python_that_they_are_sent():
    conf = settings(submitted(YARN))
    assert conf["spark.pyspark.python"] == "./environment/bin/python"
    assert conf["spark.pyspark.driver.python"] == "/venv/bin/python"
    assert "spark.pyspark.driver.python" not in settings(submitted(YARN_CLUSTER))  # there it is the same one
    assert "spark.pyspark.python" not in settings(submitted(STANDALONE))


def test_a_driver_in_the_cluster_finds_its_files_beside_it(tmp_path):
    command = submitted(YARN_CLUSTER, "--recipe", f"{tmp_path}/r.yaml", f"--platform={tmp_path}/p.yaml", "--set", "train.steps=3")
    assert command[command.index("--files") + 1] == f"{tmp_path}/r.yaml,{tmp_path}/p.yaml"
    assert command[-7:] == ["--recipe", "r.yaml", "--platform=p.yaml", "--set", "train.steps=3", "--set", "spark.master=null"]
    with pytest.raises(ConfigError, match=r"--deploy-mode: cluster: two files would be called x.yaml beside the driver"):
        submitted(YARN_CLUSTER, "--recipe", "a/x.yaml", "--platform", "b/x.yaml")


def test_what_a_manager_cannot_do_is_refused_all_at_once():
    said = refusal(Wish(Manager.standalone, deploy_mode=DeployMode.cluster, package="x.egg", ranks_per_executor=3),
                   conf={"spark.dynamicAllocation.enabled": True})
    assert [line.partition(":")[0] for line in said.splitlines()] == [
        "--master", "--deploy-mode", "--package", "--ranks-per-executor", "spark.conf.spark.dynamicAllocation.enabled"]
    assert "spark.conf.spark.executor.instances: is missing: layout auto" in refusal(YARN, num_replicas="auto")
    assert "spark.conf.spark.cores.max: is missing" in refusal(STANDALONE, num_replicas="auto")
    assert settings(submitted(YARN, num_replicas="auto", conf={"spark.executor.instances": 7}))["spark.executor.instances"] == "7"


def test_the_command_is_shown_so_that_a_shell_reads_the_same_words(tmp_path):
    import shlex

    command = ["spark-submit", *submitted(YARN, "--recipe", "a b.yaml", "--set", "prepare.inputs=[{path: 'x'}]")]
    shown = command_lines(command)
    assert shlex.split(shown.replace("\\\n", "")) == command
    assert "\n    --name 'my run' \\\n" in shown


def parsed(spark, command, **environment):
    """By Spark's own parser: where the job goes, and what its JVM would start."""
    jvm = spark.sparkContext._jvm
    words, variables = jvm.PythonUtils.toSeq(command), jvm.PythonUtils.toScalaMap(environment)
    arguments = jvm.org.apache.spark.deploy.SparkSubmitArguments(words, variables)
    none = getattr(getattr(jvm.scala, "None$"), "MODULE$")
    return arguments, jvm.org.apache.spark.deploy.SparkSubmit().prepareSubmitEnvironment(arguments, none)


@pytest.fixture
def files(tmp_path):
    """A job, its files and packages: Spark looks whether they are there."""
    for name in ("job.py", "r.yaml", "p.yaml", "environment.tar.gz", "ours.whl"):
        (tmp_path / name).touch()
    return tmp_path


def parsed_submission(spark, wish, files, **environment):
    platform = Platform.model_validate({"layout": {"num_replicas": 4}})
    arguments = ["--recipe", f"{files}/r.yaml", "--platform", f"{files}/p.yaml"]
    command = submit_command(wish, files / "job.py", arguments, platform, name="n", rank_bytes=MIB, own_python="python")
    return parsed(spark, command, **environment)


@pytest.mark.processes
@pytest.mark.parametrize("mode", DeployMode)
def test_spark_parses_what_is_submitted_to_yarn(spark, files, mode):
    wish = Wish(Manager.yarn, deploy_mode=mode, package=f"{files}/environment.tar.gz")
    with pytest.raises(Py4JJavaError, match="HADOOP_CONF_DIR or YARN_CONF_DIR must be set"):
        parsed_submission(spark, wish, files)
    arguments, start = parsed_submission(spark, wish, files, HADOOP_CONF_DIR="conf")
    assert (arguments.master(), arguments.deployMode(), arguments.primaryResource()) == ("yarn", mode, f"file:{files}/job.py")
    there = "" if mode is DeployMode.cluster else f"{files}/"
    said = arguments.childArgs().mkString(" ")
    assert said.endswith(f"--recipe {there}r.yaml --platform {there}p.yaml --set spark.master=null")
    conf = start._3()
    assert conf.get("spark.executor.instances") == "4" and conf.get("spark.executor.memoryOverhead") == "386m"
    assert conf.get("spark.yarn.dist.archives").endswith("environment.tar.gz#environment")
    if mode is DeployMode.cluster:
        assert start._4() == "org.apache.spark.deploy.yarn.YarnClusterApplication"
        assert [Path(file).name for file in conf.get("spark.yarn.dist.files").split(",")] == ["r.yaml", "p.yaml"]
    else:
        assert start._4() == "org.apache.spark.deploy.PythonRunner"


@pytest.mark.processes
def test_spark_parses_what_is_submitted_to_a_standalone_cluster_and_refuses_what_is_refused_here(spark, files):
    wish = Wish(Manager.standalone, "spark://host:7077", package=f"{files}/ours.whl")
    arguments, start = parsed_submission(spark, wish, files)
    assert arguments.master() == "spark://host:7077" and start._4() == "org.apache.spark.deploy.PythonRunner"
    assert start._3().get("spark.submit.pyFiles").endswith("ours.whl") and start._3().get("spark.cores.max") == "4"
    in_the_cluster = ["--master", "spark://host:7077", "--deploy-mode", "cluster", str(files / "job.py")]
    with pytest.raises(Py4JJavaError, match="mode is currently not supported for python applications on standalone clusters"):
        parsed(spark, in_the_cluster)
