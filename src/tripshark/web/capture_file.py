"""Which file of the evidence is looked at, whether the caller may, and how it is opened: verified and noted."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from tripshark.errors import BadInput, NotFound, NotVerified
from tripshark.model.evidence import IncidentId, SealedFile, file_name, read_manifest
from tripshark.model.incident import Incident
from tripshark.model.part import namespaces_in, node_name
from tripshark.web.access import EVIDENCE, Caller
from tripshark.web.caller import caller_of
from tripshark.web.evidence import MERGED, shelf_of
from tripshark.web.incident import incident_of
from tripshark.web.parts import Parts

MAX_NAME: Final = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureFile:
    """A file whose packets may be shown to who asked."""

    incident: Incident
    caller: Caller
    label: str  # evidence.pcapng, NODE/evidence.pcapng, merged.pcapng
    tag: str  # another one when the file is
    open: Callable[[], Awaitable[int]]


async def capture_file(request: Request, parts: Parts) -> CaptureFile:
    """The file that the path and `file` mean.

    Raises `NotFound`, `BadInput`, `NotVerified`, `Transient`, and what `Caller.require` raises.
    """
    incident = await incident_of(request, parts)
    caller = caller_of(request, parts)
    await caller.require("get", EVIDENCE, incident.held)
    wanted = request.query_params.get("file", "")
    if len(wanted) > MAX_NAME:
        raise BadInput("no file has so long a name", where="file")
    node, slash, name = wanted.rpartition("/")
    if slash:
        node_name(node)
    if name:
        file_name(name)
        if not name.endswith(".pcapng"):
            raise BadInput("not a capture file", where="file", hint="evidence.pcapng")
    node, name = await spelled(incident.id, node, name, parts)
    if not node and parts.merging is not None and MERGED.fullmatch(name):
        return await _merged(incident, caller, name, parts)
    return await _sealed(incident, caller, node, name, parts)


async def spelled(id: IncidentId, node: str, name: str, parts: Parts) -> tuple[str, str]:
    """Node and name by which everybody calls a file, however it was asked for; at a hub there is always a node.

    The name "" is the file to begin with, and stays "" where only the manifest knows it. Raises `NotFound`.
    """
    found = await parts.parts_of(id) if parts.parts_of is not None else ()
    if node or MERGED.fullmatch(name):
        return node, name
    if len(found) == 1:
        return found[0].node, name
    if found and name:
        raise NotFound(
            f"this incident has {len(found)} parts",
            where="file",
            hint="merged.pcapng, or NODE/FILE with NODE "
            + ", ".join(each.node for each in found[:20]),
        )
    return "", "merged.pcapng" if found else name


async def _merged(incident: Incident, caller: Caller, name: str, parts: Parts) -> CaptureFile:
    merging = parts.merging
    found = await parts.parts_of(incident.id) if parts.parts_of is not None else ()
    # one may have come since the catalogue was asked
    await caller.require("get", EVIDENCE, {name for each in found for name in each.incident.held})
    if merging is None:
        raise NotFound("nothing is merged here", where=name)
    tag = ",".join(sorted(each.manifest_sha256 for each in found))

    async def open_() -> int:
        return _read_only(await merging.open(found, name))

    return CaptureFile(
        incident=incident,
        caller=caller,
        label=name,
        tag=tag,
        open=open_,
    )


async def _sealed(
    incident: Incident, caller: Caller, node: str, name: str, parts: Parts
) -> CaptureFile:
    shelf = shelf_of(parts)
    content = await shelf.manifest(incident.id, node)
    manifest = await asyncio.to_thread(read_manifest, content)
    # what was sealed is asked about too, whatever the catalogue says
    await caller.require("get", EVIDENCE, namespaces_in(manifest))
    captures: Mapping[str, SealedFile] = {
        each.name: each for each in manifest.files if each.name.endswith(".pcapng")
    }
    if not captures:
        raise NotFound("this evidence holds no packets", where=incident.id)
    its = captures.get(name or next(iter(sorted(captures, key=_order))))
    if its is None:
        raise NotFound(
            f"no file {name} in this evidence",
            where=incident.id,
            hint="there are " + ", ".join(captures),
        )

    async def open_() -> int:
        descriptor = await shelf.open(incident.id, node, its.name, its)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != its.bytes:
            os.close(descriptor)
            raise NotVerified(
                f"{its.name} has {status.st_size} bytes and was sealed with {its.bytes}",
                where=incident.id,
                hint="tripshark verify says what else is wrong",
            )
        return _read_only(descriptor)

    return CaptureFile(
        incident=incident,
        caller=caller,
        label=f"{node}/{its.name}" if node else its.name,
        tag=its.sha256,
        open=open_,
    )


def _read_only(descriptor: int) -> int:
    """The same file by a descriptor that cannot write: what was just fetched is open for both. Closes `descriptor`."""
    try:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            return os.dup(descriptor)
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(descriptor)


def _order(name: str) -> tuple[int, str]:
    """evidence.pcapng, evidence-2.pcapng, …, evidence-10.pcapng."""
    return (len(name), name)
