"""An S3 server as networks and large stores make it: slow, overloaded, cut off, and silent after it did what was asked.

Runs on: the machine of the tests, in front of ``tests/support/s3_server.py``; in a thread, or as a process of its own.
Takes:   the server's URL; which request is to fail, and how (``always``, ``in_turn``, ``drawn``); what every answer waits for.
Gives:   ``FaultyProxy``: a URL to use in the server's place, and what was asked of it and answered.

What is drawn for a request follows from the seed, the request (the name of the bucket aside), and how often it was made
before: not from the order in which threads come. A block that fails says the seed.

``python -m tests.support.faulty_proxy URL --latency-s 0.05 --seed 1 --share slow_down=0.1`` prints its URL and serves until its
standard input ends: for measurements, in which clients and proxy must not share one Python.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

SERVER_TIMEOUT_S = 60.0
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "trailer", "upgrade"}


class Fault(StrEnum):
    """What can happen to a request; only the last four are done by the server at all."""

    SLOW_DOWN = "slow_down"  # 503
    INTERNAL_ERROR = "internal_error"  # 500
    ACCESS_DENIED = "access_denied"  # 403
    CONFLICT = "conflict"  # 409, as of two conditional writes at once: neither may have been done
    CLOSED = "closed"  # the connection ends without an answer
    RESET = "reset"  # it is reset
    DELAYED = "delayed"  # the answer comes ``delay_s`` late
    CUT = "cut"  # the body ends in the middle: fewer bytes than were announced
    LOST_ANSWER = "lost_answer"  # done, and then the connection ends without an answer
    WRONG_BYTES = "wrong_bytes"  # the middle byte of the body is another one


REFUSALS = {Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
            Fault.INTERNAL_ERROR: (500, "InternalError", "We encountered an internal error. Please try again."),
            Fault.ACCESS_DENIED: (403, "AccessDenied", "Access Denied"),
            Fault.CONFLICT: (409, "ConditionalRequestConflict", "A conflicting operation is in progress. Please try again.")}


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    target: str  # path and query
    range: str  # "" for all

    @property
    def key(self) -> str:
        """The object's key, "" of requests that concern the bucket."""
        return urlsplit(self.target).path.lstrip("/").partition("/")[2]


class Answered(NamedTuple):
    """What became of it."""

    asked: Asked
    fault: Fault | None
    status: int  # the client's; 0: it got none


Choice = Callable[[Asked], Fault | None]


def always(fault: Fault, where: Callable[[Asked], bool] = lambda asked: True) -> Choice:
    """Every request, or every one of a kind."""
    return lambda asked: fault if where(asked) else None


def in_turn(faults: Sequence[Fault | None], where: Callable[[Asked], bool] = lambda asked: True) -> Choice:
    """The first requests of a kind, one after the other; later ones are well."""
    left = collections.deque(faults)
    return lambda asked: left.popleft() if left and where(asked) else None


def drawn(shares: Mapping[Fault, float], seed: int, where: Callable[[Asked], bool] = lambda asked: True) -> Choice:
    """Each request at random: of all, the shares that are given fail, such as ``{Fault.SLOW_DOWN: 0.1, Fault.CUT: 0.05}``."""
    times: collections.Counter[tuple[str, ...]] = collections.Counter()

    def choose(asked: Asked) -> Fault | None:
        if not where(asked):
            return None
        url = urlsplit(asked.target)
        request = (asked.method, asked.key, url.query, asked.range)
        times[request] += 1
        value = random.Random(repr((seed, request, times[request]))).random()
        for fault, share in shares.items():
            value -= share
            if value < 0:
                return fault
        return None

    return choose


@dataclass
class FaultyProxy:
    """Between clients and a server, until it is closed."""

    server_url: str
    choose: Choice = field(default=lambda asked: None)
    latency_s: float = 0.0  # before every request is passed on
    delay_s: float = 1.0  # of a DELAYED one
    answered: list[Answered] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._listener = _Listener(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self.endpoint_url = f"http://127.0.0.1:{self._listener.server_address[1]}"
        threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def options(self) -> dict[str, str]:
        """For ``fsspec.filesystem("s3", **options)``."""
        return {"endpoint_url": self.endpoint_url}

    def fault_of(self, asked: Asked) -> Fault | None:
        with self._lock:
            return self.choose(asked)

    def note(self, answered: Answered) -> None:
        with self._lock:
            self.answered.append(answered)

    def faults(self) -> dict[Fault, int]:
        """How often each has happened."""
        with self._lock:
            return dict(collections.Counter(each.fault for each in self.answered if each.fault))

    def close(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()


@contextmanager
def faulty_proxy(server_url: str, shares: Mapping[Fault, float], seed: int, latency_s: float = 0.0) -> Iterator[FaultyProxy]:
    """One with ``drawn`` faults; an error that leaves the block carries seed, shares and what happened."""
    proxy = FaultyProxy(server_url, drawn(shares, seed), latency_s)
    try:
        yield proxy
    except BaseException as error:
        error.add_note(f"faulty_proxy: seed {seed}, shares {dict(shares)}; happened: {proxy.faults()}")
        raise
    finally:
        proxy.close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away in the middle are what this is for."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client's, in a thread of its own."""

    proxy: FaultyProxy  # set in the subclass that the proxy makes
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer is one packet, not a packet a line

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        asked = Asked(self.command, self.path, self.headers.get("Range", ""))
        content = self._content()
        time.sleep(self.proxy.latency_s)
        self._answer(asked, content, self.proxy.fault_of(asked))

    def handle_expect_100(self) -> bool:
        """The client sends its body only after this."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _answer(self, asked: Asked, content: bytes, fault: Fault | None) -> None:
        """Does what the fault says; noted before the client has its answer, so that who has one finds it there."""
        if fault in REFUSALS:
            self.proxy.note(Answered(asked, fault, REFUSALS[fault][0]))
            self._refuse(*REFUSALS[fault])
            return
        if fault in (Fault.CLOSED, Fault.RESET):
            self.proxy.note(Answered(asked, fault, 0))
            self._hang_up(reset=fault is Fault.RESET)
            return
        status, headers, body = self._passed_on(content)
        if fault is Fault.DELAYED:
            time.sleep(self.proxy.delay_s)
        self.proxy.note(Answered(asked, fault, 0 if fault is Fault.LOST_ANSWER else status))
        middle = len(body) // 2
        if fault is Fault.WRONG_BYTES and body:
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1:]
        if fault is not Fault.LOST_ANSWER:
            self._send(status, headers, body[:middle] if fault is Fault.CUT else body)
        if fault in (Fault.LOST_ANSWER, Fault.CUT):
            self._hang_up()

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(chunks)

    def _passed_on(self, content: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's status, headers and body. The Host and the signature stay the client's."""
        address = urlsplit(self.proxy.server_url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=SERVER_TIMEOUT_S)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP and name.lower() != "content-length":
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            answer = connection.getresponse()
            body = answer.read()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
        finally:
            connection.close()
        return answer.status, headers, body

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
        self._send(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))], body)

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers) and status != http.HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))  # the server's answer came in chunks
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _hang_up(self, reset: bool = False) -> None:
        if reset:  # no lingering: the kernel answers with a reset instead of an end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.rfile.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


def main() -> None:
    parser = argparse.ArgumentParser(description="A proxy that lets a share of requests fail.")
    parser.add_argument("server_url")
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", action="append", default=[], metavar="FAULT=SHARE")
    given = parser.parse_args()
    shares = {Fault(name): float(share) for name, _, share in (each.partition("=") for each in given.share)}
    with faulty_proxy(given.server_url, shares, given.seed, given.latency_s) as proxy:
        print(proxy.endpoint_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
