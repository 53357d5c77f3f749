"""What the manifest tells of an incident: what, why, who, where, when and how, in plain JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from tripshark.formats.packets import Packets
from tripshark.model.alert import Json
from tripshark.model.incident import Incident, namespaces_of
from tripshark.model.target import Target
from tripshark.ports import AlertRow
from tripshark.respond import names
from tripshark.respond.choosing import Chosen
from tripshark.respond.spool import RingNote


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


def details(
    incident: Incident,
    *,
    chosen: Sequence[Chosen],
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
                    "kernel_drops_in_window": ring.drops_within(since_ns, until_ns),
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


def _part(part: Chosen) -> Json:
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
