"""What a rank finds in its environment, and what its host must be like."""

import socket

import pytest

from pipelines.launch.placement import place_ranks
from pipelines.launch.rank_process import GangOrder, _check_own_name, rank_environment
from pipelines.train import rank_variables

ORDER = GangOrder(run_folder="", attempt=0, num_segments=2, threads_per_rank=3, driver_address="10.0.0.9",
                  rendezvous_ports=(7001, 7002), network_interface=None, meet_timeout_s=60, cycle_time_ms=2.5)


def environments(hosts):
    return [rank_environment(ORDER, seat, "eth7") for seat in place_ranks(hosts, ORDER.num_segments)]


def test_every_transport_is_kept_on_the_interface_that_reaches_the_driver():
    for environment in environments(["10.0.0.1"] * 2):
        assert {environment[name] for name in ("HOROVOD_GLOO_IFACE", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")} == {"eth7"}


def test_each_segment_has_a_ring_and_a_port_of_its_own():
    seen = [(e[rank_variables.SEGMENT_INDEX], e["HOROVOD_GLOO_RENDEZVOUS_PORT"], e["HOROVOD_RANK"], e["HOROVOD_SIZE"],
             e[rank_variables.LOCAL_RANK]) for e in environments(["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"])]
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
