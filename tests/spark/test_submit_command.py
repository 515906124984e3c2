"""The command that submits a job: what is asked of each manager, and that Spark's own parser takes it so."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError

from pipelines.config import Platform, load_platform
from pipelines.errors import ConfigError
from pipelines.spark.submit_command import DeployMode, Manager, Wish, command_lines, submit_command
from tests.conftest import ROOT

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


def test_a_secret_in_a_value_stays_out_too_and_a_python_of_the_platforms_own_stays():
    conf = {"spark.executor.extraJavaOptions": "-Djavax.net.ssl.keyStorePassword=hush", "my.proxy": "http://me:hush@host"}
    assert "hush" not in " ".join(submitted(YARN, conf=conf))
    conf = settings(submitted(YARN, conf={"spark.pyspark.python": "/usr/bin/python3"}))
    assert conf["spark.pyspark.python"] == "/usr/bin/python3"


def test_an_executor_of_another_size_than_its_ranks_are_asked_for_is_refused():
    said = refusal(YARN, conf={"spark.executor.cores": 4})
    assert said.startswith("spark.conf.spark.executor.cores: an executor has 4 slots by it, and --ranks-per-executor is 1")
    submitted(Wish(Manager.yarn, package="e.zip", ranks_per_executor=4), conf={"spark.executor.cores": 4})


def test_an_option_without_its_value_is_said():
    with pytest.raises(ConfigError, match="--dataset: has no value; give a file"):
        submitted(YARN_CLUSTER, "--dataset")


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


K8S = Wish(Manager.k8s, "k8s://https://host:6443", DeployMode.cluster, "registry/sparkring:1")


def test_kubernetes_is_asked_for_pods_of_the_image():
    command = submitted(K8S, "--recipe", "/here/r.yaml", conf={"spark.kubernetes.file.upload.path": "s3a://bucket/uploads"})
    conf = settings(command)
    assert conf["spark.kubernetes.container.image"] == "registry/sparkring:1"
    assert conf["spark.pyspark.python"] == "/opt/sparkring/bin/python"
    assert (conf["spark.executor.instances"], conf["spark.executor.memoryOverhead"]) == ("4", "1484m")
    assert "local:///app/jobs/pipeline.py" in command and not {"--archives", "--py-files"} & {*command}
    client = submitted(Wish(Manager.k8s, "k8s://https://host:6443", package="registry/sparkring:1"))
    assert "/repo/jobs/pipeline.py" in client and settings(client)["spark.pyspark.driver.python"] == "/venv/bin/python"


def test_what_kubernetes_needs_is_asked_for_all_at_once():
    said = refusal(Wish(Manager.k8s, deploy_mode=DeployMode.cluster))
    assert [line.partition(": ")[0] for line in said.splitlines()] == [
        "--master", "--package", "spark.conf.spark.kubernetes.file.upload.path"]
    assert "--master: none is none of k8s; give k8s://https://HOST:6443" in said


@pytest.mark.processes
def test_sparks_own_classes_make_pods_of_what_is_submitted_and_of_the_platforms_template(spark, files):
    of_role = "spark.conf.spark.kubernetes.{0}.podTemplateFile={1}/pod.yaml"
    shutil.copy(ROOT / "conf/kubernetes/pod.yaml", files)  # Spark takes no path with spaces for a template
    platform = load_platform(ROOT / "conf/platforms/kubernetes.yaml", [
        f"spark.conf.spark.kubernetes.file.upload.path=file://{files}/uploads",
        *(of_role.format(role, files) for role in ("driver", "executor"))])
    (files / "uploads").mkdir()
    job_arguments = ["--recipe", f"{files}/r.yaml", "--platform", f"{files}/p.yaml"]
    command = submit_command(K8S, Path("/repo/jobs/pipeline.py"), job_arguments, platform, name="n", rank_bytes=1000 * MIB,
                             own_python="python")
    arguments, start = parsed(spark, command)
    assert start._4() == "org.apache.spark.deploy.k8s.submit.KubernetesClientApplication"
    assert arguments.childArgs().mkString(" ") == "--recipe r.yaml --platform p.yaml --set spark.master=null"

    driver, executor = pods(spark, start._3(), arguments.primaryResource())
    for pod, memory in ((driver, "2867Mi"), (executor, "3532Mi")):  # a heap of 2 GiB; two fifths of it, or what a rank needs
        (container,) = pod["spec"]["containers"]
        assert container["image"] == "registry/sparkring:1"
        assert container["workingDir"] == "/tmp" and container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"] == memory
        assert {"/tmp", "/dev/shm", "/mnt/lake"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        lake = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "lake")
        assert lake["persistentVolumeClaim"]["claimName"] == "lake"
    assert driver["spec"]["containers"][0]["args"][0] == "driver"
    assert executor["spec"]["containers"][0]["args"] == ["executor"]
    # what setup/container.sh reads
    given = {variable["name"] for variable in executor["spec"]["containers"][0]["env"]}
    script = (ROOT / "setup/container.sh").read_text()
    asked = {name for name in re.findall(r"\$\{?(SPARK_\w+)", script) if name not in ("SPARK_HOME", "SPARK_DRIVER_BIND_ADDRESS")}
    assert asked - given <= {"SPARK_CLASSPATH", "SPARK_EXECUTOR_POD_NAME"}  # of these the script needs none
    assert "SPARK_DRIVER_BIND_ADDRESS" in {variable["name"] for variable in driver["spec"]["containers"][0]["env"]}
    uploaded = {file.name for file in (files / "uploads").rglob("*") if not file.name.startswith(".") and file.is_file()}
    assert uploaded == {"r.yaml", "p.yaml"}


def pods(spark, conf, resource):
    """Of driver and executor, as JSON, made by Spark's Kubernetes classes; no cluster is asked."""
    jvm = spark.sparkContext._jvm
    k8s, fabric8 = jvm.org.apache.spark.deploy.k8s, jvm.io.fabric8.kubernetes.client
    none = getattr(getattr(jvm.scala, "None$"), "MODULE$")
    profiles = getattr(getattr(jvm.org.apache.spark.resource, "ResourceProfile$"), "MODULE$")
    for of_this_session in ("spark.driver.bindAddress", "spark.driver.host", "spark.driver.port"):
        conf.remove(of_this_session)
    conf.set("spark.kubernetes.executor.podNamePrefix", "n")
    configuration = fabric8.ConfigBuilder().withMasterUrl("https://127.0.0.1:1").build()
    client = fabric8.KubernetesClientBuilder().withConfig(configuration).build()
    try:
        of_driver = k8s.KubernetesConf.createDriverConf(
            conf, "app-1", k8s.submit.PythonMainAppResource(resource), "org.apache.spark.deploy.PythonRunner",
            spark.sparkContext._gateway.new_array(jvm.java.lang.String, 0), none)
        driver = k8s.submit.KubernetesDriverBuilder().buildFromFeatures(of_driver, client).pod()
        conf.set("spark.driver.host", "driver").set("spark.driver.port", "7077")
        of_executor = k8s.KubernetesConf.createExecutorConf(conf, "1", "app-1", none, 0)
        security = jvm.org.apache.spark.SparkEnv.get().securityManager()
        profiles.reInitDefaultProfile(conf)
        executor = jvm.org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBuilder().buildFromFeatures(
            of_executor, security, client, profiles.getOrCreateDefaultProfile(conf)).pod()
        write = jvm.io.fabric8.kubernetes.client.utils.KubernetesSerialization().asJson
        found = []
        for each in (driver, executor):
            pod = json.loads(write(each.pod()))
            pod["spec"]["containers"] = [json.loads(write(each.container()))]
            found.append(pod)
        return found
    finally:
        profiles.reInitDefaultProfile(spark.sparkContext._jsc.sc().conf())
        client.close()
