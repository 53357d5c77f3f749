"""What happens to incidents, told as it happens: a stream of server-sent events for lists and pages that are open.

However many are watching, the catalogue is asked once a second, and not at all while nobody watches: on a node and
at a hub it is the catalogue that knows. Each watcher is told what changed since it was last told something, of what
its filters and its rights let through. A stream ends by itself after some minutes and is opened again by the page, so
that rights are asked anew.

| event | data |
|---|---|
| `hello` | `{}`: everything from here on is told |
| `incident` | one incident, as `/v1/incidents` lists it: new, or changed |
| `gone` | `{"id"}`: it no longer fits the filters |
| `problem` | `{"message"}`: the catalogue cannot be read; "" when it can again |
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tripshark.errors import BadInput, NotFound, TooMany, TripsharkError
from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId, incident_id
from tripshark.model.incident import Incident
from tripshark.ports import Query
from tripshark.web import query, shapes
from tripshark.web.access import INCIDENTS
from tripshark.web.answers import SAFE
from tripshark.web.caller import caller_of
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parts import Parts
from tripshark.web.route import Route
from tripshark.web.watch import EVERY_SECONDS, fits

BREATH_SECONDS: Final = 15.0  # a comment at least this often: proxies close what is silent
LIFE_SECONDS: Final = 600.0
RIGHTS_SECONDS: Final = 30.0  # how long what may be seen is believed
MOST: Final = 500  # streams at once
MOST_OF_ONE: Final = 100  # of one reader: nobody keeps everybody else from watching
RECENT_NS: Final = 60_000_000_000  # a page may have been made so long before its stream began


async def events(request: Request, parts: Parts) -> Response:
    """The stream. Raises `BadInput`, `NotFound`, `Forbidden`, `TooMany`."""
    params = request.query_params
    caller = caller_of(request, parts)
    watchers = parts.watch.watchers
    if watchers.total() >= MOST or watchers[caller.name] >= MOST_OF_ONE:
        raise TooMany("too many pages are watching", after=10.0)
    wanted: IncidentId | None = None
    asked = Query()
    if "incident" in params:
        query.known(params, ("incident",))
        wanted = incident_id(params["incident"])
        found = await parts.catalogue.incident(wanted)
        if found is None:
            raise NotFound("no such incident", where=wanted)
        await caller.require("get", INCIDENTS, found.held)
    elif "before" in params or "limit" in params:
        raise BadInput("a stream has no pages", where="before")
    else:
        asked = query.incidents(params, parts.clock.now_ns())
    asked = replace(asked, visible=await caller.visible(parts.catalogue))
    return StreamingResponse(
        _told(request, parts, _Watcher(asked=asked, wanted=wanted)),
        media_type="text/event-stream",
        headers={**SAFE, "x-accel-buffering": "no"},
    )


@dataclass(slots=True)
class _Watcher:
    """One open page: what it asked for, and what it has been told."""

    asked: Query
    wanted: IncidentId | None
    known: dict[IncidentId, Incident] = field(default_factory=dict)
    greeted: bool = False
    problem: str = ""

    def greet(self, found: Sequence[Incident], now_ns: int) -> list[bytes]:
        """What is older than any page needs not be told; of a single incident all is told."""
        self.greeted = True
        since_ns = 0 if self.wanted else now_ns - RECENT_NS
        self.known = {
            each.id: each
            for each in found
            if fits(each, self.asked) and max(each.opened_ns, each.sealed_ns) < since_ns
        }
        return [_event("hello", {})]

    def changes(self, found: Sequence[Incident]) -> list[bytes]:
        """What is to be told, oldest first: the newest ends on top."""
        said: list[bytes] = []
        for each in reversed(found):
            if not fits(each, self.asked):
                if self.known.pop(each.id, None) is not None:
                    said.append(_event("gone", {"id": each.id}))
            elif self.known.get(each.id) != each:
                self.known[each.id] = each
                said.append(_event("incident", shapes.incident(each)))
        return said

    def trouble(self, message: str) -> list[bytes]:
        """Said when it begins and when it ends."""
        if message == self.problem:
            return []
        self.problem = message
        return [_event("problem", {"message": message})]


async def _told(request: Request, parts: Parts, watcher: _Watcher) -> AsyncIterator[bytes]:
    watch, who = parts.watch, caller_of(request, parts).name
    watch.watchers[who] += 1
    try:
        since_rights = since_word = lived = 0.0
        while lived < LIFE_SECONDS and not watch.closing.is_set():
            said: list[bytes] = []
            try:
                if since_rights >= RIGHTS_SECONDS:
                    visible = await caller_of(request, parts).visible(parts.catalogue)
                    watcher.asked, since_rights = replace(watcher.asked, visible=visible), 0.0
                found = await _found(parts, watcher.wanted)
                said += watcher.trouble("")
                if not watcher.greeted:
                    said += watcher.greet(found, parts.clock.now_ns())
                said += watcher.changes(found)
            except TripsharkError as error:
                said += watcher.trouble(error.message)
            if said or since_word >= BREATH_SECONDS:
                since_word = 0.0
                yield b"".join(said) or b":\n\n"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await watch.closing.wait()
            since_rights += EVERY_SECONDS
            since_word += EVERY_SECONDS
            lived += EVERY_SECONDS
    finally:
        watch.watchers[who] -= 1
        if not watch.watchers[who]:
            del watch.watchers[who]


async def _found(parts: Parts, wanted: IncidentId | None) -> Sequence[Incident]:
    if wanted is None:
        return await parts.watch.newest(parts.catalogue, parts.clock)
    it = await parts.catalogue.incident(wanted)
    return () if it is None else (it,)


def _event(name: str, data: Mapping[str, Json]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


ROUTES: tuple[Route, ...] = (
    Route(
        path="/v1/events",
        handler=events,
        described=Described(
            "What happens to incidents, as server-sent events: `hello`, `incident`, `gone`, `problem`.",
            answers={"200": "A stream, which ends after ten minutes."},
            parameters=(
                Parameter("since", "query", "Not older than this: 2h, or an RFC 3339 time."),
                Parameter("namespace", "query", "Kubernetes namespace of the target."),
                Parameter("pod", "query", "Pod of the target."),
                Parameter("rule", "query", "Tripshark's or Falco's rule."),
                Parameter("state", "query", "open, sealing, sealed, empty, failed or removed."),
                Parameter("text", "query", "Stands in target, rules or summary."),
                Parameter("incident", "query", "This one alone."),
            ),
            errors=(404,),
            media="text/event-stream",
        ),
    ),
)
