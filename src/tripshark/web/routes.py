"""Every path of the API with its handler and its description in one place: what OpenAPI says is what is routed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import NotFound
from tripshark.model.alert import Json
from tripshark.model.incident import EVERY, State
from tripshark.web import (
    bundle,
    captures,
    derived,
    evidence,
    exports,
    live,
    notes,
    openapi,
    packets,
    pages,
    profile,
    query,
    search,
    shaped,
    shapes,
    signin,
    site,
    trying,
    viewing,
)
from tripshark.web.access import INCIDENTS, require_capture
from tripshark.web.answers import json
from tripshark.web.caller import caller_of
from tripshark.web.health import healthz, metrics, readyz
from tripshark.web.incident import incident_of
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parameters import INCIDENT_ID, LIMIT, NODE, SINCE
from tripshark.web.parts import Parts
from tripshark.web.route import Route
from tripshark.web.schema import FLAG, TEXT, mapping, maybe, obj, one_of, rows
from tripshark.web.seen import refusal_counts, seen

# ------------------------------------------------------------------------------------------- incidents


async def list_incidents(request: Request, parts: Parts) -> Response:
    asked = query.incidents(request.query_params, parts.clock.now_ns())
    visible = await caller_of(request, parts).visible(parts.catalogue)
    asked = replace(asked, visible=visible)
    found = await parts.catalogue.incidents(asked)
    return json(
        {
            "incidents": [shapes.incident(each) for each in found],
            "next": found[-1].id if len(found) >= asked.limit else None,
        }
    )


async def show_incident(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    found = await incident_of(request, parts)
    alerts = await parts.catalogue.alerts(found.id)
    whole: dict[str, Json] = {
        **shapes.incident(found),
        "plan": cast(Json, dict(found.plan)),
        "alert_list": [shapes.alert(each) for each in alerts[:500]],
    }
    return json(whole)


async def list_parts(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    found = await incident_of(request, parts)
    its = await parts.parts_of(found.id) if parts.parts_of is not None else ()
    return json({"incident": found.id, "parts": [shapes.part(each) for each in its]})


async def serve_evidence(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    return await evidence.serve(request, parts, caller_of(request, parts))


async def capture(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    caller = caller_of(request, parts)
    asked = await captures.read(request, caller.name)
    await require_capture(caller, asked, parts.targets)
    try:
        started = await parts.captures.capture(asked)
    except NotFound as unknown:
        if await caller.sees_everything():
            raise
        raise NotFound(unknown.message) from unknown  # its hint names pods of others
    return json(shapes.incident(started), 202, {"location": f"/v1/incidents/{started.id}"})


# ------------------------------------------------------------------------------------- what is known


async def list_targets(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    now_ns = parts.clock.now_ns()
    found = await seen(await parts.targets.all(), caller_of(request, parts))
    return json({"targets": [shapes.target(each, now_ns) for each in found]})


async def list_rules(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    await caller_of(request, parts).require("get", INCIDENTS, [EVERY])  # rules are about everybody
    return json({"rules": list(parts.rules())})


async def list_refusals(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("since", "limit"))
    visible = await caller_of(request, parts).visible(parts.catalogue)
    rows = await parts.catalogue.refusals(
        since_ns=query.since(request.query_params, parts.clock.now_ns()),
        limit=query.limit(request.query_params),
        namespaces=visible,
    )
    return json(
        {
            "refusals": [shapes.alert(each) for each in rows],
            "counts": await refusal_counts(parts, rows, visible),
        }
    )


async def describe(request: Request, parts: Parts) -> Response:
    nobody = parts.signin is None and parts.access is None and parts.gate.is_open
    app = request.scope.get("app")
    return json(
        openapi.document(
            ROUTES,
            guarded=not nobody,
            alerts=getattr(app, "takes_alerts", True),
            also_open=("/metrics",) if parts.metrics_open else (),
        )
    )


# ---------------------------------------------------------------------------------------------- routes


ROUTES: tuple[Route, ...] = (
    *signin.ROUTES,
    Route(
        path="/v1/captures",
        method="POST",
        handler=capture,
        described=Described(
            "Start a capture by hand.",
            answers={"202": "The incident that was opened."},
            takes=shaped.CAPTURE,
            gives=shaped.INCIDENT,
            errors=(404, 408, 409, 413, 415),
        ),
    ),
    Route(
        path="/v1/incidents",
        handler=list_incidents,
        described=Described(
            "Incidents, newest first; `next` is the cursor for `before`.",
            answers={"200": "A page of incidents."},
            gives=obj({"incidents": rows(shaped.INCIDENT), "next": maybe(TEXT)}),
            errors=(404,),
            parameters=(
                SINCE,
                Parameter("namespace", "query", "Kubernetes namespace of the target."),
                Parameter("pod", "query", "Pod of the target."),
                Parameter("rule", "query", "Tripshark's or Falco's rule."),
                Parameter(
                    "state",
                    "query",
                    "Only those in this state.",
                    one_of(*(each.value for each in State)),
                ),
                Parameter("text", "query", "Stands somewhere in target, rules or summary."),
                Parameter("before", "query", "Only incidents older than this one."),
                LIMIT,
            ),
        ),
    ),
    Route(
        path="/v1/incidents/{id}",
        handler=show_incident,
        described=Described(
            "One incident with its plan and its alerts.",
            answers={"200": "The incident."},
            parameters=(INCIDENT_ID,),
            gives=shaped.WHOLE_INCIDENT,
            errors=(404,),
        ),
    ),
    Route(
        path="/v1/incidents/{id}/parts",
        handler=list_parts,
        described=Described(
            "The parts of an incident, one for each node that recorded it; a node by itself lists none.",
            answers={"200": "Its parts."},
            parameters=(INCIDENT_ID,),
            gives=obj({"incident": TEXT, "parts": rows(shaped.PART)}),
            errors=(404,),
        ),
    ),
    *bundle.ROUTES,
    *exports.ROUTES,
    Route(
        path="/v1/incidents/{id}/parts/{node}/{name}",
        handler=serve_evidence,
        described=Described(
            "A file of one part's evidence, as below.",
            answers={
                "200": "The file.",
                "206": "A range of it.",
                "304": "You have it.",
                "307": "The store hands it out.",
            },
            parameters=(
                INCIDENT_ID,
                NODE,
                Parameter("name", "path", "Name of the file."),
            ),
            errors=(404, 416, 500),
            media=shaped.FILES,
        ),
    ),
    *notes.ROUTES,
    *derived.ROUTES,
    *packets.ROUTES,
    *search.ROUTES,
    Route(
        path="/v1/incidents/{id}/{name}",
        handler=serve_evidence,
        described=Described(
            "A file of the evidence: evidence.pcapng (and evidence-*.pcapng), evidence.pcap, manifest.json, "
            "findings.json, timeline.jsonl, report.md, custody.jsonl. ETag is the SHA-256. Of an incident with "
            "several parts: merged.pcapng (and merged-*.pcapng) and merged.json, which says where every byte came from.",
            answers={
                "200": "The file.",
                "206": "A range of it.",
                "304": "You have it.",
                "307": "The store hands it out.",
            },
            parameters=(INCIDENT_ID, Parameter("name", "path", "Name of the file.")),
            errors=(404, 416, 500),
            media=shaped.FILES,
        ),
    ),
    Route(
        path="/v1/targets",
        handler=list_targets,
        described=Described(
            "What is being recorded, and how far back.",
            answers={"200": "All targets."},
            gives=obj({"targets": rows(shaped.TARGET)}),
        ),
    ),
    Route(
        path="/v1/rules",
        handler=list_rules,
        described=Described(
            "The rules in force, merged.", answers={"200": "All rules."}, gives=shaped.RULES
        ),
    ),
    Route(
        path="/v1/refusals",
        handler=list_refusals,
        described=Described(
            "Alerts that led to no capture, newest first, and how many by reason.",
            answers={"200": "Refusals."},
            parameters=(SINCE, LIMIT),
            gives=shaped.REFUSALS,
        ),
    ),
    Route(
        path="/v1/openapi.json",
        handler=describe,
        described=Described("This description.", answers={"200": "OpenAPI 3.1."}, gives=mapping()),
    ),
    Route(
        path="/healthz",
        handler=healthz,
        is_open=True,
        described=Described(
            "The process lives.",
            answers={"200": "It does."},
            gives=obj({"alive": FLAG}),
            errors=(400,),
        ),
    ),
    Route(
        path="/readyz",
        handler=readyz,
        is_open=True,
        described=Described(
            "Recorder connected, disk writable, journal healthy; what Falco loses on its way is listed.",
            answers={"200": "Ready.", "503": "Not ready; the checks say why."},
            gives=shaped.READY,
            errors=(400,),
        ),
    ),
    Route(
        path="/metrics",
        handler=metrics,
        described=Described(
            "Prometheus metrics.", answers={"200": "Metrics."}, media="text/plain"
        ),
    ),
    *live.ROUTES,
    *trying.ROUTES,
    *viewing.ROUTES,
    *profile.ROUTES,
    *site.ROUTES,
    *pages.ROUTES,
)


def paths() -> Mapping[str, Route]:
    """Routes by method and path."""
    return {f"{each.method} {each.path}": each for each in ROUTES}
