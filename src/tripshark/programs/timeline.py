"""An incident's timeline as JSON lines that Timesketch imports: alerts, packets' first and last, addresses that
changed hands, what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tripshark.model.alert import Json
from tripshark.model.evidence import read_manifest, rfc3339
from tripshark.model.incident import Incident
from tripshark.ports import AlertRow


def _hands(details: Mapping[str, Json]) -> Iterator[tuple[int, str, str]]:
    """Who held an address from when to when, where more than one did within the evidence."""
    names = details.get("names")
    for address, said in names.items() if isinstance(names, dict) else ():
        holders = said.get("holders") if isinstance(said, dict) else None
        if not isinstance(holders, list) or len(holders) < 2:
            continue
        for holder in holders:
            if not isinstance(holder, dict):
                continue
            for key, words in (("from_ns", "belongs to"), ("to_ns", "no longer belongs to")):
                at_ns = holder.get(key)
                if isinstance(at_ns, int) and at_ns:
                    yield at_ns, f"{address} {words} {holder.get('name')}", "Address changed hands"


def timeline(incident: Incident, rows: Sequence[AlertRow], folder: Path) -> bytes:
    """One event per line, oldest first, with Timesketch's `message`, `datetime`, `timestamp_desc`."""
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    events: list[tuple[int, str, str]] = [
        (
            row.accepted.alert.time_ns,
            f"{row.accepted.alert.priority.title}: {row.accepted.alert.rule}",
            "Falco alert",
        )
        for row in rows
    ]
    when = manifest.details.get("when")
    if isinstance(when, dict):
        for key, words in (("first_packet_ns", "First packet"), ("last_packet_ns", "Last packet")):
            at_ns = when.get(key)
            if isinstance(at_ns, int) and at_ns:
                events.append((at_ns, f"{words.lower()} of {incident.title}", words))
    events += _hands(manifest.details)
    for entry in manifest.ledger.entries:
        if entry.from_ns:
            events.append((entry.from_ns, entry.message, f"Ledger: {entry.kind}"))
    events.append((manifest.created_ns, f"evidence of {incident.title} sealed", "Evidence sealed"))
    return b"".join(
        json.dumps(
            {
                "message": message,
                "datetime": rfc3339(at_ns),
                "timestamp": at_ns // 1000,
                "timestamp_desc": what,
                "incident": incident.id,
                "target": incident.title,
                "manifest_sha256": incident.manifest_sha256,
            }
        ).encode()
        + b"\n"
        for at_ns, message, what in sorted(events)
    )
