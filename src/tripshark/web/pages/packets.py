"""The packet view: one capture file of an incident, its packets asked for by the page's own modules."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import NotFound
from tripshark.model.evidence import IncidentId, SealedFile, read_manifest
from tripshark.model.incident import State
from tripshark.model.part import namespaces_in
from tripshark.web import query, site
from tripshark.web.access import EVIDENCE, Caller
from tripshark.web.caller import caller_of
from tripshark.web.evidence import shelf_of
from tripshark.web.incident import incident_of
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parts import Parts
from tripshark.web.route import Route

_CHIPS = (
    ("alerts", "Alerts"),
    ("flow", "This flow"),
    ("egress", "Egress"),
    ("dns", "DNS"),
    ("tls", "TLS"),
    ("http", "HTTP"),
    ("notes", "Notes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One file that the view can show, by the name that the API knows it by."""

    name: str  # "evidence.pcapng", "NODE/evidence.pcapng", "merged.pcapng"
    label: str
    href: str  # where it is downloaded
    sha256: str = ""  # "" for one that is made when it is asked for

    @property
    def plain(self) -> str:
        """Where the same is downloaded as classic pcap; "" where nobody makes one."""
        return self.href.removesuffix("ng") if self.sha256 else ""


async def show(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("file", "filter", "at", "around_ns"))
    incident = await incident_of(request, parts)
    caller = caller_of(request, parts)
    await caller.require("get", EVIDENCE, incident.held)
    files = (
        await capture_files(incident.id, parts, caller)
        if incident.state in (State.SEALED, State.EMPTY)
        else ()
    )
    wanted = request.query_params.get("file", "")
    chosen = next((each for each in files if each.name == wanted), None)
    if wanted and files and chosen is None:
        raise NotFound(
            "no such capture file in this incident",
            where="file",
            hint="there are " + ", ".join(each.name for each in files),
        )
    return site.page(
        request,
        parts,
        "packets.html",
        incident=incident,
        files=files,
        file=chosen or (files[0] if files else None),
        chips=_CHIPS,
        gate_is_open=parts.gate.is_open and parts.access is None,
    )


async def capture_files(id: IncidentId, parts: Parts, caller: Caller) -> tuple[Choice, ...]:
    """Every capture file of an incident, the one to begin with first. Raises `Forbidden`, and what `Shelf.manifest` does."""
    base = f"/v1/incidents/{id}"
    found = await parts.parts_of(id) if parts.parts_of is not None else ()
    if parts.kind == "hub":
        # one may have come since the catalogue was asked
        held = {name for part in found for name in part.incident.held}
        await caller.require("get", EVIDENCE, held)
        several = [
            _sealed(
                each, f"{part.node}/{each.name}", f"{base}/parts/{quote(part.node)}/", part.node
            )
            for part in found
            for each in part.files
            if each.name.endswith(".pcapng")
        ]
        merged = Choice(
            name="merged.pcapng", label="all nodes, merged", href=f"{base}/merged.pcapng"
        )
        return (merged, *several) if len(found) > 1 and parts.merging is not None else (*several,)
    shelf = shelf_of(parts)
    manifest = await asyncio.to_thread(read_manifest, await shelf.manifest(id, ""))
    await caller.require("get", EVIDENCE, namespaces_in(manifest))
    return tuple(
        _sealed(each, each.name, f"{base}/", "")
        for each in manifest.files
        if each.name.endswith(".pcapng")
    )


def _sealed(file: SealedFile, name: str, base: str, node: str) -> Choice:
    return Choice(
        name=name,
        label=f"{node}: {file.name}" if node else file.name,
        href=base + quote(file.name),
        sha256=file.sha256,
    )


ROUTES: tuple[Route, ...] = (
    Route(
        path="/incidents/{id}/packets",
        handler=show,
        described=Described(
            "The page of its packets: list, fields, bytes, streams, notes. `#p=124` names a packet.",
            answers={"200": "HTML."},
            parameters=(
                Parameter("id", "path", "Id of the incident."),
                Parameter(
                    "file", "query", "evidence.pcapng, NODE/evidence.pcapng, merged.pcapng."
                ),
                Parameter("filter", "query", "Display filter, read by the page itself."),
                Parameter("at", "query", "Packet around which the window of a large file lies."),
                Parameter("around_ns", "query", "Or the moment, in nanoseconds since 1970."),
            ),
            media="text/html",
            errors=(400, 401, 403, 404, 503),
        ),
    ),
)
