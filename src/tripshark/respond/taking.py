"""What one record of the journal means: an alert, a capture by hand, or another node's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tripshark.errors import Refused, Transient
from tripshark.formats import falco
from tripshark.model.alert import Alert, meaning
from tripshark.model.plan import Defaults, Plan, Reason, Refusal
from tripshark.model.target import Resolution, Target
from tripshark.ports import Record
from tripshark.respond import manual, orders
from tripshark.respond.asking import Asking
from tripshark.respond.batch import Batch, Case
from tripshark.respond.beginning import Beginning
from tripshark.respond.counting import Counting
from tripshark.respond.incidents import Incidents
from tripshark.respond.intake import Fate, Recent
from tripshark.respond.pipeline import Far, Part, Pipeline, by_hand
from tripshark.respond.wishes import Wishes
from tripshark.respond.world import World


class Taking:
    """Brings each record to its end: begun, counted, passed on or refused. One at a time."""

    def __init__(
        self,
        world: World,
        pipeline: Pipeline,
        incidents: Incidents,
        counting: Counting,
        wishes: Wishes,
        beginning: Beginning,
        *,
        asking: Asking,
        recent: Recent,
        defaults: Defaults,
        try_again: Callable[[Record, Alert], None],
    ) -> None:
        """`try_again`: nobody knows the container of this alert yet, and its runtime may be about to tell."""
        self._world = world
        self._pipeline = pipeline
        self._incidents = incidents
        self._counting = counting
        self._wishes = wishes
        self._beginning = beginning
        self._asking = asking
        self._recent = recent
        self._defaults = defaults
        self._try_again = try_again

    async def take(self, record: Record, batch: Batch) -> None:
        """Raises `TripsharkError` for what cannot be understood."""
        if record.repeat_of:
            self._counting.copy(record.repeat_of, record.received_ns, batch)
        elif record.via == manual.VIA:
            await self._take_request(record, batch)
        elif record.via.startswith(orders.VIA):
            await self._take_order(record, batch)
        else:
            await self._take_alert(record, batch)

    # ----------------------------------------------------------------------------------- alerts

    async def _take_alert(self, record: Record, batch: Batch) -> None:
        alert = self._recent.decoded.pop(record.seq, None) or falco.decode(record.body)
        if self._counting.came_before(record, alert, batch) is not None:
            return
        resolution = await self._pipeline.resolve(alert)
        if isinstance(resolution, Refusal):
            self._counting.refuse(Case(record, alert, meaning(alert, "")), resolution, batch)
            return
        if resolution.later:
            self._try_again(record, alert)
        await self.react(record, alert, resolution, batch)

    async def react(
        self,
        record: Record,
        alert: Alert,
        resolution: Resolution,
        batch: Batch,
        *,
        within: str = "",
    ) -> None:
        """What the rules make of an alert whose target is known, or known not to be.

        `within`: the only namespace that may be captured, whatever rules and neighbours say.
        """
        now_ns = self._world.clock.now_ns()
        target = resolution.target
        case = Case(record, alert, meaning(alert, target.key if target else ""))
        opened = self._incidents.open.get(target.key) if target else None
        if opened is not None and opened.knows(case.meaning):  # nothing is decided again
            self._counting.join(opened, case, batch)
            return
        resting = self._incidents.resting.get(case.meaning)
        if resting is not None and resting.holds(alert.time_ns, now_ns):
            self._counting.rest(case, resting, batch)
            return
        decision = await self._pipeline.decide(alert, resolution, now_ns=now_ns)
        if within:
            decision = decision.confined(within)
        if isinstance(decision.answer, Refusal) or decision.target is None:
            refusal = _as_refusal(decision.answer)
            for each in decision.far:
                refusal = await self._asking.pass_on(case, each, refusal)
            self._counting.refuse(case, refusal, batch)
            return
        await self._begin(
            case, decision.answer, decision.target, decision.also, decision.far, batch
        )

    async def _begin(
        self,
        case: Case,
        plan: Plan,
        target: Target,
        also: Sequence[Part],
        far: Sequence[Far],
        batch: Batch,
    ) -> None:
        """Here first; then the other nodes that record what belongs to it are asked."""
        opened = await self._beginning.begin(case, plan, target, batch, also=also)
        if opened is not None:
            for each in far:
                await self._asking.ask(case, plan, each, opened, batch)

    # ----------------------------------------------------------------------------------- wishes

    async def _take_request(self, record: Record, batch: Batch) -> None:
        request = manual.decode(record.body)
        alert = manual.alert_of(request, received_ns=record.received_ns)
        resolution = await self._world.targets.find(request.target)
        target = resolution.target
        if target is None:
            refusal = Refusal(
                reason=Reason.NO_TARGET, message=resolution.reason, hint=resolution.hint
            )
            self._counting.refuse(Case(record, alert, f"manual:{record.seq}"), refusal, batch)
            return
        plan = manual.plan_of(request, alert, target, self._defaults)
        # two requests are never the same
        case = Case(record, alert, f"{meaning(alert, target.key)}:{record.seq}")
        if isinstance(plan, Refusal):
            self._counting.refuse(case, plan, batch)
            return
        also, far = by_hand(request, alert, plan, resolution)
        await self._begin(case, plan, target, also, far, batch)

    async def _take_order(self, record: Record, batch: Batch) -> None:
        order = orders.decode(record.body)
        alert = orders.alert_of(order)
        case = Case(record, alert, f"{orders.VIA}{order.resource}@{order.target}")
        try:
            target = await self._pipeline.target(order.target)
        except Transient as away:
            refusal = Refusal(reason=Reason.RECORDER_AWAY, message=away.message, hint=away.hint)
            self._counting.refuse(case, refusal, batch)
            return
        if target is None:
            refusal = Refusal(
                reason=Reason.EXPIRED, message=f"{order.target} is not recorded here any more"
            )
            self._counting.refuse(case, refusal, batch)
            return
        within = orders.confines(order)
        if not orders.wants_rules(order):
            now_ns = self._world.clock.now_ns()
            plan = orders.plan_of(order, alert, target, self._defaults, now_ns)
            await self._beginning.begin(case, plan, target, batch, incident=order.request.incident)
            return
        fate = None if within else self._counting.came_before(record, alert, batch)
        if fate is not None:
            await self._answer_with(record, fate, batch)
            return
        resolution = Resolution(
            target=target, reason=f"{order.request.origin or 'another node'} passed it on"
        )
        await self.react(record, alert, resolution, batch, within=within)

    async def _answer_with(self, record: Record, fate: Fate, batch: Batch) -> None:
        """Tell what became of the event earlier."""
        opened = self._incidents.by_id.get(fate.incident) if fate.incident else None
        known = opened.incident if opened else None
        if known is None and fate.incident is not None:
            known = await self._world.catalogue.incident(fate.incident)
        answer = known or Refused("the same event was refused here before")
        self._wishes.answer(record.seq, answer, batch)


def _as_refusal(answer: Plan | Refusal) -> Refusal:
    if isinstance(answer, Refusal):
        return answer
    return Refusal(reason=Reason.NO_TARGET, message="no target", rule=answer.rule)
