"""The hub lets in who knows the launch's secret; everything else comes to nothing, while those inside are served."""

import contextlib
import os
import pickle
import random
import socket
import threading
import time

import pytest

from pipelines.errors import ResourceError
from pipelines.hub.hub_address import HubAddress
from pipelines.hub.hub_connection import HubConnection
from pipelines.hub.messages import HEAD_BYTES, ProtocolError, message_of
from pipelines.hub.record_stream import RecordStream
from pipelines.hub.task_line import TaskLine
from pipelines.lake.rank_records import RecordTail, RecordWriter
from pipelines.launch import hub_server
from pipelines.launch.exits import LOG_BYTES, exit_facts
from pipelines.launch.hub_server import Hub
from pipelines.launch.rank_process import end_of_log
from tests.support.hub_guests import LOOPBACK, never


@pytest.fixture
def hub(live):
    with Hub(LOOPBACK, live, num_ranks=4, num_segments=2) as hub:
        yield hub


def wait_until(true):
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def heard(hub, sent):
    """All that comes back until the hub closes the connection."""
    with socket.create_connection((LOOPBACK, hub.address.port), timeout=30) as connection:
        with contextlib.suppress(OSError):  # it may close before all is sent
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        data = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                data += part
    return data


class Unpickled:
    """Whoever unpickles it leaves a trace."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_what_does_not_know_the_secret_learns_nothing_and_does_no_harm_while_a_rank_records(hub, live, tmp_path):
    trace, noise = tmp_path / "unpickled", random.Random(5)
    records = RecordWriter(RecordStream(hub.address, 0, never), 0, 0)
    requests = [noise.randbytes(5000), b"\n" * 100, pickle.dumps(Unpickled(trace)) + b"\n", b"[" * 400 + b"\n", b"x" * 100_000,
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", message_of({"records": 0, "count": 1}, b"{}\n"),
                message_of({"guest": "rank", "rank": 0, "nonce": "n", "proof": "p" * 64})
                + message_of({"records": 1, "count": 1}, b"{}"),
                message_of({"guest": "task", "rank": 0, "nonce": "n", "proof": "\u00e4" * 64}),
                message_of({"guest": "rank", "rank": 99, "nonce": "n", "proof": ""}),
                message_of({"guest": [], "rank": {}, "nonce": 1})]
    for step, request in enumerate(requests):
        records.write("step", step=step)
        answer = heard(hub, request)
        assert answer.count(b"\n") <= 1 and b"proof" not in answer and b"lines" not in answer
    records.close()
    assert [record["step"] for record in RecordTail(live.record(0)).new_records()] == list(range(len(requests)))
    assert not trace.exists() and hub.exits() == {}
    assert hub.address.secret.hex() not in str([heard(hub, b"\n")])


@pytest.mark.parametrize("guest", ["rank", "task", "segment", "another"])
def test_a_wrong_secret_and_an_unknown_kind_of_guest_are_refused(hub, guest):
    secret = hub.address.secret if guest == "another" else bytes(32)
    with pytest.raises((OSError, ProtocolError)):
        HubConnection(HubAddress(LOOPBACK, hub.address.port, secret), guest, 0, timeout_s=10)


def test_a_guest_finds_out_a_listener_that_does_not_know_the_secret(live):
    def pretend(listener):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(message_of({"hub": 1, "nonce": "n"}))
            connection.recv(4096)
            connection.sendall(message_of({"proof": "0" * 64, "lines": 0}))

    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=pretend, args=(listener,), daemon=True).start()
        with pytest.raises(ProtocolError, match="is not the hub of this launch"):
            HubConnection(HubAddress(LOOPBACK, listener.getsockname()[1], b"secret"), "rank", 0, timeout_s=10)


def test_a_handshake_that_was_overheard_is_of_no_use(hub):
    sent = []
    send = HubConnection.send
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HubConnection, "send", lambda self, data: (sent.append(data), send(self, data)))
        HubConnection(hub.address, "rank", 0, timeout_s=10).close()
    assert b"proof" not in heard(hub, sent[0])


def test_strangers_are_bounded_in_number_and_time_and_keep_nobody_else_out_afterwards(live, monkeypatch):
    monkeypatch.setattr(hub_server, "HANDSHAKE_S", 1.0)
    with Hub(LOOPBACK, live, num_ranks=1) as hub, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection((LOOPBACK, hub.address.port), timeout=30))
                   for _ in range(hub_server.STRANGERS + 20)]
        wait_until(lambda: len(hub._strangers) == hub_server.STRANGERS + 1)
        for connection in waiting:  # closed by the hub: the last ones at once, the others when they have said nothing in time
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
        RecordWriter(RecordStream(hub.address, 0, never), 0, 0).close()
        with HubConnection(hub.address, "rank", 0, timeout_s=10) as connection:
            assert connection.welcome["lines"] == 0


def test_a_guest_that_says_nothing_is_not_kept_for_ever(live, monkeypatch):
    monkeypatch.setattr(hub_server, "IDLE_S", 0.3)
    monkeypatch.setattr(hub_server, "HEARTBEAT_S", 0.1)
    with Hub(LOOPBACK, live, num_ranks=1) as hub, HubConnection(hub.address, "rank", 0, timeout_s=10) as connection:
        with pytest.raises(OSError):
            while True:
                connection.receive()
        wait_until(lambda: not hub._guests)


@pytest.mark.parametrize("said", [
    message_of({"records": 5, "count": 1}, b"{}\n"), message_of({"records": 0, "count": 3, "dropped": 0}, b"{}\n"),
    message_of({"records": 0, "count": 1, "dropped": 0}, b"no end"),
    message_of({"records": 7, "count": 1, "dropped": 0}, b"{}\n"),
    b'{"bytes": 99999999999}\n', b"x" * (4 * HEAD_BYTES)])
def test_a_guest_that_says_what_the_protocol_has_not_is_put_out_and_nothing_of_it_kept(hub, live, said):
    with HubConnection(hub.address, "rank", 0, timeout_s=10) as connection, pytest.raises(OSError):
        connection.send(said)
        while True:
            connection.receive()
    assert not live.record(0).exists() or live.record(0).read_bytes() == b""


def test_a_guest_that_comes_again_takes_its_old_place(hub):
    with HubConnection(hub.address, "rank", 3, timeout_s=10) as first, HubConnection(hub.address, "rank", 3, timeout_s=10):
        with pytest.raises(ConnectionError):
            first.receive()
        assert len(hub._guests) == 1


def test_lines_that_are_sent_once_more_are_left_out(hub, live):
    with HubConnection(hub.address, "rank", 0, timeout_s=10) as connection:
        for first, lines in ((0, b"0\n1\n2\n"), (0, b"0\n1\n2\n"), (1, b"1\n2\n3\n4\n"), (5, b"5\n")):
            connection.send(message_of({"records": first, "count": lines.count(b"\n"), "dropped": 0}, lines))
            while "lines" not in (answer := connection.receive()[0]):
                continue
    assert answer["lines"] == 6
    assert live.record(0).read_bytes() == b"0\n1\n2\n3\n4\n5\n"


def test_tasks_are_told_to_stop_whether_they_are_there_or_come_later(hub):
    with TaskLine(hub.address, 0) as there:
        assert there.tell({"host": "h", "log": "/tmp/l"}, timeout_s=30)
        hub.stop_ranks()
        assert there.stopped.wait(30)
        with TaskLine(hub.address, 1) as later:
            assert later.stopped.wait(30)


def test_how_a_rank_ended_is_known_with_the_end_of_its_log_which_the_driver_keeps(hub, live, tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"first line\n" + b"x" * LOG_BYTES + b"\n\xff\xfe not UTF-8\nlast line\n")
    with TaskLine(hub.address, 2) as line:
        assert line.tell({"host": "h", "log": str(log)}, timeout_s=30)
        assert hub.logs() == {2: f"h:{log}"}
        assert line.tell(exit_facts("h", -9, "sleeping"), end_of_log(log), timeout_s=30)
        assert line.tell(exit_facts("h", 0), b"", timeout_s=30)  # said once more, differently: the first counts
    told = hub.exits()[2]
    assert (told.rank, told.host, told.exit_code, told.state, told.log) == (2, "h", -9, "sleeping", str(live.log(2)))
    assert told.tail.endswith("\n\ufffd\ufffd not UTF-8\nlast line\n") and len(told.tail) < 10_000
    assert len(log.read_bytes()) > LOG_BYTES
    assert hub.logs() == {}


def test_a_task_that_hears_nothing_of_the_hub_knows_it(live):
    with Hub(LOOPBACK, live, num_ranks=1) as hub, TaskLine(hub.address, 0, silence_s=1.0) as line:
        assert line.tell({"host": "h", "log": "l"}, timeout_s=30) and not line.alone.is_set()
        hub.close()
        assert line.alone.wait(30)


def test_records_that_cannot_be_written_are_a_fault_of_the_storage(hub, live):
    live.record(0).mkdir()
    stream = RecordStream(hub.address, 0, never)
    stream.append("{}")
    wait_until(lambda: hub.fault is not None)
    assert hub.fault.exit_code == 8
    assert str(hub.fault).startswith(f"{live.path}: records cannot be written: Is a directory")
    stream.close(timeout_s=0.1)


def test_a_port_in_use_is_named_with_its_setting(live):
    with (socket.create_server((LOOPBACK, 0)) as taken,
          pytest.raises(ResourceError, match="launch.rendezvous_port 127.0.0.1:.* cannot be listened on")):
        Hub(LOOPBACK, live, 1, port=taken.getsockname()[1])


def test_nothing_listens_or_runs_after_it_was_closed(live):
    before = threading.active_count()
    with Hub(LOOPBACK, live, num_ranks=1) as hub:
        socket.create_connection((LOOPBACK, hub.address.port), timeout=5).close()
    hub.close()  # twice does no harm
    assert threading.active_count() == before
    with pytest.raises(OSError):
        socket.create_connection((LOOPBACK, hub.address.port), timeout=5)
