"""Arithmetic of ring memory, and the configuration's own checks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.recorder.config import RecorderConfig
from tripshark.recorder.memory import LEAST, quota
from tripshark.recorder.ring import MIN_BLOCKS, Counters, shape

MIB = 1 << 20


@given(
    st.integers(1, 64 * MIB),
    st.integers(1, 1024 * MIB),
    st.lists(st.booleans(), max_size=60),
)
def test_quotas_never_exceed_the_total(per_target: int, total: int, arrivals: list[bool]) -> None:
    """Whoever comes when, the sum stays within the machine's budget and each within its own."""
    granted = 0
    for n, late in enumerate(sorted(arrivals)):
        given_now = quota(
            per_target=per_target, total=total, granted=granted, targets=n + 1, late=late
        )
        assert given_now == 0 or LEAST <= given_now <= per_target
        granted += given_now
    assert granted <= total


def test_targets_found_at_the_start_share_alike() -> None:
    """min(per_target, total/targets)."""
    assert (
        quota(per_target=16 * MIB, total=512 * MIB, granted=0, targets=10, late=False) == 16 * MIB
    )
    assert quota(per_target=16 * MIB, total=64 * MIB, granted=0, targets=16, late=False) == 4 * MIB


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
