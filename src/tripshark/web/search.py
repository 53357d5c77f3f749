"""Looking for names, addresses, hashes and whole lists of indicators over all evidence that the caller may see."""

from __future__ import annotations

import asyncio
import base64
import json as plain_json
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import BadInput, NotFound
from tripshark.formats.indicators.loaded import Loaded
from tripshark.formats.indicators.reading import read_list
from tripshark.model.alert import Json
from tripshark.model.incident import EVERY
from tripshark.model.indicator import Indicators, cited
from tripshark.model.search import KINDS, Hit, Hunted, Search, understood
from tripshark.web import query, shapes
from tripshark.web.access import EVIDENCE, Caller, Forbidden
from tripshark.web.answers import json
from tripshark.web.body import bounded
from tripshark.web.caller import caller_of
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parameters import LIMIT, SINCE
from tripshark.web.parts import Index, Parts
from tripshark.web.route import Route
from tripshark.web.schema import FLAG, TEXT, WHOLE, mapping, maybe, obj, one_of, rows, text

HUNTS: Final = "hunts"
MAX_LIST: Final = 8 << 20  # bytes of a list that is sent
_MEDIA: Final = (
    "text/plain",
    "text/csv",
    "application/json",
    "application/stix+json",
    "application/taxii+json",
    "application/octet-stream",
)
_AT_ONCE = 16
_TOLD = 100  # entries of the list that the answer names


async def search(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("q", "kind", "since", "before", "limit"))
    clauses = understood(
        query.text(request.query_params, "q"), query.text(request.query_params, "kind")
    )
    limit = query.limit(request.query_params)
    found = await _index(parts).find(
        Search(
            clauses=clauses,
            since_ns=query.since(request.query_params, parts.clock.now_ns()),
            visible=await _readable(caller_of(request, parts), parts, "get", EVIDENCE),
            after=_cursor(request.query_params.get("before", "")),
            limit=limit,
        )
    )
    return json(
        {
            "hits": [hit(each) for each in found],
            "next": _written(found[-1].cursor) if len(found) >= limit else None,
        }
    )


async def hunt(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("since", "limit"))
    caller = caller_of(request, parts)
    visible = await _readable(caller, parts, "create", HUNTS)
    content = await _list(request)
    loaded = Loaded()
    await asyncio.to_thread(read_list, content, "list", loaded)
    indicators = await asyncio.to_thread(Indicators, loaded.indicators)
    found, more = await _index(parts).hunt(
        indicators,
        since_ns=query.since(request.query_params, parts.clock.now_ns()),
        visible=visible,
        limit=query.limit(request.query_params),
    )
    return json(
        {
            "hits": [hunted(each) for each in found],
            "more": more,
            "indicators": len(indicators),
            "counts": {why.value: count for why, count in loaded.counts.items()},
            "told": [str(each) for each in loaded.told[:_TOLD]],
        }
    )


async def _readable(
    caller: Caller, parts: Parts, verb: str, resource: str
) -> tuple[str, ...] | None:
    """Namespaces whose packets the caller may read, and where they have this right too; None: all.

    Raises `Forbidden` where there is none at all.
    """
    wanted = dict.fromkeys((("get", EVIDENCE), (verb, resource)))
    visible = await caller.visible(parts.catalogue)
    if visible is None:
        if all([await caller.may(*each, EVERY) for each in wanted]):
            return None
        visible = tuple(each for each in await parts.catalogue.namespaces() if each != EVERY)
    few = asyncio.Semaphore(_AT_ONCE)

    async def allowed(namespace: str) -> bool:
        async with few:
            return all([await caller.may(*each, namespace) for each in wanted])

    answers = await asyncio.gather(*map(allowed, visible))
    names = tuple(name for name, yes in zip(visible, answers, strict=True) if yes)
    if not names and resource == HUNTS:
        raise Forbidden(
            f"{caller.name} may not hunt in any namespace",
            hint="the role responder over a namespace gives it, or the right to create hunts.tripshark.dev there",
        )
    return names


def _index(parts: Parts) -> Index:
    if parts.index is None:
        raise NotFound("there is no search index here")
    return parts.index


async def _list(request: Request) -> bytes:
    """The list, bounded. Raises `Unsupported`, `TooLarge`, `BadInput`."""
    content = await bounded(
        request,
        _MEDIA,
        most=MAX_LIST,
        says="a list of indicators is text or JSON",
        hint="`tripshark hunt` reads lists of any length; or send it in parts",
    )
    if not content:
        raise BadInput("the list is empty", where="body")
    return content


# ------------------------------------------------------------------------------------------------- shapes


def hit(it: Hit) -> dict[str, Json]:
    """One hit of a search."""
    return {
        "incident": it.incident,
        "node": it.node,
        "kind": it.shelf.value,
        "value": it.value,
        "frame": it.frame,
        "filter": it.filter,
        "file": it.file,
        "target": it.title,
        "t0": shapes.when(it.t0_ns),
        "t0_ns": it.t0_ns,
        "first_ns": it.first_ns,
    }


def hunted(it: Hunted) -> dict[str, Json]:
    """One indicator that one file shows; the same object as a line of `tripshark hunt --json`."""
    shown, filter = cited(it.match.rows)
    indicator = it.match.indicator
    return {
        "incident": it.incident,
        "node": it.node,
        "target": it.title,
        "file": it.file,
        "t0": shapes.when(it.t0_ns),
        "t0_ns": it.t0_ns,
        "first_ns": min(each.first_ns for each in shown),
        "frames": list[Json](sorted({each.frame for each in shown if each.frame})),
        "filter": filter,
        "indicator": indicator.name,
        "list": indicator.source,
        "note": indicator.note,
        "severity": indicator.severity.value,
        "techniques": list(indicator.techniques),
        "seen": [
            {
                "place": each.place.value,
                "values": list[Json](sorted({one.value for one in each.observables})),
                "frame": each.frame,
                "filter": each.filter,
                "first_ns": each.first_ns,
            }
            for each in shown
        ],
    }


def _written(cursor: tuple[str, ...]) -> str:
    return base64.urlsafe_b64encode(plain_json.dumps(cursor).encode()).decode().rstrip("=")


def _cursor(text: str) -> tuple[str, str, str, str] | None:
    if not text:
        return None
    try:
        if len(text) > 4096:
            raise ValueError("too long")  # noqa: TRY301  (handled as every other wrong spelling)
        padded = text + "=" * (-len(text) % 4)
        told = plain_json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        incident, node, kind, key = told
        if not all(isinstance(each, str) and "\0" not in each for each in told):
            raise ValueError("not texts")  # noqa: TRY301  (see above)
        plain_json.dumps(told, ensure_ascii=False).encode()  # no halves of characters
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInput(
            "that is no cursor", where="before", hint="begin again without `before`"
        ) from error
    return incident, node, kind, key


_SEEN = obj(
    {"place": TEXT, "values": rows(TEXT), "frame": WHOLE, "filter": TEXT, "first_ns": WHOLE}
)
_SHOWN = obj(
    {
        "incident": TEXT, "node": TEXT, "kind": TEXT, "value": TEXT, "frame": WHOLE, "filter": TEXT, "file": TEXT,
        "target": TEXT, "t0": maybe(TEXT), "t0_ns": WHOLE, "first_ns": WHOLE,
    }
)  # fmt: skip
_HUNTED = obj(
    {
        "incident": TEXT, "node": TEXT, "target": TEXT, "file": TEXT, "t0": maybe(TEXT), "t0_ns": WHOLE,
        "first_ns": WHOLE, "frames": rows(WHOLE), "filter": TEXT, "indicator": TEXT, "list": TEXT, "note": TEXT,
        "severity": TEXT, "techniques": rows(TEXT), "seen": rows(_SEEN),
    }
)  # fmt: skip

ROUTES: tuple[Route, ...] = (
    Route(
        path="/v1/search",
        handler=search,
        described=Described(
            "Names, addresses, hashes and fingerprints over all evidence that the caller may read, newest incidents "
            "first; `next` is the cursor for `before`.",
            answers={"200": "Hits, each with its frame and filter."},
            parameters=(
                Parameter(
                    "q", "query",
                    "An address, a network, a hash, a JA4, a community ID, a URL, a name or a part of one; `*.name` is "
                    "a domain with all below it.",
                    text(most=query.MAX_TEXT, least=1), required=True,
                ),
                Parameter("kind", "query", "Only values of this kind.", one_of(*KINDS)),
                SINCE,
                Parameter("before", "query", "Only what comes behind this cursor."),
                LIMIT,
            ),
            gives=obj({"hits": rows(_SHOWN), "next": maybe(TEXT)}),
            errors=(404,),
        ),
    ),
    Route(
        path="/v1/hunt",
        method="POST",
        handler=hunt,
        described=Described(
            "A list of indicators (plain text, STIX 2.1 or MISP) compared with all evidence that the caller may read; "
            "what of the list cannot be looked for is told.",
            answers={"200": "Hits, newest incidents first."},
            parameters=(SINCE, LIMIT),
            gives=obj(
                {"hits": rows(_HUNTED), "more": FLAG, "indicators": WHOLE, "counts": mapping(WHOLE), "told": rows(TEXT)}
            ),
            takes=text(least=1),
            takes_media="text/plain",
            errors=(404, 408, 413, 415),
        ),
    ),
)  # fmt: skip
