"""Sends sealed evidence to the object store: all of it, none twice, however long the store is away.

There is no queue to lose: what must be sent follows from what lies in the vault and from the table `sent`, so a crash at
any moment costs at most one comparison of bytes. Files go first, `manifest.json` last. What changes beside the evidence
later (findings, custody) is sent again in its place. While the store is away nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, select

from tripshark.errors import NotFound, NotVerified, TripsharkError
from tripshark.model.evidence import MAX_MANIFEST_BYTES, IncidentId, SealedFile, read_manifest
from tripshark.model.part import NodeName, Place
from tripshark.model.retention import Kept
from tripshark.ports import Clock
from tripshark.store import custody, schema, signature
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.disk import refused
from tripshark.store.folder import COMPANIONS, HOLD, MANIFEST
from tripshark.store.objects import Objects
from tripshark.store.vault import FolderVault, Lying

EVERY = 5.0  # seconds between looks at the vault
SETTLED = (
    60.0  # seconds without news after which a sent folder may go, where the operator wants that
)
MAX_COMPANION = 256 << 20
_LONGEST = 300.0  # seconds between tries while the store is away
_AT_ONCE = 2  # folders; each has at most `objects.WHOLE` bytes in memory
_BESIDE = (*sorted(COMPANIONS | {HOLD}), custody.NAME)  # custody last: it tells of the rest
_DONE = ""  # the name under which `sent` says that everything sealed is there


@dataclass(slots=True)
class OutboxState:
    """How sending goes on. Counters run since the start of the process."""

    waiting: int = 0  # sealed folders that are not in the store yet
    waiting_bytes: int = 0
    oldest_ns: int = 0  # when the oldest of them was last changed; 0: none waits
    sent: int = 0  # folders
    sent_bytes: int = 0
    failures: int = 0  # tries that did not work
    lost: int = 0  # folders that retention removed before they could be sent
    problem: str = ""  # why the last try did not work, "" when it did
    refused: dict[IncidentId, str] = field(default_factory=dict)  # what is not sent, and why


class Outbox:
    """`run` until cancelled. `state` is for metrics and warnings; nothing here makes a node unready."""

    def __init__(
        self,
        *,
        vault: FolderVault,
        catalogue: SqlCatalogue,
        objects: Objects,
        node: NodeName,
        clock: Clock,
        keep: bool = True,
        every: float = EVERY,
        settled: float = SETTLED,
        dice: Callable[[], float] = random.random,
        tell: Callable[[str, Mapping[str, object]], None] = lambda event, details: None,
    ) -> None:
        """`keep` False removes a folder `settled` seconds after its last change, once it is in the store.

        `tell` hears of what an operator wants in the log: `sent`, `store away`, `store back`, `not sent`, `moved`.
        """
        self._vault = vault
        self._catalogue = catalogue
        self._objects = objects
        self._node = node
        self._clock = clock
        self._keep = keep
        self._every = every
        self._settled_ns = round(settled * 1e9)
        self._dice = dice
        self._tell = tell
        self._woken = asyncio.Event()
        self._fine: dict[IncidentId, tuple[int, int, int]] = {}  # as they were when all was sent
        self._tries = 0
        self.state = OutboxState()

    def wake(self) -> None:
        """Something was sealed: look at once. Not needed, only quicker."""
        self._woken.set()

    async def run(self) -> None:
        """For ever. Errors of store, disk and catalogue are counted, told and tried again."""
        while True:
            try:
                await self.send()
            except TripsharkError as error:
                self._failed(error)
                # Many nodes wait for one store: they must not all come back in the same second.
                pause = min(_LONGEST, self._every * 2 ** min(self._tries, 16)) * (
                    0.5 + self._dice()
                )
                await asyncio.sleep(pause)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._woken.wait()
            self._woken.clear()

    async def send(self) -> None:
        """Send everything that is not there yet. Raises what the store or the disk says when it goes no further."""
        lying = await asyncio.to_thread(self._vault.lying)
        there = {each.incident for each in lying}
        self._fine = {id: at for id, at in self._fine.items() if id in there}
        self.state.refused = {id: why for id, why in self.state.refused.items() if id in there}
        todo = [each for each in lying if self._fine.get(each.incident) != each.changed]
        await self._count(todo)
        queue = iter(todo)
        stop: list[TripsharkError] = []

        async def worker() -> None:
            for each in queue:
                if stop:
                    return
                try:
                    await self._folder(each)
                except NotFound:  # removed meanwhile
                    continue
                except (
                    NotVerified
                ) as error:  # of this folder alone; told once, looked at again when it changes
                    self._fine[each.incident] = each.changed
                    self.state.failures += 1
                    self.state.refused[each.incident] = str(error)
                    self._tell("not sent", {"incident": each.incident, "why": str(error)})
                except TripsharkError as error:
                    stop.append(error)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(worker())
        if stop:
            raise stop[0]
        if self.state.problem:
            self._tell("store back", {"where": self._objects.url, "tries": self._tries})
        self._tries, self.state.problem = 0, ""
        if not self._keep:
            await self._move(lying)

    async def kept(self, kept: Iterable[Kept]) -> list[Kept]:
        """For retention: the same, with what is not in the store marked `unsent`."""
        every = list(kept)
        sent = await self._places([each.incident for each in every])
        return [replace(each, unsent=each.incident not in sent) for each in every]

    def note_lost(self, incident: IncidentId, why: str) -> None:
        """Retention had to remove evidence that was never sent."""
        self.state.lost += 1
        self._tell("lost", {"incident": incident, "why": why})

    # -------------------------------------------------------------------------------------- one folder

    async def _folder(self, lying: Lying) -> None:
        place = Place(day=lying.day, incident=lying.incident, node=self._node)
        to = self._objects.where(place.folder)
        rows = await self._rows(lying.incident)
        done = rows.get(_DONE)
        if done is None or done["place"] != to:
            rows = {}
            await self._sealed(lying, place, to)
            self.state.sent += 1
            self.state.waiting = max(0, self.state.waiting - 1)
            self._tell("sent", {"incident": lying.incident, "to": to})
        await self._note_sent(lying, to)
        before = await asyncio.to_thread(_changed, lying)  # what is written later is a change
        await self._beside(lying, place, to, rows)
        if before is not None:
            self._fine[lying.incident] = before

    async def _sealed(self, lying: Lying, place: Place, to: str) -> None:
        content = await _bytes(lying.folder / MANIFEST, MAX_MANIFEST_BYTES)
        manifest = read_manifest(content)
        digest = hashlib.sha256(content).hexdigest()
        sig = await _bytes(lying.folder / signature.NAME, signature.MAX_BYTES)
        files = [
            *manifest.files,
            SealedFile(
                name=signature.NAME, sha256=hashlib.sha256(sig).hexdigest(), bytes=len(sig)
            ),
            SealedFile(
                name=MANIFEST, sha256=digest, bytes=len(content)
            ),  # last: now it is complete
        ]
        for file in files:
            await self._unless_gone(
                lying,
                self._objects.create(
                    place.key(file.name),
                    lying.folder / file.name,
                    sha256=file.sha256,
                    size=file.bytes,
                ),
            )
            self.state.sent_bytes += file.bytes
        size = sum(file.bytes for file in files)
        await self._note(lying.incident, {_DONE: _row(digest, size, 0)}, to, anew=True)

    async def _beside(
        self, lying: Lying, place: Place, to: str, rows: Mapping[str, Mapping[str, Any]]
    ) -> None:
        news: dict[str, dict[str, Any]] = {}
        for name in _BESIDE:
            path = lying.folder / name
            try:
                found = await asyncio.to_thread(path.stat)
            except OSError:
                continue  # not there (yet)
            row = rows.get(name)
            same_time = row is not None and (row["bytes"], row["changed_ns"]) == (
                found.st_size,
                found.st_mtime_ns,
            )
            if same_time or found.st_size > MAX_COMPANION:
                continue
            content = await _bytes(path, MAX_COMPANION)
            digest = hashlib.sha256(content).hexdigest()
            if row is None or row["sha256"] != digest:
                await self._objects.replace(place.key(name), content)
                self.state.sent_bytes += len(content)
            news[name] = _row(digest, len(content), found.st_mtime_ns)
        if news:
            await self._note(lying.incident, news, to)

    async def _note_sent(self, lying: Lying, to: str) -> None:
        """Custody tells where it was sent, once, also when we were killed right here the last time."""

        def work() -> None:
            content = (lying.folder / custody.NAME).read_bytes()
            with contextlib.suppress(NotVerified):  # a broken custody is sent as it is
                deeds = custody.read(content)
                if not any(each.what == "sent" and each.details.get("to") == to for each in deeds):
                    self._vault.custody(lying.incident, "sent", self._node, {"to": to})

        try:
            await asyncio.to_thread(work)
        except FileNotFoundError as error:
            raise NotFound("removed meanwhile", where=lying.incident) from error
        except OSError as error:
            raise refused(error, lying.folder) from error

    @staticmethod
    async def _unless_gone(lying: Lying, sending: Awaitable[bool]) -> bool:
        try:
            return await sending
        except FileNotFoundError as error:
            if (lying.folder / MANIFEST).exists():
                raise NotVerified(
                    "a sealed file is missing", where=str(error.filename or lying.folder)
                ) from error
            raise NotFound("removed meanwhile", where=lying.incident) from error
        except OSError as error:
            raise refused(error, lying.folder) from error

    # ------------------------------------------------------------------------------------------ moving

    async def _move(self, lying: Sequence[Lying]) -> None:
        """Remove what is in the store and has been quiet for long enough; custody goes to the store first."""
        now_ns = self._clock.now_ns()
        for each in lying:
            at = self._fine.get(each.incident)
            if at is None or each.incident in self.state.refused or (each.folder / HOLD).exists():
                continue
            if now_ns - max(at[0], at[1]) < self._settled_ns or _changed(each) != at:
                continue
            place = Place(day=each.day, incident=each.incident, node=self._node)
            to = self._objects.where(place.folder)
            with contextlib.suppress(NotFound, NotVerified):
                await asyncio.to_thread(
                    self._vault.custody, each.incident, "moved", self._node, {"to": to}
                )
                content = await _bytes(each.folder / custody.NAME, custody.MAX_BYTES)
                await self._objects.replace(place.key(custody.NAME), content)
                known = await self._catalogue.incident(each.incident)
                if known is not None:
                    await self._catalogue.put(incidents=[replace(known, folder=to)])
                await asyncio.to_thread(self._vault.remove, each.incident, f"it lies in {to}")
                self._fine.pop(each.incident, None)
                self._tell("moved", {"incident": each.incident, "to": to})

    # ------------------------------------------------------------------------------------------- table

    async def _count(self, todo: Sequence[Lying]) -> None:
        sent = await self._places([each.incident for each in todo])
        unsent = [
            each
            for each in todo
            if sent.get(each.incident)
            != self._objects.where(
                Place(day=each.day, incident=each.incident, node=self._node).folder
            )
        ]
        every = await asyncio.to_thread(self._vault.kept) if unsent else []
        kept = {each.incident: each.bytes for each in every}
        self.state.waiting = len(unsent) + len(self.state.refused)
        self.state.waiting_bytes = sum(kept.get(each.incident, 0) for each in unsent)
        self.state.oldest_ns = min((each.changed[0] for each in unsent), default=0)

    async def _places(self, incidents: Sequence[IncidentId]) -> dict[IncidentId, str]:
        """Where each incident lies completely, of those that do."""
        table = schema.sent

        def work(connection: Connection) -> dict[IncidentId, str]:
            found: dict[IncidentId, str] = {}
            for start in range(0, len(incidents), 500):
                rows = connection.execute(
                    select(table.c.incident, table.c.place).where(
                        table.c.name == _DONE, table.c.incident.in_(incidents[start : start + 500])
                    )
                )
                found |= {IncidentId(id): str(place) for id, place in rows}
            return found

        return await self._catalogue.database.read(work)

    async def _rows(self, incident: IncidentId) -> dict[str, dict[str, Any]]:
        table = schema.sent
        return await self._catalogue.database.read(
            lambda connection: {
                str(row["name"]): dict(row)
                for row in connection.execute(
                    select(table).where(table.c.incident == incident)
                ).mappings()
            }
        )

    async def _note(
        self,
        incident: IncidentId,
        rows: Mapping[str, dict[str, Any]],
        to: str,
        *,
        anew: bool = False,
    ) -> None:
        table, now_ns = schema.sent, self._clock.now_ns()

        def work(connection: Connection) -> None:
            names = list(rows)
            of_them = table.c.incident == incident
            connection.execute(
                delete(table).where(of_them if anew else of_them & table.c.name.in_(names))
            )
            put_new = [
                {"incident": incident, "name": name, "sent_ns": now_ns, "place": to, **row}
                for name, row in rows.items()
            ]
            connection.execute(table.insert(), put_new)

        await self._catalogue.database.write(work)

    def _failed(self, error: TripsharkError) -> None:
        if not self.state.problem:
            self._tell("store away", {"where": self._objects.url, "why": str(error)})
        self._tries += 1
        self.state.failures += 1
        self.state.problem = f"evidence waits for the object store: {error}"


def _row(sha256: str, size: int, changed_ns: int) -> dict[str, Any]:
    return {"sha256": sha256, "bytes": size, "changed_ns": changed_ns}


def _changed(lying: Lying) -> tuple[int, int, int] | None:
    try:
        at = (lying.folder / custody.NAME).stat()
        return lying.folder.stat().st_mtime_ns, at.st_mtime_ns, at.st_size
    except OSError:
        return None


async def _bytes(path: Path, most: int) -> bytes:
    """Raises `NotFound`, and `NotVerified` for what is larger than it may be."""

    def work() -> bytes:
        with path.open("rb") as file:
            return file.read(most + 1)

    try:
        content = await asyncio.to_thread(work)
    except FileNotFoundError as error:
        raise NotFound("removed meanwhile", where=str(path)) from error
    except OSError as error:
        raise refused(error, path) from error
    if len(content) > most:
        raise NotVerified(f"larger than {most} bytes", where=str(path))
    return content
