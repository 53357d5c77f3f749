"""Retention takes the oldest first, never more than it must, and never what is held."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.model.evidence import IncidentId
from tripshark.model.plan import Reason
from tripshark.model.retention import Budget, Kept, overdue, room

KEPT = st.lists(
    st.builds(
        Kept,
        incident=st.integers(0, 10**6).map(lambda number: IncidentId(f"i-{number}")),
        sealed_ns=st.integers(0, 1000),
        bytes=st.integers(0, 1000),
        held=st.booleans(),
    ),
    max_size=20,
    unique_by=lambda each: each.incident,
)


@given(
    kept=KEPT,
    max_bytes=st.integers(0, 5000),
    max_age=st.integers(0, 1000),
    other=st.integers(0, 500),
)
def test_what_is_left_is_within_the_budget_and_nothing_went_in_vain(
    kept: list[Kept], max_bytes: int, max_age: int, other: int
) -> None:
    """Held evidence stays, old evidence goes, the rest fits, and the newest removed one had to go."""
    budget = Budget(max_age_ns=max_age, max_bytes=max_bytes)
    gone = [
        removal.incident
        for removal in overdue(kept, now_ns=1000, budget=budget, other_bytes=other)
    ]
    left = [each for each in kept if each.incident not in gone]
    removed = [next(each for each in kept if each.incident == incident) for incident in gone]
    assert not any(each.held for each in removed)
    assert removed == sorted(removed, key=lambda each: (each.sealed_ns, each.incident))
    if max_age:
        assert all(each.held or 1000 - each.sealed_ns <= max_age for each in left)
    used = sum(each.bytes for each in left) + other
    if max_bytes:
        assert used <= max_bytes or all(each.held for each in left)
    if removed and not (max_age and 1000 - removed[-1].sealed_ns > max_age):
        assert used + removed[-1].bytes > max_bytes > 0


def test_the_reason_is_said() -> None:
    """Each removal says whether age or space was the reason."""
    day = 86_400_000_000_000
    kept = [
        Kept(incident=IncidentId("a"), sealed_ns=0, bytes=10),
        Kept(incident=IncidentId("b"), sealed_ns=39 * day, bytes=5_000_000),
        Kept(incident=IncidentId("c"), sealed_ns=40 * day, bytes=2),
    ]
    budget = Budget(max_age_ns=30 * day, max_bytes=2000)
    assert [
        (each.incident, each.bytes, each.why)
        for each in overdue(kept, now_ns=40 * day, budget=budget)
    ] == [
        ("a", 10, "older than 30 days"),
        ("b", 5_000_000, "the oldest, and all evidence together exceeds 2.0 kB"),
    ]


def test_without_bounds_everything_stays_and_fits() -> None:
    """Zero means no bound."""
    kept = [Kept(incident=IncidentId("a"), sealed_ns=0, bytes=10**12)]
    assert overdue(kept, now_ns=10**18, budget=Budget()) == ()
    assert room(10**9, budget=Budget(), used_bytes=10**12, free_bytes=10**9) is None


@pytest.mark.parametrize(
    ("wanted", "used", "free", "promised", "removable", "fits"),
    [
        (100, 900, 10**9, 0, 0, True),
        (101, 900, 10**9, 0, 0, False),
        (100, 900, 10**9, 1, 0, False),
        (100, 900, 10**9, 1, 1, True),
        (100, 0, 150, 0, 0, True),
        (100, 0, 149, 0, 0, False),
        (100, 0, 149, 1, 2, True),
    ],
)
def test_a_capture_fits_or_is_refused_with_a_hint(
    wanted: int, used: int, free: int, promised: int, removable: int, fits: bool
) -> None:
    """Budget, reserve, promises to running captures and what could be removed all count."""
    answer = room(
        wanted,
        budget=Budget(max_bytes=1000, reserve_bytes=50),
        used_bytes=used,
        free_bytes=free,
        promised_bytes=promised,
        removable_bytes=removable,
    )
    assert (answer is None) is fits
    if answer is not None:
        assert answer.reason is Reason.DISK
        assert "bounds." in answer.hint
        assert "100 bytes" in answer.message or "101 bytes" in answer.message


def test_what_was_never_sent_goes_last_and_for_want_of_space_alone() -> None:
    """Never for its age; where it must go, that is said: whoever looks for it in the store must learn why."""
    sent = Kept(incident=IncidentId("b"), sealed_ns=2, bytes=6)
    unsent = Kept(incident=IncidentId("a"), sealed_ns=1, bytes=6, unsent=True)
    assert overdue([unsent], now_ns=10**18, budget=Budget(max_age_ns=1)) == ()
    (first,) = overdue([unsent, sent], now_ns=3, budget=Budget(max_bytes=6))
    assert first.incident == "b"
    first, second = overdue([unsent, sent], now_ns=3, budget=Budget(max_bytes=5))
    assert second.unsent
    assert "never sent" in second.why
