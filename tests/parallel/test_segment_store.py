"""The segments of a replica meet over the hub, and each replica's keys are its own."""

import threading
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from pipelines.hub import meeting_point
from pipelines.hub.hub_address import HubAddress
from pipelines.hub.meeting_point import VALUE_BYTES, MeetingPoint
from pipelines.lake.live_folder import LiveFolder
from pipelines.launch.hub_server import Hub
from pipelines.parallel.segment_store import SegmentStore
from tests.support.rank_processes import run_ranks

LOOPBACK = "127.0.0.1"


@pytest.fixture
def hub(tmp_path):
    live = LiveFolder(tmp_path / "attempt-000")
    live.make()
    with Hub(LOOPBACK, live, num_ranks=4, num_segments=2) as hub:
        yield hub


@pytest.fixture
def stores(hub):
    """Of the ranks 0 and 1, which are one replica, and of rank 2, which is of another; as torch uses them."""
    ours = [SegmentStore(MeetingPoint(hub.address, rank), timedelta(seconds=30)) for rank in range(3)]
    yield [dist.PrefixStore("default", store) for store in ours]
    for store in ours:
        store.close()


def test_a_store_does_what_torchs_own_do(stores):
    ours, theirs = stores[0], dist.PrefixStore("default", dist.HashStore())
    for store in (ours, theirs):
        store.set("key", "value")
        assert [store.get("key"), store.check(["key"]), store.check(["key", "other"])] == [b"value", True, False]
        assert [store.add("number", 5), store.add("number", -7)] == [5, -2]
        assert store.compare_set("key", "another", "new") == b"value"
        assert store.compare_set("key", "value", "new") == b"new"
        assert store.compare_set("fresh", "", "made") == b"made"
        assert store.num_keys() == 3
        assert [store.delete_key("key"), store.delete_key("key")] == [True, False]
        store.wait(["number"], timedelta(seconds=5))
        with pytest.raises(RuntimeError, match="(?i)time"):
            store.wait(["key"], timedelta(seconds=0.1))


def test_a_key_is_waited_for_until_another_segment_sets_it(stores):
    late = threading.Timer(0.3, lambda: stores[1].set("key", "value"))
    late.start()
    assert stores[0].get("key") == b"value"
    late.join()


def test_a_wait_outlasts_the_bound_of_one_request(stores, monkeypatch):
    monkeypatch.setattr(meeting_point, "WAIT_S", 0.05)
    late = threading.Timer(0.5, lambda: stores[1].set("key", "value"))
    late.start()
    stores[0].wait(["key"], timedelta(seconds=30))
    late.join()


def test_another_replica_does_not_see_it(stores):
    stores[0].set("key", "value")
    assert [store.check(["key"]) for store in stores] == [True, True, False]
    assert stores[2].add("key", 1) == 1


def test_values_and_keys_are_bounded(stores):
    stores[0].set("key", bytes(VALUE_BYTES))
    with pytest.raises(RuntimeError, match="the driver's hub refuses: more than 65,536 bytes"):
        stores[0].set("key", bytes(VALUE_BYTES + 1))
    with pytest.raises(RuntimeError, match="or than 392 keys"):
        for number in range(1000):
            stores[0].set(str(number), b"")
    stores[0].set("key", b"an old key may still change")
    stores[2].set("key", b"as may another replica's")


def test_a_connection_that_was_long_unused_is_made_anew(hub, monkeypatch):
    point = MeetingPoint(hub.address, 0)
    point.ask("set", b"value", key="key")
    used = point._connection
    assert point.ask("get", key="key")[1] == b"value" and point._connection is used
    monkeypatch.setattr(meeting_point, "FRESH_S", 0.0)
    assert point.ask("get", key="key")[1] == b"value" and point._connection is not used
    point.close()


def test_a_hub_that_is_not_reached_or_not_ours_is_an_error_of_the_connection(hub):
    for address in (HubAddress(LOOPBACK, 1, b"secret"), HubAddress(LOOPBACK, hub.address.port, b"another secret")):
        with pytest.raises(RuntimeError, match="Connection to the driver's hub"):
            SegmentStore(MeetingPoint(address, 0)).set("key", "value")


MEET = """
from datetime import timedelta
import torch
import torch.distributed as dist
from pipelines.hub.hub_address import HubAddress
from pipelines.hub.meeting_point import MeetingPoint
from pipelines.parallel.segment_store import SegmentStore

def rank_main(ring, argument):
    port, secret = argument
    rank = ring.place.rank
    store = SegmentStore(MeetingPoint(HubAddress("127.0.0.1", port, bytes.fromhex(secret)), rank))
    dist.init_process_group("gloo", store=store, rank=rank % 2, world_size=2, timeout=timedelta(seconds=60))
    values = torch.tensor([float(rank)])
    dist.all_reduce(values)
    dist.destroy_process_group()
    store.close()
    return values.item()
"""


@pytest.mark.processes
def test_process_groups_of_two_replicas_meet_at_the_same_time(hub, tmp_path):
    assert run_ranks(MEET, 4, tmp_path, [hub.address.port, hub.address.secret.hex()]) == [1.0, 1.0, 5.0, 5.0]
    assert torch.distributed.is_initialized() is False
