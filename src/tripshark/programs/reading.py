"""The store as commands read it: beside a running service, or without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tripshark.errors import Denied, NotFound, Transient
from tripshark.model.incident import Incident, State
from tripshark.ports import Query
from tripshark.programs.clock import SystemClock
from tripshark.settings import Settings
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.vault import FolderVault


@dataclass(frozen=True, slots=True)
class Reading:
    """Catalogue and vault of one data folder."""

    catalogue: SqlCatalogue
    vault: FolderVault

    async def find(self, id: str) -> Incident:
        """An incident by its id, by the beginning of it, or `last`. Raises `NotFound`."""
        recent = await self.catalogue.incidents(Query(limit=1 if id == "last" else 1000))
        found = [each for each in recent if id == "last" or each.id.startswith(id)]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            near = ", ".join(each.id for each in found[:5])
            raise NotFound(f"{id!r} begins several incidents", hint=f"one of {near} …")
        raise NotFound(f"there is no incident {id!r}", hint="`tripshark incidents` lists them")

    async def sealed(self, id: str) -> Incident:
        """The same, whose evidence can be read. Raises `Transient` before it is sealed, `NotFound` after its removal."""
        found = await self.find(id)
        if found.state is State.REMOVED:
            raise NotFound(
                f"the evidence of {found.id} was removed: {found.problem}", hint="its record stays"
            )
        if found.state in (State.OPEN, State.SEALING):
            raise Transient(
                f"{found.id} is still {found.state}",
                hint=f"until it is sealed: tripshark live --incident {found.id} | wireshark -k -i -",
                after=5.0,
            )
        return found


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Reading]:
    """Open the data folder for reading; the service may be running beside. Raises `NotFound` where nothing is."""
    try:
        there = (settings.data / "catalogue.sqlite").exists()
        if there:
            (settings.data / "catalogue.sqlite").open("rb").close()
    except PermissionError as problem:
        raise Denied(
            "this user may not read the data folder",
            where=str(settings.data),
            hint="run it as root, or as a user of the group that owns the folder",
        ) from problem
    if not there:
        raise NotFound(
            "there is no catalogue yet",
            where=str(settings.data),
            hint="name the data folder with --data; `tripshark run` makes one",
        )
    catalogue = await SqlCatalogue.open(settings.data / "catalogue.sqlite")
    try:
        yield Reading(catalogue=catalogue, vault=FolderVault(settings.data, clock=SystemClock()))
    finally:
        await catalogue.close()


def capture_file(folder: Path, name: str) -> tuple[Path, tuple[str, ...]]:
    """The capture asked for, or the one of Ethernet, or the only one; and the others' names. Raises `NotFound`."""
    there = [each.name for each in sorted(folder.glob("evidence*.pcapng"))]
    if not there:
        raise NotFound(
            "there are no packets",
            where=str(folder),
            hint="tripshark export --format zip takes what there is",
        )
    if name and name not in there:
        raise NotFound(
            f"there is no {name!r}", where=str(folder), hint=f"one of {', '.join(there)}"
        )
    chosen = name or ("evidence.pcapng" if "evidence.pcapng" in there else there[0])
    return folder / chosen, tuple(each for each in there if each != chosen)
