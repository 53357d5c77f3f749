"""Which of the packets that were kept become evidence: the narrowest rung that matched, each packet once, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tripshark.formats.packets import Packets, concat
from tripshark.model.evidence import Entry
from tripshark.respond.sieve import Sieve
from tripshark.respond.spool import PartState, RingNote


@dataclass(slots=True)
class Chosen:
    """One part after its rung was chosen: the packets that stay, over the rings of all parts."""

    state: PartState
    rung: int
    packets: Packets
    core: NDArray[np.bool_]
    entries: list[Entry]


def choose(state: PartState, packets: Packets, rings: Sequence[RingNote]) -> Chosen:
    """The narrowest rung whose core is there; what is kept beside it keeps to the window."""
    sieve = Sieve(state.plan)
    plan, until_ns = state.plan, state.until_ns
    groups = by_linktype(packets, rings)
    rung = next(
        (
            each
            for each in range(len(plan.rungs))
            if any(
                sieve.matches(packets.take(where), linktype, each, until_ns=until_ns)
                for linktype, where in groups.items()
            )
        ),
        len(plan.rungs) - 1,
    )
    core = np.zeros(len(packets), dtype=np.bool_)
    also = np.zeros(len(packets), dtype=np.bool_)
    for linktype, where in groups.items():
        kept = sieve.keep(packets.take(where), linktype, rung, until_ns=until_ns)
        core[where] = kept.core
    first_ns = int(packets.time_ns[core].min()) if core.any() else plan.t0_ns
    since_ns = min(first_ns, plan.t0_ns) - plan.before_ns
    for linktype, where in groups.items():
        kept = sieve.keep(
            packets.take(where), linktype, rung, until_ns=until_ns, also_since_ns=since_ns
        )
        also[where] = kept.also
    entries = list(sieve.entries)
    if rung:
        entries.append(
            Entry(
                kind="widened",
                message=f"nothing matched the {plan.rungs[0].scope} filter "
                f"({plan.rungs[0].core}); widened to {plan.rungs[rung].scope}",
            )
        )
    stays = core | also
    return Chosen(state, rung, packets.take(stays), core[stays], entries)


def by_linktype(packets: Packets, rings: Sequence[RingNote]) -> dict[int, NDArray[np.intp]]:
    if not len(packets):
        return {}
    linktypes = np.array([ring.linktype for ring in rings], dtype=np.int64)[packets.source]
    return {int(each): np.flatnonzero(linktypes == each) for each in np.unique(linktypes)}


def merge(chosen: Sequence[Chosen]) -> tuple[Packets, NDArray[np.bool_]]:
    """All parts in time order, each packet of a ring once."""
    packets = concat([part.packets for part in chosen])
    core = (
        np.concatenate([part.core for part in chosen]) if chosen else np.zeros(0, dtype=np.bool_)
    )
    if not len(packets):
        return packets, core
    order = np.lexsort((~core, packets.pos, packets.seq, packets.source))
    same = (
        (packets.source[order][1:] == packets.source[order][:-1])
        & (packets.seq[order][1:] == packets.seq[order][:-1])
        & (packets.pos[order][1:] == packets.pos[order][:-1])
    )
    once = np.sort(order[np.concatenate(([True], ~same))])
    once = once[np.argsort(packets.time_ns[once], kind="stable")]
    return packets.take(once), core[once]


def part_of(ring: RingNote, chosen: Sequence[Chosen]) -> Chosen:
    return next(p for p in chosen if any(r.ring == ring.ring for r in p.state.rings))
