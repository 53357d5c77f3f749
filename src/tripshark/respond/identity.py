"""How alerts and incidents are called, and when two alerts are the very same event."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import msgspec

from tripshark.model.alert import Alert, AlertId
from tripshark.model.evidence import IncidentId


def alert_id(seq: int) -> AlertId:
    """`a-42`: the alert's place in the journal."""
    return AlertId(f"a-{seq}")


def incident_id(opened_ns: int, entropy: bytes) -> IncidentId:
    """`20261123t101502-7kq3f2`: sorts by time, says the time, cannot be guessed from it."""
    at = datetime.fromtimestamp(opened_ns // 1_000_000_000, tz=UTC)
    tail = hashlib.blake2b(entropy, digest_size=16).hexdigest()[:6]
    return IncidentId(f"{at:%Y%m%dt%H%M%S}-{tail}")


def event_key(alert: Alert) -> bytes:
    """The same event by whichever way it came: its uuid, or rule, time and fields.

    A webhook and a file that Falco writes beside it print the same event in different bytes.
    """
    told: object = alert.uuid or (alert.rule, alert.time_ns, sorted(alert.fields.items()))
    return hashlib.blake2b(msgspec.json.encode(told), digest_size=16).digest()
