"""The whole evidence folder as one ZIP, made while it is sent: sealed files, manifest, signature, what lies beside.

Nothing is compressed (packets hardly can be) and nothing is kept: a piece is read, counted into its checksum and sent.
Unpacked, the folder is what `tripshark verify` checks.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from io import RawIOBase
from typing import TYPE_CHECKING, Final
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tripshark.errors import NotFound
from tripshark.model.evidence import IncidentId, SealedFile, read_manifest, rfc3339
from tripshark.model.part import namespaces_in, node_name
from tripshark.web import query
from tripshark.web.access import EVIDENCE
from tripshark.web.answers import NOTHING_RUNS, SAFE
from tripshark.web.caller import caller_of
from tripshark.web.evidence import MANIFEST, shelf_of
from tripshark.web.incident import incident_of
from tripshark.web.openapi import Described
from tripshark.web.parameters import INCIDENT_ID, NODE
from tripshark.web.parts import Parts, Shelf
from tripshark.web.route import Route

if TYPE_CHECKING:
    from typing_extensions import Buffer

NAME: Final = "evidence.zip"
BESIDE: Final = (
    "manifest.sig", "findings.json", "report.html", "report.md", "timeline.jsonl", "viewed.jsonl",
    "custody.jsonl",
)  # fmt: skip
_CHUNK: Final = 1 << 18


async def bundle(request: Request, parts: Parts) -> Response:
    """Raises `NotFound`, `Forbidden`, `NotVerified`, `Transient`."""
    query.known(request.query_params, ())
    found = await incident_of(request, parts)
    caller = caller_of(request, parts)
    await caller.require("get", EVIDENCE, found.held)
    node = node_name(request.path_params["node"]) if "node" in request.path_params else ""
    shelf = shelf_of(parts)
    content = await shelf.manifest(found.id, node)
    manifest = await asyncio.to_thread(read_manifest, content)
    await caller.require("get", EVIDENCE, namespaces_in(manifest))
    label = f"{node}-{NAME}" if node else NAME
    if request.method == "GET" and parts.custody is not None:
        await asyncio.to_thread(parts.custody, found.id, label, caller.name)
    packing = _Packing(
        shelf=shelf,
        incident=found.id,
        node=node,
        sealed={each.name: each for each in manifest.files},
        manifest=content,
        created=rfc3339(manifest.created_ns),
    )
    return StreamingResponse(
        packing.pieces(),
        media_type="application/zip",
        headers={
            **SAFE,
            **NOTHING_RUNS,
            "content-disposition": f'attachment; filename="{found.id}-{label}"',
        },
    )


class _Pipe(RawIOBase):
    """What `ZipFile` writes to: it cannot be sought in, and hands over what was written."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Buffer, /) -> int:
        made = bytes(piece)
        self._written.append(made)
        return len(made)

    def taken(self) -> bytes:
        """What was written since the last time."""
        made = b"".join(self._written)
        self._written.clear()
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packing:
    shelf: Shelf
    incident: IncidentId
    node: str
    sealed: Mapping[str, SealedFile]
    manifest: bytes
    created: str

    async def pieces(self) -> AsyncIterator[bytes]:
        pipe = _Pipe()
        with ZipFile(pipe, "w", ZIP_STORED) as archive:
            archive.writestr(self._entry(MANIFEST), self.manifest)
            yield pipe.taken()
            for name in (*self.sealed, *BESIDE):
                try:
                    descriptor = await self.shelf.open(
                        self.incident, self.node, name, self.sealed.get(name)
                    )
                except NotFound:
                    if name in self.sealed:
                        raise  # half of the evidence is none: the answer breaks off
                    continue
                try:
                    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                        continue
                    entry = self._entry(name)
                    size = os.fstat(descriptor).st_size
                    with archive.open(entry, "w", force_zip64=size >= 1 << 31) as into:
                        at = 0
                        while at < size and (
                            piece := await asyncio.to_thread(
                                os.pread, descriptor, min(_CHUNK, size - at), at
                            )
                        ):
                            at += len(piece)
                            into.write(piece)
                            yield pipe.taken()
                finally:
                    os.close(descriptor)
        yield pipe.taken()

    def _entry(self, name: str) -> ZipInfo:
        """Every entry bears the time of sealing: the same folder is always the same bytes."""
        date, _, time = self.created.partition("T")
        year, month, day = (int(each) for each in date.split("-"))
        hour, minute, second = (int(each) for each in time[:8].split(":"))
        entry = ZipInfo(
            f"{self.incident}/{name}", (max(1980, year), month, day, hour, minute, second)
        )
        entry.external_attr = (stat.S_IFREG | 0o644) << 16
        return entry


ROUTES: tuple[Route, ...] = (
    Route(
        path="/v1/incidents/{id}/evidence.zip",
        handler=bundle,
        described=Described(
            "The whole evidence folder as one ZIP, which `tripshark verify` checks.",
            answers={"200": "The folder."},
            parameters=(INCIDENT_ID,),
            errors=(404, 500),
            media="application/zip",
        ),
    ),
    Route(
        path="/v1/incidents/{id}/parts/{node}/evidence.zip",
        handler=bundle,
        described=Described(
            "The folder of one part.",
            answers={"200": "The folder."},
            parameters=(INCIDENT_ID, NODE),
            errors=(404, 500),
            media="application/zip",
        ),
    ),
)
