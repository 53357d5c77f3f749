"""On which row an alert counts, and what is told of it to whoever waits."""

from __future__ import annotations

from tripshark.errors import NotFound, Refused, TripsharkError
from tripshark.model.alert import Alert, AlertId, Priority
from tripshark.model.evidence import IncidentId
from tripshark.model.plan import Reason, Refusal
from tripshark.ports import AlertRow, Record
from tripshark.respond.batch import Batch, Case
from tripshark.respond.identity import alert_id, event_key
from tripshark.respond.incidents import SHOWN, Incidents, Open, Resting
from tripshark.respond.intake import Fate, Recent
from tripshark.respond.orders import VIA
from tripshark.respond.wishes import Wishes


class Counting:
    """Every accepted alert has a row of its own, or is a repeat on the row of an earlier one."""

    def __init__(self, incidents: Incidents, recent: Recent, wishes: Wishes) -> None:
        self._incidents = incidents
        self._recent = recent
        self._wishes = wishes
        self._refused: dict[str, AlertId] = {}  # meaning + reason → first alert refused so

    # -------------------------------------------------------------------------- the very same event

    def came_before(self, record: Record, alert: Alert, batch: Batch) -> Fate | None:
        """The fate of the same event where it came earlier by another way; this copy is counted there."""
        first = self._recent.saw(event_key(alert), record.seq)
        if first is None or first == record.seq:
            return None
        self.copy(first, record.received_ns, batch)
        fate = self._fate(first)
        self._recent.settle(record.seq, fate)
        self._keep_order(Case(record, alert, ""), fate, batch)
        return fate

    def copy(self, seq: int, received_ns: int, batch: Batch) -> None:
        """The very same event again: counted where the first one is."""
        fate = self._fate(seq)
        batch.repeat(fate.row, received_ns)
        if fate.incident is None:
            return
        opened = self._incidents.by_id.get(fate.incident)
        if opened is None or opened.sealing:
            batch.count_late(fate.incident)
            return
        opened.count()
        opened.repeat(fate.row, received_ns)
        batch.touched.add(fate.incident)

    def _fate(self, seq: int) -> Fate:
        """Where an alert was counted; after a restart, on its own row if it has one."""
        return self._recent.fates.get(seq) or Fate(alert_id(seq), None)

    # ------------------------------------------------------------------------ the same said again

    def join(self, opened: Open, case: Case, batch: Batch) -> None:
        """The same again while it is being captured: the window grows, nothing new starts."""
        record, meaning = case.record, case.meaning
        for name, capture in opened.captures.items():
            if name == meaning or name.startswith(f"{meaning}@"):
                # an event that claims to be still to come lengthens nothing beyond one of now
                capture.extend(min(case.alert.time_ns, record.received_ns))
        opened.count()
        if len(opened.rows) < SHOWN:
            self.first(opened, case, batch)
        else:
            first = opened.first[meaning]
            opened.repeat(first, record.received_ns)
            batch.repeat(first, record.received_ns)
            fate = Fate(first, opened.incident.id)
            self._recent.settle(record.seq, fate)
            self._keep_order(case, fate, batch)
        batch.touched.add(opened.incident.id)
        self._wishes.answer(record.seq, opened.incident, batch)

    def rest(self, case: Case, resting: Resting, batch: Batch) -> None:
        """The same again within what was sealed, or shortly after: counted there, captured no more."""
        batch.count_late(resting.incident)
        refusal = Refusal(
            reason=Reason.COOLDOWN,
            message=f"incident {resting.incident} is about the same and covers this moment, "
            "or was sealed only just now",
            hint="its evidence holds what there was; a cooldown is bounds.cooldown",
        )
        self.refuse(case, refusal, batch, incident=resting.incident)

    # ------------------------------------------------------------------------------- rows of its own

    def _keep_order(self, case: Case, fate: Fate, batch: Batch) -> None:
        """An order is found again by its row, also where its alert was only counted: else it is done for ever."""
        if case.record.via.startswith(VIA) and fate.incident is not None:
            batch.rows.append(
                AlertRow(accepted=case.accepted, incident=fate.incident, refusal=None)
            )

    def first(self, opened: Open, case: Case, batch: Batch) -> None:
        """A row of its own, in the catalogue and in the evidence."""
        row = self.aside(opened, case, batch)
        opened.rows[row.accepted.id] = row
        opened.first.setdefault(case.meaning, row.accepted.id)

    def aside(self, opened: Open, case: Case, batch: Batch) -> AlertRow:
        """A row of this incident that its evidence does not show."""
        row = AlertRow(accepted=case.accepted, incident=opened.incident.id, refusal=None)
        self._recent.settle(case.record.seq, Fate(row.accepted.id, opened.incident.id))
        batch.rows.append(row)
        return row

    def refuse(
        self,
        case: Case,
        refusal: Refusal,
        batch: Batch,
        opened: Open | None = None,
        incident: IncidentId | None = None,
    ) -> None:
        """A stored, countable "no"; the same "no" to the same meaning is counted on its first row."""
        record = case.record
        told = f"{case.meaning}:{refusal.reason}"
        first = self._refused.get(told)
        if opened is not None:
            incident = opened.incident.id
            opened.count()
            batch.touched.add(incident)
        if first is not None:
            batch.repeat(first, record.received_ns)
            self._recent.settle(record.seq, Fate(first, incident))
        else:
            row = AlertRow(accepted=case.accepted, incident=incident, refusal=refusal)
            batch.rows.append(row)
            if len(self._refused) > SHOWN * 100:
                self._refused.clear()
            self._refused[told] = row.accepted.id
            self._recent.settle(record.seq, Fate(row.accepted.id, incident))
        kind = NotFound if refusal.reason is Reason.NO_TARGET else Refused
        self._wishes.answer(record.seq, kind(refusal.message, hint=refusal.hint), batch)

    def refuse_unreadable(self, record: Record, problem: TripsharkError, batch: Batch) -> None:
        """Accepted once, not understood now (a newer version wrote it, or a fault of ours): kept and shown."""
        alert = Alert(rule="(not understood)", priority=Priority.DEBUG, time_ns=record.received_ns)
        refusal = Refusal(reason=Reason.UNSUPPORTED, message=problem.message, hint=problem.hint)
        accepted = Case(record, alert, "").accepted
        batch.rows.append(AlertRow(accepted=accepted, incident=None, refusal=refusal))
        self._wishes.answer(record.seq, problem, batch)
