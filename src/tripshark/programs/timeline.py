"""An incident's timeline as JSON lines that Timesketch imports: alerts, packets' first and last, what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tripshark.model.evidence import read_manifest, rfc3339
from tripshark.model.incident import Incident
from tripshark.ports import AlertRow


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
