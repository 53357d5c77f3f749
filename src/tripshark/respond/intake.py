"""The promise behind every 202: the alert is on disk, and this is what is already known of it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

from tripshark.model.alert import Alert, AlertId
from tripshark.model.evidence import IncidentId
from tripshark.ports import Clock, Journal, Receipt
from tripshark.respond.identity import alert_id, event_key

BODIES = 4096  # bodies remembered so that the very same bytes are stored once
EVENTS = 65_536
DECODED = 4096  # alerts kept as they were decoded, so that the runner need not do it again


@dataclass(frozen=True, slots=True)
class Fate:
    """Where an alert is counted: on which row, and for which incident where there is one."""

    row: AlertId
    incident: IncidentId | None


@dataclass(slots=True)
class Recent:
    """What the door and the runner both know of the last alerts. Bounded; lost at a restart, which is harmless."""

    events: OrderedDict[bytes, int] = field(default_factory=OrderedDict)  # event → journal seq
    fates: OrderedDict[int, Fate] = field(default_factory=OrderedDict)  # by journal seq
    waiting: int = 0  # senders whose alert is being made durable right now
    decoded: dict[int, Alert] = field(default_factory=dict)  # by seq, until the runner takes it

    def saw(self, key: bytes, seq: int) -> int | None:
        """The seq under which this event came before, else None; remembers it."""
        known = self.events.get(key)
        if known is not None:
            return known
        self.events[key] = seq
        if len(self.events) > EVENTS:
            self.events.popitem(last=False)
        return None

    def forget_decoded(self, upto: int) -> None:
        """Whatever the runner has worked off already."""
        for seq in [each for each in self.decoded if each <= upto]:
            del self.decoded[seq]

    def settle(self, seq: int, fate: Fate) -> None:
        """What became of the alert with this seq."""
        self.fates[seq] = fate
        if len(self.fates) > EVENTS:
            self.fates.popitem(last=False)


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
        self._recent.waiting += 1
        try:
            seq = await self._journal.append(
                b"" if original else body,
                via=via,
                received_ns=self._clock.now_ns(),
                repeat_of=original,
            )
        finally:
            self._recent.waiting -= 1
        if not original:
            self._bodies.setdefault(digest, seq)
            if len(self._bodies) > BODIES:
                self._bodies.popitem(last=False)
        first = original or self._recent.saw(event_key(alert), seq)
        if not original and len(self._recent.decoded) < DECODED:
            self._recent.decoded[seq] = alert
        fate = self._recent.fates.get(first or seq)
        return Receipt(
            alert=alert_id(first or seq),
            duplicate=bool(first),
            incident=fate.incident if fate else None,
        )
