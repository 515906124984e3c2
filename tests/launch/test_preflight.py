"""What is refused before anything is started, by the dry run and by the run."""

import psutil
import pytest

from pipelines.errors import ConfigError, ResourceError
from pipelines.launch import preflight
from pipelines.launch.preflight import check_launch, check_training_launch
from pipelines.launch.rendezvous import MAX_RING_SIZE
from tests.support.example_data import example_config

STANDALONE = "spark://host:7077"


@pytest.fixture(autouse=True)
def no_session(monkeypatch):
    """A session that other tests left running would be the one to be used."""
    for module in ("slots", "session"):
        monkeypatch.setattr(f"pipelines.spark.{module}.running_session", lambda: None)


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs this machine has."""
    return lambda count: monkeypatch.setattr(preflight, "num_gpus", lambda: count)


def test_what_fits_passes():
    check_launch(example_config())
    check_launch(example_config(spark__master=STANDALONE, layout__num_replicas=4, launch__network_interface="eth99",
                                layout__device="cuda"))  # of a cluster's hosts nothing is known yet


@pytest.mark.parametrize(("master", "conf", "message"), [
    ("local[3]", {}, r"layout.num_replicas: 4 x 1 segments need 4 slots, local\[3\] has 3; set layout.num_replicas to at most 3"),
    ("local[6]", {"spark.task.cpus": 2}, r"local\[6\] has 3"),
    ("yarn", {"spark.executor.instances": 3, "spark.executor.cores": 1}, r"need 4 slots, yarn has 3"),
    (STANDALONE, {"spark.cores.max": 3}, r"need 4 slots, spark://host:7077 has 3"),
])
def test_too_few_slots_are_refused_where_the_settings_tell_them(master, conf, message):
    with pytest.raises(ResourceError, match=message):
        check_launch(example_config(spark__master=master, spark__conf=conf, layout__num_replicas=4))
    check_launch(example_config(spark__master=master, spark__conf=conf, layout="auto"))


@pytest.mark.parametrize("key", ["spark.authenticate", "spark.network.crypto.enabled", "spark.ssl.enabled"])
def test_ranks_whose_traffic_would_be_the_only_plain_one_are_refused_unless_the_network_is_trusted(key):
    on = {"spark__master": STANDALONE, "spark__conf": {key: True}}
    with pytest.raises(ConfigError, match=rf"launch.trusted_network: false, but {key} protects .*; set it to true where"):
        check_launch(example_config(**on))
    check_launch(example_config(**on, launch__trusted_network=True))
    check_launch(example_config(spark__conf={key: True}))  # on loopback nobody listens in
    check_launch(example_config(spark__master=STANDALONE, spark__conf={key: False}))


@pytest.mark.parametrize(("changed", "environment", "place"), [
    ({"spark__master": "sc://host:15002"}, {}, "spark.master: sc://host:15002"),
    ({"spark__conf": {"spark.remote": "sc://host"}}, {}, "spark.conf.spark.remote: sc://host"),
    ({"spark__conf": {"spark.api.mode": "connect"}}, {}, "spark.conf.spark.api.mode: connect"),
    ({}, {"SPARK_REMOTE": "sc://host"}, "SPARK_REMOTE: sc://host"),
])
def test_spark_connect_is_refused_with_what_to_use_instead(changed, environment, place, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"{place} is Spark Connect, .*; take it away, and start the job with spark-submit"):
        check_launch(example_config(**changed))


def test_a_master_that_nobody_names_is_refused(monkeypatch):
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    config = example_config(spark__master=None)
    with pytest.raises(ConfigError, match="spark.master: null takes spark-submit's"):
        check_launch(config)
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    check_launch(config)


def test_more_replicas_than_the_rendezvous_holds_are_refused_with_the_reason():
    lanes = MAX_RING_SIZE + 1
    layout = {"data__num_lanes": lanes, "train__global_batch_samples": lanes, "spark__master": STANDALONE}
    check_launch(example_config(layout__num_replicas=MAX_RING_SIZE, **layout))
    with pytest.raises(ConfigError, match=rf"layout.num_replicas: {lanes} replicas cannot find .*; use at most {MAX_RING_SIZE}"):
        check_launch(example_config(layout__num_replicas=lanes, **layout))


def test_an_interface_that_this_machine_lacks_is_refused_in_local_mode():
    check_launch(example_config(launch__network_interface="lo"))
    with pytest.raises(ResourceError, match=r"launch.network_interface: there is no 'eth99' .*; use one of .*\blo\b") as caught:
        check_launch(example_config(launch__network_interface="eth99"))
    assert all(name in str(caught.value) for name in psutil.net_if_addrs())


def test_more_local_ranks_than_gpus_are_refused(gpus):
    gpus(0)
    check_launch(example_config(layout__device="cpu"))
    with pytest.raises(ResourceError, match="layout.device: cuda: this machine has no GPU .*; set layout.device: cpu"):
        check_launch(example_config(layout__device="cuda"))
    gpus(2)
    check_launch(example_config(layout__device="cuda", layout__num_replicas=2))
    with pytest.raises(ResourceError, match="layout.device: cuda: 4 ranks on a machine with 2 GPUs; .* at most 2 ranks"):
        check_launch(example_config(layout__device="cuda", layout__num_replicas=2, layout__num_segments=2))


@pytest.mark.processes
def test_torch_is_asked_for_this_machines_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert preflight.num_gpus() == 0


def test_a_batch_that_the_schedule_cannot_run_is_refused_before_anything_is_prepared():
    settings = {"layout__num_replicas": 1, "layout__num_segments": 4, "train__global_batch_samples": 8}
    check_training_launch(example_config(**settings, layout__micro_batch_samples=2))
    check_launch(example_config(**settings, layout__micro_batch_samples=8))  # evaluating makes no micro-batches
    with pytest.raises(ConfigError, match=r"layout.micro_batch_samples: 8 makes 1 micro-batches of a replica's 8 samples, which "
                       r"the schedule 1f1b cannot run over 4 segments; use 1 or 2"):
        check_training_launch(example_config(**settings, layout__micro_batch_samples=8))
