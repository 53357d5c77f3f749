"""What is asked of other nodes: to decide about an alert that belongs there, or to record their part of an incident."""

from __future__ import annotations

from dataclasses import replace

from tripshark.errors import BadInput, TooMany, Transient
from tripshark.model.evidence import Entry, Word
from tripshark.model.fleet import FleetRequest
from tripshark.model.plan import Plan, Reason, Refusal
from tripshark.ports import Fleet
from tripshark.respond import manual, orders
from tripshark.respond.batch import Batch, Case
from tripshark.respond.identity import event_key
from tripshark.respond.incidents import Open
from tripshark.respond.pipeline import Far


class Asking:
    """What could not be asked is told: in the refusal, or in the incident's ledger."""

    def __init__(self, fleet: Fleet | None, *, origin: str) -> None:
        self._fleet = fleet
        self._origin = origin

    async def pass_on(self, case: Case, far: Far, refusal: Refusal) -> Refusal:
        """Hand an alert to the node that records what it is about; its own rules decide there."""
        if self._fleet is None:
            return refusal
        request = FleetRequest(
            aims=(far.aim,),
            t0_ns=case.alert.time_ns,
            alert=_text(case),
            origin=self._origin,
            key=event_key(case.alert).hex(),
            wide=True,  # whoever may make one in a namespace alone must not put words in Falco's mouth
        )
        try:
            name = await self._fleet.ask(request)
        except (BadInput, Transient) as problem:
            return replace(
                refusal,
                reason=Reason.RATE if isinstance(problem, TooMany) else Reason.NO_TARGET,
                message=f"{far.aim} is on another node, which could not be asked: {problem.message}",
                hint=problem.hint,
            )
        return replace(refusal, message=f"{refusal.message} (Capture {name})")

    async def ask(self, case: Case, plan: Plan, far: Far, opened: Open, batch: Batch) -> None:
        """Have another node capture its part of this incident."""
        if self._fleet is None:
            return
        request = FleetRequest(
            aims=(far.aim,),
            t0_ns=plan.t0_ns,
            before_ns=plan.before_ns,
            after_ns=plan.after_ns,
            scope=far.scope,
            peer=far.peer,
            filter=plan.user_filter,
            max_bytes=plan.limits.max_bytes,
            incident=opened.incident.id,
            rule=plan.rule,
            alert=_text(case),
            origin=self._origin,
            wide=True,  # in a namespaced one an incident's id is anybody's word
        )
        try:
            name = await self._fleet.ask(request)
        except (BadInput, Transient) as problem:
            entry = Entry(
                kind="part_missing",
                message=f"{far.aim} belongs to this incident and could not be asked for: "
                f"{problem.message}",
                word=Word.TRUNCATED,
            )
        else:
            entry = Entry(
                kind="part_elsewhere",
                message=f"{far.aim} is recorded on another node, which was asked for its part"
                f" (Capture {name})",
            )
        opened.entries.append(entry)
        batch.touched.add(opened.incident.id)


def _text(case: Case) -> str:
    """The alert verbatim, also where another node passed it on; "" for what nobody's alert asked."""
    record = case.record
    if record.via == manual.VIA:
        return ""
    if record.via.startswith(orders.VIA):
        return orders.decode(record.body).request.alert
    return record.body.decode(errors="replace")
