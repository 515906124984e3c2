"""Network interfaces of this host.

Runs on: executors, inside a Spark task; driver, in local mode.
Takes:   a name from the platform, or an address.
Gives:   ``check_interface``, before gloo would abort on a name that is not there; ``interface_of`` an address.
"""

from __future__ import annotations

import psutil

from pipelines.errors import ResourceError


def check_interface(name: str | None) -> None:
    """Raises ResourceError where this host has no such network interface, naming those it has."""
    there = psutil.net_if_addrs()
    if name is not None and name not in there:
        raise ResourceError("launch.network_interface", f"there is no {name!r} on this host",
                            f"use one of {', '.join(sorted(there))}, or null")


def interface_of(address: str) -> str:
    """The interface that has an address.

    Raises:
        ResourceError: none has.
    """
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return name
    raise ResourceError("launch.network_interface", f"no interface has the address {address}", "name one")
