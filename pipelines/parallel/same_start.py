"""All ranks begin with the same model: what they hold of it is compared before the first step.

Runs on: ranks, all at the same time.
Takes:   a model whose layers are filled, or some of them (the others are on the meta device); the peers.
Gives:   nothing, or the same ``ConfigError`` on every rank.

A factory that draws from numpy's random numbers, or reads a file that differs between hosts, makes another model on every
rank. Averaged gradients would hide that: every copy learns, and none is the model that is reported and saved.

Worked example: 1 replica of 2 segments, a GPT with tied embeddings. Rank 0 holds ``embedding`` and ``block_0``, rank 1
``block_1`` and ``head``, which shares ``embedding.token.weight``: of all names, that one is compared.
"""

from __future__ import annotations

import socket
import zlib

import torch
from torch import Tensor

from pipelines.errors import ConfigError, SparkringError
from pipelines.models.layered import LayeredModel, bits_of
from pipelines.parallel.peers import Peers

REMEDY = ("its factory must build the same on every rank: draw initial values from torch's random numbers, which are seeded "
          "with train.seed, and read only files that are equal on all hosts")
_HOST_BYTES = 64


def check_same_start(model: LayeredModel, peers: Peers) -> None:
    """Compares the values of every parameter and buffer that more than one rank holds; the structure is equal already.

    Raises:
        ConfigError: two ranks differ; it names both, their hosts, and the first value that differs.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    told_RN = _told_by_all([_checksum(value) for _, value in named], "same.start", peers)
    for (name, _), told_R in zip(named, told_RN.T, strict=True):
        holders = told_R.nonzero().flatten().tolist()
        others = [rank for rank in holders if told_R[rank] != told_R[holders[0]]]
        if others:
            raise _refusal(name, holders[0], others[0], peers)


def _checksum(value: Tensor) -> int:
    """Above 0; 0 for a value that this rank does not hold."""
    if value.is_meta:
        return 0
    return zlib.crc32(bits_of(value.cpu()).numpy().data) + 1


def _told_by_all(own: list[int], what: str, peers: Peers) -> Tensor:
    """One row per rank, int64: a sum in which every rank fills its own."""
    told_RN = torch.zeros(peers.place.num_ranks, len(own), dtype=torch.float64)  # exact up to 2^53
    told_RN[peers.place.rank] = torch.tensor(own, dtype=torch.float64)
    return peers.sum(told_RN, what).long()


def _refusal(name: str, rank: int, other: int, peers: Peers) -> ConfigError:
    """Hosts are told only now; all ranks have found the same difference."""
    host = socket.gethostname().encode()[:_HOST_BYTES]
    told_RN = _told_by_all(list(host.ljust(_HOST_BYTES, b" ")), "same.start.hosts", peers)
    hosts = [bytes(row).decode(errors="replace").strip() for row in told_RN.tolist()]
    return ConfigError(SparkringError("model", f"{name} on rank {other} ({hosts[other]}) is not what rank {rank} "
                                      f"({hosts[rank]}) has before the first step", REMEDY))
