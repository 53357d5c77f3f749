"""An incident in other tools' formats, and its report as a page: made for the answer, of what lies sealed and beside it.

The report that a browser shows is written here and now and never taken from where evidence lies: what is in an object
store may have been put there by anybody, and a page is the one kind of file that a browser acts upon.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import BadInput, NotFound, TooLarge
from tripshark.model.evidence import IncidentId, read_manifest
from tripshark.model.incident import Incident
from tripshark.model.part import namespaces_in, node_name
from tripshark.web import query
from tripshark.web.access import EVIDENCE
from tripshark.web.answers import NOTHING_RUNS, SAFE
from tripshark.web.caller import caller_of
from tripshark.web.derived import EXPORTS
from tripshark.web.evidence import shelf_of
from tripshark.web.incident import incident_of, looked
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parameters import INCIDENT_ID, NODE
from tripshark.web.parts import Exported, Exports, Parts, Shelf, Told
from tripshark.web.route import Route
from tripshark.web.schema import mapping, one_of

FORMATS: Final = (
    "report",
    "markdown",
    "timeline",
    "ecs",
    "ocsf",
    "stix",
    "misp",
    "zeek-conn",
    "zeek-dns",
    "zeek-ssl",
    "zeek-http",
)
MEDIA: Final = (
    "application/json",
    "application/jsonl",
    "application/stix+json",
    "application/x-ndjson",
    "text/html",
    "text/markdown",
)
REPORT: Final = "report.html"
MAX_DOCUMENT: Final = 64 << 20  # bytes of one manifest, findings.json or custody.jsonl
_STYLE: Final = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


async def export(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("node",))
    format = request.path_params["format"]
    if format not in FORMATS:
        raise BadInput(
            f"unknown format {format[:40]!r}", where="format", hint=f"one of {', '.join(FORMATS)}"
        )
    incident = await incident_of(request, parts)
    await caller_of(request, parts).require("create", EXPORTS, incident.held)
    node = request.query_params.get("node", "")
    made = await _made(request, parts, incident, node, format)
    if parts.deed is not None:
        details = {"format": format, "sha256": hashlib.sha256(made.content).hexdigest()}
        who = caller_of(request, parts).name
        await asyncio.to_thread(parts.deed, incident.id, "exported", who, details)
    name = f"{incident.id}-{node}.{made.suffix}" if node else f"{incident.id}.{made.suffix}"
    headers = {
        **SAFE,
        **NOTHING_RUNS,
        "content-disposition": f'attachment; filename="{name}"',
    }
    return Response(made.content, headers=headers, media_type=made.media)


async def report(request: Request, parts: Parts) -> Response:
    """The page itself, under a policy that allows its style sheet and nothing else."""
    query.known(request.query_params, ())
    incident = await incident_of(request, parts)
    node = request.path_params.get("node", "")
    made = await _made(request, parts, incident, node, "report")
    name = f"{node}-{REPORT}" if node else REPORT
    await looked(parts, incident, name, caller_of(request, parts).name)
    headers = {
        **SAFE,
        "content-security-policy": policy(made.content),
        "content-disposition": f'inline; filename="{incident.id}-{REPORT}"',
    }
    return Response(made.content, headers=headers, media_type=made.media)


def policy(page: bytes) -> str:
    """Of a page with one style sheet and no script."""
    found = _STYLE.search(page)
    digest = hashlib.sha256(found[1] if found else b"").digest()
    return (
        f"default-src 'none'; style-src 'sha256-{base64.b64encode(digest).decode()}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; sandbox"
    )


async def _made(
    request: Request, parts: Parts, incident: Incident, node: str, format: str
) -> Exported:
    """Raises `NotFound`, `BadInput`, `TooLarge`, and what `Caller.require` and the shelf raise."""
    told = await _told(request, parts, incident, node)
    exports: Exports | None = parts.exports
    if exports is None:
        raise NotFound("this server writes no reports", where=incident.id)
    return await asyncio.to_thread(exports.write, format, told)


async def _told(request: Request, parts: Parts, incident: Incident, node: str) -> list[Told]:
    """The documents of every part, or of one node's."""
    caller = caller_of(request, parts)
    await caller.require("get", EVIDENCE, incident.held)
    shelf = shelf_of(parts)
    nodes: list[str] = [node_name(node)] if node else []
    found = await parts.parts_of(incident.id) if parts.parts_of is not None else ()
    if found and not node:
        nodes = [each.node for each in found]
    told = []
    for each in nodes or [""]:
        manifest = await shelf.manifest(incident.id, each)
        if not caller.is_unlimited:  # what was sealed is asked about too
            namespaces = namespaces_in(await asyncio.to_thread(read_manifest, manifest))
            await caller.require("get", EVIDENCE, namespaces)
        told.append(
            Told(
                manifest=manifest,
                findings=await _beside(shelf, incident.id, each, "findings.json"),
                custody=await _beside(shelf, incident.id, each, "custody.jsonl"),
                node=each if len(nodes) > 1 else "",
                problem=incident.problem,
            )
        )
    return told


async def _beside(shelf: Shelf, id: IncidentId, node: str, name: str) -> bytes:
    """A companion, or nothing where there is none (yet)."""
    try:
        descriptor = await shelf.open(id, node, name, None)
    except NotFound:
        return b""

    def read() -> bytes:
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(MAX_DOCUMENT + 1)
        if len(content) > MAX_DOCUMENT:
            raise TooLarge(f"more than {MAX_DOCUMENT >> 20} MiB", where=name)
        return content

    return await asyncio.to_thread(read)


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        path="/v1/incidents/{id}/export/{format}",
        handler=export,
        described=Described(
            "The incident in another tool's format, made of manifest and findings; of several parts all together. "
            "The export is a line of the custody.",
            answers={"200": "The file."},
            parameters=(
                INCIDENT_ID,
                Parameter("format", "path", "Which.", one_of(*FORMATS)),
                Parameter("node", "query", "One node's part alone, where there are several."),
            ),
            errors=(404, 413, 500),
            media=MEDIA,
            gives=mapping(),
        ),
    ),
    Route(
        path="/v1/incidents/{id}/report.html",
        handler=report,
        described=Described(
            "The report: one page without script, as it would be written now.",
            answers={"200": "HTML."},
            parameters=(INCIDENT_ID,),
            errors=(404, 413, 500),
            media="text/html",
        ),
    ),
    Route(
        path="/v1/incidents/{id}/parts/{node}/report.html",
        handler=report,
        described=Described(
            "The report of one part.",
            answers={"200": "HTML."},
            parameters=(INCIDENT_ID, NODE),
            errors=(404, 413, 500),
            media="text/html",
        ),
    ),
)
