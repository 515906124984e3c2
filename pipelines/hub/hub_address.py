"""Where the hub of one launch listens, and the secret that lets in.

Runs on: driver, Spark tasks and ranks.
Takes:   nothing; or the environment that a rank was started with.
Gives:   ``HubAddress``; the variables that tell a rank of it, and ``taken_address``, which leaves none of them behind.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field

ADDRESS, SECRET, RANK = "SPARKRING_HUB", "SPARKRING_HUB_SECRET", "SPARKRING_HUB_RANK"


@dataclass(frozen=True)
class HubAddress:
    """It travels inside the Spark tasks of its launch, and in the environment of the ranks that they start; nowhere else."""

    host: str  # numeric
    port: int
    secret: bytes = field(repr=False)

    def variables(self, rank: int) -> dict[str, str]:
        """What a rank is to find in its environment."""
        return {ADDRESS: f"{self.host}:{self.port}", SECRET: self.secret.hex(), RANK: str(rank)}


def taken_address(environment: MutableMapping[str, str]) -> tuple[HubAddress, int] | None:
    """The hub and this rank's number, taken out of the environment so that nothing which the rank starts has the secret.

    None where there is no hub: a rank that was started by hand.
    """
    told = [environment.pop(name, "") for name in (ADDRESS, SECRET, RANK)]
    if not all(told):
        return None
    host, _, port = told[0].rpartition(":")
    return HubAddress(host, int(port), bytes.fromhex(told[1])), int(told[2])
