"""Packets of an incident over HTTP: pages of the list, one packet, filters, streams; all through a warm dissector."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import BadInput, NotFound
from tripshark.model.alert import Json
from tripshark.web import query
from tripshark.web.answers import json
from tripshark.web.capture_file import capture_file
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parameters import FILE, INCIDENT_ID
from tripshark.web.parts import Dissected, Parts
from tripshark.web.route import Route
from tripshark.web.schema import (
    BASE64,
    FLAG,
    NUMBER,
    TEXT,
    WHOLE,
    Schema,
    maybe,
    named,
    obj,
    one_of,
    ref,
    rows,
    text,
    whole,
)

MAX_FILTER: Final = 1800  # bytes; sharkd 4.0 reads no longer request
MAX_PAGE: Final = 500
MAX_NUMBER: Final = (1 << 32) - 1
PROTOCOLS: Final = ("tcp", "udp", "tls", "http")
TAPS: Final = ("conversations", "endpoints", "expert")
_WHERE: Final = ("file", "at", "around_ns")


async def list_packets(request: Request, parts: Parts) -> Response:
    params = request.query_params
    query.known(params, (*_WHERE, "filter", "skip", "limit"))
    filter = _filter(params)
    asked: dict[str, Json] = {
        "ask": "page",
        "filter": filter,
        "skip": _number(params, "skip", 0, MAX_NUMBER, 0),
        "limit": _number(params, "limit", 1, MAX_PAGE, 100),
    }
    told = await _asked(request, parts, asked, filter=filter)
    return json({**told.answer, "window": told.window})


async def show_packet(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, _WHERE)
    given = request.path_params["number"]
    if not re.fullmatch(r"[1-9][0-9]{0,9}", given) or int(given) > MAX_NUMBER:
        raise BadInput("packets have numbers from 1 on", where="number")
    number = int(given)
    told = await _asked(request, parts, {"ask": "packet", "number": number}, frame=number)
    return json({**told.answer, "window": told.window})


async def check_filter(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, (*_WHERE, "filter"))
    asked: dict[str, Json] = {"ask": "check", "filter": _filter(request.query_params)}
    return json(dict((await _asked(request, parts, asked)).answer))


async def complete(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, (*_WHERE, "prefix"))
    prefix = request.query_params.get("prefix", "")
    if not re.fullmatch(r"[A-Za-z0-9_.\-]{1,100}", prefix):
        raise BadInput("a field's name begins otherwise", where="prefix", hint="tcp.fl")
    return json(dict((await _asked(request, parts, {"ask": "complete", "prefix": prefix})).answer))


async def intervals(request: Request, parts: Parts) -> Response:
    params = request.query_params
    query.known(params, (*_WHERE, "filter", "step_ms"))
    filter = _filter(params)
    asked: dict[str, Json] = {
        "ask": "intervals",
        "filter": filter,
        "step_ms": _number(params, "step_ms", 1, 86_400_000, 0),
    }
    return json(dict((await _asked(request, parts, asked, filter=filter)).answer))


async def follow(request: Request, parts: Parts) -> Response:
    params = request.query_params
    query.known(params, (*_WHERE, "proto", "stream"))
    proto = params.get("proto", "tcp")
    if proto not in PROTOCOLS:
        raise BadInput(
            f"{proto[:20]!r} cannot be followed", where="proto", hint=", ".join(PROTOCOLS)
        )
    if "stream" not in params:
        raise BadInput("which stream?", where="stream", hint="stream=0")
    stream = _number(params, "stream", 0, MAX_NUMBER, 0)
    asked: dict[str, Json] = {"ask": "follow", "proto": proto, "stream": stream}
    field = "udp" if proto == "udp" else "tcp"
    told = await _asked(request, parts, asked, filter=f"{field}.stream == {stream}")
    return json(dict(told.answer))


async def tap(request: Request, parts: Parts) -> Response:
    params = request.query_params
    query.known(params, (*_WHERE, "name"))
    name = params.get("name", TAPS[0])
    if name not in TAPS:
        raise BadInput(f"there is no tap {name[:20]!r}", where="name", hint=", ".join(TAPS))
    return json(dict((await _asked(request, parts, {"ask": "tap", "name": name})).answer))


async def _asked(
    request: Request,
    parts: Parts,
    asked: Mapping[str, Json],
    *,
    filter: str = "",
    frame: int = 0,
) -> Dissected:
    """`frame`: the one that is asked about, so that a large file is opened where it is."""
    at_frame, at_ns = _place(request.query_params)
    file = await capture_file(request, parts)
    if parts.dissection is None:
        raise NotFound(
            "packets are not looked at here", hint="download the file and open it in Wireshark"
        )
    await parts.looks.note(
        file.incident.id,
        file.label,
        file.caller.name,
        filter,
        now_ns=parts.clock.now_ns(),
        custody=parts.custody,
        deed=parts.deed,
    )
    return await parts.dissection.ask(
        (file.incident.id, file.label, file.tag),
        file.open,
        asked,
        t0_ns=file.incident.t0_ns,
        at_ns=at_ns,
        at_frame=frame or at_frame,
    )


def _place(params: QueryParams) -> tuple[int, int]:
    """Frame and moment around which a window of a large file is wanted, one of them, or neither. Raises `BadInput`."""
    at, around = params.get("at", ""), params.get("around_ns", "")
    if at and around:
        raise BadInput("at and around_ns say the same thing: give one", where="at")
    if around:
        return 0, _number(params, "around_ns", 1, (1 << 63) - 1, 0)
    if not at:
        return 0, 0
    if re.fullmatch(r"[0-9]{1,10}", at):
        return _number(params, "at", 1, MAX_NUMBER, 0), 0
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError("no zone")  # noqa: TRY301  # handled as every other wrong spelling
        return 0, max(1, int(moment.timestamp() * 1_000_000) * 1000)
    except (ValueError, OverflowError) as error:
        raise BadInput(
            f"{at[:60]!r} is neither a packet's number nor a time",
            where="at",
            hint="124, or 2026-11-24T12:00:00Z",
        ) from error


def _number(params: QueryParams, name: str, least: int, most: int, otherwise: int) -> int:
    value = params.get(name)
    if value is None:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,19}", value) or not least <= int(value) <= most:
        raise BadInput(f"{name} is {least} to {most}", where=name)
    return int(value)


def _filter(params: QueryParams) -> str:
    value = params.get("filter", "").strip()
    if len(value.encode("utf-8", "replace")) > MAX_FILTER:
        raise BadInput(
            f"the filter is too long: at most {MAX_FILTER} bytes are read",
            where="filter",
            hint="use a set: ip.addr in {10.0.0.1, 10.0.0.2}",
        )
    if not value.isprintable():
        raise BadInput("the filter holds what cannot be printed", where="filter")
    return value


# --------------------------------------------------------------------------------------- what is said

WINDOW: Final[Schema] = named(
    "Window",
    obj(
        {
            "first_ns": WHOLE,
            "last_ns": WHOLE,
            "first": WHOLE,
            "last": WHOLE,
            "before": WHOLE,
            "after": WHOLE,
            "notice": TEXT,
        }
    ),
)
FRAME: Final[Schema] = named(
    "Frame",
    obj(
        {
            "number": WHOLE,
            "columns": rows(TEXT),
            "background": TEXT,
            "foreground": TEXT,
            "alert": FLAG,
            "comments": rows(TEXT),
            "marked": FLAG,
            "time_ns": WHOLE,
            "interface": TEXT,
        }
    ),
)
PAGE: Final[Schema] = obj(
    {
        "columns": rows(TEXT),
        "frames": rows(FRAME, most=MAX_PAGE),
        "total": WHOLE,
        "matched": maybe(WHOLE),
        "window": maybe(WINDOW),
    }
)
NODE: Final[Schema] = named(
    "Node",
    obj(
        {
            "label": TEXT,
            "offset": maybe(WHOLE),
            "length": maybe(WHOLE),
            "source": WHOLE,
            "filter": TEXT,
            "severity": TEXT,
            "generated": FLAG,
            "children": rows(ref("Node")),
        }
    ),
)
PACKET: Final[Schema] = obj(
    {
        "number": WHOLE,
        "tree": rows(NODE),
        "bytes": BASE64,
        "sources": rows(obj({"name": TEXT, "bytes": BASE64})),
        "comments": rows(TEXT),
        "follow": rows(obj({"proto": TEXT, "filter": TEXT, "stream": WHOLE})),
        "truncated": FLAG,
        "window": maybe(WINDOW),
    }
)
STREAM: Final[Schema] = obj(
    {
        "client": TEXT,
        "server": TEXT,
        "chunks": rows(obj({"frame": WHOLE, "from": one_of("client", "server"), "data": BASE64})),
        "truncated": FLAG,
    }
)
_TRAFFIC: Final[Mapping[str, Schema]] = {
    "packets_out": WHOLE,
    "packets_in": WHOLE,
    "bytes_out": WHOLE,
    "bytes_in": WHOLE,
    "filter": TEXT,
}
TAPPED: Final[Schema] = obj(
    {
        "name": one_of(*TAPS),
        "rows": rows(
            obj(
                {
                    "source": TEXT,
                    "source_port": TEXT,
                    "destination": TEXT,
                    "destination_port": TEXT,
                    "address": TEXT,
                    "port": TEXT,
                    **_TRAFFIC,
                    "frame": WHOLE,
                    "severity": TEXT,
                    "group": TEXT,
                    "summary": TEXT,
                    "proto": TEXT,
                },
                optional=(
                    *("source", "source_port", "destination", "destination_port"),
                    *("address", "port", *_TRAFFIC),
                    *("frame", "severity", "group", "summary", "proto"),
                ),
            )
        ),
        "truncated": FLAG,
    }
)

_AT = Parameter(
    "at",
    "query",
    "Of a file that is too large to be read at once: the packet's number, or the time (RFC 3339), around which to read.",
)
_AROUND = Parameter(
    "around_ns", "query", "The same as `at`, in nanoseconds since 1970.", whole(1, (1 << 63) - 1)
)
_FILTER = Parameter(
    "filter",
    "query",
    "A display filter of Wireshark's.",
    text(most=MAX_FILTER, pattern="^[ -~]*$"),
)
_PLACE = (INCIDENT_ID, FILE, _AT, _AROUND)
_ERRORS = (404, 409, 500)

ROUTES: tuple[Route, ...] = (
    Route(
        path="/v1/incidents/{id}/packets",
        handler=list_packets,
        described=Described(
            "Rows of the packet list, as Wireshark shows and colours them; alerts are rows too. `total` counts the "
            "file's packets, `matched` those that the filter shows.",
            answers={"200": "A page of packets."},
            parameters=(
                *_PLACE,
                _FILTER,
                Parameter("skip", "query", "Rows to pass over.", whole(0, MAX_NUMBER, default=0)),
                Parameter("limit", "query", "At most this many.", whole(1, MAX_PAGE, default=100)),
            ),
            gives=PAGE,
            errors=_ERRORS,
        ),
    ),
    Route(
        path="/v1/incidents/{id}/packets/{number}",
        handler=show_packet,
        described=Described(
            "One packet: the tree of its fields, each with its place in the bytes and the filter that finds it.",
            answers={"200": "The packet."},
            parameters=(
                *_PLACE,
                Parameter("number", "path", "Its number in the file.", whole(1, MAX_NUMBER)),
            ),
            gives=PACKET,
            errors=_ERRORS,
        ),
    ),
    Route(
        path="/v1/incidents/{id}/filter",
        handler=check_filter,
        described=Described(
            "Whether a display filter is one, in the dissector's own words.",
            answers={"200": "Its opinion."},
            parameters=(*_PLACE, _FILTER),
            gives=obj({"ok": FLAG, "message": TEXT, "warning": TEXT}),
            errors=_ERRORS,
        ),
    ),
    Route(
        path="/v1/incidents/{id}/complete",
        handler=complete,
        described=Described(
            "Fields whose names begin so.",
            answers={"200": "At most 200 fields."},
            parameters=(
                *_PLACE,
                Parameter(
                    "prefix",
                    "query",
                    "How the name begins.",
                    text(least=1, most=100, pattern=r"^[A-Za-z0-9_.\-]+$"),
                    required=True,
                ),
            ),
            gives=obj(
                {"fields": rows(obj({"name": TEXT, "type": TEXT, "description": TEXT}), most=200)}
            ),
            errors=_ERRORS,
        ),
    ),
    Route(
        path="/v1/incidents/{id}/intervals",
        handler=intervals,
        described=Described(
            "Packets and bytes in steps of time from the file's first packet on.",
            answers={"200": "One number for each step."},
            parameters=(
                *_PLACE,
                _FILTER,
                Parameter(
                    "step_ms",
                    "query",
                    "Length of a step; longer where that would be more than 4,000 steps.",
                    whole(1, 86_400_000),
                ),
            ),
            gives=obj(
                {
                    "start_ns": WHOLE,
                    "step_ns": WHOLE,
                    "packets": rows(WHOLE),
                    "bytes": rows(NUMBER),
                }
            ),
            errors=_ERRORS,
        ),
    ),
    Route(
        path="/v1/incidents/{id}/follow",
        handler=follow,
        described=Described(
            "What both sides of a stream said, in order, at most 4 MiB of it.",
            answers={"200": "Pieces of bytes, each with its packet and its side."},
            parameters=(
                *_PLACE,
                Parameter("proto", "query", "Protocol; default tcp.", one_of(*PROTOCOLS)),
                Parameter(
                    "stream",
                    "query",
                    "Its number, as in tcp.stream.",
                    whole(0, MAX_NUMBER),
                    required=True,
                ),
            ),
            gives=STREAM,
            errors=_ERRORS,
        ),
    ),
    Route(
        path="/v1/incidents/{id}/taps",
        handler=tap,
        described=Described(
            "Conversations, endpoints or the dissector's warnings, at most 2,000 of them.",
            answers={"200": "Rows."},
            parameters=(
                *_PLACE,
                Parameter("name", "query", "Which; default conversations.", one_of(*TAPS)),
            ),
            gives=TAPPED,
            errors=_ERRORS,
        ),
    ),
)
