"""Who holds a claim, and whether it lives: seen at once where that process is on this host.

Runs on: driver.
Takes:   what the kernel says of hosts and processes.
Gives:   ``Holder``; ``this_process``.

A process is told by its number and the moment it started: numbers are given again. Whether it is *here* is told by the kernel's
boot (another host, or this one before it was started again, has another) and by the process namespace (a container's
numbers are not the host's). Where one of these cannot be told, a holder is as one on another host.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


@dataclass(frozen=True)
class Holder:
    """Empty strings: what could not be told."""

    host: str = ""
    boot_id: str = ""
    pid_namespace: str = ""
    pid: int = 0
    started: str = ""  # in ticks since the boot

    @property
    def is_here(self) -> bool:
        """Whether this process sees it, if it lives."""
        own = host_facts()
        return all(own) and (self.host, self.boot_id, self.pid_namespace) == own

    @property
    def lives(self) -> bool | None:
        """None where it cannot be seen from here."""
        if not (self.is_here and self.started):
            return None
        started = _started(self.pid)
        return None if started is None and _is_hidden(self.pid) else started == self.started

    @staticmethod
    def of(content: dict[str, Any]) -> Holder:
        """As it was written down; unknown where another version of this project wrote it."""
        try:
            return Holder(str(content["host"]), str(content["boot_id"]), str(content["pid_namespace"]), int(content["pid"]),
                          str(content["started"]))
        except (KeyError, TypeError, ValueError):
            return Holder()


def this_process() -> Holder:
    return Holder(*host_facts(), os.getpid(), _started(os.getpid()) or "")


def host_facts() -> tuple[str, str, str]:
    """Name, boot and process namespace."""
    return socket.gethostname(), _content(_PROC / "sys/kernel/random/boot_id").strip(), _pid_namespace()


def _pid_namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process of this host started; None where there is none, or one that has ended and is not buried yet."""
    facts = _content(_PROC / str(pid) / "stat").rpartition(")")[2].split()  # before it: the program's name, whatever is in that
    return facts[19] if len(facts) > 19 and facts[0] not in ("Z", "X") else None


def _is_hidden(pid: int) -> bool:
    """Whether the process is there, and is another user's of which nothing can be read (``hidepid``)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not (_PROC / str(pid) / "stat").exists()
    except OSError:
        return False
    return False


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
