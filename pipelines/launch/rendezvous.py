"""Where the ranks of one launch find each other: for each ring a small key-value store that Horovod speaks HTTP to.

Runs on: driver; ``announce`` in the tasks that start ranks.
Takes:   the address to listen on.
Gives:   a port for each ring, for as long as the ranks need to meet; then nothing listens any more.

Horovod's protocol has no authentication, so the store accepts only hosts that were admitted, only the scopes that Horovod
uses, only small values and only as many as the ranks can need, and it is closed as soon as all ranks have met.

A host is admitted when a task on it has announced itself with the launch's key, which travels only inside the tasks that
Spark sends. The proof is bound to the address that the task speaks from, so it admits no other host. That address is the
one that counts, whatever names and addresses the host has besides: the rank takes the same way.

Source: horovod/runner/http/http_server.py (protocol), horovod/common/gloo/http_store.cc (client).
"""

from __future__ import annotations

import hmac
import http.client
import re
import secrets
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from pipelines.errors import ResourceError

MAX_VALUE_BYTES = 64 * 1024
# The largest value: a rank's address for each of the others, a socket address and a number of gloo's own (measured).
PAIR_BYTES = 136
MAX_RING_SIZE = MAX_VALUE_BYTES // PAIR_BYTES + 1
KEYS_PER_RANK = 16  # global, local and cross, of Horovod and of its set of all ranks, each with two keys
_HELLO = "/hello"
_PATH = re.compile(r"/((?:global|local_|cross_)[\w.:\-]*)/([\w.:\-/]{1,128})")
_REQUEST_TIMEOUT_S = 5.0


class _Handler(BaseHTTPRequestHandler):
    """GET, PUT and DELETE of ``/scope/key``; a missing key is 404, which the client polls on."""

    timeout = _REQUEST_TIMEOUT_S
    server: _Store

    def _key(self) -> str | None:
        """The stored name a request is about, or None after it has been refused."""
        match = _PATH.fullmatch(self.path)
        if self.client_address[0] not in self.server.allowed_hosts or match is None:
            self._answer(HTTPStatus.FORBIDDEN)
            return None
        return match[0]

    def do_GET(self) -> None:
        key = self._key()
        if key is not None:
            with self.server.lock:
                value = self.server.values.get(key)
            self._answer(HTTPStatus.NOT_FOUND if value is None else HTTPStatus.OK, value or b"")

    def do_PUT(self) -> None:
        if self.path == _HELLO:
            self._admit()
            return
        key = self._key()
        if key is None:
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_VALUE_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        self._answer(self.server.put(key, self.rfile.read(int(length))))

    def _admit(self) -> None:
        host, length = self.client_address[0], self.headers.get("Content-Length", "")
        expected = _proof(self.server.launch_key, host)
        if length == str(len(expected)) and hmac.compare_digest(self.rfile.read(len(expected)), expected):
            self.server.allowed_hosts.add(host)
            self._answer(HTTPStatus.OK)
        else:
            self._answer(HTTPStatus.FORBIDDEN, host.encode())

    def do_DELETE(self) -> None:
        """Ranks say that they have met; the whole store goes at once, so there is nothing to delete."""
        if self._key() is not None:
            self._answer(HTTPStatus.OK)

    def _answer(self, status: HTTPStatus, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence: a request a line would bury what matters."""


class _Store(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: str, port: int, launch_key: bytes, allowed_hosts: set[str], max_keys: int) -> None:
        self.launch_key, self.allowed_hosts, self.max_keys = launch_key, allowed_hosts, max_keys
        self.values: dict[str, bytes] = {}
        self.lock = threading.Lock()
        super().__init__((address, port), _Handler)

    def put(self, key: str, value: bytes) -> HTTPStatus:
        with self.lock:
            if key not in self.values and len(self.values) >= self.max_keys:
                return HTTPStatus.INSUFFICIENT_STORAGE
            self.values[key] = value
        return HTTPStatus.OK


class Rendezvous:
    """The stores of one launch, one per ring; they listen between ``__enter__`` and ``close``."""

    def __init__(self, address: str, ring_size: int, num_rings: int = 1, port: int = 0) -> None:
        """
        Args:
            address: of this driver, as the ranks reach it. ring_size: ranks of each ring.
            port: of the first ring, the others take the following ones; 0 takes any free ones.
        Raises:
            ResourceError: the address or port cannot be listened on.
        """
        self.key = secrets.token_bytes(32)
        self._allowed_hosts: set[str] = set()  # the same for all rings
        self._stores: list[_Store] = []
        try:
            for ring in range(num_rings):
                wanted = port + ring if port else 0
                self._stores.append(_Store(address, wanted, self.key, self._allowed_hosts, KEYS_PER_RANK * ring_size))
        except (OSError, OverflowError) as error:  # the latter: beyond the last port
            for store in self._stores:
                store.server_close()
            reason = getattr(error, "strerror", error)
            raise ResourceError(f"launch.rendezvous_port {address}:{wanted}", f"cannot be listened on: {reason}",
                                "set launch.rendezvous_port to a free port (0: any; a split model takes one per segment), "
                                "or spark.driver_host to an address of this machine") from error
        self.address, self.ports = address, tuple(int(store.server_address[1]) for store in self._stores)
        self._threads = [threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05}, name="rendezvous",
                                          daemon=True) for store in self._stores]

    def __enter__(self) -> Rendezvous:
        for thread in self._threads:
            thread.start()
        return self

    def admit(self, host: str) -> None:
        """Accepts what comes from a numeric address, without an announcement: for ranks that no Spark task starts."""
        self._allowed_hosts.add(host)

    def close(self) -> None:
        """Stops listening; harmless when already closed."""
        for store, thread in zip(self._stores, self._threads, strict=True):
            if thread.is_alive():
                store.shutdown()
                thread.join()
            store.server_close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def announce(address: str, port: int, key: bytes, timeout_s: float) -> str:
    """Has this host admitted, and returns its address on the way to the driver.

    Args:
        address: of the driver. port: of any ring. key: of the launch.
    Raises:
        ResourceError: the driver is not reached, or sees this host under another address.
    """
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.connect()
        own = str(connection.sock.getsockname()[0])
        connection.request("PUT", _HELLO, _proof(key, own))
        answer = connection.getresponse()
        seen_as = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise ResourceError(f"host {socket.gethostname()}", f"does not reach the driver at {address}:{port} ({error})",
                            "check spark.driver_host, launch.rendezvous_port and firewalls") from error
    finally:
        connection.close()
    if answer.status != HTTPStatus.OK:
        raise ResourceError(f"host {socket.gethostname()}", f"is {own}, but the driver sees it as {seen_as}: addresses are "
                            "translated between them", "set spark.driver_host to an address that both reach directly")
    return own


def _proof(key: bytes, host: str) -> bytes:
    """That who speaks from this host knows the launch's key."""
    return hmac.digest(key, host.encode(), "sha256")
