"""What goes over a connection to the hub: a line of JSON, and behind it as many bytes as the line says.

Runs on: driver, Spark tasks and ranks (pure).
Takes:   a head, which is a JSON object, and a body of bytes.
Gives:   ``message_of`` and ``head_of``; the proofs of the handshake; the bounds of everything.

    hub   {"hub": 1, "nonce": N}                                        as soon as somebody has connected
    guest {"guest": "rank", "rank": 3, "nonce": M, "proof": P}          P = HMAC(secret, "guest" N M "rank" 3)
    hub   {"proof": Q, ...}                                             Q = HMAC(secret, "hub" N M "rank" 3), and a welcome

Both show that they know the launch's secret, which never travels, and neither proof is of use in another connection. Whoever
does not prove it learns nothing and is heard no further. Then a guest of each kind says (and hears):

    rank     {"records": FIRST, "count": K, "dropped": D} and K lines        ({"lines": how many of this rank the hub has})
    task     {"log": PATH, "host": HOST}                                     ({"taken": 1})
             {"exit": CODE, "time_s": T, "state": S, "host": HOST} and the log     ({"taken": 1}); ({"stop": 1} at any time)
    segment  {"ask": "set" | "get" | "add" | ..., ...} and a value           ({"answer": ...} and a value)
    all      {} every few seconds, where there is nothing else to say        ({})
"""

from __future__ import annotations

import hmac
import json
from typing import Any

FORMAT = 1
GUESTS = ("rank", "task", "segment")
HANDSHAKE_BYTES = 512  # of a line, before its sender has shown that it may speak
HEAD_BYTES = 16 * 1024
BODY_BYTES = 16 * 2**20
NONCE_BYTES = 16
HANDSHAKE_S = 10.0
HEARTBEAT_S = 5.0
SILENCE_S = 30.0  # of the hub, after which a rank ends itself: its driver is gone, and nobody would ever end it


class ProtocolError(ValueError):
    """What came is not what the protocol has."""


def message_of(head: dict[str, Any], body: bytes = b"") -> bytes:
    """As it is sent."""
    return json.dumps({**head, "bytes": len(body)} if body else head).encode() + b"\n" + body


HEARTBEAT = message_of({})


def head_of(line: bytes | bytearray) -> dict[str, Any]:
    """Raises ProtocolError for what is no JSON object."""
    try:
        head = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("no JSON") from error
    if not isinstance(head, dict):
        raise ProtocolError("no object")
    return head


def whole_number(head: dict[str, Any], name: str, most: int, least: int = 0) -> int:
    """A field's value; raises ProtocolError where it is not a whole number within the bounds."""
    value = head.get(name)
    if type(value) is not int or not least <= value <= most:
        raise ProtocolError(f"{name} is not a number from {least} to {most}")
    return value


def finite_number(head: dict[str, Any], name: str, least: float, most: float) -> float:
    """The same of any number."""
    value = head.get(name)
    if not isinstance(value, int | float) or not least <= value <= most:
        raise ProtocolError(f"{name} is not a number from {least:g} to {most:g}")
    return value


def short_text(head: dict[str, Any], name: str, most: int = 1024) -> str:
    """A field's value; raises ProtocolError where it is not a text of at most so many characters."""
    value = head.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise ProtocolError(f"{name} is not a text of at most {most} characters")
    return value


def body_length(head: dict[str, Any]) -> int:
    """How many bytes follow the line."""
    return whole_number(head, "bytes", BODY_BYTES) if "bytes" in head else 0


def proof_of(secret: bytes, by: str, nonces: tuple[str, str], guest: str, rank: int) -> str:
    """That ``by`` ("guest" or "hub") knows the secret. nonces: the hub's and the guest's, of this one connection."""
    return hmac.digest(secret, json.dumps([by, *nonces, guest, rank]).encode(), "sha256").hex()
