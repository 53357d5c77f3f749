"""What one stretch of the journal did, until it is stored in one transaction."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tripshark.errors import TripsharkError
from tripshark.formats.wire import Frozen
from tripshark.model.alert import Accepted, Alert, AlertId
from tripshark.model.evidence import IncidentId
from tripshark.model.incident import Incident
from tripshark.model.plan import Plan
from tripshark.model.target import Target
from tripshark.ports import AlertRow, Record
from tripshark.respond.identity import alert_id
from tripshark.respond.incidents import Open

_Answer = tuple["asyncio.Future[Incident]", Incident | TripsharkError]


@dataclass(frozen=True, slots=True)
class Case:
    """One record of the journal, understood."""

    record: Record
    alert: Alert
    meaning: str  # `model.alert.meaning`: what says the same again has the same

    @property
    def accepted(self) -> Accepted:
        return Accepted(
            id=alert_id(self.record.seq),
            seq=self.record.seq,
            received_ns=self.record.received_ns,
            alert=self.alert,
            body=self.record.body,
            via=self.record.via,
        )


@dataclass(frozen=True, slots=True)
class Start:
    """One part of an incident that is to run, and the history it begins with."""

    opened: Open
    meaning: str
    plan: Plan
    target: Target
    frozen: Frozen | None
    role: str = ""


@dataclass(slots=True)
class Batch:
    """Captures start, and whoever waits is answered, after it is stored."""

    touched: set[IncidentId] = field(default_factory=set)  # stored as they are at the commit
    rows: list[AlertRow] = field(default_factory=list)
    repeats: dict[AlertId, list[int]] = field(default_factory=dict)  # id → [copies, last_ns]
    late: dict[IncidentId, int] = field(default_factory=dict)  # copies of what is sealed already
    starts: list[Start] = field(default_factory=list)
    answers: list[_Answer] = field(default_factory=list)

    def repeat(self, first: AlertId, received_ns: int) -> None:
        counted = self.repeats.setdefault(first, [0, 0])
        counted[0] += 1
        counted[1] = max(counted[1], received_ns)

    def count_late(self, incident: IncidentId) -> None:
        self.late[incident] = self.late.get(incident, 0) + 1
