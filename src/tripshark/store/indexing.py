"""Keeps the search index in step with what lies beside the evidence: new findings in, removed evidence out.

There is no queue to lose: what is to be done follows from the folders (or the store's listing) and from what the index
says it knows, so an index that is missing, older or behind fills itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from tripshark.errors import BadInput, NotFound, TripsharkError
from tripshark.model.evidence import IncidentId, Manifest
from tripshark.model.finding import Findings
from tripshark.model.incident import Incident, State
from tripshark.model.observable import Sighting, sightings
from tripshark.model.part import Part, Place
from tripshark.ports import Clock
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.fleet import FleetParts
from tripshark.store.objects import Objects
from tripshark.store.search import SearchIndex
from tripshark.store.vault import FolderVault, Lying

FINDINGS = "findings.json"
MAX_FINDINGS = 64 << 20  # bytes
EVERY = 10.0  # seconds between looks
_NONE = "none"  # the tag of evidence that was never analysed
_DOCUMENT = msgspec.json.Decoder()

Tell = Callable[[str, Mapping[str, object]], None]


def read_findings(content: bytes) -> Findings:
    """`findings.json`, written by whichever version. Raises `BadInput`."""
    try:
        document = _DOCUMENT.decode(content)
    except (msgspec.MsgspecError, RecursionError):
        document = None
    return Findings.from_json(document)


class Indexing:
    """One machine's evidence. `run` until cancelled, or `look` once."""

    def __init__(
        self,
        *,
        vault: FolderVault,
        catalogue: SqlCatalogue,
        clock: Clock,
        every: float = EVERY,
        tell: Tell = lambda event, details: None,
    ) -> None:
        """`tell` hears of findings that cannot be read: `not indexed`."""
        self.index = SearchIndex(catalogue.database)
        self._vault = vault
        self._catalogue = catalogue
        self._clock = clock
        self._every = every
        self._tell = tell
        self._woken = asyncio.Event()
        self._seen: dict[IncidentId, tuple[int, int, int]] = {}  # as folders were when indexed
        self._here: set[IncidentId] | None = None  # what lay there at the last look
        self._unsure: set[IncidentId] = set()  # gone, and nobody has said why

    def wake(self) -> None:
        """Findings were written: look at once. Not needed, only quicker."""
        self._woken.set()

    async def run(self) -> None:
        """For ever; what disk or catalogue refuse is tried again."""
        while True:
            with contextlib.suppress(TripsharkError):  # told by /readyz
                await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._woken.wait()
            self._woken.clear()

    async def look(self) -> int:
        """Bring the index in step; how many files it took in. Raises `Transient`, `Permanent`."""
        lying = await asyncio.to_thread(self._vault.lying)
        changed = [each for each in lying if self._seen.get(each.incident) != each.changed]
        here = {each.incident for each in lying}
        if not changed and not self._unsure and here == self._here:
            return 0
        known = await self.index.known()
        taken = 0
        for each in changed:
            tag = await asyncio.to_thread(_tag, each.folder / FINDINGS)
            if known.get((each.incident, "")) != tag:
                if not await self._take(each, tag):
                    continue  # once more at the next look
                taken += 1
            self._seen[each.incident] = each.changed
        await self._forget(known, here)
        self._here = here
        return taken

    async def _take(self, lying: Lying, tag: str) -> bool:
        incident = await self._catalogue.incident(lying.incident)
        if incident is None:  # sealed a moment ago: its row comes
            return False
        try:
            file, rows = await asyncio.to_thread(self._read, lying, incident)
        except NotFound:  # removed meanwhile
            return False
        except TripsharkError as problem:
            self._tell("not indexed", {"incident": lying.incident, "why": str(problem)})
            file, rows = "", ()
        await self.index.put(
            lying.incident, "", file=file, tag=tag, rows=rows, now_ns=self._clock.now_ns()
        )
        return True

    def _read(self, lying: Lying, incident: Incident) -> tuple[str, tuple[Sighting, ...]]:
        file = analysed_file(self._vault.manifest(lying.incident))
        try:
            with (lying.folder / FINDINGS).open("rb") as opened:
                content = opened.read(MAX_FINDINGS + 1)
        except OSError:
            content = b""
        return file, rows_of(content, incident)

    async def _forget(
        self, known: Mapping[tuple[IncidentId, str], str], here: set[IncidentId]
    ) -> None:
        """What was removed, and not only moved to the object store."""
        left = [
            id
            for id, _ in known
            if id not in here and (self._here is None or id in self._here | self._unsure)
        ]
        gone: list[tuple[IncidentId, str]] = []
        self._unsure = set()
        for id in left:
            incident = await self._catalogue.incident(id)
            if incident is None or incident.state is State.REMOVED:
                gone.append((id, ""))
            elif "://" not in incident.folder:  # its record is about to say what became of it
                self._unsure.add(id)
        await self.index.remove(gone)
        self._seen = {id: changed for id, changed in self._seen.items() if id in here}


class FleetIndexing:
    """The evidence of a fleet, as a harvest finds it in the object store."""

    def __init__(
        self,
        *,
        objects: Objects,
        fleet: FleetParts,
        catalogue: SqlCatalogue,
        clock: Clock,
        tell: Tell = lambda event, details: None,
    ) -> None:
        self.index = SearchIndex(catalogue.database)
        self._objects = objects
        self._fleet = fleet
        self._clock = clock
        self._tell = tell

    async def seen(self, found: Mapping[Place, str]) -> int:
        """Findings that lie in the store, each with what changes when they do. Raises what store and catalogue say."""
        known = await self.index.known() if found else {}
        taken = 0
        for place, tag in found.items():
            if known.get((place.incident, place.node)) != tag:
                taken += await self._take(place, tag)
        return taken

    async def gone(self, places: set[Place]) -> None:
        """These parts have left the store."""
        await self.index.remove((place.incident, place.node) for place in places)

    async def _take(self, place: Place, tag: str) -> bool:
        its = [each for each in await self._fleet.parts(place.incident) if each.place == place]
        if not its:  # its manifest has not come yet, or is none
            return False
        rows: tuple[Sighting, ...] = ()
        summary = ""
        try:
            content = await self._objects.read(place.key(FINDINGS), most=MAX_FINDINGS)
            findings = _of_part(read_findings(content), its[0])
            rows, summary = sightings(findings, target=its[0].incident.title), findings.summary
        except NotFound:
            return False
        except BadInput as problem:
            self._tell("not indexed", {"where": place.folder, "why": str(problem)})
        await self.index.put(
            place.incident,
            place.node,
            file=f"{place.node}/{_first_file(its[0])}",
            tag=tag,
            rows=rows,
            now_ns=self._clock.now_ns(),
        )
        if summary:
            await self._fleet.analysed(place, summary)
        return True


def _of_part(findings: Findings, part: Part) -> Findings:
    """Raises `BadInput` for findings that were made of something else."""
    if findings.manifest_sha256 not in ("", part.manifest_sha256):
        raise BadInput("these findings are of other evidence", where=part.place.folder)
    return findings


def rows_of(content: bytes, incident: Incident) -> tuple[Sighting, ...]:
    """What of these findings can be looked for; of none at all only whose packets they are. Raises `BadInput`."""
    nothing = Findings(
        manifest_sha256="", tool="", sandbox=(), packets=0, first_ns=incident.t0_ns, last_ns=0
    )
    return sightings(read_findings(content) if content else nothing, target=incident.title)


def analysed_file(manifest: Manifest) -> str:
    """Of a manifest's files the one that findings are about."""
    names = [each.name for each in manifest.files if each.name.endswith(".pcapng")]
    return names[0] if names else ""


def _first_file(part: Part) -> str:
    return next((each.name for each in part.files if each.name.endswith(".pcapng")), "")


def _tag(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return _NONE
    return f"{status.st_mtime_ns}-{status.st_size}"
