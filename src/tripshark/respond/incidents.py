"""The incidents that are still open: which captures run for them, and which alerts belong to them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from tripshark.model.alert import AlertId
from tripshark.model.evidence import Entry, IncidentId
from tripshark.model.incident import Incident
from tripshark.model.target import TargetKey
from tripshark.ports import AlertRow, Draft
from tripshark.respond.capture import Capture

SHOWN = (
    100  # distinct events of one incident that get a row of their own; further ones are counted
)
RESTING = 20_000  # meanings remembered after their incident was sealed


@dataclass(slots=True, kw_only=True)
class Open:
    """One incident that is not sealed yet."""

    incident: Incident
    draft: Draft | None = None
    captures: dict[str, Capture] = field(default_factory=dict)  # meaning → its capture
    planned: dict[str, TargetKey] = field(
        default_factory=dict
    )  # meanings whose capture is about to start or running → its target
    running: int = 0
    parts: int = 0  # begun so far: the number of the next one
    rows: dict[AlertId, AlertRow] = field(default_factory=dict)
    first: dict[str, AlertId] = field(default_factory=dict)  # meaning → its first alert
    entries: list[Entry] = field(default_factory=list)
    sealing: bool = False

    def knows(self, meaning: str) -> bool:
        """A capture about this is running or about to start."""
        if meaning in self.planned:
            return True
        return meaning in self.captures and not self.captures[meaning].state.ended

    def expect(self, meaning: str, target: TargetKey) -> None:
        """A capture about this is about to start."""
        self.planned[meaning] = target
        self.running += 1

    def ended(self, meaning: str) -> None:
        self.running -= 1
        self.planned.pop(meaning, None)

    def running_on(self, target: TargetKey) -> int:
        return sum(each == target for each in self.planned.values())

    def count(self, copies: int = 1) -> None:
        self.incident = replace(self.incident, alerts=self.incident.alerts + copies)

    def repeat(self, first: AlertId, received_ns: int) -> None:
        row = self.rows.get(first)
        if row is not None:
            self.rows[first] = replace(row, repeats=row.repeats + 1, last_ns=received_ns)


@dataclass(frozen=True, slots=True)
class Resting:
    """A meaning whose incident was sealed."""

    incident: IncidentId
    covers_ns: int  # events up to here lie within its evidence
    until_ns: int  # end of the cooldown

    def holds(self, event_ns: int, now_ns: int) -> bool:
        """Such an event would show nothing new, or comes too soon."""
        return event_ns <= self.covers_ns or now_ns < self.until_ns


@dataclass(slots=True)
class Incidents:
    """What is open and what rests; bounded."""

    open: dict[TargetKey, Open] = field(default_factory=dict)
    by_id: dict[IncidentId, Open] = field(default_factory=dict)
    resting: OrderedDict[str, Resting] = field(default_factory=OrderedDict)

    @property
    def running(self) -> int:
        return sum(each.running for each in self.by_id.values())

    def add(self, opened: Open) -> None:
        self.open[opened.incident.target] = opened
        self.by_id[opened.incident.id] = opened

    def close_door(self, opened: Open) -> None:
        """Sealing begins: whatever comes now starts a new incident."""
        opened.sealing = True
        if self.open.get(opened.incident.target) is opened:
            del self.open[opened.incident.target]

    def rest(self, opened: Open, until_ns: int) -> None:
        """Sealed: repeats within its window or the cooldown are counted on it, not captured again."""
        self.by_id.pop(opened.incident.id, None)
        for meaning, capture in opened.captures.items():
            covers_ns = capture.state.until_ns
            self.resting[meaning] = Resting(opened.incident.id, covers_ns, until_ns)
            self.resting.move_to_end(meaning)
        while len(self.resting) > RESTING:
            self.resting.popitem(last=False)
