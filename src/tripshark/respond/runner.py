"""Owns every task: reads the journal in order, and keeps what was begun running to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from tripshark.errors import TripsharkError
from tripshark.model.alert import Alert
from tripshark.model.incident import Incident
from tripshark.model.plan import Defaults
from tripshark.model.retention import Budget as DiskBudget
from tripshark.ports import Record
from tripshark.respond.asking import Asking
from tripshark.respond.batch import Batch
from tripshark.respond.beginning import Beginning
from tripshark.respond.budget import Budget
from tripshark.respond.capturing import Capturing
from tripshark.respond.cataloguing import Cataloguing
from tripshark.respond.counting import Counting
from tripshark.respond.details import Host
from tripshark.respond.disk import Disk
from tripshark.respond.ending import Ending
from tripshark.respond.incidents import Incidents
from tripshark.respond.intake import Recent
from tripshark.respond.pipeline import Pipeline
from tripshark.respond.salvage import Salvage
from tripshark.respond.taking import Taking
from tripshark.respond.wishes import Wishes
from tripshark.respond.world import World

log = structlog.get_logger("tripshark.runner")

BATCH = 256  # journal records handled between two transactions
POLITE = 4  # of them before others have their turn, and so long a turn where many senders wait
POLITE_S = 0.002
BUSY_S = 0.05  # batches closer together than this are a storm
GATHER_S = 0.01  # and then this much of it goes into one transaction
FORGET_EVERY = 4096  # records between two looks for segments that may go
JANITOR = 60.0
LATE_AT_ONCE = (
    64  # alerts that wait for a runtime to know their container; more are refused at once
)


class Runner:
    """One life of the responder: what an earlier one left open, then the journal, record by record."""

    def __init__(
        self,
        world: World,
        pipeline: Pipeline,
        budget: Budget,
        disk: DiskBudget,
        *,
        defaults: Defaults,
        recent: Recent,
        wishes: Wishes,
        host: Host,
        retention: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._world = world
        self._recent = recent
        self._retention = retention
        self._stopping = asyncio.Event()
        self._deciding = asyncio.Lock()  # two decisions about one target must see each other
        self._trying = 0  # alerts whose target is still looked for
        self._tasks: asyncio.TaskGroup
        self.position = 0  # of the journal: everything up to here is in the catalogue

        self._incidents = Incidents()
        self._counting = Counting(self._incidents, recent, wishes)
        self._cataloguing = Cataloguing(world.catalogue, self._incidents)
        ending = Ending(
            world,
            self._incidents,
            self._cataloguing,
            host=host,
            cooldown_ns=budget.bounds.cooldown_ns,
        )
        self._capturing = Capturing(
            world, self._incidents, seal=ending.seal, stopping=self._stopping
        )
        self._salvage = Salvage(world, self._incidents, self._capturing, ending, self._cataloguing)
        beginning = Beginning(
            world,
            pipeline,
            self._incidents,
            self._counting,
            wishes,
            budget=budget,
            disk=Disk(world.vault, disk, self._incidents),
        )
        self._taking = Taking(
            world,
            pipeline,
            self._incidents,
            self._counting,
            wishes,
            beginning,
            asking=Asking(world.fleet, origin=host.name),
            recent=recent,
            defaults=defaults,
            try_again=self._try_again,
        )

    # ------------------------------------------------------------------------------------- life

    async def run(self) -> None:
        """Until `stop`. First finishes what an earlier life left open."""
        async with asyncio.TaskGroup() as self._tasks:
            async for opened in self._salvage.found():
                self._tasks.create_task(self._salvage.finish(opened))
            consumer = self._tasks.create_task(self._consume())
            janitor = self._tasks.create_task(self._clean())
            await self._stopping.wait()
            consumer.cancel()
            janitor.cancel()
            self._capturing.stop_all()

    def stop(self) -> None:
        """End captures now, seal them, and return from `run`."""
        self._stopping.set()

    # ---------------------------------------------------------------------------------- journal

    async def _consume(self) -> None:
        self.position = forgotten = await self._world.catalogue.position()
        loop, before = asyncio.get_running_loop(), 0.0
        while True:
            records = await self._world.journal.read(self.position, BATCH)
            batch = Batch()
            for number, record in enumerate(records):
                if number % POLITE == POLITE - 1:  # whoever waits for a 202 comes first
                    await asyncio.sleep(POLITE_S if self._recent.waiting > POLITE else 0)
                try:
                    async with self._deciding:
                        await self._taking.take(record, batch)
                except TripsharkError as problem:
                    self._counting.refuse_unreadable(record, problem, batch)
            await self._commit(batch, records[-1].seq)
            self.position = records[-1].seq
            self._recent.forget_decoded(self.position)
            if self.position - forgotten > FORGET_EVERY or len(records) < BATCH // 4:
                await self._world.journal.forget(self.position)
                forgotten = self.position
            if not batch.starts and len(records) < BATCH and loop.time() - before < BUSY_S:
                await asyncio.sleep(GATHER_S)  # in a storm fewer, larger transactions
            before = loop.time()

    async def _commit(self, batch: Batch, position: int | None = None) -> None:
        """Store, then start what was begun and answer whoever waits."""
        await self._cataloguing.commit(batch, position)
        for start in batch.starts:
            self._tasks.create_task(self._capturing.run(start))
        for future, answer in batch.answers:
            if future.done():
                continue
            if isinstance(answer, Incident):
                future.set_result(answer)
            else:
                future.set_exception(answer)

    def _try_again(self, record: Record, alert: Alert) -> None:
        """Nobody knows this alert's container yet: a moment of its own, while others go on."""
        if self._trying < LATE_AT_ONCE:
            self._trying += 1
            self._tasks.create_task(self._take_late(record, alert))

    async def _take_late(self, record: Record, alert: Alert) -> None:
        """What was refused meanwhile is stored as such; the row is replaced when it is found after all."""
        try:
            resolution = await self._world.targets.resolve_late(alert)
            if resolution.target is None and resolution.elsewhere is None:
                return
            batch = Batch()
            async with self._deciding:
                await self._taking.react(record, alert, resolution, batch)
            await self._commit(batch)
        except TripsharkError as problem:
            log.warning("an alert could not be tried again", problem=str(problem))
        finally:
            self._trying -= 1

    # ------------------------------------------------------------------------------ housekeeping

    async def _clean(self) -> None:
        while self._retention is not None:
            try:
                await self._retention()
            except (TripsharkError, OSError) as problem:
                log.warning("retention failed", problem=str(problem))
            await asyncio.sleep(JANITOR)
