"""What the ledger says of how far back a recording reaches."""

from __future__ import annotations

import pytest

from tripshark.model.evidence import Word
from tripshark.model.filter import Rung, Scope
from tripshark.model.plan import Plan
from tripshark.model.target import Interface, Target, TargetKey, TargetKind
from tripshark.respond.ledger import part_entries
from tripshark.respond.spool import PartState, RingNote

S = 1_000_000_000


def note(ring: str, ifindex: int, opened_s: int, closed_s: int = 0) -> RingNote:
    return RingNote(
        ring=ring,
        interface=Interface(name=f"eth{ifindex}", ifindex=ifindex, hardware_type=1),
        snaplen=262_144,
        opened_ns=opened_s * S,
        closed_ns=closed_s * S,
    )


def part(*rings: RingNote) -> PartState:
    target = Target(
        key=TargetKey("t"), kind=TargetKind.NETNS, name="netns:shop", inode=7, since_ns=S
    )
    plan = Plan(
        rule="R",
        rule_hash="",
        target=target.key,
        t0_ns=100 * S,
        before_ns=60 * S,
        after_ns=S,
        idle_ns=0,
        scope=Scope.POD,
        rungs=(Rung(scope=Scope.POD, core=""),),
        snaplen=262_144,
    )
    return PartState(number=0, plan=plan, target=target, until_ns=110 * S, rings=list(rings))


@pytest.mark.parametrize(
    ("rings", "late"),
    [
        ([note("a", 1, 50)], [50]),
        ([note("a", 1, 2, 80), note("b", 1, 80)], []),
        ([note("a", 1, 2, 80), note("b", 1, 70)], []),
        ([note("a", 1, 2, 79), note("b", 1, 80)], [80]),
        ([note("a", 2, 2, 90), note("b", 1, 80)], [80]),
        ([note("a", 1, 50, 80), note("b", 1, 80)], [50]),
    ],
)
def test_a_ring_that_takes_over_from_another_did_not_begin_late(
    rings: list[RingNote], late: list[int]
) -> None:
    """Only where no earlier ring of the same interface recorded up to its opening."""
    found = [each for each in part_entries(part(*rings)) if each.kind == "recording_began"]
    assert [each.to_ns for each in found] == [each * S for each in late]
    assert all(each.word is Word.COMPLETE for each in found)
