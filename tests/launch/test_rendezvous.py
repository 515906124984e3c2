"""The rendezvous store: ranks are served, everything else is refused, and it is gone when closed."""

import hmac
import http.client
import random
import socket

import pytest

from pipelines.errors import ResourceError
from pipelines.launch.rendezvous import KEYS_PER_RANK, MAX_RING_SIZE, MAX_VALUE_BYTES, PAIR_BYTES, Rendezvous, announce
from tests.support.rank_processes import run_ranks

LOOPBACK = "127.0.0.1"


def ask(port, method, path, body=None, source=LOOPBACK, length=None):
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5, source_address=(source, 0))
    try:
        connection.request(method, path, body, {} if length is None else {"Content-Length": length})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.fixture
def store():
    with Rendezvous(LOOPBACK, 2) as rendezvous:
        rendezvous.admit(LOOPBACK)
        yield rendezvous


def test_a_value_put_is_the_value_got(store):
    assert ask(store.ports[0], "GET", "/global/0")[0] == 404
    assert ask(store.ports[0], "PUT", "/global/0", b"\x00address\xff")[0] == 200
    assert ask(store.ports[0], "GET", "/global/0") == (200, b"\x00address\xff")
    assert ask(store.ports[0], "DELETE", "/global/0")[0] == 200


@pytest.mark.parametrize("path", ["/other/0", "/global", "/../etc/passwd", "/global/../x y", "/rank_and_size/0"])
def test_unknown_scopes_and_odd_paths_are_refused(store, path):
    assert ask(store.ports[0], "PUT", path.replace(" ", "%20"), b"x")[0] == 403


def test_large_values_and_too_many_of_them_are_refused(store):
    assert ask(store.ports[0], "PUT", "/global/0", b"x" * (MAX_VALUE_BYTES + 1))[0] == 413
    statuses = [ask(store.ports[0], "PUT", f"/global/{i}", b"x")[0] for i in range(60)]
    assert statuses[0] == 200
    assert statuses[-1] == 507


def test_the_largest_ring_is_the_one_whose_values_just_fit():
    assert MAX_RING_SIZE == 482
    assert PAIR_BYTES * (MAX_RING_SIZE - 1) <= MAX_VALUE_BYTES < PAIR_BYTES * MAX_RING_SIZE
    of_one_rank = bytes(PAIR_BYTES * (MAX_RING_SIZE - 1))
    with Rendezvous(LOOPBACK, MAX_RING_SIZE) as rendezvous:
        rendezvous.admit(LOOPBACK)
        assert ask(rendezvous.ports[0], "PUT", "/global/0", of_one_rank)[0] == 200
        assert ask(rendezvous.ports[0], "PUT", "/global/0", of_one_rank + bytes(PAIR_BYTES))[0] == 413
        for rank in range(MAX_RING_SIZE):  # as Horovod fills it
            for scope in ("global", "local_h", f"cross_{rank}"):
                for of in (scope, f"{scope}_process_set_hash_7d48533536350577"):
                    assert rendezvous._stores[0].put(f"/{of}/{rank}", of_one_rank) == 200
                    assert rendezvous._stores[0].put(f"/{of}/rank_{rank}", b"h\0") == 200


@pytest.mark.processes
def test_gloo_stores_as_many_bytes_for_each_other_rank_as_the_bound_counts_with(tmp_path, monkeypatch):
    filled = []
    monkeypatch.setattr(Rendezvous, "__exit__", lambda self, *_: (filled.extend(self._stores), self.close())[1])
    run_ranks("def rank_main(ring, argument): return ring.place.rank", 3, tmp_path)
    values = filled[0].values
    assert len(values["/global/0"]) == 2 * PAIR_BYTES
    assert max(map(len, values.values())) == 2 * PAIR_BYTES
    assert len(values) <= 3 * KEYS_PER_RANK


def test_a_host_is_admitted_to_all_rings_once_a_task_on_it_has_announced_itself():
    with Rendezvous(LOOPBACK, 2, num_rings=2) as rendezvous:
        assert [ask(port, "PUT", "/global/0", b"x")[0] for port in rendezvous.ports] == [403, 403]
        assert announce(LOOPBACK, rendezvous.ports[0], rendezvous.key, timeout_s=5) == LOOPBACK
        assert [ask(port, "PUT", "/global/0", b"x")[0] for port in rendezvous.ports] == [200, 200]
        assert ask(rendezvous.ports[0], "PUT", "/global/0", b"x", source="127.0.0.2")[0] == 403


def test_the_address_that_a_host_speaks_from_is_the_one_that_counts(monkeypatch):
    """A host with several addresses: its way to the driver leads over another one than its name."""
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout, _: connect(address, timeout, ("127.0.0.3", 0)))
    with Rendezvous(LOOPBACK, 2) as rendezvous:
        assert announce(LOOPBACK, rendezvous.ports[0], rendezvous.key, timeout_s=5) == "127.0.0.3"
        assert ask(rendezvous.ports[0], "PUT", "/global/0", b"x", source="127.0.0.3")[0] == 200


@pytest.mark.parametrize("key", [b"", bytes(32)])
def test_who_does_not_know_the_launchs_key_is_not_admitted(key):
    with Rendezvous(LOOPBACK, 2) as rendezvous:
        with pytest.raises(ResourceError, match="driver sees it as 127.0.0.1"):
            announce(LOOPBACK, rendezvous.ports[0], key, timeout_s=5)
        for length in ("0", "32", "100000000", "x"):  # none of them is waited for
            assert ask(rendezvous.ports[0], "PUT", "/hello", bytes(32), length=length)[0] == 403
        assert ask(rendezvous.ports[0], "PUT", "/global/0", b"x")[0] == 403


def test_a_proof_that_was_overheard_admits_no_other_host():
    with Rendezvous(LOOPBACK, 2) as rendezvous:
        overheard = hmac.digest(rendezvous.key, LOOPBACK.encode(), "sha256")
        assert ask(rendezvous.ports[0], "PUT", "/hello", overheard, source="127.0.0.2") == (403, b"127.0.0.2")
        assert ask(rendezvous.ports[0], "PUT", "/hello", overheard)[0] == 200


def test_a_driver_that_is_not_reached_is_said_with_what_to_check():
    with socket.create_server((LOOPBACK, 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ResourceError, match=rf"does not reach the driver at 127.0.0.1:{port} .*check spark.driver_host"):
        announce(LOOPBACK, port, b"key", timeout_s=5)


def test_it_listens_on_its_address_alone_and_not_after_it_was_closed(store):
    other = next((info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
                  if not info[4][0].startswith("127.")), "127.0.0.2")
    with pytest.raises(OSError):
        socket.create_connection((other, store.ports[0]), timeout=2)
    store.close()
    with pytest.raises(OSError):
        socket.create_connection((LOOPBACK, store.ports[0]), timeout=2)
    store.close()  # twice does no harm


def test_a_port_in_use_is_named_with_its_setting():
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        with pytest.raises(ResourceError, match="launch.rendezvous_port") as caught:
            Rendezvous(LOOPBACK, 2, port=taken.getsockname()[1])
    assert caught.value.exit_code == 5


def test_rings_are_kept_apart():
    with Rendezvous(LOOPBACK, 2, num_rings=2) as rendezvous:
        rendezvous.admit(LOOPBACK)
        assert len(set(rendezvous.ports)) == 2
        assert ask(rendezvous.ports[0], "PUT", "/global/0", b"first ring")[0] == 200
        assert ask(rendezvous.ports[1], "GET", "/global/0")[0] == 404


@pytest.fixture
def free_port_before_a_taken_one():
    """Below the ports that a system gives out by itself, where no other test beside this one can come between."""
    for first in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as taken, socket.socket() as free:
            try:
                free.bind((LOOPBACK, first))
                taken.bind((LOOPBACK, first + 1))
            except OSError:
                continue
            free.close()
            taken.listen()
            yield first
            return
    raise AssertionError("no two ports in a row are free between 20000 and 30000")


def test_when_the_port_of_a_later_ring_is_in_use_the_earlier_ones_are_given_back(free_port_before_a_taken_one):
    first = free_port_before_a_taken_one
    with pytest.raises(ResourceError, match=f":{first + 1}: cannot be listened on"):
        Rendezvous(LOOPBACK, 2, num_rings=2, port=first)
    with socket.socket() as again:
        again.bind((LOOPBACK, first))


def test_rings_beyond_the_last_port_are_refused():
    with pytest.raises(ResourceError, match="launch.rendezvous_port 127.0.0.1:65536: cannot be listened on"):
        Rendezvous(LOOPBACK, 2, num_rings=2, port=65535)
