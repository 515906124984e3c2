"""What a rank finds in its environment, and what its host must be like."""

import json
import os
import socket
from types import SimpleNamespace

import psutil
import pytest

from pipelines.errors import ResourceError
from pipelines.hub.hub_address import HubAddress
from pipelines.launch.gpus import assigned_gpu, check_gpus
from pipelines.launch.rank_process import GangOrder, _check_own_name, rank_environment, run_rank
from pipelines.launch.rendezvous import Rendezvous
from pipelines.plan.places import place_ranks
from pipelines.train import rank_variables

ORDER = GangOrder(root="", run_id="r", attempt=0, num_segments=2, threads_per_rank=3, driver_address="10.0.0.9",
                  rendezvous_ports=(7001, 7002), rendezvous_key=b"key of the launch", network_interface=None,
                  hub=HubAddress("10.0.0.9", 7003, b"secret of the hub"), meet_timeout_s=60, cycle_time_ms=2.5)


def environments(hosts):
    return [rank_environment(ORDER, seat, "eth7") for seat in place_ranks(hosts, ORDER.num_segments)]


def test_every_transport_is_kept_on_the_interface_that_reaches_the_driver():
    for environment in environments(["10.0.0.1"] * 2):
        assert {environment[name] for name in ("HOROVOD_GLOO_IFACE", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")} == {"eth7"}


def test_each_segment_has_a_ring_and_a_port_of_its_own():
    seen = [(e[rank_variables.SEGMENT_INDEX], e["HOROVOD_GLOO_RENDEZVOUS_PORT"], e["HOROVOD_RANK"], e["HOROVOD_SIZE"],
             e[rank_variables.GPU_INDEX]) for e in environments(["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"])]
    assert seen == [("0", "7001", "0", "2", "0"), ("1", "7002", "0", "2", "1"),
                    ("0", "7001", "1", "2", "0"), ("1", "7002", "1", "2", "1")]


def test_what_belongs_to_spark_or_another_ring_does_not_reach_a_rank(monkeypatch):
    for name in ("SPARK_HOME", "PYSPARK_PYTHON", "HOROVOD_TIMELINE", "JAVA_TOOL_OPTIONS"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("MY_OWN", "kept")
    (environment, _) = environments(["10.0.0.1"] * 2)
    assert environment["MY_OWN"] == "kept"
    assert not {"SPARK_HOME", "PYSPARK_PYTHON", "HOROVOD_TIMELINE", "JAVA_TOOL_OPTIONS"} & set(environment)


def test_a_host_whose_name_has_no_address_is_told_before_horovod_dies_of_it(monkeypatch):
    def unknown(name):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "gethostname", lambda: "h1")
    monkeypatch.setattr(socket, "gethostbyname", unknown)
    with pytest.raises(RuntimeError, match=r"host h1: its name has no address \(Name or service not known\); add '10.0.0.1 h1'"):
        _check_own_name(place_ranks(["10.0.0.1"], 1)[0], "10.0.0.1")


def test_a_host_whose_name_leads_to_loopback_is_told_where_its_ring_spans_hosts(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "h1")
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    with pytest.raises(RuntimeError, match=r"host h1: its name leads to 127.0.1.1, .*; write '10.0.0.1 h1' in its /etc/hosts"):
        _check_own_name(place_ranks(["10.0.0.1", "10.0.0.2"], 1)[0], "10.0.0.1")
    _check_own_name(place_ranks(["10.0.0.1", "10.0.0.1"], 1)[0], "10.0.0.1")  # on one host loopback is right
    _check_own_name(place_ranks(["10.0.0.1", "10.0.0.2"], 2)[0], "10.0.0.1")  # a ring of one


def a_task(gpus=(), of_the_other=None):
    """Stands in for a barrier task's context where every task is on this host: of two tasks, the first."""
    return SimpleNamespace(
        attemptNumber=lambda: 0, partitionId=lambda: 0,
        resources=lambda: {"gpu": SimpleNamespace(addresses=list(gpus))} if gpus else {},
        allGather=lambda message: [message, json.dumps([json.loads(message)[0], of_the_other])])


def refused(tmp_path, task, **changes):
    """How a task whose rank must not start ends."""
    with Rendezvous("127.0.0.1", 2) as rendezvous:
        order = GangOrder(**{**ORDER.__dict__, "root": str(tmp_path), "num_segments": 1, "driver_address": "127.0.0.1",
                             "rendezvous_ports": rendezvous.ports, "rendezvous_key": rendezvous.key, **changes})
        with pytest.raises(RuntimeError) as caught:
            run_rank(order, task)
    return str(caught.value)


def test_an_interface_that_the_host_lacks_is_named_with_host_and_interfaces_before_a_rank_starts(tmp_path):
    said = refused(tmp_path, a_task(), network_interface="eth99")
    assert said.startswith(f"host {socket.gethostname()}: launch.network_interface: there is no 'eth99'")
    assert all(name in said for name in psutil.net_if_addrs())


def test_two_ranks_that_spark_gave_one_gpu_are_refused_with_the_setting(tmp_path):
    said = refused(tmp_path, a_task(gpus=["3"], of_the_other="3"), device="cuda")
    assert "spark.task.resource.gpu.amount: ranks 0, 1 on 127.0.0.1 were all given GPU 3; set it to 1" in said
    assert "storage.root" in refused(tmp_path, a_task(gpus=["3"], of_the_other="3"), device="cpu")  # goes on to the next check
    assert "storage.root" in refused(tmp_path, a_task(gpus=["3"], of_the_other="0"), device="cuda")


def test_the_gpu_that_spark_gave_is_the_one_that_the_rank_sees(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    seats = place_ranks(["10.0.0.1"] * 2, 2)
    given = rank_environment(ORDER, seats[1], "eth7", gpu="6")
    assert [given[name] for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", rank_variables.GPU_INDEX)] == [
        "6", "PCI_BUS_ID", "0"]
    own = rank_environment(ORDER, seats[1], "eth7")
    assert (own["CUDA_VISIBLE_DEVICES"], own[rank_variables.GPU_INDEX]) == ("5,6", "1")


def test_spark_says_which_gpu_a_task_has():
    assert assigned_gpu({}) is None
    assert assigned_gpu({"gpu": SimpleNamespace(addresses=[])}) is None
    assert assigned_gpu({"gpu": SimpleNamespace(addresses=["2", "7"]), "fpga": SimpleNamespace(addresses=["f1"])}) == "2"


def test_gpus_of_one_number_on_different_hosts_are_different():
    seats = place_ranks(["a", "b", "a"], 1)
    check_gpus(seats, ["0", "0", "1"])
    check_gpus(seats, [None, None, None])
    with pytest.raises(ResourceError, match="ranks 0, 1 on a were all given GPU 0"):
        check_gpus(seats, ["0", "1", "0"])


def test_a_rank_is_told_of_the_hub_in_its_environment_alone():
    told = [environment["SPARKRING_HUB_RANK"] for environment in environments(["10.0.0.1"] * 2)]
    assert told == ["0", "1"]
    assert environments(["10.0.0.1"] * 2)[0]["SPARKRING_HUB_SECRET"] == b"secret of the hub".hex()
    assert "secret of the hub" not in repr(ORDER) and b"secret of the hub".hex() not in repr(ORDER)
    assert not any("SPARKRING_HUB" in name for name in os.environ)


def test_the_launchs_key_reaches_no_log_and_no_rank():
    assert "key of the launch" not in repr(ORDER)
    assert "key of the launch" not in str(environments(["10.0.0.1"] * 2))
    assert not any("key of the launch" in value for value in os.environ.values())
