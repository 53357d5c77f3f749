"""A client's bucket: its burst at once, then its rate, and a bounded memory of clients."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tripshark.ingest.rate import MAX_CLIENTS, ClientRate


@given(steps=st.lists(st.floats(min_value=0, max_value=3), max_size=200))
def test_no_client_gets_more_than_burst_and_rate(steps: list[float]) -> None:
    """Over any stretch from the start: at most burst + rate x time."""
    rate, now, taken = ClientRate(per_second=2, burst=5), 0.0, 0
    for step in steps:
        now += step
        taken += rate.wait("10.0.0.1", now) == 0
        assert taken <= 5 + 2 * now + 1e-6


def test_waiting_as_told_is_enough() -> None:
    """The seconds answered are those after which the next alert is taken."""
    rate = ClientRate(per_second=0.5, burst=1)
    assert rate.wait("a", 0) == 0
    assert rate.wait("a", 0) == 2
    assert rate.wait("b", 0) == 0
    assert rate.wait("a", 2) == 0


def test_one_ipv6_network_is_one_client() -> None:
    """Whoever owns a /64 cannot have a bucket per address."""
    rate = ClientRate(per_second=1, burst=1)
    assert rate.wait("2001:db8::1", 0) == 0
    assert rate.wait("2001:db8::2", 0) > 0
    assert rate.wait("2001:db8:0:1::2", 0) == 0
    assert rate.wait("fe80::1%eth0", 0) == 0
    assert rate.wait(":nonsense:", 0) == 0


def test_memory_is_bounded_and_zero_means_no_limit() -> None:
    """Ten thousand clients leave the newest few thousand; without a rate nothing is kept."""
    rate = ClientRate(per_second=1, burst=1)
    for n in range(MAX_CLIENTS + 100):
        rate.wait(f"c{n}", 0)
    assert len(rate._buckets) == MAX_CLIENTS
    assert ClientRate(per_second=0, burst=1).wait("c", 0) == 0
