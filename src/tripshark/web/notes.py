"""Analysts' notes over HTTP: read by whoever may see the packets, taken back by who wrote them."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import NotFound, Permanent
from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId
from tripshark.model.note import (
    MAX_NOTE,
    MAX_NOTES,
    Note,
    note_file,
    note_frame,
    note_id,
    note_text,
)
from tripshark.web import query
from tripshark.web.access import EVIDENCE
from tripshark.web.answers import SAFE, json
from tripshark.web.body import decoded
from tripshark.web.caller import caller_of
from tripshark.web.capture_file import spelled
from tripshark.web.incident import incident_of
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parameters import INCIDENT_ID
from tripshark.web.parts import Notes, Parts
from tripshark.web.route import Route
from tripshark.web.schema import TEXT, TIME, WHOLE, Schema, named, obj, rows, text, whole

NOTES: Final = "notes"  # `create notes` writes one; `delete notes` takes back somebody else's
MAX_BODY = 65_536  # bytes


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    frame: int
    text: str
    file: str = ""  # the one that packets are looked at in


_BODY = msgspec.json.Decoder(_Body)


async def list_notes(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    found = await incident_of(request, parts)
    await caller_of(request, parts).require("get", EVIDENCE, found.held)
    notes = await _kept(parts).of(found.id)
    return json({"incident": found.id, "notes": [each.as_json() for each in notes]})


async def add_note(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    found = await incident_of(request, parts)
    caller = caller_of(request, parts)
    await caller.require("get", EVIDENCE, found.held)
    await caller.require("create", NOTES, found.held)
    asked = await decoded(
        request,
        _BODY,
        most=MAX_BODY,
        what="a note",
        example='{"frame": 12, "text": "the first beacon", "file": "evidence.pcapng"}',
    )
    note = Note(
        id=secrets.token_hex(8),
        incident=found.id,
        file=await _file(asked.file, found.id, parts),
        frame=note_frame(asked.frame),
        text=note_text(asked.text),
        by=caller.name,
        at_ns=parts.clock.now_ns(),
    )
    await _told(parts, "noted", caller.name, note)
    await _kept(parts).add(note)
    location = f"/v1/incidents/{found.id}/notes/{note.id}"
    return json(note.as_json(), 201, {"location": location})


async def remove_note(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    found = await incident_of(request, parts)
    caller = caller_of(request, parts)
    await caller.require("get", EVIDENCE, found.held)
    await caller.require("create", NOTES, found.held)
    id = note_id(request.path_params["note"])
    note = next((each for each in await _kept(parts).of(found.id) if each.id == id), None)
    if note is None:
        raise NotFound("no such note", where=id)
    if note.by != caller.name:
        await caller.require("delete", NOTES, found.held)
    await _told(parts, "note removed", caller.name, note)
    await _kept(parts).remove(found.id, id)
    return Response(status_code=204, headers=SAFE)


async def _file(wanted: str, id: IncidentId, parts: Parts) -> str:
    """The name by which everybody calls the file. Raises as `spelled` and `note_file`."""
    node, _, name = wanted.rpartition("/")
    node, name = await spelled(id, node, name, parts)
    name = name or "evidence.pcapng"
    return note_file(f"{node}/{name}" if node else name)


def _kept(parts: Parts) -> Notes:
    if parts.notes is None:
        raise Permanent("no notes are kept here")
    return parts.notes


async def _told(parts: Parts, what: str, who: str, note: Note) -> None:
    """Custody knows first; of the text it keeps nothing, because a note may be taken back."""
    if parts.deed is not None:
        details: dict[str, Json] = {"note": note.id, "file": note.file, "frame": note.frame}
        await asyncio.to_thread(parts.deed, note.incident, what, who, details)


NOTE: Final[Schema] = named(
    "Note",
    obj(
        {
            "id": TEXT,
            "file": TEXT,
            "frame": WHOLE,
            "text": TEXT,
            "by": TEXT,
            "at": TIME,
            "at_ns": WHOLE,
        }
    ),
)

ROUTES: tuple[Route, ...] = (
    Route(
        path="/v1/incidents/{id}/notes",
        handler=list_notes,
        described=Described(
            "What analysts wrote at its packets, by file and packet.",
            answers={"200": "Notes."},
            parameters=(INCIDENT_ID,),
            gives=obj({"incident": TEXT, "notes": rows(NOTE, most=MAX_NOTES)}),
            errors=(404,),
        ),
    ),
    Route(
        path="/v1/incidents/{id}/notes",
        method="POST",
        handler=add_note,
        described=Described(
            "Write a note at a packet; exported, it is that packet's comment.",
            answers={"201": "The note."},
            parameters=(INCIDENT_ID,),
            gives=NOTE,
            takes=obj(
                {
                    "frame": whole(1, (1 << 32) - 1),
                    "text": text(least=1, most=MAX_NOTE, pattern=r"\S"),
                    "file": text(
                        pattern=r"^([a-z0-9]([a-z0-9-]{0,60})/)?[a-z][a-z0-9-]{0,40}\.pcapng$"
                    ),
                },
                optional=("file",),
            ),
            errors=(404, 408, 409, 413, 415),
        ),
    ),
    Route(
        path="/v1/incidents/{id}/notes/{note}",
        method="DELETE",
        handler=remove_note,
        described=Described(
            "Take a note back.",
            answers={"204": "It is gone."},
            parameters=(INCIDENT_ID, Parameter("note", "path", "Id of the note.")),
            errors=(404,),
        ),
    ),
)
