"""From what was kept so far to one sealed folder: packets in order, the alert among them, and what is missing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tripshark.formats import pcapng
from tripshark.formats.ends import ends
from tripshark.formats.packets import Packets, concat
from tripshark.model.alert import Json
from tripshark.model.evidence import Entry, Ledger, Manifest, Word
from tripshark.model.filter import Scope, kinds
from tripshark.model.incident import Incident, namespaces_of
from tripshark.model.target import Target
from tripshark.ports import AlertRow, Draft
from tripshark.respond import ledger, names
from tripshark.respond.names import Book
from tripshark.respond.rows import alert_fields
from tripshark.respond.sieve import Sieve
from tripshark.respond.spool import PEER, SNAPLEN, PartState, RingNote, parts

ETHERNET = 1
RAW_IP = 101
_SUFFIX = {ETHERNET: "", RAW_IP: "-raw"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine as the manifest tells of it."""

    name: str
    kernel: str
    clock_source: str
    clock: Mapping[str, Json] = field(
        default_factory=dict
    )  # adjtimex: synchronised, offset, error
    tools: Mapping[str, Json] = field(default_factory=dict)  # {"tripshark": "0.1.0", …}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What became of it."""

    manifest: Manifest
    incident: Incident
    addresses: tuple[str, ...]
    names: Mapping[str, str]
    others: int = 0  # pods beside the incident's own whose packets are in the same file


@dataclass(slots=True)
class _Chosen:
    """One part after its rung was chosen: the packets that stay, over the rings of all parts."""

    state: PartState
    rung: int
    packets: Packets
    core: NDArray[np.bool_]
    entries: list[Entry]


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
    chosen: list[_Chosen] = []
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
        chosen.append(_choose(state, packets, rings))
    for part in chosen:
        entries = [*part.entries, *ledger.part_entries(part.state)]
        said += _named_after(part.state, entries) if len(chosen) > 1 else entries
    packets, core = _merge(chosen)
    states = [part.state for part in chosen]
    snaplen = max((state.plan.snaplen for state in states), default=SNAPLEN)
    said += _cut(packets, rings, snaplen)
    packets = packets.cut(snaplen)
    said += _kinds(packets, core, rings, states)
    since_ns = min((s.plan.t0_ns - s.plan.before_ns for s in states), default=incident.t0_ns)
    until_ns = max((s.until_ns for s in states), default=incident.t0_ns)
    who = [state.target for state in states]
    both = ends(packets, [ring.linktype for ring in rings])
    owners = [_part_of(ring, chosen).state.target for ring in rings]
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
    files = _write(
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
        details=_details(
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


def _choose(state: PartState, packets: Packets, rings: Sequence[RingNote]) -> _Chosen:
    """The narrowest rung whose core is there; what is kept beside it keeps to the window."""
    sieve = Sieve(state.plan)
    plan, until_ns = state.plan, state.until_ns
    groups = _by_linktype(packets, rings)
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
    return _Chosen(state, rung, packets.take(stays), core[stays], entries)


def _named_after(state: PartState, entries: Sequence[Entry]) -> list[Entry]:
    """Where there are several parts each says whose it is."""
    title = state.target.title
    return [
        each if title in each.message else replace(each, message=f"{title}: {each.message}")
        for each in entries
    ]


def _by_linktype(packets: Packets, rings: Sequence[RingNote]) -> dict[int, NDArray[np.intp]]:
    if not len(packets):
        return {}
    linktypes = np.array([ring.linktype for ring in rings], dtype=np.int64)[packets.source]
    return {int(each): np.flatnonzero(linktypes == each) for each in np.unique(linktypes)}


def _merge(chosen: Sequence[_Chosen]) -> tuple[Packets, NDArray[np.bool_]]:
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
    for linktype, where in _by_linktype(beside, rings).items():
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


def _write(
    draft: Draft,
    incident: Incident,
    *,
    packets: Packets,
    rings: Sequence[RingNote],
    chosen: Sequence[_Chosen],
    alerts: Sequence[AlertRow],
    host: Host,
    named: Mapping[str, str],
    said_of: Mapping[int, Sequence[str]],
    since_ns: int,
    until_ns: int,
) -> list[str]:
    """One file per link type and end; `evidence.pcapng` always exists, also when nothing was seen.

    The other end of a conversation has files of its own: the same packets twice in one file look like
    retransmissions to whoever reads it.
    """
    groups = _by_file(packets, rings, chosen)
    files: list[str] = []
    target = chosen[0].state.target if chosen else None
    rows = [(row.accepted.alert.time_ns, alert_fields(row, incident, target)) for row in alerts]
    rows.sort(key=lambda row: row[0])
    for name, (linktype, used, where) in groups.items():
        own = packets.take(where)
        place = np.zeros(max(len(rings), 1), dtype=np.uint16)
        for number, ring in enumerate(used):
            place[ring] = number
        own = own.with_source(place) if len(own) else own
        interfaces = [_interface(rings[ring], chosen, linktype) for ring in used]
        draft.remove(name)  # of an earlier try that was cut off
        with draft.create(name) as out:
            pcapng.write(
                out,
                section=pcapng.Section(
                    comments=_comments(incident, chosen, alerts),
                    hardware=host.name,
                    os=host.kernel,
                    application=f"Tripshark {host.tools.get('tripshark', '')}",
                ),
                interfaces=interfaces or [pcapng.Interface(name="none", linktype=linktype)],
                names=named,
                packets=own,
                rows=rows,
                statistics=[
                    pcapng.Statistics(
                        interface=number,
                        start_ns=max(since_ns, rings[ring].opened_ns),
                        end_ns=rings[ring].closed_ns or until_ns,
                        received=rings[ring].seen,
                        dropped=_drops(rings[ring], since_ns, until_ns),
                    )
                    for number, ring in enumerate(used)
                ],
                comments=_packet_comments(own, where, linktype, chosen, alerts, said_of),
            )
        files.append(name)
    return files


def _by_file(
    packets: Packets, rings: Sequence[RingNote], chosen: Sequence[_Chosen]
) -> dict[str, tuple[int, list[int], NDArray[np.intp]]]:
    """File → its link type, its rings and its packets. Rings without a packet are told with the first file of their end."""
    kinds_of = [(_part_of(ring, chosen).state.role, ring.linktype) for ring in rings]
    busy = {kinds_of[int(each)] for each in np.unique(packets.source)} if len(packets) else set()
    found: dict[str, tuple[int, list[int], NDArray[np.intp]]] = {}
    for role in ("", PEER):
        linktypes = sorted({linktype for r, linktype in busy if r == role})
        there = [each for r, each in kinds_of if r == role]
        if not linktypes and (there or not role):
            linktypes = [there[0] if there else ETHERNET]
        for linktype in linktypes:
            used = [i for i, kind in enumerate(kinds_of) if kind == (role, linktype)]
            suffix = _SUFFIX.get(linktype, f"-{linktype}")
            if ETHERNET not in linktypes and linktype == linktypes[0]:
                suffix = ""
            where = (
                np.flatnonzero(np.isin(packets.source, used))
                if len(packets)
                else np.zeros(0, dtype=np.intp)
            )
            end = f"-{role}" if role else ""
            found[f"evidence{end}{suffix}.pcapng"] = (linktype, used, where)
    return found


def _interface(ring: RingNote, chosen: Sequence[_Chosen], linktype: int) -> pcapng.Interface:
    part = _part_of(ring, chosen)
    target, plan = part.state.target, part.state.plan
    kind = "pod" if target.identity.pod else "netns"
    return pcapng.Interface(
        name=f"{target.title}:{ring.interface.name}",
        description=f"{kind} {target.title} {ring.interface.name}",
        linktype=linktype,
        snaplen=SNAPLEN,
        filter=plan.rungs[part.rung].core,
        mac=ring.interface.mac,
        addresses=ring.interface.addresses,
        os="Linux",
    )


def _part_of(ring: RingNote, chosen: Sequence[_Chosen]) -> _Chosen:
    return next(p for p in chosen if any(r.ring == ring.ring for r in p.state.rings))


def _mentioned(alerts: Sequence[AlertRow]) -> Iterator[str]:
    """The addresses that alerts name: a service's may be on no packet."""
    for row in alerts:
        connection = row.accepted.alert.connection
        if connection is not None:
            for end in (connection.client, connection.server):
                if end.address is not None:
                    yield str(end.address)


def _drops(ring: RingNote, since_ns: int, until_ns: int) -> int:
    return sum(n for start, end, n in ring.losses if end >= since_ns and start <= until_ns)


def _comments(
    incident: Incident, chosen: Sequence[_Chosen], alerts: Sequence[AlertRow]
) -> tuple[str, ...]:
    """What a person reads under Capture File Properties."""
    about = f"{incident.falco_rule} ({incident.priority}) in {incident.title}"
    lines = [
        f"Tripshark incident {incident.id}: {about}; {incident.alerts} alerts, {len(alerts)} shown"
    ]
    for part in chosen:
        rung = part.state.plan.rungs[part.rung]
        whose = f"{part.state.target.title}, " if len(chosen) > 1 else ""
        lines.append(
            f"{whose}scope {rung.scope}: {rung.reason}; filter: {rung.core or 'everything'}"
        )
    return tuple(lines)


def _packet_comments(
    packets: Packets,
    where: NDArray[np.intp],
    linktype: int,
    chosen: Sequence[_Chosen],
    alerts: Sequence[AlertRow],
    said_of: Mapping[int, Sequence[str]],
) -> dict[int, list[str]]:
    """What is said of a file's packets; `where` is each one's row in the evidence, `said_of` by that."""
    found = _flow_comments(packets, linktype, chosen, alerts)
    if said_of:
        for number, row in enumerate(where.tolist()):
            if row in said_of:
                found.setdefault(number, []).extend(said_of[row])
    return found


def _flow_comments(
    packets: Packets, linktype: int, chosen: Sequence[_Chosen], alerts: Sequence[AlertRow]
) -> dict[int, list[str]]:
    """A comment on the first packet of each flow that an alert names."""
    found: dict[int, list[str]] = {}
    if not len(packets):
        return found
    for part in chosen:
        plan = part.state.plan
        if plan.rungs[0].scope is not Scope.FLOW:
            continue
        sieve = Sieve(plan)
        core = sieve.keep(packets, linktype, 0, until_ns=part.state.until_ns).core
        if core.any():
            about = next(
                (r.accepted.id for r in alerts if r.accepted.alert.time_ns == plan.t0_ns), ""
            )
            text = f"First packet of the flow named by alert {about}".strip()
            found.setdefault(int(np.argmax(core)), []).append(text)
    return found


def _details(
    incident: Incident,
    *,
    chosen: Sequence[_Chosen],
    rings: Sequence[RingNote],
    alerts: Sequence[AlertRow],
    host: Host,
    packets: Packets,
    since_ns: int,
    until_ns: int,
    people: Mapping[str, names.Named],
) -> dict[str, Json]:
    """What, why, who, where, when and how, in plain JSON."""
    first_ns = int(packets.time_ns[0]) if len(packets) else 0
    last_ns = int(packets.time_ns[-1]) if len(packets) else 0
    target = chosen[0].state.target if chosen else None
    return {
        "what": {
            "title": incident.title,
            "packets": len(packets),
            "bytes": int(packets.caplen.sum(dtype=np.int64)),
            "captures": [_part(part) for part in chosen],
        },
        "why": {
            "rule": incident.rule,
            "alerts": [_alert(row) for row in alerts],
            "alerts_counted": incident.alerts,
        },
        "who": {
            **_who(target),
            "namespaces": list(namespaces_of(part.state.target for part in chosen)),
        },
        "where": {
            "host": host.name,
            "kernel": host.kernel,
            "target": incident.target,
            "netns_inode": target.inode if target else 0,
            "names": {address: each.name for address, each in people.items()},
            "interfaces": [
                {
                    "ring": ring.ring,
                    "name": ring.interface.name,
                    "mac": ring.interface.mac,
                    "mtu": ring.interface.mtu,
                    "addresses": list(ring.interface.addresses),
                    "opened_ns": ring.opened_ns,
                    "closed_ns": ring.closed_ns,
                    "oldest_ns": ring.oldest_ns,
                    "snaplen": ring.snaplen,
                    "flow_cut": ring.flow_cut,
                    "packets_seen": ring.packets,
                    "packets_looked_at": ring.seen,
                    "kernel_drops": ring.drops,
                    "kernel_drops_in_window": _drops(ring, since_ns, until_ns),
                }
                for ring in rings
            ],
        },
        "when": {
            "t0_ns": incident.t0_ns,
            "opened_ns": incident.opened_ns,
            "asked": {"from_ns": since_ns, "to_ns": until_ns},
            "covered": _covered(rings, since_ns, until_ns, first_ns),
            "first_packet_ns": first_ns,
            "last_packet_ns": last_ns,
            "seconds_before_alert": round((incident.t0_ns - first_ns) / 1e9, 6) if first_ns else 0,
            "clock": {"source": host.clock_source, **host.clock},
        },
        "names": names.told(people),
        "how": {"tools": dict(host.tools)},
    }


def _covered(rings: Sequence[RingNote], since_ns: int, until_ns: int, first_ns: int) -> Json:
    """From when to when the recording is whole: since the rings began or reach back to, until they closed."""
    begun = [ring.oldest_ns if ring.first_seq > 1 else ring.opened_ns for ring in rings]
    ended = [ring.closed_ns or until_ns for ring in rings]
    from_ns = max(since_ns, min(begun, default=since_ns))
    return {
        "from_ns": min(first_ns, from_ns) if first_ns else from_ns,
        "to_ns": min(until_ns, max(ended, default=until_ns)),
    }


def _part(part: _Chosen) -> Json:
    state, plan = part.state, part.state.plan
    rung = plan.rungs[part.rung]
    return {
        "target": state.target.title,
        "who": _who(state.target),
        "end": state.role or "own",
        "scope": rung.scope.value,
        "reason": rung.reason,
        "filter": rung.core,
        "beside": rung.also,
        "rule_filter": plan.user_filter,
        "rule": plan.rule,
        "rule_hash": plan.rule_hash,
        "plan_reason": plan.reason,
        "asked_scope": plan.scope.value,
        "t0_ns": plan.t0_ns,
        "before_ns": plan.before_ns,
        "after_ns": plan.after_ns,
        "until_ns": state.until_ns,
        "frozen_ns": state.frozen_ns,
        "ended": state.ended or "interrupted",
        "snaplen": plan.snaplen,
        "packets": len(part.packets),
        "bytes": int(part.packets.caplen.sum(dtype=np.int64)),
        "packets_of_the_filter": int(part.core.sum()),
        "limits": {"max_bytes": plan.limits.max_bytes, "max_packets": plan.limits.max_packets},
    }


def _alert(row: AlertRow) -> Json:
    """Verbatim: as JSON text where it is text, else base64."""
    accepted = row.accepted
    told: dict[str, Json] = {
        "id": accepted.id,
        "rule": accepted.alert.rule,
        "priority": accepted.alert.priority.title,
        "time_ns": accepted.alert.time_ns,
        "received_ns": accepted.received_ns,
        "via": accepted.via,
        "repeats": row.repeats,
    }
    try:
        told["verbatim"] = accepted.body.decode()
    except UnicodeDecodeError:
        told["verbatim_base64"] = base64.b64encode(accepted.body).decode()
    return told


def _who(target: Target | None) -> dict[str, Json]:
    if target is None:
        return {}
    identity = target.identity
    return cast(
        "dict[str, Json]",
        json.loads(
            json.dumps(
                {
                    "namespace": identity.namespace,
                    "pod": identity.pod,
                    "uid": identity.uid,
                    "labels": dict(identity.labels),
                    "owner": identity.owner,
                    "node": identity.node,
                    "service_account": identity.service_account,
                    "images": identity.images,
                    "containers": identity.containers,
                    "target": target.name,
                    "since_ns": target.since_ns,
                    "gone_ns": target.gone_ns,
                }
            )
        ),
    )
