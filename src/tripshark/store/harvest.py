"""Finds what nodes put into the store since the last look, and takes it into the fleet's catalogue.

A bucket of a hundred thousand folders is not listed each time. Days of today and yesterday are listed at every look, and
of these only what sorts behind the newest incident of an hour ago; older days, where a node that was away may still add,
are listed whole the more seldom the older they are. A listing of a whole day also shows what has left the store.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from tripshark.errors import BadInput, NotFound, NotVerified, Transient, TripsharkError
from tripshark.formats import falco
from tripshark.model.alert import Accepted, AlertId, Json
from tripshark.model.evidence import MAX_MANIFEST_BYTES, Manifest, read_manifest
from tripshark.model.part import ROOT, Part, Place, day_of, part_of, place_of
from tripshark.ports import AlertRow, Clock
from tripshark.store import signature
from tripshark.store.fleet import FleetParts
from tripshark.store.folder import MANIFEST
from tripshark.store.indexing import FINDINGS, FleetIndexing
from tripshark.store.objects import Objects

MAX_ALERTS = 1000  # of one part
_HOUR = 3600.0
_AT_ONCE = 8  # manifests being read
_OVERLAP = 3600.0  # seconds; clocks of nodes differ, and a capture lasts


@dataclass(slots=True)
class HarvestState:
    """How the looking goes on. Counters run since the start of the process."""

    looks: int = 0
    listed: int = 0  # objects that were listed
    imported: int = 0  # parts
    gone: int = 0
    unreadable: int = 0  # manifests that are none
    odd: int = 0  # parts whose signature is not as it should be
    last_ns: int = 0  # when a look last came to its end
    problem: str = ""  # why the last one did not


class Harvest:
    """`look` as often as you like; every hub of a fleet may."""

    def __init__(
        self,
        objects: Objects,
        fleet: FleetParts,
        *,
        clock: Clock,
        every: float = 5.0,
        indexing: FleetIndexing | None = None,
        tell: Callable[[str, Mapping[str, object]], None] = lambda event, details: None,
    ) -> None:
        """`every` is how often `look` will be called: how often an older day is listed follows from it."""
        self._objects = objects
        self._fleet = fleet
        self._clock = clock
        self._every = every
        self._indexing = indexing
        self._tell = tell
        self._known: dict[str, dict[Place, str]] | None = None  # by day
        self._refused: dict[Place, int] = {}  # manifest that is none → its size
        self._due_ns: dict[str, int] = {}  # day → when it is to be listed whole
        self._days_due_ns = 0
        self._days: tuple[str, ...] = ()
        self.state = HarvestState()

    async def look(self) -> int:
        """Take in what is new; returns how many parts. Raises what store or catalogue say."""
        if self._known is None:
            self._known = {}
            for place, digest in (await self._fleet.known()).items():
                self._known.setdefault(place.day, {})[place] = digest
        try:
            taken = await self._look(self._known)
        except TripsharkError as error:
            if not self.state.problem:
                self._tell("store away", {"why": str(error)})
            self.state.problem = str(error)
            raise
        self.state.problem = ""
        self.state.looks += 1
        self.state.last_ns = self._clock.now_ns()
        return taken

    async def _look(self, known: dict[str, dict[Place, str]]) -> int:
        now_ns = self._clock.now_ns()
        today = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_ns // 1000)
        fresh = {f"{today + timedelta(days=n):%Y/%m/%d}" for n in (-1, 0, 1)}
        if now_ns >= self._days_due_ns:
            self._days = await self._list_days()
            self._days_due_ns = now_ns + round(12 * self._every * 1e9)
            if not self._days and any(known.values()):
                raise Transient(
                    "the store is empty, and evidence was there: is it the right one?",
                    where=self._objects.url,
                    hint="see store.url; nothing is forgotten meanwhile",
                )
        taken = 0
        for day in sorted(
            {*self._days, *(each for each in known if known[each]), *fresh}, reverse=True
        ):
            age = max(0, (today.date() - _date(day)).days)
            if now_ns >= self._due_ns.get(day, 0):
                pause = self._every * 12 * max(1, age)
                self._due_ns[day] = now_ns + round(min(_HOUR, pause) * 1e9)
                taken += await self._day(day, known.setdefault(day, {}), whole=True)
            elif day in fresh:
                taken += await self._day(day, known.setdefault(day, {}), whole=False)
        return taken

    async def _list_days(self) -> tuple[str, ...]:
        days = []
        for year in await self._objects.folders(ROOT):
            for month in await self._objects.folders(f"{ROOT}/{year}"):
                for day in await self._objects.folders(f"{ROOT}/{year}/{month}"):
                    try:
                        name = day_of(f"{year}/{month}/{day}")
                        _date(name)
                    except (BadInput, ValueError):
                        continue  # nothing of ours
                    days.append(name)
        return tuple(days)

    async def _day(self, day: str, known: dict[Place, str], *, whole: bool) -> int:
        prefix = f"{ROOT}/{day}"
        after = "" if whole else self._begin(prefix)
        found: dict[Place, int] = {}
        analysed: dict[Place, str] = {}
        async for page in self._objects.list(prefix, after=after):
            self.state.listed += len(page)
            for each in page:
                try:
                    place, name = place_of(each.key)
                except BadInput:
                    continue  # nothing of ours
                if name == MANIFEST:
                    found[place] = each.size
                elif name == FINDINGS:
                    analysed[place] = each.tag
        fresh = [
            (place, size)
            for place, size in sorted(found.items())
            if place not in known and self._refused.get(place) != size
        ]
        taken = 0
        for start in range(0, len(fresh), _AT_ONCE):
            taken += await self._take(fresh[start : start + _AT_ONCE], known)
        if whole and (gone := [place for place in known if place not in found]):
            await self._gone(gone, known)
        if self._indexing is not None:
            await self._indexing.seen(analysed)
        return taken

    def _begin(self, prefix: str) -> str:
        """Where an incident of an hour ago would sort: ids begin with the time at which they were opened."""
        then = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
            seconds=self._clock.now_ns() / 1e9 - _OVERLAP
        )
        return f"{prefix}/{then:%Y%m%dt%H%M%S}"

    async def _take(self, fresh: Sequence[tuple[Place, int]], known: dict[Place, str]) -> int:
        """Read some parts at once, and put them into the catalogue one after the other."""
        answers = await asyncio.gather(*(self._tried(place) for place, _ in fresh))
        taken, stop = 0, None
        for (place, size), answer in zip(fresh, answers, strict=True):
            match answer:
                case NotFound():  # removed meanwhile
                    continue
                case BadInput() | NotVerified():
                    self._refused[place] = size
                    self.state.unreadable += 1
                    self._tell("unreadable", {"where": place.folder, "why": str(answer)})
                case TripsharkError():
                    stop = answer
                case part, alerts:
                    taken += await self._put(part, alerts, known)
        if stop is not None:
            raise stop
        return taken

    async def _put(self, part: Part, alerts: Sequence[AlertRow], known: dict[Place, str]) -> int:
        new, odd = await self._fleet.put(part, alerts, now_ns=self._clock.now_ns())
        known[part.place] = part.manifest_sha256
        if odd:
            self.state.odd += 1
            self._tell("odd", {"where": part.place.folder, "why": odd})
        self.state.imported += new
        return int(new)

    async def _tried(self, place: Place) -> tuple[Part, Sequence[AlertRow]] | TripsharkError:
        try:
            return await self._read(place)
        except TripsharkError as error:
            return error

    async def _read(self, place: Place) -> tuple[Part, Sequence[AlertRow]]:
        content = await self._objects.read(place.key(MANIFEST), most=MAX_MANIFEST_BYTES)
        digest = hashlib.sha256(content).hexdigest()
        manifest = read_manifest(content)
        part = part_of(
            place,
            manifest,
            digest=digest,
            size=len(content),
            where=self._objects.where(place.folder),
        )
        return _signed(part, await self._signature(place), content, manifest), _alerts(
            part, manifest
        )

    async def _signature(self, place: Place) -> bytes:
        try:
            return await self._objects.read(place.key(signature.NAME), most=signature.MAX_BYTES)
        except (NotFound, BadInput):
            return b""

    async def _gone(self, gone: Sequence[Place], known: dict[Place, str]) -> None:
        await self._fleet.gone(
            gone, now_ns=self._clock.now_ns(), why="it is no longer in the object store"
        )
        if self._indexing is not None:
            await self._indexing.gone(set(gone))
        for place in gone:
            known.pop(place, None)
        self.state.gone += len(gone)
        self._tell("gone", {"parts": len(gone), "first": gone[0].folder})


def _date(day: str) -> date:
    """Raises `ValueError` for the 31st of February."""
    return date.fromisoformat(day.replace("/", "-"))


def _signed(part: Part, envelope: bytes, content: bytes, manifest: Manifest) -> Part:
    """With the id of the key that signed this manifest; without one where the signature does not hold."""
    told = manifest.details.get("signature")
    text = told.get("public_key") if isinstance(told, dict) else None
    try:
        if not isinstance(text, str):
            return part
        key = signature.public_key_of(text)
        signature.check(envelope, incident=part.place.incident, manifest=content, key=key)
    except NotVerified:
        return part
    return replace(part, key_id=signature.key_id(key))


def _alerts(part: Part, manifest: Manifest) -> list[AlertRow]:
    """The alerts that a manifest holds verbatim. What Falco's format does not know is left to the manifest."""
    why = manifest.details.get("why")
    told = why.get("alerts") if isinstance(why, dict) else None
    rows = []
    for each in (told if isinstance(told, list) else [])[:MAX_ALERTS]:
        if isinstance(each, dict) and (row := _alert(part, each)) is not None:
            rows.append(row)
    return rows


def _alert(part: Part, told: Mapping[str, Json]) -> AlertRow | None:
    match told:
        case {"id": str(id), "received_ns": int(received_ns), "via": str(via)}:
            pass
        case _:
            return None
    try:
        match told:
            case {"verbatim": str(text)}:
                body = text.encode()
            case {"verbatim_base64": str(text)}:
                body = base64.b64decode(text, validate=True)
            case _:
                return None
        alert = falco.decode(body)
    except (TripsharkError, binascii.Error, ValueError):
        return None
    repeats = told.get("repeats")
    name = f"{part.place.incident}/{part.node}/{id}"
    return AlertRow(
        accepted=Accepted(
            id=AlertId(hashlib.sha256(name.encode()).hexdigest()),
            seq=max(0, min(received_ns, 2**63 - 1)),
            received_ns=received_ns,
            alert=alert,
            body=body,
            via=via[:200],
        ),
        incident=part.place.incident,
        refusal=None,
        repeats=repeats if type(repeats) is int and 0 <= repeats < 2**62 else 0,
    )
