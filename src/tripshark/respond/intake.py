"""The promise behind every 202: the alert is on disk, and this is what is already known of it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

from tripshark.model.alert import Alert
from tripshark.model.evidence import IncidentId
from tripshark.ports import Clock, Journal, Receipt
from tripshark.respond.identity import alert_id, event_key

BODIES = 4096  # bodies remembered so that the very same bytes are stored once
EVENTS = 65_536


@dataclass(slots=True)
class Recent:
    """What the door and the runner both know of the last alerts. Bounded; lost at a restart, which is harmless."""

    events: OrderedDict[bytes, int] = field(default_factory=OrderedDict)  # event → journal seq
    incidents: OrderedDict[int, IncidentId] = field(default_factory=OrderedDict)  # seq → incident

    def saw(self, key: bytes, seq: int) -> int | None:
        """The seq under which this event came before, else None; remembers it."""
        known = self.events.get(key)
        if known is not None:
            return known
        self.events[key] = seq
        if len(self.events) > EVENTS:
            self.events.popitem(last=False)
        return None

    def belongs(self, seq: int, incident: IncidentId) -> None:
        self.incidents[seq] = incident
        if len(self.incidents) > EVENTS:
            self.incidents.popitem(last=False)


class Intake:
    """Implements `ports.Intake` over the journal."""

    def __init__(self, journal: Journal, clock: Clock, recent: Recent) -> None:
        self._journal = journal
        self._clock = clock
        self._recent = recent
        self._bodies: OrderedDict[bytes, int] = OrderedDict()

    async def accept(self, alert: Alert, body: bytes, via: str) -> Receipt:
        """Durable first. A copy of bytes that were stored already is stored as a reference."""
        digest = hashlib.blake2b(body, digest_size=16).digest()
        original = self._bodies.get(digest, 0)
        seq = await self._journal.append(
            b"" if original else body,
            via=via,
            received_ns=self._clock.now_ns(),
            repeat_of=original,
        )
        if not original:
            self._bodies[digest] = seq
            if len(self._bodies) > BODIES:
                self._bodies.popitem(last=False)
        first = original or self._recent.saw(event_key(alert), seq)
        return Receipt(
            alert=alert_id(first or seq),
            duplicate=bool(first),
            incident=self._recent.incidents.get(first or seq),
        )
