"""The hub: the one thing that listens on the driver while ranks run, for their records, orders to them, and their meetings.

Runs on: driver, in a thread of its own.
Takes:   the address to listen on, the attempt's live folder.
Gives:   ``Hub``: records and logs in the live folder, how ranks ended; ``stop_ranks``.

Who connects is asked for a proof that it knows the launch's secret (``hub/messages.py``), within a bounded time, and is heard no
further without one. Everything is bounded: strangers, guests, lines, bodies, keys, what waits for a guest that does not
read. Nothing is unpickled. A guest that connects once more takes its old connection's place.
"""

from __future__ import annotations

import asyncio
import hmac
import resource
import secrets
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from pipelines.errors import ResourceError, SparkringError, StorageError
from pipelines.hub.hub_address import HubAddress
from pipelines.hub.messages import (
    FORMAT,
    GUESTS,
    HANDSHAKE_BYTES,
    HANDSHAKE_S,
    HEAD_BYTES,
    HEARTBEAT,
    HEARTBEAT_S,
    NONCE_BYTES,
    ProtocolError,
    body_length,
    head_of,
    message_of,
    proof_of,
    short_text,
    whole_number,
)
from pipelines.lake.live_folder import LiveFolder
from pipelines.launch.exits import Exit, told_exit
from pipelines.launch.live_files import LiveFiles
from pipelines.launch.meetings import Meetings

SECRET_BYTES = 32
STRANGERS = 64  # at one time, beside one a rank: all ranks come at once
BACKLOG = 4096  # connections that wait to be accepted: all ranks come at once
IDLE_S = 90.0  # a guest that has said nothing for so long is not waited for
UNREAD_BYTES = 1024 * 1024  # of a guest that does not read what it is told
FILES_A_RANK = 5  # a connection of each kind, a stranger's, the record file
SPARE_FILES = 256
JOIN_S = 10.0
_BROKEN = (OSError, EOFError, ProtocolError, TimeoutError, asyncio.LimitOverrunError)


@dataclass(eq=False)
class _Guest:
    """Somebody who knows the secret."""

    kind: str
    rank: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard_s: float

    def tell(self, data: bytes) -> None:
        if self.writer.transport.get_write_buffer_size() > UNREAD_BYTES:
            self.writer.transport.abort()
        else:
            self.writer.write(data)


@dataclass
class _Facts:
    """What the guests have told, for other threads to look at."""

    exits: dict[int, Exit] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)
    logs: dict[int, str] = field(default_factory=dict)  # host and path, while a rank runs


class Hub:
    """Listens from ``__enter__`` to ``close``."""

    def __init__(self, address: str, live: LiveFolder, num_ranks: int, num_segments: int = 1, port: int = 0) -> None:
        """
        Args:
            address: of this driver, as the ranks reach it. port: 0 takes any free one.
        Raises:
            ResourceError: it cannot be listened on.
        """
        self._live, self._num_ranks, self._num_segments = live, num_ranks, num_segments
        _make_room_for_files(num_ranks * FILES_A_RANK + STRANGERS + SPARE_FILES)
        try:
            self._socket = socket.create_server((address, port))
        except (OSError, OverflowError) as error:
            raise ResourceError(f"launch.rendezvous_port {address}:{port}", f"cannot be listened on: "
                                f"{getattr(error, 'strerror', error)}", "set launch.rendezvous_port to a free port (0: any; the "
                                "hub takes the one behind those of the rings), or spark.driver_host to an address of this "
                                "machine") from error
        self.address = HubAddress(address, int(self._socket.getsockname()[1]), secrets.token_bytes(SECRET_BYTES))
        self._facts, self._stopping = _Facts(), False
        self._guests: dict[tuple[str, int], _Guest] = {}
        self._strangers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)

    def __enter__(self) -> Hub:
        try:
            self._files = LiveFiles(self._live, self._loop)
        except (OSError, SparkringError):
            self.close()
            self._loop.close()
            raise
        self._meetings = Meetings(self._num_segments)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening; what has come is written. Harmless when closed."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(JOIN_S)
        self._socket.close()

    def stop_ranks(self) -> None:
        """Asks the tasks to end their ranks, those too that come later."""
        self._stopping = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._tell_tasks_to_stop)

    @property
    def live(self) -> LiveFolder:
        return self._live

    def exits(self) -> Mapping[int, Exit]:
        """How ranks' processes ended, by rank; of those whose Spark task could tell it."""
        return dict(self._facts.exits)

    def logs(self) -> Mapping[int, str]:
        """Where the logs of the ranks are that have not told their end."""
        return {rank: place for rank, place in dict(self._facts.logs).items() if rank not in self._facts.exits}

    def dropped(self) -> Mapping[int, int]:
        """How many records a rank could not send; of those that lack some."""
        return {rank: number for rank, number in dict(self._facts.dropped).items() if number}

    @property
    def fault(self) -> SparkringError | None:
        """Why records cannot be kept any more."""
        error = self._files.fault
        return None if error is None else StorageError(str(self._live.path), f"records cannot be written: "
                                                       f"{error.strerror or error}", "make room, or check permissions")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=HEAD_BYTES, backlog=BACKLOG)
        beating = asyncio.create_task(self._beat())
        await self._closing.wait()
        server.close()
        beating.cancel()
        for writer in [*self._strangers, *(guest.writer for guest in self._guests.values())]:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.get_running_loop().run_in_executor(None, self._files.close)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()

    async def _beat(self) -> None:
        """So that nobody takes a driver that has nothing to say for one that is gone."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for guest in list(self._guests.values()):
                if self._loop.time() - guest.heard_s > IDLE_S:
                    guest.writer.transport.abort()
                else:
                    guest.tell(HEARTBEAT)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = None
        try:
            guest = await self._admitted(reader, writer)
            if guest is not None:
                await self._attend(guest)
        except _BROKEN:
            pass  # it may come again
        finally:
            if guest is not None and self._guests.get((guest.kind, guest.rank)) is guest:
                del self._guests[guest.kind, guest.rank]
            writer.transport.abort()

    async def _admitted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Guest | None:
        """Whoever proves that it knows the secret."""
        if len(self._strangers) >= STRANGERS + self._num_ranks:
            return None
        self._strangers.add(writer)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                nonce = secrets.token_hex(NONCE_BYTES)
                writer.write(message_of({"hub": FORMAT, "nonce": nonce}))
                line = await reader.readuntil(b"\n")
        finally:
            self._strangers.discard(writer)
        if len(line) > HANDSHAKE_BYTES:
            return None
        head = head_of(line)
        kind, rank = short_text(head, "guest", 16), whole_number(head, "rank", self._num_ranks - 1)
        nonces = nonce, short_text(head, "nonce", 2 * NONCE_BYTES)
        proof = proof_of(self.address.secret, "guest", nonces, kind, rank)
        if kind not in GUESTS or not hmac.compare_digest(proof.encode(), short_text(head, "proof", len(proof)).encode()):
            return None
        guest = _Guest(kind, rank, reader, writer, self._loop.time())
        earlier = self._guests.pop((kind, rank), None)
        if earlier is not None:
            earlier.writer.transport.abort()
        self._guests[kind, rank] = guest
        welcome: dict[str, Any] = {"proof": proof_of(self.address.secret, "hub", nonces, kind, rank)}
        if kind == "rank":
            welcome["lines"] = self._files.lines(rank)
        if kind == "task" and self._stopping:
            welcome["stop"] = 1
        guest.tell(message_of(welcome))
        return guest

    async def _attend(self, guest: _Guest) -> None:
        """Takes what a guest says until it leaves."""
        answers = {"rank": self._take_records, "task": self._take_word, "segment": self._take_question}
        answer = answers[guest.kind]
        while True:
            head = head_of(await guest.reader.readuntil(b"\n"))
            length = body_length(head)
            body = await guest.reader.readexactly(length) if length else b""
            guest.heard_s = self._loop.time()
            if head:
                guest.tell(await answer(guest, head, body))

    async def _take_records(self, guest: _Guest, head: dict[str, Any], body: bytes) -> bytes:
        first, count = whole_number(head, "records", 2**62), whole_number(head, "count", len(body), 1)
        self._facts.dropped[guest.rank] = max(whole_number(head, "dropped", 2**62), self._facts.dropped.get(guest.rank, 0))
        await self._files.take(guest.rank, first, count, body)
        return message_of({"lines": self._files.lines(guest.rank)})

    async def _take_word(self, guest: _Guest, head: dict[str, Any], body: bytes) -> bytes:
        if "exit" in head:
            told = told_exit(guest.rank, head, body, str(self._live.log(guest.rank)))
            await self._files.take_log(guest.rank, body)
            self._facts.exits.setdefault(guest.rank, told)
        else:
            self._facts.logs[guest.rank] = f"{short_text(head, 'host')}:{short_text(head, 'log', 4096)}"
        return message_of({"taken": 1})

    async def _take_question(self, guest: _Guest, head: dict[str, Any], body: bytes) -> bytes:
        answer, value = await self._meetings.answer(guest.rank, head, body)
        return message_of(answer, value)

    def _tell_tasks_to_stop(self) -> None:
        for (kind, _), guest in self._guests.items():
            if kind == "task":
                guest.tell(message_of({"stop": 1}))


def _make_room_for_files(needed: int) -> None:
    """Files that this process may have open, where the system's own bound lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
