"""From what was kept so far to one sealed folder: packets in order, the alert among them, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tripshark.formats.ends import ends
from tripshark.formats.packets import Packets
from tripshark.model.evidence import Entry, Ledger, Manifest, Word
from tripshark.model.filter import kinds
from tripshark.model.incident import Incident, namespaces_of
from tripshark.model.target import Target
from tripshark.ports import AlertRow, Draft
from tripshark.respond import ledger, names
from tripshark.respond.choosing import Chosen, by_linktype, choose, merge, part_of
from tripshark.respond.details import Host, details
from tripshark.respond.names import Book
from tripshark.respond.pcapng_files import ETHERNET, write
from tripshark.respond.sieve import Sieve
from tripshark.respond.spool import PEER, SNAPLEN, PartState, RingNote, parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What became of it."""

    manifest: Manifest
    incident: Incident
    addresses: tuple[str, ...]
    names: Mapping[str, str]
    others: int = 0  # pods beside the incident's own whose packets are in the same file


def seal(
    draft: Draft,
    incident: Incident,
    *,
    alerts: Sequence[AlertRow],
    host: Host,
    neighbours: Sequence[Target] = (),
    addresses: Book | None = None,
    now_ns: int,
    entries: Sequence[Entry] = (),
) -> Sealed:
    """Write `evidence*.pcapng` and the manifest, and seal the draft. Blocks: call it in a thread.

    `entries` is what the caller knows beyond the parts (a restart, a failed recorder), `addresses` the
    history of who held which, beyond the targets and their `neighbours` on this machine.
    Raises `Transient` on a full disk; the draft is then as it was.
    """
    rings: list[RingNote] = []
    index: dict[str, int] = {}
    chosen: list[Chosen] = []
    said: list[Entry] = list(entries)
    for state, packets, problems in parts(draft):
        said += [Entry(kind="salvage", message=text, word=Word.INTERRUPTED) for text in problems]
        for note in state.rings:
            if note.ring not in index:
                index[note.ring] = len(rings)
                rings.append(note)
        own = np.array([index[note.ring] for note in state.rings], dtype=np.uint16)
        if len(packets):
            packets = packets.with_source(own)
        chosen.append(choose(state, packets, rings))
    for part in chosen:
        entries = [*part.entries, *ledger.part_entries(part.state)]
        said += _named_after(part.state, entries) if len(chosen) > 1 else entries
    packets, core = merge(chosen)
    states = [part.state for part in chosen]
    snaplen = max((state.plan.snaplen for state in states), default=SNAPLEN)
    said += _cut(packets, rings, snaplen)
    packets = packets.cut(snaplen)
    said += _kinds(packets, core, rings, states)
    since_ns = min((s.plan.t0_ns - s.plan.before_ns for s in states), default=incident.t0_ns)
    until_ns = max((s.until_ns for s in states), default=incident.t0_ns)
    who = [state.target for state in states]
    both = ends(packets, [ring.linktype for ring in rings])
    owners = [part_of(ring, chosen).state.target for ring in rings]
    people = names.named(
        [*who, *neighbours],
        addresses,
        packets=packets,
        ends=both,
        rings=owners,
        since_ns=since_ns,
        until_ns=until_ns,
        mentioned=_mentioned(alerts),
    )
    said_of = names.comments(people, packets=packets, ends=both, rings=owners)
    named = {address: each.name for address, each in people.items()}
    files = write(
        draft,
        incident,
        packets=packets,
        rings=rings,
        chosen=chosen,
        alerts=alerts,
        host=host,
        named=named,
        said_of=said_of,
        since_ns=since_ns,
        until_ns=until_ns,
    )
    book = Ledger(entries=tuple(said))
    manifest = Manifest(
        incident=incident.id,
        created_ns=now_ns,
        ledger=book,
        files=(),
        details=details(
            incident,
            chosen=chosen,
            rings=rings,
            alerts=alerts,
            host=host,
            packets=packets,
            since_ns=since_ns,
            until_ns=until_ns,
            people=people,
        ),
    )
    manifest = draft.seal(manifest, files)
    return Sealed(
        manifest=manifest,
        incident=replace(
            incident,
            sealed_ns=now_ns,
            packets=len(packets),
            bytes=int(packets.caplen.sum(dtype=np.int64)),
            word=book.word,
            namespaces=namespaces_of(who),
        ),
        addresses=tuple(dict.fromkeys(a for target in who for a in target.addresses)),
        names=named,
        others=max(0, len({s.target.key for s in states if s.role != PEER}) - 1),
    )


def _named_after(state: PartState, entries: Sequence[Entry]) -> list[Entry]:
    """Where there are several parts each says whose it is."""
    title = state.target.title
    return [
        each if title in each.message else replace(each, message=f"{title}: {each.message}")
        for each in entries
    ]


def _cut(packets: Packets, rings: Sequence[RingNote], snaplen: int) -> list[Entry]:
    """Packets of which not all is there: because the recorder kept less, of each or of its flow, or as the rule asks."""
    if not len(packets):
        return []
    lacking = packets.caplen < np.minimum(packets.length, np.uint32(snaplen))
    limits = np.array([ring.flow_cut for ring in rings], dtype=np.int64)[packets.source]
    by_flow, by_rule = lacking & (limits > 0), ~lacking & (packets.length > snaplen)
    in_flow, in_each, in_rule = (
        int(each.sum()) for each in (by_flow, lacking & ~by_flow, by_rule)
    )
    entries = []
    if in_flow:
        limit = int(limits[by_flow].max())
        message = (
            f"{in_flow} packets are longer than what the recorder keeps of each: flow_cut, of a flow's packets "
            f"in each direction {limit} bytes in full, of the others the headers"
        )
        entries.append(Entry(kind="flow_cut", message=message, word=Word.TRUNCATED, count=in_flow))
    if in_each:
        message = f"{in_each} packets are longer than what the recorder keeps of each"
        entries.append(Entry(kind="cut", message=message, word=Word.TRUNCATED, count=in_each))
    if in_rule:
        message = f"the rule keeps {snaplen} bytes of each packet"
        entries.append(Entry(kind="snaplen", message=message, count=in_rule))
    return entries


def _kinds(
    packets: Packets,
    core: NDArray[np.bool_],
    rings: Sequence[RingNote],
    states: Sequence[PartState],
) -> list[Entry]:
    """Fragments and tunnels kept although the filter could not look inside: said, with their number."""
    if not states or not len(packets) or core.all():
        return []
    sieve = Sieve(states[0].plan)
    beside = packets.take(~core)
    counts: dict[str, int] = {}
    for linktype, where in by_linktype(beside, rings).items():
        inside = beside.take(where)
        for kind, expression in kinds(ethernet=linktype == ETHERNET).items():
            found = int(sieve.mask(expression, inside, linktype).sum())
            counts[kind] = counts.get(kind, 0) + found
    return [
        Entry(
            kind=kind,
            message=f"{count} packets are {kind.replace('_', ' ')}: the filter cannot see which flow "
            "is inside, so all of them were kept",
            count=count,
        )
        for kind, count in counts.items()
        if count
    ]


def _mentioned(alerts: Sequence[AlertRow]) -> Iterator[str]:
    """The addresses that alerts name: a service's may be on no packet."""
    for row in alerts:
        connection = row.accepted.alert.connection
        if connection is not None:
            for end in (connection.client, connection.server):
                if end.address is not None:
                    yield str(end.address)
