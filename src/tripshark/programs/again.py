"""Has sealed evidence read once more by the running analyst, as after sealing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from tripshark.analysis.client import AnalystClient
from tripshark.errors import NotFound
from tripshark.model.alert import Json
from tripshark.model.evidence import Manifest
from tripshark.model.finding import Findings, Question
from tripshark.model.gaps import with_ledger
from tripshark.model.incident import Incident
from tripshark.ports import AlertRow
from tripshark.programs.reading import reading
from tripshark.programs.reporting import Reports
from tripshark.programs.watchlist import Watchlist
from tripshark.respond import questioning
from tripshark.respond.watching import watched
from tripshark.settings import Settings


async def analyse_again(settings: Settings, id: str) -> Findings:
    """New findings and reports beside the evidence, and their summary in the catalogue.

    Raises `NotFound` (no such incident, or no packets), `Transient` when the analyst is away.
    """
    async with reading(settings) as store:
        incident = await store.find(id)
        folder = Path(store.vault.folder(incident.id))
        manifest = store.vault.manifest(incident.id)
        names = [each.name for each in manifest.files if each.name.endswith(".pcapng")]
        if not names or not incident.packets:
            raise NotFound("there are no packets to read", where=str(folder))
        rows = await store.catalogue.alerts(incident.id)
        analyst, path = AnalystClient(str(settings.analyst_socket)), str(folder / names[0])
        findings = await analyst.analyse(path, question(incident, manifest, rows))
        findings = with_ledger(findings, manifest.ledger)
        findings = await watched(findings, await Watchlist(settings.indicators)(), analyst, path)
        content = msgspec.json.format(msgspec.json.encode(findings), indent=2) + b"\n"
        store.vault.beside(incident.id, "findings.json", content)
        written = Reports().companions(replace(incident, folder=str(folder)), "")
        for name, made in written.items():
            store.vault.beside(incident.id, name, made)
        known = await store.catalogue.incident(incident.id)
        await store.catalogue.put(
            incidents=[replace(known or incident, summary=findings.summary, problem="")]
        )
        return findings


def question(incident: Incident, manifest: Manifest, rows: Sequence[AlertRow]) -> Question:
    """What the analyst was told when the evidence was sealed; the manifest still knows it."""
    where = _mapping(manifest.details.get("where"))
    interfaces = where.get("interfaces")
    addresses = [
        str(address).partition("/")[0]
        for each in (interfaces if isinstance(interfaces, list) else [])
        for address in _sequence(_mapping(each).get("addresses"))
    ]
    captures = _sequence(_mapping(manifest.details.get("what")).get("captures"))
    own = {
        str(_mapping(each).get("target"))
        for each in captures
        if _mapping(each).get("end", "own") == "own"
    }
    return questioning.question(
        incident,
        rows,
        addresses=addresses,
        names={key: str(value) for key, value in _mapping(where.get("names")).items()},
        others=max(0, len(own) - 1),
        node=str(where.get("host") or ""),
    )


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else []
