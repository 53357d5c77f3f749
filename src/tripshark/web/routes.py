"""Every path of the API with its handler and its description in one place: what OpenAPI says is what is routed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import NotFound, TripsharkError
from tripshark.model.alert import Json
from tripshark.model.evidence import incident_id
from tripshark.ports import Query
from tripshark.web import captures, evidence, openapi, page, query, shapes
from tripshark.web.answers import SAFE, json
from tripshark.web.metrics import CONTENT_TYPE, Now
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parts import Check, Parts

CHECK_SECONDS = 3.0

Handler = Callable[[Request, Parts], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path: who answers, and what is said of it."""

    path: str
    handler: Handler
    described: Described
    method: str = "GET"
    is_open: bool = False  # needs no credentials anywhere


# ------------------------------------------------------------------------------------------- incidents


async def list_incidents(request: Request, parts: Parts) -> Response:
    asked = query.incidents(request.query_params, parts.clock.now_ns())
    found = await parts.catalogue.incidents(asked)
    return json(
        {
            "incidents": [shapes.incident(each) for each in found],
            "next": found[-1].id if len(found) >= asked.limit else None,
        }
    )


async def show_incident(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    id = incident_id(request.path_params["id"])
    found = await parts.catalogue.incident(id)
    if found is None:
        raise NotFound("no such incident", where=id, hint="GET /v1/incidents lists them")
    alerts = await parts.catalogue.alerts(id)
    whole: dict[str, Json] = {
        **shapes.incident(found),
        "plan": cast(Json, dict(found.plan)),
        "alert_list": [shapes.alert(each) for each in alerts[:500]],
    }
    return json(whole)


async def serve_evidence(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    return await evidence.serve(request, parts)


async def capture(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    started = await parts.captures.capture(await captures.read(request))
    return json(shapes.incident(started), 202, {"location": f"/v1/incidents/{started.id}"})


# ------------------------------------------------------------------------------------- what is known


async def list_targets(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    now_ns = parts.clock.now_ns()
    return json({"targets": [shapes.target(each, now_ns) for each in await parts.targets.all()]})


async def list_rules(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    return json({"rules": list(parts.rules())})


async def list_refusals(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("since", "limit"))
    rows = await parts.catalogue.refusals(
        since_ns=query.since(request.query_params, parts.clock.now_ns()),
        limit=query.limit(request.query_params),
    )
    return json(
        {
            "refusals": [shapes.alert(each) for each in rows],
            "counts": await parts.catalogue.refusal_counts(),
        }
    )


async def describe(request: Request, parts: Parts) -> Response:
    return json(openapi.document(ROUTES))


# ---------------------------------------------------------------------------------------------- health


async def healthz(request: Request, parts: Parts) -> Response:
    return json({"alive": True})


async def readyz(request: Request, parts: Parts) -> Response:
    results = await asyncio.gather(*(_checked(each) for each in parts.checks.values()))
    ready = not any(results)
    upstream = parts.upstream(parts.clock.now_ns())
    detailed = parts.gate.refuse(request.scope["headers"]) is None
    answer: dict[str, Json] = {"ready": ready}
    if detailed:  # host names and paths are for those who may read
        answer["checks"] = {
            name: {"ok": not problem, "problem": problem}
            for name, problem in zip(parts.checks, results, strict=True)
        }
        answer["upstream"] = _upstream(parts)
        answer["warnings"] = [
            *upstream.problems(),
            *(words for source in parts.sources() for words in source.problems()),
        ]
    else:
        answer["checks"] = {
            name: {"ok": not problem} for name, problem in zip(parts.checks, results, strict=True)
        }
    return json(answer, 200 if ready else 503)


async def _checked(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:.0f} s"


def _upstream(parts: Parts) -> list[Json]:
    return [
        {
            "hostname": each.hostname,
            "version": each.version,
            "last": shapes.when(each.last_ns),
            "heartbeat": shapes.when(each.heartbeat_ns),
            "heartbeats": each.heartbeats,
            "every_seconds": round(each.every_s, 3),
            "late": each.is_late,
            "gaps": each.gaps_total,
            "restarts": each.restarts,
            "kernel_drops": each.kernel_drops,
            "queue_drops": each.queue_drops,
            "unheard": each.unheard,
        }
        for each in parts.upstream(parts.clock.now_ns()).falcos
    ]


async def metrics(request: Request, parts: Parts) -> Response:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            targets = await parts.targets.all()
    except (TripsharkError, TimeoutError):
        targets = None
    falcos = parts.upstream(parts.clock.now_ns()).falcos
    journal = parts.journal()
    now = Now(
        targets=targets,
        refusals=await parts.catalogue.refusal_counts(),
        journal_waiting=journal.waiting,
        journal_bytes=journal.bytes,
        falco_gaps=sum(each.gaps_total for each in falcos),
        falco_late=sum(each.is_late for each in falcos),
        falco_kernel_drops=sum(each.kernel_drops for each in falcos),
        falco_queue_drops=sum(each.queue_drops for each in falcos),
        falco_unheard=sum(each.unheard for each in falcos),
        evidence_bytes=await asyncio.to_thread(parts.vault.used_bytes),
    )
    return Response(parts.metrics.exposition(now), headers={**SAFE, "content-type": CONTENT_TYPE})


# ------------------------------------------------------------------------------------------------ page


async def home(request: Request, parts: Parts) -> Response:
    now_ns = parts.clock.now_ns()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            targets = await parts.targets.all()
        away = ""
    except TripsharkError as error:
        targets, away = (), str(error)
    except TimeoutError:
        targets, away = (), "the recorder does not answer"
    body = page.render(
        incidents=await parts.catalogue.incidents(Query(limit=50)),
        targets=targets,
        away=away,
        refusals=await parts.catalogue.refusals(limit=20),
        counts=await parts.catalogue.refusal_counts(),
        problems=(
            *([journal] if (journal := parts.journal().problem) else []),
            *parts.upstream(now_ns).problems(),
            *(words for source in parts.sources() for words in source.problems()),
        ),
        now_ns=now_ns,
    )
    return Response(
        body,
        headers={**SAFE, "content-security-policy": page.POLICY},
        media_type="text/html",
    )


# ---------------------------------------------------------------------------------------------- routes

_ID = Parameter("id", "path", "Id of the incident.")
_SINCE = Parameter("since", "query", "Not older than this: 2h, or an RFC 3339 time.")
_LIMIT = Parameter("limit", "query", "At most this many, 1 to 500; default 50.")

ROUTES: tuple[Route, ...] = (
    Route(
        path="/v1/captures",
        method="POST",
        handler=capture,
        described=Described(
            "Start a capture by hand.",
            answers={"202": "The incident that was opened."},
            body={
                "target": "payments/checkout-7d9f, netns:NAME, host, pid:N",
                "before": "how far back, 30s",
                "after": "how long on, 10s",
                "scope": "flow, peer, pod, workload, service or node",
                "peer": "address or address:port",
                "filter": "pcap-filter(7)",
                "max_bytes": "50MB",
            },
            required=("target",),
            errors=(400, 401, 404, 409, 413, 415, 503),
        ),
    ),
    Route(
        path="/v1/incidents",
        handler=list_incidents,
        described=Described(
            "Incidents, newest first; `next` is the cursor for `before`.",
            answers={"200": "A page of incidents."},
            parameters=(
                _SINCE,
                Parameter("namespace", "query", "Kubernetes namespace of the target."),
                Parameter("pod", "query", "Pod of the target."),
                Parameter("rule", "query", "Tripshark's or Falco's rule."),
                Parameter("state", "query", "open, sealing, sealed, empty, failed or removed."),
                Parameter("before", "query", "Only incidents older than this one."),
                _LIMIT,
            ),
        ),
    ),
    Route(
        path="/v1/incidents/{id}",
        handler=show_incident,
        described=Described(
            "One incident with its plan and its alerts.",
            answers={"200": "The incident."},
            parameters=(_ID,),
            errors=(400, 401, 404),
        ),
    ),
    Route(
        path="/v1/incidents/{id}/{name}",
        handler=serve_evidence,
        described=Described(
            "A file of the evidence: evidence.pcapng (and evidence-*.pcapng), evidence.pcap, manifest.json, "
            "findings.json, timeline.jsonl, report.html, custody.jsonl. ETag is the SHA-256.",
            answers={"200": "The file.", "206": "A range of it.", "304": "You have it."},
            parameters=(_ID, Parameter("name", "path", "Name of the file.")),
            errors=(400, 401, 404, 416, 500),
            media="application/octet-stream",
        ),
    ),
    Route(
        path="/v1/targets",
        handler=list_targets,
        described=Described(
            "What is being recorded, and how far back.",
            answers={"200": "All targets."},
            errors=(400, 401, 503),
        ),
    ),
    Route(
        path="/v1/rules",
        handler=list_rules,
        described=Described("The rules in force, merged.", answers={"200": "All rules."}),
    ),
    Route(
        path="/v1/refusals",
        handler=list_refusals,
        described=Described(
            "Alerts that led to no capture, newest first, and how many by reason.",
            answers={"200": "Refusals."},
            parameters=(_SINCE, _LIMIT),
        ),
    ),
    Route(
        path="/v1/openapi.json",
        handler=describe,
        described=Described("This description.", answers={"200": "OpenAPI 3.1."}, errors=(401,)),
    ),
    Route(
        path="/healthz",
        handler=healthz,
        is_open=True,
        described=Described("The process lives.", answers={"200": "It does."}, errors=()),
    ),
    Route(
        path="/readyz",
        handler=readyz,
        is_open=True,
        described=Described(
            "Recorder connected, disk writable, journal healthy; what Falco loses on its way is listed.",
            answers={"200": "Ready.", "503": "Not ready; the checks say why."},
            errors=(),
        ),
    ),
    Route(
        path="/metrics",
        handler=metrics,
        described=Described(
            "Prometheus metrics.", answers={"200": "Metrics."}, media="text/plain", errors=(401,)
        ),
    ),
    Route(
        path="/",
        handler=home,
        described=Described(
            "The page.", answers={"200": "HTML."}, media="text/html", errors=(401,)
        ),
    ),
)


def paths() -> Mapping[str, Route]:
    """Routes by method and path."""
    return {f"{each.method} {each.path}": each for each in ROUTES}
