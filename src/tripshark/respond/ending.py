"""How an incident ends: evidence is sealed first; findings come after it, and never in its way."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import replace

import msgspec
import structlog

from tripshark.errors import Transient, TripsharkError
from tripshark.model.evidence import Manifest, manifest_json
from tripshark.model.finding import Findings
from tripshark.model.gaps import with_ledger
from tripshark.model.incident import Incident, State
from tripshark.ports import AlertRow, Analyst
from tripshark.respond.cataloguing import RETRY, Cataloguing
from tripshark.respond.details import Host
from tripshark.respond.incidents import Incidents, Open
from tripshark.respond.questioning import question
from tripshark.respond.seal import Sealed, seal
from tripshark.respond.watching import watched
from tripshark.respond.world import World

log = structlog.get_logger("tripshark.runner")

SEAL_TRIES = 20


class Ending:
    """Seals what was captured for an incident, tells everybody, and asks for findings."""

    def __init__(
        self,
        world: World,
        incidents: Incidents,
        cataloguing: Cataloguing,
        *,
        host: Host,
        cooldown_ns: int,
    ) -> None:
        self._world = world
        self._incidents = incidents
        self._cataloguing = cataloguing
        self._host = host
        self._cooldown_ns = cooldown_ns
        self._analysing = asyncio.Semaphore(1)

    async def seal(self, opened: Open) -> None:
        """To the end, whatever stands in the way: what cannot be sealed is told as failed."""
        sealed = await self._try_to_seal(opened)
        now_ns = self._world.clock.now_ns()
        if isinstance(sealed, str):
            failed = replace(opened.incident, state=State.FAILED, problem=sealed, sealed_ns=now_ns)
            await self._store(opened, failed, until_ns=now_ns)
            return
        incident = replace(
            sealed.incident,
            alerts=opened.incident.alerts,
            state=State.SEALED if sealed.incident.packets else State.EMPTY,
            folder=self._world.vault.folder(opened.incident.id),
            manifest_sha256=digest(sealed.manifest),
        )
        opened.incident = incident
        await self._store(opened, incident, until_ns=now_ns + self._cooldown_ns)
        self._world.meter.sealed(incident.word)
        log.info(
            "sealed",
            incident=incident.id,
            target=incident.title,
            packets=incident.packets,
            ledger=incident.word,
        )
        await self._analyse(incident, sealed, list(opened.rows.values()))

    async def _store(self, opened: Open, incident: Incident, *, until_ns: int) -> None:
        await self._cataloguing.store(incident)
        self._incidents.rest(opened, until_ns)
        self._world.told(incident)

    async def _try_to_seal(self, opened: Open) -> Sealed | str:
        """What was sealed, or why nothing could be."""
        problem = opened.entries[-1].message if opened.entries else "no draft could be begun"
        for _ in range(SEAL_TRIES if opened.draft else 0):
            try:
                return await self._seal_once(opened)
            except Transient as full:
                problem = str(full)
                log.warning("sealing waits", incident=opened.incident.id, problem=problem)
                await asyncio.sleep(RETRY)
            except (TripsharkError, OSError, ValueError) as fault:
                log.exception("sealing failed", incident=opened.incident.id)
                return str(fault)
        return problem

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

    async def _analyse(self, incident: Incident, sealed: Sealed, rows: Iterable[AlertRow]) -> None:
        """One paragraph for people, findings for programs, a report; a failure is noted and withholds nothing."""
        findings, problem = None, ""
        if self._world.analyst is not None and incident.packets:
            async with self._analysing:
                try:
                    findings = await self._findings(self._world.analyst, incident, sealed, rows)
                except TripsharkError as failed:
                    log.warning("no findings", incident=incident.id, problem=str(failed))
                    problem = f"no findings: {failed.message}"
        unreported = await self._report(incident, problem)
        if problem := problem or unreported:
            await self._cataloguing.add(incident.id, problem=problem)
        if findings is not None:
            await self._cataloguing.add(incident.id, summary=findings.summary)
            self._world.analysed()

    async def _findings(
        self, analyst: Analyst, incident: Incident, sealed: Sealed, rows: Iterable[AlertRow]
    ) -> Findings:
        """Beside the evidence when this returns."""
        asked = question(
            incident,
            rows,
            addresses=sealed.addresses,
            names=sealed.names,
            others=sealed.others,
            node=self._host.name,
        )
        evidence = next(file for file in sealed.manifest.files if file.name.endswith(".pcapng"))
        path = f"{incident.folder}/{evidence.name}"
        try:
            findings = await analyst.analyse(path, asked)
        except Transient:  # it may just be restarting
            await asyncio.sleep(RETRY)
            findings = await analyst.analyse(path, asked)
        findings = with_ledger(findings, sealed.manifest.ledger)
        if self._world.watchlist is not None:
            findings = await watched(findings, await self._world.watchlist(), analyst, path)
        await asyncio.to_thread(
            self._world.vault.beside,
            incident.id,
            "findings.json",
            msgspec.json.format(msgspec.json.encode(findings), indent=2) + b"\n",
        )
        return findings

    async def _report(self, incident: Incident, problem: str) -> str:
        """What people read, beside the evidence; also of evidence without packets or findings. Returns why not."""
        reporter, vault = self._world.reporter, self._world.vault
        if reporter is None:
            return ""

        def write() -> None:
            for name, content in reporter.companions(incident, problem).items():
                vault.beside(incident.id, name, content)

        try:
            await asyncio.to_thread(write)
        except TripsharkError as failed:
            log.warning("no report", incident=incident.id, problem=str(failed))
            return f"no report: {failed.message}"
        return ""


def digest(manifest: Manifest) -> str:
    """By which the catalogue knows the manifest."""
    return hashlib.sha256(manifest_json(manifest)).hexdigest()
