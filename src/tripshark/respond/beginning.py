"""How an incident begins, or grows: its history is frozen before anything slow is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from tripshark.formats.wire import Frozen
from tripshark.model.evidence import Entry, IncidentId, Word
from tripshark.model.incident import Incident, State, namespaces_of
from tripshark.model.plan import Plan, Reason, Refusal, within_policy
from tripshark.model.target import Target
from tripshark.respond.batch import Batch, Case, Start
from tripshark.respond.budget import Budget
from tripshark.respond.capture import release
from tripshark.respond.counting import Counting
from tripshark.respond.disk import Disk
from tripshark.respond.identity import incident_id
from tripshark.respond.incidents import Incidents, Open
from tripshark.respond.pipeline import Part, Pipeline
from tripshark.respond.wishes import Wishes
from tripshark.respond.world import World


class Beginning:
    """Puts what is to run into the batch; nothing runs before that is stored."""

    def __init__(
        self,
        world: World,
        pipeline: Pipeline,
        incidents: Incidents,
        counting: Counting,
        wishes: Wishes,
        *,
        budget: Budget,
        disk: Disk,
    ) -> None:
        self._world = world
        self._pipeline = pipeline
        self._incidents = incidents
        self._counting = counting
        self._wishes = wishes
        self._budget = budget
        self._disk = disk

    async def begin(
        self,
        case: Case,
        plan: Plan,
        target: Target,
        batch: Batch,
        *,
        also: Sequence[Part] = (),
        incident: IncidentId | None = None,
    ) -> Open | None:
        """Join the target's open incident, or start one; `also` become further parts of it.

        `incident` is the one that another node says this belongs to. None when it was refused.
        """
        record, meaning = case.record, case.meaning
        opened = self._incidents.open.get(target.key)
        same = self._incidents.by_id.get(incident) if incident else None
        if same is not None and not same.sealing:
            opened = same
            if opened.running_on(target.key):  # we asked for it ourselves, and are at it already
                self._counting.aside(opened, case, batch)  # so that it is not done again
                self._wishes.answer(record.seq, opened.incident, batch)
                return opened
        if opened is not None and opened.knows(meaning):
            self._counting.join(opened, case, batch)
            return opened
        now_ns = self._world.clock.now_ns()
        begun = await self._freeze(plan, target, opened, now_ns)
        if isinstance(begun, Refusal):
            self._counting.refuse(case, begun, batch, opened)
            return None
        plan, frozen = begun
        if frozen is not None:
            self._world.meter.frozen((frozen.at_ns - record.received_ns) / 1e9)
        if opened is None:
            id = await self._free(incident, now_ns)
            opened = Open(incident=_new(id, case, plan, target, now_ns))
            self._incidents.add(opened)
        else:
            opened.count()
        opened.expect(meaning, target.key)
        self._world.meter.running(self._incidents.running)
        self._counting.first(opened, case, batch)
        batch.touched.add(opened.incident.id)
        batch.starts.append(Start(opened, meaning, plan, _as_frozen(target, frozen), frozen))
        for part in also:
            await self._add(opened, meaning, part, batch)
        self._wishes.answer(record.seq, opened.incident, batch)
        return opened

    async def _freeze(
        self, plan: Plan, target: Target, opened: Open | None, now_ns: int
    ) -> tuple[Plan, Frozen | None] | Refusal:
        """The plan as this target's recording policy bounds it, and the history it begins with."""
        allowed = within_policy(plan, target)
        if isinstance(allowed, Refusal):
            return allowed
        refusal = self._budget.may_start(
            rule=allowed.rule,
            target=allowed.target,
            running=self._incidents.running,
            on_target=opened.running_on(allowed.target) if opened else 0,
            now_ns=now_ns,
        )
        if refusal is not None:
            return refusal
        frozen = await self._pipeline.freeze(allowed)
        if isinstance(frozen, Refusal):
            return frozen
        # asking the disk may be slow: the history is safe by now
        refusal = await self._disk.has_room(allowed, now_ns)
        if refusal is None:
            return allowed, frozen
        if frozen is not None:
            await release(self._world.recorder, frozen)
        return refusal

    async def _free(self, wanted: IncidentId | None, now_ns: int) -> IncidentId:
        """The id that an incident gets: the one it has on other nodes, unless it is taken here."""
        if wanted is None or await self._world.catalogue.incident(wanted) is not None:
            return incident_id(now_ns, self._world.entropy(16))
        return wanted

    async def _add(self, opened: Open, meaning: str, part: Part, batch: Batch) -> None:
        """Freeze one more target of this incident. What cannot be had is told in its ledger and stops nothing."""
        name = f"{meaning}@{part.target.key}"
        if opened.knows(name):
            return
        begun = await self._freeze_part(part)
        if isinstance(begun, Refusal):
            opened.entries.append(
                Entry(
                    kind="part_missing",
                    message=f"{part.target.title} belongs to this incident and could not be "
                    f"captured: {begun.message}",
                    word=Word.TRUNCATED,
                )
            )
            return
        plan, frozen = begun
        opened.expect(name, part.target.key)
        self._world.meter.running(self._incidents.running)
        target = _as_frozen(part.target, frozen)
        batch.starts.append(Start(opened, name, plan, target, frozen, part.role))

    async def _freeze_part(self, part: Part) -> tuple[Plan, Frozen | None] | Refusal:
        """As `_freeze`; a part takes no budget but the number of captures at once."""
        if self._incidents.running >= self._budget.bounds.concurrent:
            return Refusal(reason=Reason.BUSY, message="as many captures run as may")
        allowed = within_policy(part.plan, part.target)
        if isinstance(allowed, Refusal):
            return allowed
        frozen = await self._pipeline.freeze(allowed)
        return frozen if isinstance(frozen, Refusal) else (allowed, frozen)


def _as_frozen(target: Target, frozen: Frozen | None) -> Target:
    """Its rings as they were at the freeze, its identity as we know it."""
    if frozen is None:
        return target
    return replace(frozen.target, identity=target.identity)


def _new(id: IncidentId, case: Case, plan: Plan, target: Target, now_ns: int) -> Incident:
    return Incident(
        id=id,
        state=State.OPEN,
        target=target.key,
        title=target.title,
        namespace=target.identity.namespace,
        pod=target.identity.pod,
        rule=plan.rule,
        falco_rule=case.alert.rule,
        priority=case.alert.priority.title,
        t0_ns=plan.t0_ns,
        opened_ns=now_ns,
        plan=msgspec.to_builtins(plan),
        namespaces=namespaces_of([target]),
    )
