"""What one incident's evidence is missing, in entries a court can follow."""

from __future__ import annotations

from collections.abc import Iterable

from tripshark.model.evidence import Entry, Word
from tripshark.respond.spool import PartState, RingNote

SLACK_NS = 50_000_000  # a window that begins this much late is not called late


def part_entries(state: PartState) -> Iterable[Entry]:
    """Everything one capture knows to be missing or worth saying."""
    yield from _merged(state.entries)
    yield from _window_start(state)
    if state.ended == "gone":
        yield Entry(
            kind="target_gone",
            message=f"{state.target.title} ended during the window; nothing could follow",
            from_ns=max((ring.closed_ns for ring in state.rings), default=0),
        )
    for ring in state.rings:
        yield from _ring_entries(state, ring)


def _merged(entries: Iterable[Entry]) -> Iterable[Entry]:
    """The same sentence twice is one entry with the counts added."""
    merged: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        key = (entry.kind, entry.message)
        before = merged.get(key)
        merged[key] = (
            entry
            if before is None
            else Entry(
                kind=entry.kind,
                message=entry.message,
                word=entry.word,
                count=before.count + entry.count,
                from_ns=before.from_ns,
                to_ns=entry.to_ns or entry.from_ns,
            )
        )
    yield from merged.values()


def _window_start(state: PartState) -> Iterable[Entry]:
    asked_ns = state.plan.t0_ns - state.plan.before_ns
    if state.expired_ns > asked_ns:
        yield Entry(
            kind="expired",
            message="part of the history asked for had been discarded for age or memory",
            word=Word.EXPIRED,
            from_ns=asked_ns,
            to_ns=state.expired_ns,
        )
    for ring in state.rings:
        began_ns = ring.opened_ns
        late = began_ns > asked_ns + SLACK_NS and began_ns < state.until_ns
        if late and not state.target.seen_born and not _goes_on(ring, state.rings):
            # nothing was cut, lost or forgotten: what was recorded is whole, and this says since when
            yield Entry(
                kind="recording_began",
                message=f"recording of {ring.interface.name} began only "
                f"{_relative(began_ns, state.plan.t0_ns)}",
                from_ns=asked_ns,
                to_ns=began_ns,
            )
        if ring.first_seq > 1 and ring.oldest_ns > asked_ns + SLACK_NS:
            yield Entry(
                kind="window_start",
                message=f"the ring of {ring.interface.name} reached back only to "
                f"{_relative(ring.oldest_ns, state.plan.t0_ns)}",
                word=Word.EXPIRED,
                from_ns=asked_ns,
                to_ns=ring.oldest_ns,
            )


def _goes_on(ring: RingNote, others: Iterable[RingNote]) -> bool:
    """Whether an earlier ring of the same interface recorded up to where this one began."""
    return any(
        each.interface.ifindex == ring.interface.ifindex
        and each.opened_ns < ring.opened_ns <= each.closed_ns
        for each in others
    )


def _ring_entries(state: PartState, ring: RingNote) -> Iterable[Entry]:
    since_ns, until_ns = state.plan.t0_ns - state.plan.before_ns, state.until_ns
    name = ring.interface.name
    lost = [loss for loss in ring.losses if loss[1] >= since_ns and loss[0] <= until_ns]
    if lost:
        yield Entry(
            kind="kernel_drops",
            message=f"the kernel could not record {sum(n for _, _, n in lost)} packets of {name}",
            word=Word.TRUNCATED,
            count=sum(n for _, _, n in lost),
            from_ns=lost[0][0],
            to_ns=lost[-1][1],
        )
    for from_ns, to_ns in ring.gaps:
        if to_ns >= since_ns and from_ns <= until_ns:
            yield Entry(
                kind="recorder_gap",
                message=f"{name} was not recorded while the recorder was restarting",
                word=Word.TRUNCATED,
                from_ns=from_ns,
                to_ns=to_ns,
            )
    if ring.overwritten:
        yield Entry(
            kind="overwritten",
            message=f"{ring.overwritten} blocks of {name} were overwritten before they were copied",
            word=Word.TRUNCATED,
            count=ring.overwritten,
        )


def _relative(at_ns: int, t0_ns: int) -> str:
    seconds = (at_ns - t0_ns) / 1e9
    return f"{abs(seconds):.1f} s {'before' if seconds < 0 else 'after'} the alert"
