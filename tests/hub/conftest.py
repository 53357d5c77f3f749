"""A store with the evidence of several nodes in it, and a hub's catalogue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.store.conftest import objects, place
from tests.store.evidence import Clock
from tripshark.model.part import NodeName
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.fleet import FleetParts
from tripshark.store.harvest import Harvest
from tripshark.store.objects import Objects
from tripshark.store.outbox import Outbox
from tripshark.store.remote import Cache, HubShelf, Remote
from tripshark.store.vault import FolderVault

__all__ = ["objects", "place"]


class Sender:
    """One node: a vault and what sends it."""

    def __init__(self, data: Path, name: str, catalogue: SqlCatalogue, objects: Objects) -> None:
        self.clock = Clock()
        self.data = data
        self.vault = FolderVault(data, clock=self.clock)
        self.outbox = Outbox(
            vault=self.vault, catalogue=catalogue, objects=objects, node=NodeName(name),
            clock=self.clock,
        )  # fmt: skip


class Fleet:
    """Nodes, one store, one hub's catalogue."""

    def __init__(self, folder: Path, catalogue: SqlCatalogue, objects: Objects) -> None:
        self.folder = folder
        self.catalogue = catalogue
        self.objects = objects
        self.clock = Clock()
        self.parts = FleetParts(catalogue)
        self.cache = Cache(folder / "cache", most=10 << 20)
        self.cache.prepare()
        self.remote = Remote(objects, self.cache)
        self.shelf = HubShelf(self.parts, self.remote)
        self._catalogues: list[SqlCatalogue] = []
        self.told: list[tuple[str, dict[str, object]]] = []

    async def node(self, name: str) -> Sender:
        catalogue = await SqlCatalogue.open(self.folder / name / "catalogue.sqlite")
        self._catalogues.append(catalogue)
        return Sender(self.folder / name, name, catalogue, self.objects)

    def harvest(self) -> Harvest:
        """A new one, as after a restart."""
        return Harvest(
            self.objects, self.parts, clock=self.clock,
            tell=lambda event, details: self.told.append((event, dict(details))),
        )  # fmt: skip

    async def close(self) -> None:
        for catalogue in (*self._catalogues, self.catalogue):
            await catalogue.close()


@pytest.fixture
async def fleet(tmp_path: Path, objects: Objects) -> AsyncIterator[Fleet]:
    its = Fleet(tmp_path, await SqlCatalogue.open(tmp_path / "hub.sqlite"), objects)
    yield its
    await its.close()
