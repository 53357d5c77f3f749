"""How evidence is written: one file per link type and end, its rows, names and comments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tripshark.formats import pcapng
from tripshark.formats.packets import Packets
from tripshark.model.filter import Scope
from tripshark.model.incident import Incident
from tripshark.ports import AlertRow, Draft
from tripshark.respond.choosing import Chosen, part_of
from tripshark.respond.details import Host
from tripshark.respond.rows import alert_fields
from tripshark.respond.sieve import Sieve
from tripshark.respond.spool import PEER, SNAPLEN, RingNote

ETHERNET = 1


RAW_IP = 101


_SUFFIX = {ETHERNET: "", RAW_IP: "-raw"}


def write(
    draft: Draft,
    incident: Incident,
    *,
    packets: Packets,
    rings: Sequence[RingNote],
    chosen: Sequence[Chosen],
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
                        dropped=rings[ring].drops_within(since_ns, until_ns),
                    )
                    for number, ring in enumerate(used)
                ],
                comments=_packet_comments(own, where, linktype, chosen, alerts, said_of),
            )
        files.append(name)
    return files


def _by_file(
    packets: Packets, rings: Sequence[RingNote], chosen: Sequence[Chosen]
) -> dict[str, tuple[int, list[int], NDArray[np.intp]]]:
    """File → its link type, its rings and its packets. Rings without a packet are told with the first file of their end."""
    kinds_of = [(part_of(ring, chosen).state.role, ring.linktype) for ring in rings]
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


def _interface(ring: RingNote, chosen: Sequence[Chosen], linktype: int) -> pcapng.Interface:
    part = part_of(ring, chosen)
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


def _comments(
    incident: Incident, chosen: Sequence[Chosen], alerts: Sequence[AlertRow]
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
    chosen: Sequence[Chosen],
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
    packets: Packets, linktype: int, chosen: Sequence[Chosen], alerts: Sequence[AlertRow]
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
