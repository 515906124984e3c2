"""The thread that keeps a process in touch with the hub, whatever happens to the connection.

Runs on: Spark tasks and ranks.
Takes:   the hub's address, who speaks, its ``Traffic``.
Gives:   ``HubClient``: a connection, made again when it breaks; heartbeats; a call when the hub is silent for too long.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from pipelines.hub.hub_address import HubAddress
from pipelines.hub.hub_connection import HubConnection
from pipelines.hub.messages import HEARTBEAT, HEARTBEAT_S, SILENCE_S, ProtocolError

CONNECT_S = 5.0
FIRST_PAUSE_S, MOST_PAUSE_S = 0.05, 2.0  # between attempts to connect
TICK_S = 1.0
JOIN_S = 2.0


class Traffic(Protocol):
    """What is said and heard; called in the client's thread."""

    def welcomed(self, welcome: dict[str, Any]) -> None:
        """There is a new connection: what was under way on the last one is lost, unless the welcome says otherwise."""

    def heard(self, head: dict[str, Any]) -> None:
        """The hub said something."""

    def due_s(self) -> float | None:
        """In how many seconds there is something to send; None: not before ``HubClient.wake``."""

    def outgoing(self) -> bytes | None:
        """What is to be sent now."""


class Silence:
    """How long the hub has said nothing while this process was awake: one that was stopped must not blame its hub."""

    def __init__(self, bound_s: float, on_silence: Callable[[], None]) -> None:
        self._bound_s, self._on_silence = bound_s, on_silence
        self._silent_s, self._last_s = 0.0, time.monotonic()

    def broken(self) -> None:
        self._silent_s, self._last_s = 0.0, time.monotonic()

    def check(self) -> None:
        """To be called at least as often as a connection is tried."""
        now_s = time.monotonic()
        self._silent_s += min(now_s - self._last_s, CONNECT_S + MOST_PAUSE_S)
        self._last_s = now_s
        if self._silent_s > self._bound_s:
            self.broken()
            self._on_silence()


class HubClient:
    """Runs from ``start`` to ``close``; nothing that happens to the connection reaches its owner but by ``Traffic``."""

    def __init__(self, address: HubAddress, guest: str, rank: int, traffic: Traffic, on_silence: Callable[[], None],
                 silence_s: float = SILENCE_S) -> None:
        self._address, self._guest, self._rank, self._traffic = address, guest, rank, traffic
        self._silence = Silence(silence_s, on_silence)
        self._closing = threading.Event()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Has the traffic asked again; from any thread."""
        with suppress(OSError):  # full: it is awake already; closed: nobody is there to wake
            self._waker.send(b".")

    def close(self) -> None:
        """Whatever is not said by now is not said."""
        self._closing.set()
        self.wake()
        self._thread.join(JOIN_S + CONNECT_S)
        self._woken.close()
        self._waker.close()

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closing.is_set():
            try:
                with HubConnection(self._address, self._guest, self._rank, CONNECT_S) as connection:
                    self._silence.broken()
                    self._traffic.welcomed(connection.welcome)
                    pause_s = FIRST_PAUSE_S
                    self._exchange(connection)
            except (OSError, ProtocolError):
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, MOST_PAUSE_S)
            if not self._closing.is_set():
                self._silence.check()

    def _exchange(self, connection: HubConnection) -> None:
        sent_s = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing.is_set():
                due_s = self._traffic.due_s()
                for key, _ in selector.select(TICK_S if due_s is None else max(0.0, min(due_s, TICK_S))):
                    if key.fileobj is connection:
                        self._read(connection)
                    else:
                        self._woken.recv(4096)
                self._silence.check()  # behind the reading: what came while this process was stopped counts
                data = self._traffic.outgoing()
                if data is None and time.monotonic() - sent_s >= HEARTBEAT_S:
                    data = HEARTBEAT
                if data is not None:
                    connection.send(data)
                    sent_s = time.monotonic()

    def _read(self, connection: HubConnection) -> None:
        connection.fill()
        while (whole := connection.take()) is not None:
            self._silence.broken()
            self._traffic.heard(whole[0])
