"""One connection to the hub, from its handshake on.

Runs on: Spark tasks and ranks.
Takes:   the hub's address, who speaks.
Gives:   ``HubConnection``: heads and bodies sent and received; whatever breaks it is an OSError or a ProtocolError.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from types import TracebackType
from typing import Any

from pipelines.hub.hub_address import HubAddress
from pipelines.hub.messages import (
    HEAD_BYTES,
    NONCE_BYTES,
    SILENCE_S,
    ProtocolError,
    body_length,
    head_of,
    message_of,
    proof_of,
    short_text,
)

_READ_BYTES = 256 * 1024


class HubConnection:
    """Blocking, each call bounded in time; for one thread."""

    def __init__(self, address: HubAddress, guest: str, rank: int, timeout_s: float) -> None:
        """Connects and shakes hands, all within about ``timeout_s``.

        Raises:
            OSError, ProtocolError: the hub is not reached, does not know the secret, or refuses.
        """
        self._buffer = bytearray()
        self._socket = socket.create_connection((address.host, address.port), timeout=timeout_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            hub_nonce, nonce = short_text(self.receive()[0], "nonce"), secrets.token_hex(NONCE_BYTES)
            proofs = {by: proof_of(address.secret, by, (hub_nonce, nonce), guest, rank) for by in ("guest", "hub")}
            self.send(message_of({"guest": guest, "rank": rank, "nonce": nonce, "proof": proofs["guest"]}))
            self.welcome = self.receive()[0]
            if not hmac.compare_digest(short_text(self.welcome, "proof"), proofs["hub"]):
                raise ProtocolError("who listens there is not the hub of this launch")
        except (OSError, ProtocolError):
            self._socket.close()
            raise
        self._socket.settimeout(SILENCE_S)  # of a send that does not get on

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next head and body, waited for."""
        while (whole := self.take()) is None:
            self.fill()
        return whole

    def fill(self) -> None:
        """Reads what is there, or waits for something."""
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the hub has closed the connection")
        self._buffer += data

    def take(self) -> tuple[dict[str, Any], bytes] | None:
        """The next head and body that are whole already."""
        end = self._buffer.find(b"\n", 0, HEAD_BYTES)
        if end < 0:
            if len(self._buffer) >= HEAD_BYTES:
                raise ProtocolError("a line is too long")
            return None
        head = head_of(self._buffer[:end])
        until = end + 1 + body_length(head)
        if len(self._buffer) < until:
            return None
        body = bytes(self._buffer[end + 1 : until])
        del self._buffer[:until]
        return head, body

    def set_timeout(self, timeout_s: float) -> None:
        """Of each further call."""
        self._socket.settimeout(timeout_s)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> HubConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
