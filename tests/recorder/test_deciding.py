"""Arithmetic of ring memory, and the configuration's own checks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.recorder.config import RecorderConfig
from tripshark.recorder.memory import (
    FLOOR,
    FLOOR_HEADERS,
    LEAST,
    LEAST_HEADERS,
    Claim,
    Share,
    divide,
)
from tripshark.recorder.ring import MIN_BLOCKS, Counters, shape

MIB = 1 << 20


CLAIMS = st.lists(
    st.builds(
        Claim,
        weight=st.sampled_from([1, 1, 1, 2, 4, 16]),
        headers=st.booleans(),
        halvings=st.integers(0, 8),
        reduced=st.booleans(),
        out=st.booleans(),
    ),
    max_size=60,
)
NEW = st.lists(
    st.builds(Claim, weight=st.sampled_from([1, 1, 2, 4]), headers=st.booleans()), max_size=60
)


def as_claims(claims: Iterable[Claim]) -> dict[int, Claim]:
    return dict(enumerate(claims))


def after(claims: dict[int, Claim], shares: dict[int, Share]) -> dict[int, Claim]:
    """What is known of the same targets the next time."""
    return {
        key: replace(
            claims[key], halvings=share.halvings, reduced=share.reduced, out=share.size == 0
        )
        for key, share in shares.items()
    }


@given(CLAIMS, st.integers(1, 64 * MIB), st.integers(1, 1024 * MIB))
def test_the_total_is_never_exceeded(claims: list[Claim], per_target: int, total: int) -> None:
    """Whatever was before, the sum is within the budget and each within its own; a share is enough for a ring."""
    shares = divide(as_claims(claims), per_target=per_target, total=total)
    assert sum(each.size for each in shares.values()) <= total
    for key, share in shares.items():
        assert share.size <= per_target * claims[key].weight
        least = LEAST_HEADERS if share.reduced or claims[key].headers else LEAST
        assert share.size == 0 or share.size >= least


@given(CLAIMS, st.integers(LEAST, 64 * MIB), st.integers(LEAST, 1024 * MIB))
def test_what_was_divided_stays_so(claims: list[Claim], per_target: int, total: int) -> None:
    """Dividing again changes nothing: no ring is opened anew without a reason."""
    once = divide(as_claims(claims), per_target=per_target, total=total)
    again = divide(after(as_claims(claims), once), per_target=per_target, total=total)
    assert again == once


@given(NEW, st.integers(FLOOR, 64 * MIB), st.integers(LEAST, 1024 * MIB))
def test_the_heavier_are_never_worse_off(claims: list[Claim], per_target: int, total: int) -> None:
    """Among those of the same kind more weight is no less memory; the lightest are reduced, and go, first."""
    shares = divide(as_claims(claims), per_target=per_target, total=total)
    for one, mine in shares.items():
        for other, his in shares.items():
            if (
                claims[one].headers == claims[other].headers
                and claims[one].weight > claims[other].weight
            ):
                assert mine.size >= his.size
                assert mine.reduced <= his.reduced or his.size == 0


@given(NEW, st.integers(FLOOR, 32 * MIB), st.integers(0, 30))
def test_all_is_as_before_when_the_others_have_left(
    claims: list[Claim], per_target: int, left: int
) -> None:
    """However crowded it was: those who stay get all they want once there is enough for them."""
    total = sum(per_target * each.weight for each in claims[:left]) * 4 // 3 + 4
    crowded = divide(as_claims(claims), per_target=per_target, total=total)
    known = after(as_claims(claims), crowded)
    stay = {key: each for key, each in known.items() if key < left}
    shares = divide(stay, per_target=per_target, total=total)
    assert all(shares[key].size == per_target * claims[key].weight for key in stay)


@given(st.integers(1, 150), st.integers(8, 512))
def test_one_pod_more_or_less_disturbs_few(count: int, total_mib: int) -> None:
    """When somebody comes, few others get less; when he leaves again nobody notices."""
    budget = {"per_target": 16 * MIB, "total": total_mib * MIB}
    claims = as_claims([Claim()] * count)
    shares = divide(claims, **budget)
    more = after(claims, shares) | {count: Claim()}
    crowded = divide(more, **budget)
    disturbed = [key for key in claims if crowded[key] != shares[key]]
    assert len(disturbed) <= 5
    fewer = after(more, crowded)
    del fewer[count]
    assert divide(fewer, **budget) == {key: crowded[key] for key in claims}


def test_targets_share_alike() -> None:
    """All of what they want while it lasts, then halves, then headers only for who came last, then nothing."""

    def sizes(count: int, total: int) -> list[int]:
        shares = divide(as_claims([Claim()] * count), per_target=16 * MIB, total=total)
        return [each.size for each in shares.values()]

    assert sizes(10, 512 * MIB) == [16 * MIB] * 10
    assert sizes(16, 64 * MIB) == [4 * MIB] * 16
    assert sizes(3, 40 * MIB) == [16 * MIB, 16 * MIB, 8 * MIB]
    assert sizes(4, 3 * FLOOR) == [FLOOR, FLOOR, FLOOR_HEADERS, FLOOR_HEADERS]
    assert sizes(3, 2 * FLOOR_HEADERS) == [FLOOR_HEADERS, FLOOR_HEADERS, 0]


@given(st.integers(0, 1024 * MIB), st.booleans(), st.integers(64, 262_144))
def test_a_ring_fits_its_budget_and_its_largest_frame(
    budget: int, big: bool, snaplen: int
) -> None:
    """Blocks hold the largest frame that is kept whole; the ring is never bigger than allowed."""
    form = shape(budget, largest_frame=185_000 if big else 65_536, snaplen=snaplen)
    if form is None:
        assert budget < MIN_BLOCKS * 256 * 1024
        return
    assert form.bytes <= budget
    assert form.blocks >= MIN_BLOCKS
    assert form.block >= min(snaplen, 185_000 if big else 65_549)


@pytest.mark.parametrize(
    ("ring", "block"),
    [(10 * MIB, MIB // 2), (40 * MIB, MIB), (5 * MIB // 2, MIB // 8), (MIB, MIB // 8)],
)
def test_blocks_are_as_big_as_twenty_of_them_allow(ring: int, block: int) -> None:
    """Few wake-ups for bigger rings, and twenty minutes of a trickle wherever the memory is there for it."""
    assert shape(ring, largest_frame=65_536, snaplen=262_144) == (block, ring // block)


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(1, 9)), max_size=400))
def test_losses_are_bounded_and_none_is_forgotten(found: list[tuple[int, int]]) -> None:
    """However often packets are lost, the list stays short and its sum is what was lost."""
    counters = Counters()
    for at, packets in sorted(found):
        counters.lost(at, at + 5, packets)
    assert len(counters.losses) <= 256
    assert sum(each[2] for each in counters.losses) == sum(packets for _, packets in found)
    assert counters.losses == sorted(counters.losses)


def test_the_configuration_survives_its_own_json() -> None:
    """What the holder passes to the worker is what it was given."""
    config = RecorderConfig(
        socket="/run/x.sock", group=7, allowed_uids=(1, 2), exclude=("a*",), filter="00" * 8
    )
    assert RecorderConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "wrong",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"socket": 7}),
        json.dumps({"socket": "/x", "total": True}),
        json.dumps({"socket": "/x", "total": 0}),
        json.dumps({"socket": "/x", "colour": "red"}),
        json.dumps({"socket": "/x", "filter": "zz"}),
        json.dumps({"socket": "/x", "filter_raw": "00"}),
        json.dumps({"socket": "/x" * 100}),
        json.dumps({"socket": "/x", "allowed_uids": ["root"]}),
    ],
)
def test_a_wrong_configuration_is_refused(wrong: str) -> None:
    """Each mistake is one clear error at the start."""
    with pytest.raises(BadInput, match=r"configuration"):
        RecorderConfig.from_json(wrong)
