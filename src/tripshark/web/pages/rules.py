"""The rules in force, and what an event would lead to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from tripshark.model.alert import Json
from tripshark.model.evidence import rfc3339
from tripshark.model.incident import EVERY
from tripshark.web import query, site
from tripshark.web.access import INCIDENTS
from tripshark.web.caller import caller_of
from tripshark.web.openapi import Described
from tripshark.web.parts import Parts
from tripshark.web.route import Route

EXAMPLE = {
    "rule": "Outbound Connection to C2 Servers",
    "priority": "Critical",
    "source": "syscall",
    "time": "",  # now
    "output": "Outbound connection to C2 server (command=nc 203.0.113.66 4444)",
    "output_fields": {
        "fd.name": "10.0.3.17:47230->203.0.113.66:4444",
        "fd.l4proto": "tcp",
        "k8s.ns.name": "payments",
        "k8s.pod.name": "checkout-7d9f",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One rule as people read it."""

    name: str
    description: str
    match: tuple[tuple[str, str], ...]
    capture: tuple[tuple[str, str], ...]
    dry_run: bool
    whole: str


async def show(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    await caller_of(request, parts).require("get", INCIDENTS, [EVERY])  # rules are about everybody
    return site.page(
        request,
        parts,
        "rules.html",
        rules=[_shown(each) for each in parts.rules()],
        can_test=parts.attempt is not None,
        example=json.dumps({**EXAMPLE, "time": rfc3339(parts.clock.now_ns())}, indent=2),
    )


def _shown(document: Mapping[str, Json]) -> Shown:
    capture = document.get("capture")
    return Shown(
        name=str(document.get("rule", "")),
        description=str(document.get("description") or ""),
        match=tuple(_pairs(document.get("match"))),
        capture=tuple(_pairs(capture))
        if isinstance(capture, dict)
        else (("", str(capture)),)
        if capture is not None
        else (),
        dry_run=str(document.get("dry_run", "")).lower() == "true",
        whole=json.dumps(document, indent=2, ensure_ascii=True),
    )


def _pairs(value: Json, before: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines: `max.bytes` is `200MB`."""
    if isinstance(value, dict):
        return [
            pair
            for name, each in value.items()
            for pair in _pairs(each, f"{before}.{name}" if before else str(name))
        ]
    if value is None or value == []:
        return []
    if isinstance(value, list):
        return [(before, ", ".join(str(each) for each in value))]
    return [(before, str(value))]


ROUTES: tuple[Route, ...] = (
    Route(
        path="/rules",
        handler=show,
        described=Described(
            "The page of the rules in force.",
            answers={"200": "HTML."},
            media="text/html",
        ),
    ),
)
