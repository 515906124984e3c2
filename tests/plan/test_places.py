"""Seats: every task one rank, replicas together, Horovod's numbers consistent."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipelines.plan.places import place_ranks

hosts_of_tasks = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]), min_size=1, max_size=24)


@given(hosts_of_tasks, st.integers(1, 3))
def test_every_rank_is_given_once_and_each_segment_has_a_ring_whose_numbers_fit(hosts, num_segments):
    hosts = hosts[: len(hosts) // num_segments * num_segments]
    seats = place_ranks(hosts, num_segments)
    assert sorted(seat.rank for seat in seats) == list(range(len(hosts)))
    assert [seat.host for seat in seats] == hosts
    for host, count in Counter(hosts).items():
        assert sorted(s.local_rank for s in seats if s.host == host) == list(range(count))
    for segment in range(num_segments):
        members = [seat for seat in seats if seat.segment_index == segment]
        assert all(seat.rank == seat.ring.rank * num_segments + segment for seat in members)
        assert sorted(seat.ring.rank for seat in members) == list(range(len(hosts) // num_segments))
        per_host = Counter(seat.host for seat in members)
        for seat in members:
            assert (seat.ring.size, seat.ring.local_size) == (len(members), per_host[seat.host])
            same_local = [other for other in members if other.ring.local_rank == seat.ring.local_rank]
            assert seat.ring.cross_size == len(same_local)
            assert sorted(other.ring.cross_rank for other in same_local) == list(range(len(same_local)))
        for host, count in per_host.items():
            assert sorted(s.ring.local_rank for s in members if s.host == host) == list(range(count))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(1, 4), st.randoms())
def test_replicas_share_a_host_wherever_slots_allow(slots_per_host, num_segments, random):
    hosts = [f"10.0.0.{i}" for i, slots in enumerate(slots_per_host) for _ in range(slots)]
    hosts = hosts[: len(hosts) // num_segments * num_segments]
    random.shuffle(hosts)
    by_rank = {seat.rank: seat.host for seat in place_ranks(hosts, num_segments)}
    together = sum(len({by_rank[r] for r in range(first, first + num_segments)}) == 1
                   for first in range(0, len(hosts), num_segments))
    assert together >= sum(count // num_segments for count in Counter(hosts).values())
