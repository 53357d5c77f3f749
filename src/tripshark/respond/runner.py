"""Owns every task: reads the journal in order, lets the pipeline decide, runs captures, seals, asks for findings."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import structlog

from tripshark.errors import BadInput, NotFound, Refused, TooMany, Transient, TripsharkError
from tripshark.formats import bpf, falco
from tripshark.formats.wire import Frozen
from tripshark.model.alert import Accepted, Alert, AlertId, Json, Priority, meaning
from tripshark.model.evidence import Entry, IncidentId, Manifest, Word, manifest_json
from tripshark.model.finding import Question
from tripshark.model.fleet import FleetRequest
from tripshark.model.incident import Incident, State, namespaces_of
from tripshark.model.plan import Defaults, Plan, Reason, Refusal, within_policy
from tripshark.model.retention import Budget as DiskBudget
from tripshark.model.retention import room
from tripshark.model.target import Resolution, Target
from tripshark.ports import (
    AlertRow,
    Analyst,
    CaptureRequest,
    Catalogue,
    Clock,
    Draft,
    Fleet,
    Journal,
    Meter,
    Query,
    Record,
    Recorder,
    Targets,
    Vault,
)
from tripshark.respond import manual, orders
from tripshark.respond.budget import Budget
from tripshark.respond.capture import Capture
from tripshark.respond.identity import alert_id, event_key, incident_id
from tripshark.respond.incidents import SHOWN, Incidents, Open, Resting
from tripshark.respond.intake import Fate, Recent
from tripshark.respond.names import Book
from tripshark.respond.orders import Order
from tripshark.respond.pipeline import Far, Part, Pipeline, by_hand
from tripshark.respond.seal import Host, Sealed, seal
from tripshark.respond.spool import PartState, parts

log = structlog.get_logger("tripshark.runner")

BATCH = 256  # journal records handled between two transactions
POLITE = 4  # of them before others have their turn, and so long a turn where many senders wait
POLITE_S = 0.002
BUSY_S = 0.05  # batches closer together than this are a storm
GATHER_S = 0.01  # and then this much of it goes into one transaction
FORGET_EVERY = 4096  # records between two looks for segments that may go
RETRY = 0.5  # seconds between tries of what may work later
SEAL_TRIES = 20
JANITOR = 60.0
LATE_AT_ONCE = (
    64  # alerts that wait for a runtime to know their container; more are refused at once
)
ASK_DISK_NS = 1_000_000_000  # an answer this young is used again


@dataclass(slots=True)
class _Batch:
    """What one stretch of the journal did, for one transaction; captures start after it is stored."""

    touched: set[IncidentId] = field(default_factory=set)  # stored as they are at the commit
    rows: list[AlertRow] = field(default_factory=list)
    repeats: dict[AlertId, list[int]] = field(default_factory=dict)  # id → [copies, last_ns]
    late: dict[IncidentId, int] = field(default_factory=dict)  # copies of what is sealed already
    starts: list[_Start] = field(default_factory=list)
    answers: list[tuple[asyncio.Future[Incident], Incident | TripsharkError]] = field(
        default_factory=list
    )

    def repeat(self, first: AlertId, received_ns: int) -> None:
        counted = self.repeats.setdefault(first, [0, 0])
        counted[0] += 1
        counted[1] = max(counted[1], received_ns)

    def count_late(self, incident: IncidentId) -> None:
        self.late[incident] = self.late.get(incident, 0) + 1


@dataclass(frozen=True, slots=True)
class _Start:
    opened: Open
    meaning: str
    plan: Plan
    target: Target
    frozen: Frozen | None
    role: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Every edge the runner needs, screwed together by a program."""

    journal: Journal
    catalogue: Catalogue
    vault: Vault
    recorder: Recorder
    targets: Targets
    analyst: Analyst | None
    clock: Clock
    meter: Meter
    entropy: Callable[[int], bytes]
    fleet: Fleet | None = None  # how other nodes are asked, in a cluster
    addresses: Book | None = None  # who held which address when, beyond this machine's targets
    told: Callable[[Incident], None] = lambda _incident: None  # an incident ended


class Runner:
    """Implements `ports.Captures` as well: a capture by hand is one more record of the journal."""

    def __init__(
        self,
        world: World,
        pipeline: Pipeline,
        budget: Budget,
        disk: DiskBudget,
        *,
        defaults: Defaults,
        recent: Recent,
        host: Host,
        retention: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._world = world
        self._pipeline = pipeline
        self._budget = budget
        self._disk = disk
        self._defaults = defaults
        self._recent = recent
        self._host = host
        self._retention = retention
        self._incidents = Incidents()
        self._waiting: dict[int, asyncio.Future[Incident]] = {}
        self._disk_state = (0, 0)
        self._disk_asked_ns = 0
        self._refused: dict[str, AlertId] = {}  # meaning + reason → first alert refused so
        self._analysing = asyncio.Semaphore(1)
        self._writing = asyncio.Lock()  # reading an incident and writing it back is one step
        self._stopping = asyncio.Event()
        self._deciding = asyncio.Lock()  # two decisions about one target must see each other
        self._trying = 0  # alerts whose target is still looked for
        self._tasks: asyncio.TaskGroup
        self.position = 0  # of the journal: everything up to here is in the catalogue

    # ------------------------------------------------------------------------------------- life

    async def run(self) -> None:
        """Until `stop`. First finishes what an earlier life left open."""
        async with asyncio.TaskGroup() as self._tasks:
            await self._salvage()
            consumer = self._tasks.create_task(self._consume())
            janitor = self._tasks.create_task(self._clean())
            await self._stopping.wait()
            consumer.cancel()
            janitor.cancel()
            for opened in list(self._incidents.by_id.values()):
                opened.entries.append(
                    Entry(
                        kind="stopped",
                        message="Tripshark was stopped while this capture was running",
                        word=Word.INTERRUPTED,
                        from_ns=self._world.clock.now_ns(),
                    )
                )
                for capture in opened.captures.values():
                    capture.stop()

    def stop(self) -> None:
        """End captures now, seal them, and return from `run`."""
        self._stopping.set()

    @property
    def in_flight(self) -> int:
        return self._incidents.running

    # ---------------------------------------------------------------------------------- journal

    async def _consume(self) -> None:
        self.position = forgotten = await self._world.catalogue.position()
        loop, before = asyncio.get_running_loop(), 0.0
        while True:
            records = await self._world.journal.read(self.position, BATCH)
            batch = _Batch()
            for number, record in enumerate(records):
                if number % POLITE == POLITE - 1:  # whoever waits for a 202 comes first
                    await asyncio.sleep(POLITE_S if self._recent.waiting > POLITE else 0)
                try:
                    async with self._deciding:
                        await self._take(record, batch)
                except TripsharkError as problem:
                    self._refuse_unreadable(record, problem, batch)
            await self._commit(batch, records[-1].seq)
            self.position = records[-1].seq
            self._recent.forget_decoded(self.position)
            if self.position - forgotten > FORGET_EVERY or len(records) < BATCH // 4:
                await self._world.journal.forget(self.position)
                forgotten = self.position
            if not batch.starts and len(records) < BATCH and loop.time() - before < BUSY_S:
                await asyncio.sleep(GATHER_S)  # in a storm fewer, larger transactions
            before = loop.time()

    async def _commit(self, batch: _Batch, position: int | None = None) -> None:
        """One transaction; captures begin after it, so a crash before it loses nothing: the journal has it all."""
        while True:
            try:
                async with self._writing:
                    await self._world.catalogue.put(
                        position=position,
                        incidents=await self._as_they_are(batch),
                        alerts=batch.rows,
                        repeats=[(row, n, last) for row, (n, last) in batch.repeats.items()],
                    )
                break
            except Transient as problem:
                log.warning("the catalogue cannot be written; alerts wait", problem=str(problem))
                await asyncio.sleep(RETRY)
        for start in batch.starts:
            self._tasks.create_task(self._capture(start))
        for future, answer in batch.answers:
            if future.done():
                continue
            if isinstance(answer, Incident):
                future.set_result(answer)
            else:
                future.set_exception(answer)

    async def _as_they_are(self, batch: _Batch) -> list[Incident]:
        """Every incident that this batch touched. What is sealed already counts late copies all the same."""
        found = {}
        for id, copies in batch.late.items():
            if id in self._incidents.by_id:
                self._incidents.by_id[id].count(copies)
                batch.touched.add(id)
            elif (known := await self._world.catalogue.incident(id)) is not None:
                found[id] = replace(known, alerts=known.alerts + copies)
        for id in batch.touched - found.keys():
            if id in self._incidents.by_id:
                found[id] = self._incidents.by_id[id].incident
        return list(found.values())

    def _refuse_unreadable(self, record: Record, problem: TripsharkError, batch: _Batch) -> None:
        """Accepted once, not understood now (a newer version wrote it, or a fault of ours): kept and shown."""
        alert = Alert(rule="(not understood)", priority=Priority.DEBUG, time_ns=record.received_ns)
        refusal = Refusal(reason=Reason.UNSUPPORTED, message=problem.message, hint=problem.hint)
        batch.rows.append(
            AlertRow(accepted=_accepted(record, alert), incident=None, refusal=refusal)
        )
        self._answer(record, problem, batch)

    # ----------------------------------------------------------------------------------- alerts

    async def _take(self, record: Record, batch: _Batch) -> None:
        if record.repeat_of:
            self._repeat(record.repeat_of, record.received_ns, batch)
            return
        if record.via == manual.VIA:
            await self._take_request(record, batch)
            return
        if record.via.startswith(orders.VIA):
            await self._take_order(record, batch)
            return
        alert = self._recent.decoded.pop(record.seq, None) or falco.decode(record.body)
        first = self._recent.saw(event_key(alert), record.seq)
        if first not in (None, record.seq):
            self._repeat(first, record.received_ns, batch)
            self._recent.settle(record.seq, self._fate(first))
            return
        resolution = await self._pipeline.resolve(alert)
        if isinstance(resolution, Refusal):
            self._refuse(record, alert, meaning(alert, ""), resolution, batch)
            return
        if resolution.later and self._trying < LATE_AT_ONCE:
            self._trying += 1
            self._tasks.create_task(self._take_late(record, alert))
        await self._react(record, alert, resolution, batch)

    async def _take_late(self, record: Record, alert: Alert) -> None:
        """Nobody knew this alert's container yet: try again for a moment, while others go on.

        What was refused meanwhile is stored as such; the row is replaced when it is found after all.
        """
        try:
            resolution = await self._world.targets.resolve_late(alert)
            if resolution.target is None and resolution.elsewhere is None:
                return
            batch = _Batch()
            async with self._deciding:
                await self._react(record, alert, resolution, batch)
            await self._commit(batch)
        except TripsharkError as problem:
            log.warning("an alert could not be tried again", problem=str(problem))
        finally:
            self._trying -= 1

    async def _react(
        self,
        record: Record,
        alert: Alert,
        resolution: Resolution,
        batch: _Batch,
        *,
        within: str = "",
    ) -> None:
        """What the rules make of an alert whose target is known, or known not to be.

        `within`: the only namespace that may be captured, whatever rules and neighbours say.
        """
        now_ns = self._world.clock.now_ns()
        target = resolution.target
        key = meaning(alert, target.key if target else "")
        opened = self._incidents.open.get(target.key) if target else None
        if opened is not None and opened.knows(key):  # nothing needs to be decided again
            self._join_repeat(opened, record, alert, key, batch)
            return
        resting = self._incidents.resting.get(key)
        if resting is not None and resting.holds(alert.time_ns, now_ns):
            self._rest(record, alert, key, resting, batch)
            return
        decision = await self._pipeline.decide(alert, resolution, now_ns=now_ns)
        if within:
            decision = decision.confined(within)
        if isinstance(decision.answer, Refusal) or decision.target is None:
            refusal = _as_refusal(decision.answer)
            for each in decision.far:
                refusal = await self._pass_on(record, alert, each, refusal)
            self._refuse(record, alert, key, refusal, batch)
            return
        opened = await self._begin(
            record, alert, key, decision.answer, decision.target, batch, also=decision.also
        )
        if opened is not None:
            for each in decision.far:
                await self._ask(record, decision.answer, each, opened, batch)

    async def _pass_on(self, record: Record, alert: Alert, far: Far, refusal: Refusal) -> Refusal:
        """Hand an alert to the node that records what it is about; its own rules decide there."""
        if self._world.fleet is None:
            return refusal
        request = FleetRequest(
            aims=(far.aim,),
            t0_ns=alert.time_ns,
            alert=record.body.decode(errors="replace"),
            origin=self._host.name,
            key=event_key(alert).hex(),
            wide=True,  # whoever may make one in a namespace alone must not put words in Falco's mouth
        )
        try:
            name = await self._world.fleet.ask(request)
        except (BadInput, Transient) as problem:
            return replace(
                refusal,
                reason=Reason.RATE if isinstance(problem, TooMany) else Reason.NO_TARGET,
                message=f"{far.aim} is on another node, which could not be asked: {problem.message}",
                hint=problem.hint,
            )
        return replace(refusal, message=f"{refusal.message} (Capture {name})")

    async def _ask(
        self, record: Record, plan: Plan, far: Far, opened: Open, batch: _Batch
    ) -> None:
        """Have another node capture its part of this incident."""
        if self._world.fleet is None:
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
            alert=record.body.decode(errors="replace") if record.via != manual.VIA else "",
            origin=self._host.name,
            wide=True,  # in a namespaced one an incident's id is anybody's word
        )
        try:
            name = await self._world.fleet.ask(request)
        except (BadInput, Transient) as problem:
            opened.entries.append(
                Entry(
                    kind="part_missing",
                    message=f"{far.aim} belongs to this incident and could not be asked for: "
                    f"{problem.message}",
                    word=Word.TRUNCATED,
                )
            )
            batch.touched.add(opened.incident.id)
            return
        opened.entries.append(
            Entry(
                kind="part_elsewhere",
                message=f"{far.aim} is recorded on another node, which was asked for its part"
                f" (Capture {name})",
            )
        )
        batch.touched.add(opened.incident.id)

    async def _begin(
        self,
        record: Record,
        alert: Alert,
        key: str,
        plan: Plan,
        target: Target,
        batch: _Batch,
        *,
        also: Sequence[Part] = (),
        incident: IncidentId | None = None,
    ) -> Open | None:
        """Join the target's open incident, or start one; `also` become further parts of it.

        `incident` is the one that another node says this belongs to. None when it was refused.
        """
        opened = self._incidents.open.get(target.key)
        same = self._incidents.by_id.get(incident) if incident else None
        if same is not None and not same.sealing:
            opened = same
            if opened.running_on(target.key):  # we asked for it ourselves, and are at it already
                row = AlertRow(
                    accepted=_accepted(record, alert), incident=opened.incident.id, refusal=None
                )
                batch.rows.append(row)  # so that it is not done again; no row of the evidence
                self._recent.settle(record.seq, Fate(row.accepted.id, opened.incident.id))
                self._answer(record, opened.incident, batch)
                return opened
        if opened is not None and opened.knows(key):
            self._join_repeat(opened, record, alert, key, batch)
            return opened
        now_ns = self._world.clock.now_ns()
        allowed = within_policy(plan, target)
        if isinstance(allowed, Refusal):
            refusal: Refusal | None = allowed
        else:
            plan, refusal = allowed, self._may_start(allowed, opened, now_ns)
        frozen = None if refusal else await self._pipeline.freeze(plan)
        if isinstance(frozen, Refusal):
            refusal, frozen = frozen, None
        if refusal is None:  # asking the disk may be slow: the history is safe by now
            refusal = await self._has_room(plan, now_ns)
            if refusal is not None and frozen is not None:
                await self._release(frozen)
        if refusal is not None:
            self._refuse(record, alert, key, refusal, batch, opened)
            return None
        if frozen is not None:
            self._world.meter.frozen((frozen.at_ns - record.received_ns) / 1e9)
        if opened is None:
            opened = Open(
                incident=self._new_incident(
                    await self._free(incident, now_ns), alert, plan, target, now_ns
                )
            )
            self._incidents.add(opened)
        else:
            opened.count()
        opened.planned[key] = target.key
        opened.running += 1
        self._add_row(opened, record, alert, key, batch)
        batch.touched.add(opened.incident.id)
        if frozen is not None:  # its rings as they were at the freeze, its identity as we know it
            target = replace(frozen.target, identity=target.identity)
        batch.starts.append(_Start(opened, key, plan, target, frozen))
        for part in also:
            await self._add_part(opened, key, part, batch)
        self._answer(record, opened.incident, batch)
        return opened

    async def _free(self, wanted: IncidentId | None, now_ns: int) -> IncidentId:
        """The id that an incident gets: the one it has on other nodes, unless it is taken here."""
        taken = wanted is None or await self._world.catalogue.incident(wanted) is not None
        if taken or wanted is None:
            return incident_id(now_ns, self._world.entropy(16))
        return wanted

    async def _add_part(self, opened: Open, key: str, part: Part, batch: _Batch) -> None:
        """Freeze one more target of this incident. What cannot be had is told in its ledger and stops nothing."""
        name = f"{key}@{part.target.key}"
        if opened.knows(name):
            return
        allowed = within_policy(part.plan, part.target)
        refusal = allowed if isinstance(allowed, Refusal) else None
        if self._incidents.running >= self._budget.bounds.concurrent:
            refusal = Refusal(reason=Reason.BUSY, message="as many captures run as may")
        plan = part.plan if isinstance(allowed, Refusal) else allowed
        frozen = None if refusal else await self._pipeline.freeze(plan)
        if isinstance(frozen, Refusal):
            refusal, frozen = frozen, None
        if refusal is not None:
            opened.entries.append(
                Entry(
                    kind="part_missing",
                    message=f"{part.target.title} belongs to this incident and could not be "
                    f"captured: {refusal.message}",
                    word=Word.TRUNCATED,
                )
            )
            return
        opened.planned[name] = part.target.key
        opened.running += 1
        target = part.target
        if frozen is not None:
            target = replace(frozen.target, identity=target.identity)
        batch.starts.append(_Start(opened, name, plan, target, frozen, part.role))

    def _may_start(self, plan: Plan, opened: Open | None, now_ns: int) -> Refusal | None:
        return self._budget.may_start(
            rule=plan.rule,
            target=plan.target,
            running=self._incidents.running,
            on_target=opened.running_on(plan.target) if opened else 0,
            now_ns=now_ns,
        )

    async def _has_room(self, plan: Plan, now_ns: int) -> Refusal | None:
        """A capture needs its bytes twice while it is sealed: as spool and as final file."""
        vault = self._world.vault
        if now_ns - self._disk_asked_ns > ASK_DISK_NS:
            self._disk_state = await asyncio.to_thread(
                lambda: (vault.used_bytes(), vault.free_bytes())
            )
            self._disk_asked_ns = now_ns
        used, free = self._disk_state
        promised = sum(
            2 * capture.state.plan.limits.max_bytes
            for opened in self._incidents.by_id.values()
            for capture in opened.captures.values()
        )
        refusal = room(
            2 * plan.limits.max_bytes,
            budget=self._disk,
            used_bytes=used,
            free_bytes=free,
            promised_bytes=promised,
        )
        return refusal and replace(refusal, rule=plan.rule)

    def _new_incident(
        self, id: IncidentId, alert: Alert, plan: Plan, target: Target, now_ns: int
    ) -> Incident:
        return Incident(
            id=id,
            state=State.OPEN,
            target=target.key,
            title=target.title,
            namespace=target.identity.namespace,
            pod=target.identity.pod,
            rule=plan.rule,
            falco_rule=alert.rule,
            priority=alert.priority.title,
            t0_ns=plan.t0_ns,
            opened_ns=now_ns,
            plan=msgspec.to_builtins(plan),
            namespaces=namespaces_of([target]),
        )

    def _add_row(
        self, opened: Open, record: Record, alert: Alert, key: str, batch: _Batch
    ) -> None:
        row = AlertRow(
            accepted=_accepted(record, alert), incident=opened.incident.id, refusal=None
        )
        opened.rows[row.accepted.id] = row
        opened.first.setdefault(key, row.accepted.id)
        self._recent.settle(record.seq, Fate(row.accepted.id, opened.incident.id))
        batch.rows.append(row)

    def _join_repeat(
        self, opened: Open, record: Record, alert: Alert, key: str, batch: _Batch
    ) -> None:
        """The same again while it is being captured: the window grows, nothing new starts."""
        for name, capture in opened.captures.items():
            if name == key or name.startswith(f"{key}@"):
                # an event that claims to be still to come lengthens nothing beyond one of now
                capture.extend(min(alert.time_ns, record.received_ns))
        opened.count()
        if len(opened.rows) < SHOWN:
            self._add_row(opened, record, alert, key, batch)
        else:
            first = opened.first[key]
            opened.repeat(first, record.received_ns)
            batch.repeat(first, record.received_ns)
            self._recent.settle(record.seq, Fate(first, opened.incident.id))
            self._keep_order(record, alert, Fate(first, opened.incident.id), batch)
        batch.touched.add(opened.incident.id)
        self._answer(record, opened.incident, batch)

    def _rest(
        self, record: Record, alert: Alert, key: str, resting: Resting, batch: _Batch
    ) -> None:
        """The same again within what was sealed, or shortly after: counted there, captured no more."""
        batch.count_late(resting.incident)
        refusal = Refusal(
            reason=Reason.COOLDOWN,
            message=f"incident {resting.incident} is about the same and covers this moment, "
            "or was sealed only just now",
            hint="its evidence holds what there was; a cooldown is bounds.cooldown",
        )
        self._refuse(record, alert, key, refusal, batch, incident=resting.incident)

    def _repeat(self, seq: int, received_ns: int, batch: _Batch) -> None:
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

    def _refuse(
        self,
        record: Record,
        alert: Alert,
        key: str,
        refusal: Refusal,
        batch: _Batch,
        opened: Open | None = None,
        incident: IncidentId | None = None,
    ) -> None:
        """A stored, countable "no"; the same "no" to the same meaning is counted on its first row."""
        told = f"{key}:{refusal.reason}"
        first = self._refused.get(told)
        if opened is not None:
            incident = opened.incident.id
            opened.count()
            batch.touched.add(incident)
        if first is not None:
            batch.repeat(first, record.received_ns)
            self._recent.settle(record.seq, Fate(first, incident))
        else:
            row = AlertRow(accepted=_accepted(record, alert), incident=incident, refusal=refusal)
            batch.rows.append(row)
            if len(self._refused) > SHOWN * 100:
                self._refused.clear()
            self._refused[told] = row.accepted.id
            self._recent.settle(record.seq, Fate(row.accepted.id, incident))
        kind = NotFound if refusal.reason is Reason.NO_TARGET else Refused
        self._answer(record, kind(refusal.message, hint=refusal.hint), batch)

    # -------------------------------------------------------------------------- captures by hand

    async def capture(self, request: CaptureRequest) -> Incident:
        """Freeze and begin. Durable like an alert; raises what stands in the way."""
        manual.alert_of(request, received_ns=0)  # raises BadInput before anything is stored
        await asyncio.to_thread(bpf.compile, request.filter, 1)
        return await self._note(manual.encode(request), manual.VIA)

    async def order(self, order: Order, via: str) -> Incident:
        """Do this node's part of what a Capture resource asks. As `capture`; the incident may be an open one.

        `via` begins with `orders.VIA`; what became of the order is kept in the catalogue under it.
        """
        orders.alert_of(order)  # raises BadInput before anything is stored
        if order.request.peer:
            manual.endpoint(order.request.peer)
        await asyncio.to_thread(bpf.compile, order.request.filter, 1)
        return await self._note(orders.encode(order), via)

    async def _note(self, body: bytes, via: str) -> Incident:
        """Make a wish durable, and wait for what becomes of it."""
        now_ns = self._world.clock.now_ns()
        future: asyncio.Future[Incident] = asyncio.get_running_loop().create_future()
        seq = await self._world.journal.append(body, via=via, received_ns=now_ns)
        self._waiting[seq] = future
        try:
            return await asyncio.wait_for(future, timeout=30)
        except TimeoutError as late:
            raise Transient("the capture was noted but has not begun yet", after=5) from late
        finally:
            self._waiting.pop(seq, None)

    async def _take_request(self, record: Record, batch: _Batch) -> None:
        request = manual.decode(record.body)
        alert = manual.alert_of(request, received_ns=record.received_ns)
        resolution = await self._world.targets.find(request.target)
        target = resolution.target
        if target is None:
            refusal = Refusal(
                reason=Reason.NO_TARGET, message=resolution.reason, hint=resolution.hint
            )
            self._refuse(record, alert, f"manual:{record.seq}", refusal, batch)
            return
        plan = manual.plan_of(request, alert, target, self._defaults)
        key = f"{meaning(alert, target.key)}:{record.seq}"  # two requests are never the same
        if isinstance(plan, Refusal):
            self._refuse(record, alert, key, plan, batch)
            return
        also, far = by_hand(request, alert, plan, resolution)
        opened = await self._begin(record, alert, key, plan, target, batch, also=also)
        if opened is not None:
            for each in far:
                await self._ask(record, plan, each, opened, batch)

    async def _take_order(self, record: Record, batch: _Batch) -> None:
        order = orders.decode(record.body)
        alert = orders.alert_of(order)
        key = f"{orders.VIA}{order.resource}@{order.target}"
        try:
            target = await self._pipeline.target(order.target)
        except Transient as away:
            refusal = Refusal(reason=Reason.RECORDER_AWAY, message=away.message, hint=away.hint)
            self._refuse(record, alert, key, refusal, batch)
            return
        if target is None:
            refusal = Refusal(
                reason=Reason.EXPIRED, message=f"{order.target} is not recorded here any more"
            )
            self._refuse(record, alert, key, refusal, batch)
            return
        within = orders.confines(order)
        if not orders.wants_rules(order):
            now_ns = self._world.clock.now_ns()
            plan = orders.plan_of(order, alert, target, self._defaults, now_ns)
            await self._begin(
                record, alert, key, plan, target, batch, incident=order.request.incident
            )
        elif not within and (first := self._earlier(alert, record)) is not None:
            self._repeat(first, record.received_ns, batch)
            fate = self._fate(first)
            self._recent.settle(record.seq, fate)
            self._keep_order(record, alert, fate, batch)
            await self._answer_with(record, fate, batch)
        else:
            resolution = Resolution(
                target=target, reason=f"{order.request.origin or 'another node'} passed it on"
            )
            await self._react(record, alert, resolution, batch, within=within)

    def _earlier(self, alert: Alert, record: Record) -> int | None:
        """The record that was the very same event before this one."""
        first = self._recent.saw(event_key(alert), record.seq)
        return None if first == record.seq else first

    def _keep_order(self, record: Record, alert: Alert, fate: Fate, batch: _Batch) -> None:
        """An order is found again by its row, also where its alert was only counted: else it is done for ever."""
        if record.via.startswith(orders.VIA) and fate.incident is not None:
            batch.rows.append(
                AlertRow(accepted=_accepted(record, alert), incident=fate.incident, refusal=None)
            )

    async def _answer_with(self, record: Record, fate: Fate, batch: _Batch) -> None:
        """Tell what became of the event earlier."""
        opened = self._incidents.by_id.get(fate.incident) if fate.incident else None
        known = opened.incident if opened else None
        if known is None and fate.incident is not None:
            known = await self._world.catalogue.incident(fate.incident)
        self._answer(record, known or Refused("the same event was refused here before"), batch)

    def _answer(self, record: Record, answer: Incident | TripsharkError, batch: _Batch) -> None:
        """Whoever waits for this record is told once it is stored."""
        future = self._waiting.get(record.seq)
        if future is not None:
            batch.answers.append((future, answer))

    # --------------------------------------------------------------------------------- captures

    async def _capture(self, start: _Start) -> None:
        """One part of an incident, from its freeze to its end; the last one to end seals."""
        opened = start.opened
        try:
            draft = await self._draft(opened)
            opened.parts += 1
            state = PartState(
                number=opened.parts - 1,
                role=start.role,
                plan=start.plan,
                target=start.target,
                until_ns=start.plan.t0_ns + start.plan.after_ns,
            )
            capture = await asyncio.to_thread(
                Capture,
                state,
                draft=draft,
                recorder=self._world.recorder,
                clock=self._world.clock,
            )
            opened.captures[start.meaning] = capture
            if self._stopping.is_set():
                capture.stop()
            await capture.run(start.frozen)
        except (TripsharkError, OSError) as problem:
            opened.entries.append(
                Entry(
                    kind="capture_failed",
                    message=f"a capture of this incident failed: {problem}",
                    word=Word.INTERRUPTED,
                )
            )
            if start.frozen is not None and start.meaning not in opened.captures:
                await self._release(start.frozen)
            log.warning("capture failed", incident=opened.incident.id, problem=str(problem))
        finally:
            opened.running -= 1
            opened.planned.pop(start.meaning, None)
        if not opened.running and not opened.sealing:
            self._incidents.close_door(opened)
            await self._seal(opened)

    async def _draft(self, opened: Open) -> Draft:
        if opened.draft is None:
            incident = opened.incident
            opened.draft = self._world.vault.begin(incident.id, incident.opened_ns)
        return opened.draft

    async def _release(self, frozen: Frozen) -> None:
        try:
            await self._world.recorder.release(frozen)
        except (Transient, NotFound):
            return

    # ---------------------------------------------------------------------------------- sealing

    async def _seal(self, opened: Open) -> None:
        """Evidence first; findings after it, and never in its way."""
        sealed: Sealed | None = None
        problem = opened.entries[-1].message if opened.entries else "no draft could be begun"
        for _ in range(SEAL_TRIES if opened.draft else 0):
            try:
                sealed = await self._seal_once(opened)
                break
            except Transient as full:
                problem = str(full)
                log.warning("sealing waits", incident=opened.incident.id, problem=problem)
                await asyncio.sleep(RETRY)
            except (TripsharkError, OSError, ValueError) as fault:
                problem = str(fault)
                log.exception("sealing failed", incident=opened.incident.id)
                break
        now_ns = self._world.clock.now_ns()
        if sealed is None:
            failed = replace(
                opened.incident, state=State.FAILED, problem=problem, sealed_ns=now_ns
            )
            await self._store(failed)
            self._incidents.rest(opened, now_ns)
            opened.sealed.set()
            self._world.told(failed)
            return
        incident = replace(
            sealed.incident,
            alerts=opened.incident.alerts,
            state=State.SEALED if sealed.incident.packets else State.EMPTY,
            folder=self._world.vault.folder(opened.incident.id),
            manifest_sha256=_digest(sealed.manifest),
        )
        opened.incident = incident
        await self._store(incident)
        self._incidents.rest(opened, now_ns + self._budget.bounds.cooldown_ns)
        self._world.meter.sealed(incident.word)
        opened.sealed.set()
        self._world.told(incident)
        log.info(
            "sealed",
            incident=incident.id,
            target=incident.title,
            packets=incident.packets,
            ledger=incident.word,
        )
        await self._analyse(incident, sealed, list(opened.rows.values()))

    async def _seal_once(self, opened: Open) -> Sealed:
        assert opened.draft is not None  # noqa: S101 (the caller has looked)
        try:
            neighbours = await self._world.targets.all()
        except Transient:
            neighbours = ()
        return await asyncio.to_thread(
            seal,
            opened.draft,
            opened.incident,
            alerts=list(opened.rows.values()),
            host=self._host,
            neighbours=neighbours,
            addresses=self._world.addresses,
            now_ns=self._world.clock.now_ns(),
            entries=opened.entries,
        )

    async def _store(self, incident: Incident) -> None:
        while True:
            try:
                async with self._writing:
                    await self._world.catalogue.put(incidents=[incident])
            except Transient as problem:
                log.warning("the catalogue cannot be written", problem=str(problem))
                await asyncio.sleep(RETRY)
            else:
                return

    async def _analyse(self, incident: Incident, sealed: Sealed, rows: Iterable[AlertRow]) -> None:
        """One paragraph for people, findings for programs; a failure is noted and withholds nothing."""
        if self._world.analyst is None or not incident.packets:
            return
        question = Question(
            t0_ns=incident.t0_ns,
            target=incident.title,
            addresses=sealed.addresses,
            connections=tuple(
                row.accepted.alert.connection
                for row in rows
                if row.accepted.alert.connection is not None
            ),
            names=sealed.names,
            others=sealed.others,
            manifest_sha256=incident.manifest_sha256,
        )
        evidence = next(file for file in sealed.manifest.files if file.name.endswith(".pcapng"))
        async with self._analysing:
            try:
                findings = await self._world.analyst.analyse(
                    f"{incident.folder}/{evidence.name}", question
                )
                await asyncio.to_thread(
                    self._world.vault.beside,
                    incident.id,
                    "findings.json",
                    msgspec.json.format(msgspec.json.encode(findings), indent=2) + b"\n",
                )
            except TripsharkError as problem:
                log.warning("no findings", incident=incident.id, problem=str(problem))
                await self._update(incident.id, problem=f"no findings: {problem.message}")
                return
        await self._update(incident.id, summary=findings.summary)

    async def _update(self, id: IncidentId, *, summary: str = "", problem: str = "") -> None:
        """Add what was learnt after sealing; the count of alerts may have grown meanwhile."""
        async with self._writing:
            known = await self._world.catalogue.incident(id)
            if known is not None:
                told = replace(
                    known, summary=summary or known.summary, problem=problem or known.problem
                )
                await self._world.catalogue.put(incidents=[told])

    # ---------------------------------------------------------------------------------- salvage

    async def _salvage(self) -> None:
        """What an earlier life left open: its drafts, and incidents that never got one."""
        drafts = {draft.incident: draft for draft in self._world.vault.drafts()}
        for state in (State.OPEN, State.SEALING):
            for incident in await self._world.catalogue.incidents(
                Query(state=state.value, limit=1000)
            ):
                await self._salvage_one(incident, drafts.pop(incident.id, None))
        for draft in drafts.values():
            known = await self._world.catalogue.incident(draft.incident)
            if known is None or known.state in (State.SEALED, State.EMPTY, State.REMOVED):
                draft.discard()  # begun before its incident was stored: the journal has the alert
            else:
                await self._salvage_one(known, draft)

    async def _salvage_one(self, incident: Incident, draft: Draft | None) -> None:
        """Finish from the draft, and from the ring where it still reaches back."""
        try:
            folder = self._world.vault.folder(incident.id)
        except NotFound:
            folder = ""
        if folder:  # sealed, but the catalogue was not told
            await self._recatalogue(incident, folder)
            if draft is not None:
                draft.discard()
            return
        opened = Open(incident=incident, draft=draft)
        opened.rows = {
            row.accepted.id: row for row in await self._world.catalogue.alerts(incident.id)
        }
        opened.entries.append(
            Entry(
                kind="responder_restart",
                message="Tripshark was interrupted during this capture; it was finished from what "
                "had been kept and from what the ring still held",
                word=Word.INTERRUPTED,
                from_ns=incident.opened_ns,
                to_ns=self._world.clock.now_ns(),
            )
        )
        self._incidents.by_id[incident.id] = opened
        opened.sealing = True
        self._tasks.create_task(self._finish(opened))

    async def _finish(self, opened: Open) -> None:
        try:
            draft = await self._draft(opened)
            states = [state for state, _, _ in await asyncio.to_thread(lambda: list(parts(draft)))]
            plans = [(state.plan, state.role) for state in states] or [
                (msgspec.convert(opened.incident.plan, Plan), "")
            ]
            number = max((state.number for state in states), default=-1)
            known = {t.key: t for t in await self._targets_or_none()}
            for plan, role in plans:
                target = known.get(plan.target)
                if target is None:
                    continue
                number += 1
                now_ns = self._world.clock.now_ns()
                state = PartState(
                    number=number,
                    role=role,
                    plan=plan,
                    target=target,
                    until_ns=min(now_ns, plan.t0_ns + plan.after_ns),
                )
                capture = await asyncio.to_thread(
                    Capture,
                    state,
                    draft=draft,
                    recorder=self._world.recorder,
                    clock=self._world.clock,
                )
                await capture.run(None)
        except (TripsharkError, OSError, msgspec.MsgspecError) as problem:
            log.warning("salvage from the ring failed", problem=str(problem))
        await self._seal(opened)

    async def _targets_or_none(self) -> tuple[Target, ...]:
        try:
            return await self._world.targets.all()
        except Transient:
            return ()

    async def _recatalogue(self, incident: Incident, folder: str) -> None:
        manifest = await asyncio.to_thread(self._world.vault.manifest, incident.id)
        what = manifest.details.get("what")
        told: dict[str, Json] = what if isinstance(what, dict) else {}
        packets, size = told.get("packets"), told.get("bytes")
        await self._store(
            replace(
                incident,
                state=State.SEALED if packets else State.EMPTY,
                folder=folder,
                sealed_ns=manifest.created_ns,
                packets=packets if isinstance(packets, int) else 0,
                bytes=size if isinstance(size, int) else 0,
                word=manifest.ledger.word,
                manifest_sha256=_digest(manifest),
            )
        )

    # ------------------------------------------------------------------------------ housekeeping

    async def _clean(self) -> None:
        while self._retention is not None:
            try:
                await self._retention()
            except (TripsharkError, OSError) as problem:
                log.warning("retention failed", problem=str(problem))
            await asyncio.sleep(JANITOR)


def _accepted(record: Record, alert: Alert) -> Accepted:
    return Accepted(
        id=alert_id(record.seq),
        seq=record.seq,
        received_ns=record.received_ns,
        alert=alert,
        body=record.body,
        via=record.via,
    )


def _as_refusal(answer: Plan | Refusal) -> Refusal:
    if isinstance(answer, Refusal):
        return answer
    return Refusal(reason=Reason.NO_TARGET, message="no target", rule=answer.rule)


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(manifest_json(manifest)).hexdigest()
