"""Runs the parts of an incident, each to its end, and has it sealed when the last one has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from tripshark.errors import TripsharkError
from tripshark.model.evidence import Entry, Word
from tripshark.ports import Draft
from tripshark.respond.batch import Start
from tripshark.respond.capture import Capture, release
from tripshark.respond.incidents import Incidents, Open
from tripshark.respond.spool import PartState
from tripshark.respond.world import World

log = structlog.get_logger("tripshark.runner")


class Capturing:
    """One part of an incident at a time, from its freeze to its end; the last one to end seals."""

    def __init__(
        self,
        world: World,
        incidents: Incidents,
        *,
        seal: Callable[[Open], Awaitable[None]],
        stopping: asyncio.Event,
    ) -> None:
        self._world = world
        self._incidents = incidents
        self._seal = seal
        self._stopping = stopping

    async def run(self, start: Start) -> None:
        opened = start.opened
        try:
            draft = await self.draft(opened)
            opened.parts += 1
            state = PartState(
                number=opened.parts - 1,
                role=start.role,
                plan=start.plan,
                target=start.target,
                until_ns=start.plan.t0_ns + start.plan.after_ns,
            )
            capture = await self.capture(draft, state)
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
                await release(self._world.recorder, start.frozen)
            log.warning("capture failed", incident=opened.incident.id, problem=str(problem))
        finally:
            opened.ended(start.meaning)
            self._world.meter.running(self._incidents.running)
        if not opened.running and not opened.sealing:
            self._incidents.close_door(opened)
            await self._seal(opened)

    async def draft(self, opened: Open) -> Draft:
        """The folder that the incident's parts are spooled to."""
        if opened.draft is None:
            incident = opened.incident
            opened.draft = self._world.vault.begin(incident.id, incident.opened_ns)
        return opened.draft

    async def capture(self, draft: Draft, state: PartState) -> Capture:
        """Its spool opened, ready to run."""
        return await asyncio.to_thread(
            Capture,
            state,
            draft=draft,
            recorder=self._world.recorder,
            clock=self._world.clock,
        )

    def stop_all(self) -> None:
        """End what runs, and say why it ended."""
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
