"""Evidence files over HTTP: by the names the manifest gives, in ranges, never changed since they were sealed.

The entity tag of a sealed file is its SHA-256 out of the manifest: who has the file can check it against the tag,
and a range asked for with `If-Range` is certain to be of the same file.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tripshark.errors import BadInput, NotFound, Permanent, TripsharkError
from tripshark.model.evidence import IncidentId, SealedFile, file_name, incident_id, read_manifest
from tripshark.model.incident import EVERY
from tripshark.model.part import namespaces_in, node_name
from tripshark.ports import Vault
from tripshark.web.access import EVIDENCE, Caller
from tripshark.web.answers import NOTHING_RUNS, SAFE, problem
from tripshark.web.parts import Parts, Shelf

CHUNK = 1 << 18
MANIFEST = "manifest.json"
VIEWED = "viewed.jsonl"  # a hub's own custody, of an incident and all of its parts
BESIDE = frozenset({"findings.json", "timeline.jsonl", "report.md", "custody.jsonl", VIEWED})
MERGED = re.compile(r"merged(-[0-9]{1,5})?\.pcapng|merged\.json")
_MEDIA = {
    ".pcapng": "application/x-pcapng",
    ".pcap": "application/vnd.tcpdump.pcap",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown; charset=utf-8",
}


class NoSuchRange(BadInput):
    """The range lies outside the file."""

    code = "range_not_satisfiable"
    http_status = 416


async def serve(request: Request, parts: Parts, caller: Caller) -> Response:
    """One file of one incident's evidence. Raises `NotFound`, `BadInput`, `Forbidden`, `NotVerified`, `Transient`."""
    id = incident_id(request.path_params["id"])
    node = node_name(request.path_params["node"]) if "node" in request.path_params else ""
    name = file_name(request.path_params["name"])
    await _require_rights(id, parts, caller)
    if not node and MERGED.fullmatch(name) and parts.merging is not None:
        found = await parts.parts_of(id) if parts.parts_of is not None else ()
        # one may have come since the catalogue was asked
        await caller.require(
            "get", EVIDENCE, {name for each in found for name in each.incident.held}
        )
        served = await _answer(await parts.merging.open(found, name), id, name, "")
        return await _noted(served, request, parts, id, name, caller)
    label = f"{node}-{name}" if node else name
    if not node and name == VIEWED and parts.parts_of is not None:  # one for all parts
        node = next((each.node for each in await parts.parts_of(id)), node)
    shelf = shelf_of(parts)
    content = await shelf.manifest(id, node)
    manifest = await asyncio.to_thread(read_manifest, content)
    if not caller.is_unlimited:  # what was sealed is asked about too, whatever the catalogue says
        await caller.require("get", EVIDENCE, namespaces_in(manifest))
    sealed = {each.name: each for each in manifest.files}
    if name == MANIFEST:
        served = await _answer(
            await asyncio.to_thread(_nameless, content), id, label, sha256(content).hexdigest()
        )
    elif name in sealed:
        if request.method == "GET" and (address := await shelf.address(id, node, name)):
            elsewhere = Response(status_code=307, headers={**SAFE, "location": address})
            return await _noted(elsewhere, request, parts, id, label, caller)
        its = sealed[name]
        served = await _answer(await shelf.open(id, node, name, its), id, label, its.sha256)
    elif name in BESIDE:
        served = await _answer(await shelf.open(id, node, name, None), id, label, "")
    elif name.endswith(".pcap") and (source := name + "ng") in sealed:
        descriptor = await shelf.open(id, node, source, sealed[source])
        served = await _converted(descriptor, source, id, label, parts)
    else:
        raise _nothing(id, name, tuple(sealed))
    return await _noted(served, request, parts, id, label, caller)


async def _require_rights(id: IncidentId, parts: Parts, caller: Caller) -> None:
    if caller.is_unlimited:
        return
    known = await parts.catalogue.incident(id)
    await caller.require("get", EVIDENCE, (EVERY,) if known is None else known.held)


Answer = TypeVar("Answer", bound=Response)


async def _noted(
    served: Answer, request: Request, parts: Parts, id: IncidentId, name: str, caller: Caller
) -> Answer:
    """Custody knows who took it before the first byte leaves."""
    known = isinstance(served, FileAnswer) and _is_known(request, served.tag)
    if request.method == "GET" and not known and parts.custody is not None:
        try:
            await asyncio.to_thread(parts.custody, id, name, caller.name)
        except BaseException:
            if isinstance(served, FileAnswer):
                served.close()
            raise
    return served


def shelf_of(parts: Parts) -> Shelf:
    """Where evidence lies: at a hub in the object store, on a node in its own folders."""
    return parts.shelf or Folders(parts.vault, parts.node)


class Folders:
    """`parts.Shelf` over the vault's own folders."""

    def __init__(self, vault: Vault, node: str) -> None:
        self._vault = vault
        self._node = node

    async def manifest(self, incident: IncidentId, node: str) -> bytes:
        def work() -> bytes:
            if node not in ("", self._node):
                raise NotFound("this machine has no parts of other nodes", where=node)
            folder = Path(self._vault.folder(incident))
            try:
                return (folder / MANIFEST).read_bytes()
            except OSError as error:
                raise NotFound(
                    f"the evidence has no manifest: {error.strerror}", where=folder.name
                ) from error

        return await asyncio.to_thread(work)

    async def open(
        self, incident: IncidentId, node: str, name: str, sealed: SealedFile | None
    ) -> int:
        def work() -> int:
            path = Path(self._vault.folder(incident)) / name
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError as error:
                raise NotFound(
                    f"no file {name} in this evidence yet",
                    where=incident,
                    hint="is it analysed?",
                ) from error

        return await asyncio.to_thread(work)

    async def address(self, incident: IncidentId, node: str, name: str) -> str | None:
        return None


def _nothing(id: IncidentId, name: str, names: tuple[str, ...]) -> NotFound:
    return NotFound(
        f"no file {name} in this evidence",
        where=id,
        hint="there are " + ", ".join((*names, MANIFEST)),
    )


def _nameless(content: bytes) -> int:
    """A descriptor of a file in memory."""
    descriptor = os.memfd_create("manifest", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    return descriptor


async def _answer(descriptor: int, id: IncidentId, name: str, digest: str) -> FileAnswer:
    def work() -> FileAnswer:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise NotFound(f"{name} is not a file", where=id)
        tag = digest or _hash(descriptor, status.st_size)
        return FileAnswer(descriptor=descriptor, size=status.st_size, tag=tag, name=f"{id}-{name}")

    return await asyncio.to_thread(work)


def _hash(descriptor: int, size: int) -> str:
    digest = sha256()
    at = 0
    while at < size and (piece := os.pread(descriptor, CHUNK, at)):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


async def _converted(
    source: int, source_name: str, id: IncidentId, name: str, parts: Parts
) -> FileAnswer:
    """A classic pcap, made for this answer: names, alert rows and counters are left behind. Closes `source`."""
    convert = parts.to_pcap

    def work() -> FileAnswer:
        if convert is None:
            raise Permanent(
                "this server cannot write classic pcap",
                where=id,
                hint=f"take {source_name} instead",
            )
        with tempfile.TemporaryDirectory(prefix="pcap-", dir=parts.scratch) as folder:
            made = Path(folder) / name
            convert(Path(f"/proc/self/fd/{source}"), made)
            descriptor = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(descriptor).st_size
        return FileAnswer(
            descriptor=descriptor, size=size, tag=_hash(descriptor, size), name=f"{id}-{name}"
        )

    try:
        return await asyncio.to_thread(work)
    finally:
        os.close(source)


@dataclass(frozen=True, slots=True)
class _Range:
    start: int
    end: int  # exclusive


class FileAnswer(Response):
    """Sends an open file, whole or one range of it, and closes it. Several ranges get the whole file (RFC 9110)."""

    def __init__(self, *, descriptor: int, size: int, tag: str, name: str) -> None:
        super().__init__(headers=SAFE)
        self._descriptor = descriptor
        self._size = size
        self.tag = f'"{tag}"'
        self._name = name

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(Request(scope), send)
        except TripsharkError as error:
            answer = problem(error)
            answer.headers["content-range"] = f"bytes */{self._size}"
            await answer(scope, receive, send)
        finally:
            self.close()

    async def _serve(self, request: Request, send: Send) -> None:
        media = _MEDIA.get(Path(self._name).suffix, "application/octet-stream")
        headers = {
            **SAFE,
            "cache-control": "private, no-cache",  # may be kept, must be asked about
            **NOTHING_RUNS,
            "etag": self.tag,
            "accept-ranges": "bytes",
            "content-type": media,
            "content-disposition": f'attachment; filename="{self._name}"',
        }
        if _is_known(request, self.tag):
            await _start(send, 304, headers)
            await send({"type": "http.response.body", "body": b""})
            return
        wanted = self._range(request)
        start, end = (wanted.start, wanted.end) if wanted else (0, self._size)
        headers["content-length"] = str(end - start)
        if wanted:
            headers["content-range"] = f"bytes {start}-{end - 1}/{self._size}"
        await _start(send, 206 if wanted else 200, headers)
        if request.method == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        while start < end:
            piece = await asyncio.to_thread(
                os.pread, self._descriptor, min(CHUNK, end - start), start
            )
            if not piece:
                raise RuntimeError(f"{self._name} became shorter while it was sent")
            start += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": start < end})
        if not headers["content-length"].strip("0"):
            await send({"type": "http.response.body", "body": b""})

    def _range(self, request: Request) -> _Range | None:
        """The one range asked for; None means the whole file. Raises `NoSuchRange`."""
        value = request.headers.get("range", "")
        condition = request.headers.get("if-range")
        if request.method != "GET" or (condition is not None and condition != self.tag):
            return None
        match = re.fullmatch(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", value)
        if match is None or not (match[1] or match[2]):
            return None
        if match[1]:
            start = int(match[1])
            end = min(self._size, int(match[2]) + 1) if match[2] else self._size
            if match[2] and int(match[2]) < start:
                return None
        else:
            start, end = max(0, self._size - int(match[2])), self._size
        if start >= end:
            raise NoSuchRange(f"the file has {self._size} bytes", where="Range")
        return _Range(start, end)


def _is_known(request: Request, tag: str) -> bool:
    """The caller has this very file."""
    known = request.headers.get("if-none-match", "")
    return known.strip() == "*" or tag in [
        each.strip().removeprefix("W/") for each in known.split(",")
    ]


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (name.encode(), value.encode("latin-1")) for name, value in headers.items()
            ],
        }
    )
