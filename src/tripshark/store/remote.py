"""Evidence that lies in the object store, for reading: verified against its manifest before a byte of it is shown.

Sealed files are kept in a bounded cache by their SHA-256, so that ranges and second readers cost no further transfer;
what is not used goes first. Companions change and are fetched each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
import threading
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from tripshark.errors import NotFound, NotVerified
from tripshark.model.evidence import IncidentId, SealedFile
from tripshark.model.part import NodeName, Part, Place, place_of
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.disk import refused
from tripshark.store.fleet import FleetParts
from tripshark.store.folder import MANIFEST, VIEWED
from tripshark.store.objects import Objects
from tripshark.store.vault import FolderVault

MAX_COMPANION = 256 << 20
_FRESH = ".fetching-"
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Cache:
    """Files by their SHA-256 in one folder, at most so many bytes together. One process owns the folder."""

    def __init__(self, folder: Path, *, most: int) -> None:
        self.folder = folder
        self._most = most
        self._held: OrderedDict[str, int] = OrderedDict()  # bytes; what was used last stands last
        self._holding = threading.Lock()
        self._fetching: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()

    def prepare(self) -> None:
        """Make the folder, remove what a crash left half fetched, and count the rest. Raises `Transient`, `Permanent`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = []
            with os.scandir(self.folder) as entries:
                for each in entries:
                    if _KEY.fullmatch(each.name):
                        status = each.stat(follow_symlinks=False)
                        found.append((status.st_mtime_ns, each.name, status.st_size))
                    elif each.name.startswith(_FRESH):
                        Path(each.path).unlink()
        except OSError as error:
            raise refused(error, self.folder) from error
        with self._holding:
            self._held = OrderedDict((name, size) for _, name, size in sorted(found))
        self._bound(0)

    async def open(
        self, sha256: str, pieces: Callable[[], AsyncIterator[bytes]], size: int
    ) -> int:
        """A descriptor of that file, at its beginning, to be closed by the caller; fetched where it is not here yet.

        Raises `NotVerified` when what is fetched is not it, and what `pieces` raises.
        """
        lock = self._fetching.setdefault(sha256, asyncio.Lock())
        self._waiting[sha256] += 1
        try:
            async with lock:
                there = await asyncio.to_thread(self.find, sha256)
                return there if there is not None else await self._fetch(sha256, pieces, size)
        finally:
            self._waiting[sha256] -= 1
            if not self._waiting[sha256]:
                del self._waiting[sha256], self._fetching[sha256]

    def find(self, key: str) -> int | None:
        """A descriptor of what is kept under 64 hex digits, to be closed by the caller. Raises `Transient`."""
        try:
            fd = os.open(self.folder / key, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise refused(error, self.folder / key) from error
        with self._holding:
            if key in self._held:
                self._held.move_to_end(key)
        return fd

    def take(self, made: Path, key: str) -> None:
        """Keep a file of this folder under that key, within the bound; it stays until others need the room."""
        size = made.stat().st_size
        made.rename(self.folder / key)
        with self._holding:
            self._held[key] = size
            self._held.move_to_end(key)
        self._bound(0, keep=1)  # what was just made can be read once, however large it is

    async def _fetch(
        self, sha256: str, pieces: Callable[[], AsyncIterator[bytes]], size: int
    ) -> int:
        await asyncio.to_thread(self._bound, min(size, self._most))
        fd, name = await asyncio.to_thread(self._begin)
        try:
            await _fill(fd, pieces(), sha256, size)
            os.lseek(fd, 0, os.SEEK_SET)
            if size <= self._most:
                await asyncio.to_thread(self.take, Path(name), sha256)
            else:  # larger than all of the cache: for this reader alone
                await asyncio.to_thread(Path(name).unlink)
        except BaseException:
            _drop(fd, Path(name))
            raise
        return fd

    def _begin(self) -> tuple[int, str]:
        try:
            return tempfile.mkstemp(prefix=_FRESH, dir=self.folder)
        except OSError as error:
            raise refused(error, self.folder) from error

    def _bound(self, more: int, *, keep: int = 0) -> None:
        """Room for so many bytes more; open descriptors of what goes stay readable."""
        with self._holding:
            total = sum(self._held.values()) + more
            while len(self._held) > keep and total > self._most:
                key, size = self._held.popitem(last=False)
                (self.folder / key).unlink(missing_ok=True)
                total -= size


def _drop(fd: int, path: Path) -> None:
    os.close(fd)
    path.unlink(missing_ok=True)


async def _fill(fd: int, pieces: AsyncIterator[bytes], sha256: str, size: int) -> None:
    """Raises `NotVerified`; a store that sends more than was sealed is not listened to for ever."""
    digest, length = hashlib.sha256(), 0
    with os.fdopen(os.dup(fd), "wb") as file:
        async for piece in pieces:
            length += len(piece)
            if length > size:
                break
            digest.update(piece)
            await asyncio.to_thread(_write, file, piece)
    if length != size or digest.hexdigest() != sha256:
        raise NotVerified(
            "what lies in the store is not what was sealed: it is not shown",
            where=sha256,
            hint="look who wrote there; the node's own folder may still hold the original",
        )


def _write(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise refused(error, Path(str(file.name))) from error


class Remote:
    """Files of parts in the store."""

    def __init__(self, objects: Objects, cache: Cache) -> None:
        self._objects = objects
        self._cache = cache

    async def open(self, place: Place, name: str, sha256: str, size: int) -> int:
        """A sealed file's descriptor. Raises `NotFound`, `NotVerified`, `Transient`."""
        return await self._cache.open(sha256, lambda: self._objects.stream(place.key(name)), size)

    async def companion(self, place: Place, name: str) -> int:
        """Something unsealed as it is now, in a nameless file, at its beginning. Raises `NotFound`, `Transient`."""
        with tempfile.TemporaryFile(dir=self._cache.folder) as file:  # its descriptor outlives it
            length = 0
            async for piece in self._objects.stream(place.key(name)):
                length += len(piece)
                if length > MAX_COMPANION:
                    raise NotVerified(
                        f"larger than {MAX_COMPANION >> 20} MiB", where=place.key(name)
                    )
                await asyncio.to_thread(file.write, piece)
            file.seek(0)  # flushes; the duplicate shares the position
            return os.dup(file.fileno())

    async def address(self, place: Place, name: str, seconds: float) -> str | None:
        """Where the store itself hands the file out for so long; None where it cannot."""
        return await self._objects.presigned(place.key(name), seconds)


class HubShelf:
    """`web.parts.Shelf` over the fleet's parts."""

    def __init__(self, fleet: FleetParts, remote: Remote, *, presigned: float = 0.0) -> None:
        """`presigned`: seconds for which the store's own addresses are handed out; 0: everything passes through us."""
        self._fleet = fleet
        self._remote = remote
        self._presigned = presigned

    async def manifest(self, incident: IncidentId, node: str) -> bytes:
        """The manifest of one part; with node "" of the only one. Raises `NotFound`, `NotVerified`, `Transient`."""
        part = await self._part(incident, node)
        fd = await self._remote.open(
            part.place, MANIFEST, part.manifest_sha256, part.manifest_bytes
        )
        return await asyncio.to_thread(_whole, fd)

    async def open(
        self, incident: IncidentId, node: str, name: str, sealed: SealedFile | None
    ) -> int:
        """A file of one part; `sealed` is what its manifest says of it, None for a companion."""
        part = await self._part(incident, node)
        if name == VIEWED:
            return await asyncio.to_thread(_nameless, await self._fleet.custody(incident))
        if sealed is None:
            return await self._remote.companion(part.place, name)
        return await self._remote.open(part.place, name, sealed.sha256, sealed.bytes)

    async def address(self, incident: IncidentId, node: str, name: str) -> str | None:
        """Where the store itself hands a sealed file out, where the operator wants that."""
        if not self._presigned:
            return None
        part = await self._part(incident, node)
        return await self._remote.address(part.place, name, self._presigned)

    async def _part(self, incident: IncidentId, node: str) -> Part:
        parts = await self._fleet.parts(incident)
        found = [each for each in parts if not node or each.node == node]
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFound(
                f"this incident has {len(found)} parts",
                where=incident,
                hint="all in one file: merged.pcapng; one of them: parts/NODE/FILE with NODE "
                + ", ".join(each.node for each in found[:20]),
            )
        raise NotFound(
            "there is no such evidence in the store",
            where=f"{incident}/{node}" if node else incident,
            hint="GET /v1/incidents/ID/parts lists what there is",
        )


class NodeShelf:
    """`web.parts.Shelf` of one node: its own folder first, the store for what was moved there."""

    def __init__(
        self,
        vault: FolderVault,
        catalogue: SqlCatalogue,
        objects: Objects,
        remote: Remote,
        *,
        node: NodeName,
    ) -> None:
        self._node = node
        self._vault = vault
        self._catalogue = catalogue
        self._objects = objects
        self._remote = remote

    async def manifest(self, incident: IncidentId, node: str) -> bytes:
        """As `HubShelf.manifest`; there is one part."""
        if node not in ("", self._node):
            raise NotFound("this machine has no parts of other nodes", where=node)
        try:
            return await asyncio.to_thread(
                lambda: (Path(self._vault.folder(incident)) / MANIFEST).read_bytes()
            )
        except (NotFound, FileNotFoundError):
            place, digest = await self._moved(incident)
        content = await self._objects.read(place.key(MANIFEST), most=64 << 20)
        if hashlib.sha256(content).hexdigest() != digest:
            raise NotVerified(
                "the manifest in the store is not the one that was sealed", where=incident
            )
        return content

    async def open(
        self, incident: IncidentId, node: str, name: str, sealed: SealedFile | None
    ) -> int:
        """As `HubShelf.open`."""
        try:
            folder = await asyncio.to_thread(self._vault.folder, incident)
        except NotFound:
            place, _ = await self._moved(incident)
        else:
            return await asyncio.to_thread(_open_in, Path(folder), name)
        if sealed is None:
            return await self._remote.companion(place, name)
        return await self._remote.open(place, name, sealed.sha256, sealed.bytes)

    async def address(self, incident: IncidentId, node: str, name: str) -> str | None:
        """Never: a node shows what it has."""
        return None

    async def _moved(self, incident: IncidentId) -> tuple[Place, str]:
        known = await self._catalogue.incident(incident)
        prefix = self._objects.where("")
        if known is None or not known.folder.startswith(prefix) or not known.manifest_sha256:
            raise NotFound(
                "there is no sealed evidence of that incident",
                where=incident,
                hint="`tripshark show` says what became of it",
            )
        place, _ = place_of(f"{known.folder.removeprefix(prefix)}/{MANIFEST}")
        return place, known.manifest_sha256


def _nameless(content: bytes) -> int:
    fd = os.memfd_create(VIEWED, os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _whole(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _open_in(folder: Path, name: str) -> int:
    try:
        return os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise NotFound(
            f"no file {name} in this evidence yet", where=folder.name, hint="is it analysed?"
        ) from error
