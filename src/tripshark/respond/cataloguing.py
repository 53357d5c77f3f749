"""How the catalogue learns what became of alerts and incidents, also while it cannot be written."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from tripshark.errors import Transient
from tripshark.model.evidence import IncidentId
from tripshark.model.incident import Incident
from tripshark.ports import Catalogue
from tripshark.respond.batch import Batch
from tripshark.respond.incidents import Incidents

log = structlog.get_logger("tripshark.runner")

RETRY = 0.5  # seconds between tries of what may work later


class Cataloguing:
    """Reading an incident and writing it back is one step here, whoever asks for it."""

    def __init__(self, catalogue: Catalogue, incidents: Incidents) -> None:
        self._catalogue = catalogue
        self._incidents = incidents
        self._writing = asyncio.Lock()

    async def commit(self, batch: Batch, position: int | None) -> None:
        """One transaction. A crash before it loses nothing: the journal has it all."""
        while True:
            try:
                async with self._writing:
                    await self._catalogue.put(
                        position=position,
                        incidents=await self._as_they_are(batch),
                        alerts=batch.rows,
                        repeats=[(row, n, last) for row, (n, last) in batch.repeats.items()],
                    )
            except Transient as problem:
                log.warning("the catalogue cannot be written; alerts wait", problem=str(problem))
                await asyncio.sleep(RETRY)
            else:
                return

    async def store(self, incident: Incident) -> None:
        while True:
            try:
                async with self._writing:
                    await self._catalogue.put(incidents=[incident])
            except Transient as problem:
                log.warning("the catalogue cannot be written", problem=str(problem))
                await asyncio.sleep(RETRY)
            else:
                return

    async def add(self, id: IncidentId, *, summary: str = "", problem: str = "") -> None:
        """What was learnt after sealing; the count of alerts may have grown meanwhile."""
        async with self._writing:
            known = await self._catalogue.incident(id)
            if known is not None:
                told = replace(
                    known, summary=summary or known.summary, problem=problem or known.problem
                )
                await self._catalogue.put(incidents=[told])

    async def _as_they_are(self, batch: Batch) -> list[Incident]:
        """Every incident that this batch touched. What is sealed already counts late copies all the same."""
        found = {}
        for id, copies in batch.late.items():
            if id in self._incidents.by_id:
                self._incidents.by_id[id].count(copies)
                batch.touched.add(id)
            elif (known := await self._catalogue.incident(id)) is not None:
                found[id] = replace(known, alerts=known.alerts + copies)
        for id in batch.touched - found.keys():
            if id in self._incidents.by_id:
                found[id] = self._incidents.by_id[id].incident
        return list(found.values())
