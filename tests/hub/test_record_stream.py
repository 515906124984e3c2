"""Records reach the driver's files once each, in their order, whatever happens to the connection."""

import json
import random
import subprocess
import sys
import threading
import time

import pytest

from pipelines.hub.hub_address import HubAddress
from pipelines.hub.record_stream import BATCH_BYTES, RecordStream
from pipelines.lake.rank_records import RecordTail, RecordWriter
from pipelines.launch.hub_server import Hub
from tests.support.cut_connections import CuttingProxy
from tests.support.hub_guests import LOOPBACK, never


@pytest.fixture
def hub(live):
    with Hub(LOOPBACK, live, num_ranks=2) as hub:
        yield hub


def steps_of(live, rank=0):
    return [record["step"] for record in RecordTail(live.record(rank)).new_records()]


def write(stream, steps, rank=0):
    records = RecordWriter(stream, rank, 0)
    for step in steps:
        records.write("step", step=step)
    return records


def test_records_arrive_by_themselves_and_all_of_them_before_the_end(hub, live):
    records = write(RecordStream(hub.address, 0, never), range(100))
    until = time.monotonic() + 30
    while len(steps_of(live)) < 100 and time.monotonic() < until:
        time.sleep(0.02)
    assert steps_of(live) == list(range(100))
    records.write("step", step=100)
    records.close()
    assert steps_of(live) == list(range(101))
    records.close()  # twice does no harm


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_record_arrives_once_and_in_order_over_connections_that_break_anywhere(hub, live, seed):
    with CuttingProxy(hub.address.port, random.Random(seed), most_bytes=6000) as proxy:
        stream = RecordStream(HubAddress(LOOPBACK, proxy.port, hub.address.secret), 0, never)
        for step in range(0, 600, 20):
            write(stream, range(step, step + 20))
            stream.flush(timeout_s=0.1)
            if proxy.cuts > 12:
                proxy.whole = True
        proxy.whole = True
        stream.close(timeout_s=60)
    assert proxy.cuts > 3
    assert steps_of(live) == list(range(600))
    assert stream.dropped == 0 and hub.dropped() == {}


def test_who_comes_after_a_rank_appends_behind_its_lines(hub, live):
    for steps in (range(5), range(5, 8)):
        write(RecordStream(hub.address, 0, never), steps).close()
    assert steps_of(live) == list(range(8))


def test_a_hub_goes_on_behind_the_lines_that_are_there(live):
    for steps in (range(3), range(3, 6)):
        with Hub(LOOPBACK, live, num_ranks=1) as hub:
            write(RecordStream(hub.address, 0, never), steps).close()
    assert steps_of(live) == list(range(6))


def test_ranks_are_kept_apart(hub, live):
    streams = [RecordStream(hub.address, rank, never) for rank in (0, 1)]
    for rank in (1, 0):
        write(streams[rank], range(rank, rank + 4), rank).close()
    assert (steps_of(live, 0), steps_of(live, 1)) == ([0, 1, 2, 3], [1, 2, 3, 4])


def test_a_record_of_many_batches_size_arrives(hub, live):
    records = RecordWriter(RecordStream(hub.address, 0, never), 0, 0)
    records.write("exhibits", step=1, shown="x" * (3 * BATCH_BYTES))
    records.write("step", step=2)
    records.close()
    first, second = RecordTail(live.record(0)).new_records()
    assert (len(first["shown"]), second["step"]) == (3 * BATCH_BYTES, 2)


def test_what_a_full_buffer_drops_is_the_oldest_and_is_counted_and_told(hub, live, caplog):
    with CuttingProxy(hub.address.port, random.Random(0), most_bytes=1) as proxy:  # nothing gets through
        stream = RecordStream(HubAddress(LOOPBACK, proxy.port, hub.address.secret), 0, never, waiting_bytes=10_000)
        write(stream, range(1000))
        assert not stream.flush(timeout_s=0.2)
        assert sum(map(len, stream._lines)) <= 10_000
        proxy.whole = True
        stream.close()
    arrived = steps_of(live)
    assert arrived == list(range(stream.dropped, 1000)) and 0 < len(arrived) < 1000
    assert hub.dropped() == {0: stream.dropped}
    assert [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()] == [
        f"{stream.dropped} records were dropped: too long, or more than could be sent"]


def test_a_record_that_is_too_long_for_the_hub_is_dropped_alone(hub, live, monkeypatch):
    monkeypatch.setattr("pipelines.hub.record_stream.LINE_BYTES", 200)
    records = write(RecordStream(hub.address, 0, never), [1])
    records.write("exhibits", step=2, shown="x" * 300)
    write(records._sink, [3]).close()
    assert steps_of(live) == [1, 3] and hub.dropped() == {0: 1}


def test_writing_never_waits_for_a_hub_that_is_not_there_and_the_end_only_so_long(caplog):
    stream = RecordStream(HubAddress(LOOPBACK, 1, b"secret"), 0, never)
    write(stream, range(1000))
    stream.close(timeout_s=0.2)
    assert "1000 records did not reach the driver within 0.2 s" in caplog.text


def test_a_hub_that_is_gone_is_told_after_the_bound_and_one_that_is_merely_quiet_is_not(live, monkeypatch):
    monkeypatch.setattr("pipelines.launch.hub_server.HEARTBEAT_S", 0.1)
    told = threading.Event()
    hub = Hub(LOOPBACK, live, num_ranks=1).__enter__()
    stream = RecordStream(hub.address, 0, told.set, silence_s=1.0)
    assert not told.wait(2.5)
    hub.close()
    assert told.wait(20)
    stream.close(timeout_s=0.1)


def test_a_process_that_was_stopped_does_not_blame_its_hub(monkeypatch):
    from pipelines.hub.hub_client import Silence

    told = []
    silence = Silence(30.0, lambda: told.append(1))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    silence.check()
    assert told == []
    for hour in range(2, 8):
        monkeypatch.setattr(time, "monotonic", lambda hour=hour: now + 3600 * hour)
        silence.check()
    assert told == [1]


SILENT = """
import json, sys, time
from pipelines.hub.hub_address import HubAddress
from pipelines.hub.record_stream import RecordStream
from pipelines.train.own_hub import end_without_driver
port, secret = json.loads(sys.argv[1])
RecordStream(HubAddress("127.0.0.1", port, bytes.fromhex(secret)), 0, end_without_driver, silence_s=1.0)
print("there", flush=True)
time.sleep(120)
"""


@pytest.mark.processes
def test_a_rank_whose_hub_is_gone_ends_itself_and_says_why(live):
    with Hub(LOOPBACK, live, num_ranks=1) as hub:
        told = json.dumps([hub.address.port, hub.address.secret.hex()])
        rank = subprocess.Popen([sys.executable, "-c", SILENT, told], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert rank.stdout.readline() == "there\n"
    _, said = rank.communicate(timeout=60)
    assert rank.returncode == 6
    assert said.startswith("error: the driver has not been heard for 30 s (it was killed, or its machine")
    assert said.endswith(": this rank ends\n")
