"""The ring: sums are right, equal on all ranks, at every width of the wire."""

import pytest

from tests.support.rank_processes import run_ranks

pytestmark = pytest.mark.processes

SUMS = """
import torch
def rank_main(ring, argument):
    rank, n = ring.place.rank, ring.place.num_ranks
    values = torch.arange(7, dtype=torch.float32) * (rank + 1)
    ring.sum(values, "plain")
    early = torch.full((5,), float(rank))
    finish = ring.start_sum(early, "early")
    finish()
    narrow = {}
    for wire in (torch.float16, torch.bfloat16):
        part = torch.linspace(-1, 1, 13) * (rank + 1)
        ring.start_narrow_sum(part, wire, f"narrow.{wire}")()
        narrow[str(wire)] = part.tolist()
    return {"plain": values.tolist(), "early": early.tolist(), "narrow": narrow}
"""


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_sums_are_the_same_and_right_on_every_rank(tmp_path, num_ranks):
    results = run_ranks(SUMS, num_ranks, tmp_path)
    factor = sum(range(1, num_ranks + 1))
    for result in results:
        assert result == results[0]
        assert result["plain"] == [i * factor for i in range(7)]
        assert result["early"] == [sum(range(num_ranks))] * 5
        for wire, tolerance in (("torch.float16", 2e-3), ("torch.bfloat16", 2e-2)):
            exact = [(-1 + 2 * i / 12) * factor for i in range(13)]
            assert result["narrow"][wire] == pytest.approx(exact, rel=tolerance, abs=tolerance * factor)


LOST = """
import json, os, time
import torch
from pipelines.parallel.ring import PeerLostError
def rank_main(ring, wire):
    ring.sum(torch.ones(3), "met")
    if ring.place.rank == 1:
        os._exit(0)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # once its thread has noticed the loss, Horovod refuses new sums
        try:
            if wire is None:
                ring.start_sum(torch.ones(3), "alone")()
            else:
                ring.start_narrow_sum(torch.ones(3), torch.bfloat16, "alone")()
        except PeerLostError as error:
            seen = [str(error)]
            time.sleep(1.0)
            try:
                ring.start_sum(torch.ones(3), "later")
            except PeerLostError as later:
                print("RESULT " + json.dumps(seen + [str(later)]), flush=True)
                os._exit(0)
"""


@pytest.mark.parametrize("wire", [None, "bf16"])
def test_a_lost_peer_is_an_error_of_its_own_where_a_sum_ends_and_where_one_is_started(tmp_path, wire):
    waiting, starting = run_ranks(LOST, 2, tmp_path, wire, ranks_heard=1)[0]
    assert waiting.startswith("rank 0: a peer left")
    assert starting.startswith("rank 0: a peer left")
