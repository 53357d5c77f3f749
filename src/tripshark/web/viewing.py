"""What is recorded now, over HTTP: a target's history and then its packets as they come, for Wireshark elsewhere."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tripshark.errors import BadInput, NotFound, TripsharkError
from tripshark.model.evidence import incident_id
from tripshark.model.incident import namespaces_of
from tripshark.ports import CaptureRequest
from tripshark.respond.live import FOREVER_NS, Asked
from tripshark.web import checked, query
from tripshark.web.access import CAPTURES, EVIDENCE, Caller, require_capture
from tripshark.web.answers import SAFE, json, problem
from tripshark.web.body import decoded
from tripshark.web.caller import caller_of
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parts import Parts
from tripshark.web.route import Route
from tripshark.web.schema import TEXT, obj
from tripshark.web.views import VIEW, View, Views

log = logging.getLogger("tripshark.web")

PATIENCE: Final = 30.0  # seconds that a reader may take for one piece
MAX_BODY: Final = 16_384  # bytes
MEDIA: Final = "application/x-pcapng"


async def watch(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("target", "incident", "filter", "before", "duration"))
    asked = _asked(request, parts.clock.now_ns())
    caller = caller_of(request, parts)
    await _require(caller, asked, parts)
    views = _views(parts)
    try:
        view = await views.live.begin(asked)
    except NotFound as unknown:
        if await caller.sees_everything():
            raise
        raise NotFound(unknown.message) from unknown  # its hint names pods of others
    await caller.require("get", EVIDENCE, namespaces_of([view.target]))
    name = views.add(view, caller.name)
    log.info("%s watches %s live", caller.name, view.target.title)
    return _Endless(views, view, name)


async def change(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    told = await decoded(
        request, _CHANGE, most=MAX_BODY, what="a change of a view", example='{"filter": "tcp"}'
    )
    _views(parts).of(request.path_params["view"], caller_of(request, parts).name).filter(
        told.filter
    )
    return json({"filter": told.filter})


class _Change(msgspec.Struct, forbid_unknown_fields=True):
    filter: str


_CHANGE = msgspec.json.Decoder(_Change)


def _views(parts: Parts) -> Views:
    if parts.views is None:
        raise NotFound(
            "nothing is recorded here",
            hint="ask the node that records it; the hub has evidence of all of them",
        )
    return parts.views


def _asked(request: Request, now_ns: int) -> Asked:
    words = {name: query.text(request.query_params, name) for name in ("target", "incident")}
    if bool(words["target"]) == bool(words["incident"]):
        raise BadInput("one of target and incident is needed", where="target")
    before, duration = _ns(request, "before"), _ns(request, "duration")
    return Asked(
        **words,
        filter=checked.line(request.query_params.get("filter", ""), "filter"),
        since_ns=now_ns - before if before else 0,
        until_ns=now_ns + duration if duration else FOREVER_NS,
    )


def _ns(request: Request, name: str) -> int:
    text = query.text(request.query_params, name)
    return checked.duration(text, name) if text else 0


async def _require(caller: Caller, asked: Asked, parts: Parts) -> None:
    """Whoever watches sees what a capture would: the same right, before anything is looked up."""
    if asked.target:
        await require_capture(
            caller, CaptureRequest(target=asked.target, by=caller.name), parts.targets
        )
        return
    known = await parts.catalogue.incident(incident_id(asked.incident))
    if known is None:
        raise NotFound("no such incident", where=asked.incident)
    for right in ((CAPTURES, "create"), (EVIDENCE, "get")):
        await caller.require(right[1], right[0], known.held)


class _Endless(Response):
    """Sends a view until it ends, its reader leaves, or takes no more."""

    def __init__(self, views: Views, view: View, name: str) -> None:
        super().__init__(headers={**SAFE, VIEW: name}, media_type=MEDIA)
        del self.headers["content-length"]
        self._views = views
        self._view = view
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with asyncio.TaskGroup() as tasks, aclosing(self._view.blocks()) as pieces:
                leaving = tasks.create_task(_until_gone(receive, self._view))
                async for piece in pieces:
                    async with asyncio.timeout(PATIENCE):
                        if not started:
                            await self._start(send)
                            started = True
                        if len(piece):
                            await _send(send, bytes(piece), more=True)
                    if leaving.done():
                        return
                leaving.cancel()
            await _send(send, b"", more=False)
        except* TimeoutError:
            log.warning("a live view of %s is not read; it was ended", self._view.target.title)
        except* TripsharkError as lost:
            error = next(each for each in lost.exceptions if isinstance(each, TripsharkError))
            log.warning("a live view of %s ended: %s", self._view.target.title, error)
            if not started:
                await problem(error)(scope, receive, send)
        finally:
            self._views.remove(self._name)

    async def _start(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": self.raw_headers},
        )


async def _until_gone(receive: Receive, view: View) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    view.stop()


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


ROUTES: tuple[Route, ...] = (
    Route(
        path="/v1/live",
        handler=watch,
        described=Described(
            "History, then live: what a target's rings hold, then its packets as they come, as one endless pcapng "
            "file with alerts as rows. The header X-Tripshark-Live names the view. Nodes only.",
            answers={"200": "The packets, until the reader leaves or the target is gone."},
            parameters=(
                Parameter(
                    "target", "query", "payments/checkout-7d9f, netns:NAME, container:ID, host."
                ),
                Parameter("incident", "query", "Or an open incident, until it is sealed."),
                Parameter("filter", "query", "pcap-filter(7) expression."),
                Parameter("before", "query", "How much history at most: 30s; default all."),
                Parameter("duration", "query", "End after this long: 10s; default never."),
            ),
            errors=(404, 409),
            media=MEDIA,
        ),
    ),
    Route(
        path="/v1/live/{view}",
        method="POST",
        handler=change,
        described=Described(
            "Change the filter of a live view from now on; only whoever opened it may.",
            answers={"200": "The filter in force."},
            parameters=(Parameter("view", "path", "The view's name, from X-Tripshark-Live."),),
            takes=obj({"filter": TEXT}),  # pcap-filter(7), empty for everything
            gives=obj({"filter": TEXT}),
            errors=(404, 408, 413, 415),
        ),
    ),
)
