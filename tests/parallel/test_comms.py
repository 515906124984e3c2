"""The ring: sums are right, equal on all ranks, at every width of the wire."""

import pytest

from tests.rank_processes import run_ranks

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
