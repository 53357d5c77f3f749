"""A hub searches what nodes found: their findings come with the evidence, are taken in again when they change, and leave with it."""

from __future__ import annotations

import json

import obstore

from tests.hub.conftest import Fleet
from tests.store.evidence import seal
from tripshark.model.evidence import IncidentId
from tripshark.model.search import Hit, Search, understood
from tripshark.ports import Query
from tripshark.store.harvest import Harvest
from tripshark.store.indexing import FleetIndexing
from tripshark.store.vault import FolderVault


def _findings(vault: FolderVault, id: IncidentId, digest: str, name: str) -> None:
    told = {"manifest_sha256": digest, "tool": "x", "sandbox": [], "packets": 7, "summary": f"It asked for {name}.",
            "dns": [{"name": name, "frame": 3, "filter": "dns"}]}  # fmt: skip
    vault.beside(id, "findings.json", json.dumps(told).encode())


async def test_findings_of_every_part_are_found(fleet: Fleet) -> None:
    """Both nodes' parts of one incident; changed ones again; those of other evidence and removed ones not."""
    indexing = FleetIndexing(
        objects=fleet.objects, fleet=fleet.parts, catalogue=fleet.catalogue, clock=fleet.clock,
        tell=lambda event, details: fleet.told.append((event, dict(details))),
    )  # fmt: skip

    def harvest() -> Harvest:
        return Harvest(fleet.objects, fleet.parts, clock=fleet.clock, indexing=indexing)

    async def found(asked: str) -> list[Hit]:
        return list(await indexing.index.find(Search(clauses=understood(asked))))

    id = "20261124t103001-abcdef"
    sender, second = await fleet.node("node-1"), await fleet.node("node-2")
    its = seal(sender.vault, 1, incident=id)
    also = seal(second.vault, 2, incident=id)
    await sender.outbox.send()
    await harvest().look()
    assert await found("example") == []  # nothing was analysed yet
    _findings(sender.vault, its.id, its.manifest_sha256, "evil.example")
    _findings(second.vault, also.id, also.manifest_sha256, "evil.example")
    for each in (sender, second):
        await each.outbox.send()
    await harvest().look()
    assert [(each.node, each.file, each.frame) for each in await found("*.evil.example")] == [
        ("node-2", "node-2/evidence.pcapng", 3), ("node-1", "node-1/evidence.pcapng", 3),
    ]  # fmt: skip
    (known,) = await fleet.catalogue.incidents(Query())
    assert known.summary == "It asked for evil.example."
    _findings(sender.vault, its.id, its.manifest_sha256, "another-evil.example")
    _findings(second.vault, also.id, "0" * 64, "forged.example")
    for each in (sender, second):
        await each.outbox.send()
    await harvest().look()
    assert [each.value for each in await found("example")] == ["another-evil.example"]
    assert "of other evidence" in str(fleet.told[-1])
    at = f"evidence/2026/11/24/{id}/node-1"
    for name in ("manifest.json", "findings.json"):
        await obstore.delete_async(fleet.objects._store(), f"{at}/{name}")
    await harvest().look()
    assert await found("example") == []
