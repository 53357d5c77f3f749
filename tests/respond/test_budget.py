"""Whether one more capture may start."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tripshark.model.plan import Reason
from tripshark.respond.budget import Bounds, Budget

SECOND = 1_000_000_000


def ask(budget: Budget, now_ns: int, *, running: int = 0, on_target: int = 0) -> Reason | None:
    refusal = budget.may_start(
        rule="r", target="t", running=running, on_target=on_target, now_ns=now_ns
    )
    return refusal.reason if refusal else None


def test_a_burst_is_granted_and_then_one_per_refill() -> None:
    """Tokens are spent at once and come back one by one."""
    budget = Budget(Bounds(burst=2, refill_ns=10 * SECOND))
    assert [ask(budget, 0) for _ in range(3)] == [None, None, Reason.RATE]
    assert ask(budget, 9 * SECOND) is Reason.RATE
    assert ask(budget, 10 * SECOND) is None
    assert ask(budget, 11 * SECOND) is Reason.RATE


def test_another_target_has_its_own_tokens() -> None:
    """One noisy pod does not silence the others."""
    budget = Budget(Bounds(burst=1))
    assert ask(budget, 0) is None
    assert ask(budget, 0) is Reason.RATE
    assert budget.may_start(rule="r", target="u", running=0, on_target=0, now_ns=0) is None


def test_too_many_at_once_are_refused_without_spending_a_token() -> None:
    """What is refused for being busy may start as soon as there is room."""
    budget = Budget(Bounds(burst=1, concurrent=3, parts_per_target=2))
    assert ask(budget, 0, running=3) is Reason.BUSY
    assert ask(budget, 0, on_target=2) is Reason.BUSY
    assert ask(budget, 0) is None


def test_every_refusal_says_what_would_change_it() -> None:
    """A hint names the setting."""
    budget = Budget(Bounds(burst=1, concurrent=1))
    refusals = [
        budget.may_start(rule="r", target="t", running=1, on_target=0, now_ns=0),
        budget.may_start(rule="r", target="t", running=0, on_target=9, now_ns=0),
    ]
    assert all(refusal and "bounds." in refusal.hint for refusal in refusals)


@given(times=st.lists(st.integers(min_value=0, max_value=1000), min_size=1, max_size=60))
def test_never_more_than_burst_and_refill_allow(times: list[int]) -> None:
    """Whatever the times of the alerts (also backwards), no window gets more than its share."""
    budget = Budget(Bounds(burst=3, refill_ns=10 * SECOND))
    granted = sum(ask(budget, at * SECOND) is None for at in times)
    rises = sum(max(0, b - a) for a, b in pairwise(times))
    assert granted <= 3 + rises / 10
