"""What an earlier life left open, and how it is finished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import structlog

from tripshark.errors import NotFound, Transient, TripsharkError
from tripshark.model.alert import Json
from tripshark.model.evidence import Entry, Word
from tripshark.model.incident import Incident, State
from tripshark.model.plan import Plan
from tripshark.model.target import Target
from tripshark.ports import Draft, Query
from tripshark.respond.capturing import Capturing
from tripshark.respond.cataloguing import Cataloguing
from tripshark.respond.ending import Ending, digest
from tripshark.respond.incidents import Incidents, Open
from tripshark.respond.spool import PartState, parts
from tripshark.respond.world import World

log = structlog.get_logger("tripshark.runner")


class Salvage:
    """Finishes from the draft, and from the ring where it still reaches back."""

    def __init__(
        self,
        world: World,
        incidents: Incidents,
        capturing: Capturing,
        ending: Ending,
        cataloguing: Cataloguing,
    ) -> None:
        self._world = world
        self._incidents = incidents
        self._capturing = capturing
        self._ending = ending
        self._cataloguing = cataloguing

    async def found(self) -> AsyncIterator[Open]:
        """Each incident that is to be finished: those with a draft, and those that never got one."""
        drafts = {draft.incident: draft for draft in self._world.vault.drafts()}
        for state in (State.OPEN, State.SEALING):
            for incident in await self._world.catalogue.incidents(
                Query(state=state.value, limit=1000)
            ):
                opened = await self._open(incident, drafts.pop(incident.id, None))
                if opened is not None:
                    yield opened
        for draft in drafts.values():
            known = await self._world.catalogue.incident(draft.incident)
            if known is None or known.state in (State.SEALED, State.EMPTY, State.REMOVED):
                draft.discard()  # begun before its incident was stored: the journal has the alert
                continue
            opened = await self._open(known, draft)
            if opened is not None:
                yield opened

    async def finish(self, opened: Open) -> None:
        """Take what the ring still holds, and seal."""
        try:
            draft = await self._capturing.draft(opened)
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
                await (await self._capturing.capture(draft, state)).run(None)
        except (TripsharkError, OSError, msgspec.MsgspecError) as problem:
            log.warning("salvage from the ring failed", problem=str(problem))
        await self._ending.seal(opened)

    async def _open(self, incident: Incident, draft: Draft | None) -> Open | None:
        """None where it was sealed after all, and only the catalogue was not told."""
        try:
            folder = self._world.vault.folder(incident.id)
        except NotFound:
            folder = ""
        if folder:
            await self._recatalogue(incident, folder)
            if draft is not None:
                draft.discard()
            return None
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
        return opened

    async def _recatalogue(self, incident: Incident, folder: str) -> None:
        manifest = await asyncio.to_thread(self._world.vault.manifest, incident.id)
        what = manifest.details.get("what")
        told: dict[str, Json] = what if isinstance(what, dict) else {}
        packets, size = told.get("packets"), told.get("bytes")
        await self._cataloguing.store(
            replace(
                incident,
                state=State.SEALED if packets else State.EMPTY,
                folder=folder,
                sealed_ns=manifest.created_ns,
                packets=packets if isinstance(packets, int) else 0,
                bytes=size if isinstance(size, int) else 0,
                word=manifest.ledger.word,
                manifest_sha256=digest(manifest),
            )
        )

    async def _targets_or_none(self) -> tuple[Target, ...]:
        try:
            return await self._world.targets.all()
        except Transient:
            return ()
