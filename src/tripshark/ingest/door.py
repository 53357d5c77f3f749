"""The one door for alerts from everywhere: watches heartbeats, sets aside what came by another way, hands on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from tripshark.errors import TripsharkError
from tripshark.ingest.heartbeat import Heartbeats
from tripshark.ingest.witness import Witnesses, event_key
from tripshark.model.alert import Alert
from tripshark.ports import Clock, Intake, Receipt


class AlertMeter(Protocol):
    """Where the sources count. `via` is "webhook", "file" or "stdin"; `outcome` is one of `OUTCOMES`."""

    def alert(self, via: str, outcome: str, seconds: float) -> None:
        """One alert was answered; `seconds` from its last byte to the answer."""


OUTCOMES = (
    "accepted",
    "duplicate",  # the same meaning again: accepted and counted
    "witnessed",  # the same event by another way: set aside
    "invalid",
    "denied",
    "too_large",
    "unsupported",
    "too_slow",
    "busy",
    "unavailable",
    "failed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of an alert at the door."""

    receipt: Receipt
    witnessed: bool  # this event had already come by another way

    @property
    def outcome(self) -> str:
        if self.witnessed:
            return "witnessed"
        return "duplicate" if self.receipt.duplicate else "accepted"


class Door:
    """Hands alerts to the intake. `witnesses` is needed only where Falco is heard by more than one way."""

    def __init__(
        self,
        intake: Intake,
        clock: Clock,
        heartbeats: Heartbeats,
        witnesses: Witnesses | None = None,
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._heartbeats = heartbeats
        self._witnesses = witnesses
        self._pending: dict[str, tuple[str, asyncio.Future[Receipt]]] = {}

    async def take(self, alert: Alert, body: bytes, via: str) -> Taken:
        """Durable once this returns. Raises what the intake raises: `Transient` when it cannot be made durable."""
        if self._witnesses is None:
            return await self._hand_on(alert, body, via)
        key, way = event_key(alert), via[0]
        while True:
            known = self._witnesses.first(key)
            if known is not None and (way != "w" or known[0] != "w"):
                receipt = Receipt(alert=known[1], duplicate=True, incident=None)
                return Taken(receipt=receipt, witnessed=True)
            pending = self._pending.get(key)
            if pending is None or (way == "w" and pending[0] == "w"):
                break
            # The other way is just being made durable: its fate decides.
            await asyncio.wait([pending[1]])
        if pending is not None or known is not None:
            return await self._hand_on(alert, body, via)  # a repeated POST counts as a repeat
        fate: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._pending[key] = (way, fate)
        try:
            taken = await self._hand_on(alert, body, via)
            self._witnesses.remember(key, way, taken.receipt.alert)
            return taken
        finally:
            del self._pending[key]
            fate.cancel()  # wakes those who wait; they look again

    async def _hand_on(self, alert: Alert, body: bytes, via: str) -> Taken:
        receipt = await self._intake.accept(alert, body, via)
        self._heartbeats.saw(alert, self._clock.now_ns())
        return Taken(receipt=receipt, witnessed=False)


def outcome_of(error: TripsharkError) -> str:
    """The word under which an error is counted."""
    return {"bad_input": "invalid", "denied": "denied", "unavailable": "unavailable"}.get(
        error.code, "failed"
    )
