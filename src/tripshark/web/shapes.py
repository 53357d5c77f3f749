"""How incidents, targets and refusals read as JSON: times as RFC 3339 beside nanoseconds, the ledger as one word."""

from __future__ import annotations

from dataclasses import asdict

from tripshark.model.alert import Json
from tripshark.model.evidence import rfc3339
from tripshark.model.incident import Incident
from tripshark.model.part import Part
from tripshark.model.target import Target
from tripshark.ports import AlertRow


def when(ns: int) -> str | None:
    """A time for people; None for "not yet"."""
    return rfc3339(ns) if ns > 0 else None


def incident(it: Incident) -> dict[str, Json]:
    """One incident; the same object as a line of `tripshark incidents --json`."""
    return {
        "id": it.id,
        "state": it.state.value,
        "ledger": it.word.value,
        "target": it.title,
        "target_key": it.target,
        "namespace": it.namespace,
        "pod": it.pod,
        "rule": it.rule,
        "falco_rule": it.falco_rule,
        "priority": it.priority,
        "t0": when(it.t0_ns),
        "t0_ns": it.t0_ns,
        "opened": when(it.opened_ns),
        "opened_ns": it.opened_ns,
        "sealed": when(it.sealed_ns),
        "sealed_ns": it.sealed_ns,
        "alerts": it.alerts,
        "packets": it.packets,
        "bytes": it.bytes,
        "folder": it.folder,
        "summary": it.summary,
        "manifest_sha256": it.manifest_sha256,
        "problem": it.problem,
        "namespaces": list(it.held),
    }


def part(it: Part) -> dict[str, Json]:
    """One node's part of an incident."""
    return {
        "node": it.node,
        "incident": it.place.incident,
        "signed_by": it.key_id,
        "files": [
            {"name": each.name, "sha256": each.sha256, "bytes": each.bytes} for each in it.files
        ],
        **{
            name: value
            for name, value in incident(it.incident).items()
            if name not in ("id", "plan")
        },
    }


def alert(row: AlertRow) -> dict[str, Json]:
    """One alert and what became of it."""
    of = row.accepted.alert
    refusal: Json = None
    if row.refusal is not None:
        refusal = {
            "reason": row.refusal.reason.value,
            "message": row.refusal.message,
            "hint": row.refusal.hint,
            "rule": row.refusal.rule,
        }
    return {
        "id": row.accepted.id,
        "rule": of.rule,
        "priority": of.priority.title,
        "source": of.source,
        "output": of.output,
        "time": when(of.time_ns),
        "time_ns": of.time_ns,
        "received_ns": row.accepted.received_ns,
        "via": row.accepted.via,
        "target": f"{of.namespace}/{of.pod}" if of.pod else of.container_id or "",
        "incident": row.incident,
        "refusal": refusal,
        "repeats": row.repeats,
        "last_ns": row.last_ns,
    }


def target(it: Target, now_ns: int) -> dict[str, Json]:
    """One target with how far its history reaches."""
    oldest = min((ring.oldest_ns for ring in it.rings if ring.oldest_ns), default=0)
    newest = max((ring.newest_ns for ring in it.rings), default=0)
    identity: Json = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(it.identity).items()
    }
    return {
        "key": it.key,
        "name": it.name,
        "title": it.title,
        "kind": it.kind.value,
        "alive": it.alive,
        "since": when(it.since_ns),
        "since_ns": it.since_ns,
        "gone": when(it.gone_ns),
        "gone_ns": it.gone_ns,
        "seen_born": it.seen_born,
        "identity": identity,
        "addresses": list(it.addresses),
        "history_seconds": round(max(0, now_ns - oldest) / 1e9, 3) if oldest else 0.0,
        "oldest_ns": oldest,
        "newest_ns": newest,
        "packets": sum(ring.packets for ring in it.rings),
        "drops": sum(ring.drops for ring in it.rings),
        "bytes": sum(ring.bytes for ring in it.rings),
        "rings": [
            {
                "ring": ring.ring,
                "interface": ring.interface.name,
                "live": ring.live,
                "bytes": ring.bytes,
                "snaplen": ring.snaplen,
                "flow_cut": ring.flow_cut,
                "packets": ring.packets,
                "drops": ring.drops,
                "blocks": ring.blocks,
                "oldest_ns": ring.oldest_ns,
                "newest_ns": ring.newest_ns,
            }
            for ring in it.rings
        ],
        "mode": it.mode,
        "weight": it.weight,
        "note": it.note,
    }
