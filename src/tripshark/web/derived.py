"""Captures made of evidence for one answer: with notes for analysts, without secrets and addresses for others."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import BadInput, TooLarge
from tripshark.formats.handing_on import MOST_BYTES, to_share, told, with_notes
from tripshark.formats.sharing.derived import Payloads, Wish
from tripshark.formats.sharing.pseudonyms import KEY_BYTES
from tripshark.model.alert import Json
from tripshark.web import query
from tripshark.web.answers import NOTHING_RUNS, SAFE
from tripshark.web.capture_file import CaptureFile, capture_file
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parameters import FILE, INCIDENT_ID
from tripshark.web.parts import Parts
from tripshark.web.route import Route
from tripshark.web.schema import one_of

MEDIA: Final = "application/x-pcapng"
EXPORTS: Final = "exports"
ADDRESSES: Final = ("pseudonyms", "keep")


async def annotated(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("file",))
    file = await capture_file(request, parts)
    notes = await parts.notes.of(file.incident.id) if parts.notes is not None else ()
    content = await _content(file)
    made = await asyncio.to_thread(with_notes, content, file.label, notes)
    its: dict[str, Json] = {"file": file.label, "format": "pcapng with notes"}
    return await _sent(parts, file, "exported", its, made, "annotated")


async def shared(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("file", "payloads", "addresses"))
    wish = _wish(request)
    file = await capture_file(request, parts)
    await file.caller.require("create", EXPORTS, file.incident.held)
    content = await _content(file)
    made = await asyncio.to_thread(to_share, content, file.label, wish)
    its: dict[str, Json] = {"file": file.label, **told(wish, made)}
    return await _sent(parts, file, "shared", its, made.content, "shared")


def _wish(request: Request) -> Wish:
    payloads = request.query_params.get("payloads", Payloads.CUT.value)
    if payloads not in list(Payloads):
        raise BadInput(
            f"unknown {payloads[:40]!r}", where="payloads", hint=", ".join(list(Payloads))
        )
    otherwise = ADDRESSES[payloads != Payloads.CUT]
    addresses = request.query_params.get("addresses", otherwise)
    if addresses not in ADDRESSES:
        raise BadInput(f"unknown {addresses[:40]!r}", where="addresses", hint=", ".join(ADDRESSES))
    key = secrets.token_bytes(KEY_BYTES) if addresses == ADDRESSES[0] else None
    return Wish(payloads=Payloads(payloads), pseudonyms=key)


async def _content(file: CaptureFile) -> bytes:
    """Raises `TooLarge`, and what opening raises."""
    descriptor = await file.open()

    def read() -> bytes:
        with os.fdopen(descriptor, "rb") as opened:
            if os.fstat(descriptor).st_size > MOST_BYTES:
                raise TooLarge(
                    f"the file has more than {MOST_BYTES >> 20} MiB",
                    where=file.label,
                    hint="download it, and use tripshark export or share there",
                )
            return opened.read()

    return await asyncio.to_thread(read)


async def _sent(
    parts: Parts,
    file: CaptureFile,
    deed: str,
    its: dict[str, Json],
    content: bytes,
    kind: str,
) -> Response:
    """Custody knows who took it before the first byte leaves."""
    if parts.deed is not None:
        await asyncio.to_thread(parts.deed, file.incident.id, deed, file.caller.name, its)
    label = file.label.removesuffix(".pcapng").replace("/", "-")
    name = f"{file.incident.id}-{label}-{kind}.pcapng"
    headers = {
        **SAFE,
        **NOTHING_RUNS,
        "content-disposition": f'attachment; filename="{name}"',
    }
    return Response(content, headers=headers, media_type=MEDIA)


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        path="/v1/incidents/{id}/annotated.pcapng",
        handler=annotated,
        described=Described(
            "A copy of a capture file with the analysts' notes as comments of their packets.",
            answers={"200": "The file."},
            parameters=(INCIDENT_ID, FILE),
            errors=(404, 413, 500),
            media=MEDIA,
        ),
    ),
    Route(
        path="/v1/incidents/{id}/shared.pcapng",
        handler=shared,
        described=Described(
            "A capture derived for people who may not see everything; it names the SHA-256 of the original.",
            answers={"200": "The file."},
            parameters=(
                INCIDENT_ID,
                FILE,
                Parameter(
                    "payloads", "query", "How much of them; default cut.", one_of(*Payloads)
                ),
                Parameter(
                    "addresses",
                    "query",
                    "pseudonyms need cut payloads, and are the default with them.",
                    one_of(*ADDRESSES),
                ),
            ),
            errors=(404, 413, 500),
            media=MEDIA,
        ),
    ),
)
