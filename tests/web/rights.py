"""What every route asks of whoever asks: one entry per route, or `tests/web/test_rights_table.py` fails.

A new route gets its entry here. `needs` are the rights on the incident's namespace (`payments` in these tests) in the
order in which they are asked for; `everywhere`: over all namespaces. `ok` is what somebody with these rights gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

GET_INCIDENT: Final = ("get", "incidents")
GET_EVIDENCE: Final = ("get", "evidence")
CAPTURE: Final = ("create", "captures")
NOTE: Final = ("create", "notes")
UNNOTE: Final = ("delete", "notes")  # somebody else's
EXPORT: Final = ("create", "exports")
HUNT: Final = ("create", "hunts")

Right = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """One route in these tests: how it is asked for, and what of whom."""

    path: str = ""  # with everything filled in but {id}; "": the route's own
    needs: tuple[Right, ...] = ()  # (): whoever is known; what is listed is filtered
    everywhere: bool = False
    ok: int = 200
    is_open: bool = False  # nobody has to be known
    json: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    own_words: bool = False  # a refusal names no single namespace


OPEN = Needs(is_open=True)
KNOWN = Needs()

TABLE: Final[Mapping[str, Needs]] = {
    # signing in and out: they have rules of their own (tests/web/test_signin.py)
    "GET /signin": OPEN,
    "POST /signin": Needs(is_open=True, ok=403),  # no browser sent it
    "GET /signin/start": Needs(is_open=True, ok=404),  # no provider in these tests
    "GET /signin/callback": Needs(is_open=True, ok=404),
    "GET /signout": Needs(is_open=True, ok=303),
    "POST /signout": Needs(is_open=True, ok=415),  # no form
    "GET /v1/me": KNOWN,
    "GET /v1/incidents": KNOWN,
    "GET /v1/incidents/{id}": Needs(needs=(GET_INCIDENT,)),
    "GET /v1/incidents/{id}/parts": Needs(needs=(GET_INCIDENT,)),
    "GET /v1/incidents/{id}/parts/{node}/{name}": Needs(
        path="/v1/incidents/{id}/parts/node-1/evidence.pcapng", needs=(GET_EVIDENCE,)
    ),
    "GET /v1/incidents/{id}/{name}": Needs(
        path="/v1/incidents/{id}/evidence.pcapng", needs=(GET_EVIDENCE,)
    ),
    "GET /v1/incidents/{id}/notes": Needs(needs=(GET_INCIDENT, GET_EVIDENCE)),
    "POST /v1/incidents/{id}/notes": Needs(
        needs=(GET_INCIDENT, GET_EVIDENCE, NOTE), ok=201, json={"frame": 1, "text": "odd"}
    ),
    "DELETE /v1/incidents/{id}/notes/{note}": Needs(
        path="/v1/incidents/{id}/notes/0123456789abcdef",
        needs=(GET_INCIDENT, GET_EVIDENCE, NOTE),
        ok=404,  # there is none
    ),
    "GET /v1/incidents/{id}/annotated.pcapng": Needs(
        path="/v1/incidents/{id}/annotated.pcapng?file=evidence-2.pcapng",
        needs=(GET_INCIDENT, GET_EVIDENCE),
    ),
    "GET /v1/incidents/{id}/shared.pcapng": Needs(
        needs=(GET_INCIDENT, GET_EVIDENCE, EXPORT), ok=400
    ),  # what is sealed in these tests is no capture
    "GET /v1/incidents/{id}/export/{format}": Needs(
        path="/v1/incidents/{id}/export/stix", needs=(GET_INCIDENT, EXPORT, GET_EVIDENCE)
    ),
    "GET /v1/incidents/{id}/evidence.zip": Needs(needs=(GET_INCIDENT, GET_EVIDENCE)),
    "GET /v1/incidents/{id}/parts/{node}/evidence.zip": Needs(
        path="/v1/incidents/{id}/parts/node-1/evidence.zip", needs=(GET_INCIDENT, GET_EVIDENCE)
    ),
    "GET /v1/incidents/{id}/report.html": Needs(needs=(GET_INCIDENT, GET_EVIDENCE)),
    "GET /v1/incidents/{id}/parts/{node}/report.html": Needs(
        path="/v1/incidents/{id}/parts/node-1/report.html", needs=(GET_INCIDENT, GET_EVIDENCE)
    ),
    "POST /v1/captures": Needs(needs=(CAPTURE,), ok=202, json={"target": "payments/shop0"}),
    "GET /v1/live": Needs(
        path="/v1/live?target=payments/shop0", needs=(CAPTURE,), ok=404
    ),  # nothing is recorded here
    "POST /v1/live/{view}": Needs(
        path="/v1/live/0123456789abcdef0123456789abcdef", ok=404, json={"filter": "tcp"}
    ),
    # nothing dissects in these tests, so whoever may look is told that
    "GET /v1/incidents/{id}/packets": Needs(needs=(GET_INCIDENT, GET_EVIDENCE), ok=503),
    "GET /v1/incidents/{id}/packets/{number}": Needs(
        path="/v1/incidents/{id}/packets/1", needs=(GET_INCIDENT, GET_EVIDENCE), ok=503
    ),
    "GET /v1/incidents/{id}/filter": Needs(needs=(GET_INCIDENT, GET_EVIDENCE), ok=503),
    "GET /v1/incidents/{id}/complete": Needs(
        path="/v1/incidents/{id}/complete?prefix=tcp", needs=(GET_INCIDENT, GET_EVIDENCE), ok=503
    ),
    "GET /v1/incidents/{id}/intervals": Needs(needs=(GET_INCIDENT, GET_EVIDENCE), ok=503),
    "GET /v1/incidents/{id}/follow": Needs(
        path="/v1/incidents/{id}/follow?stream=0", needs=(GET_INCIDENT, GET_EVIDENCE), ok=503
    ),
    "GET /v1/incidents/{id}/taps": Needs(
        path="/v1/incidents/{id}/taps?name=expert", needs=(GET_INCIDENT, GET_EVIDENCE), ok=503
    ),
    "POST /v1/rules/test": Needs(
        needs=(GET_INCIDENT,), everywhere=True, ok=404, json={}
    ),  # there are none
    "GET /v1/targets": KNOWN,
    "GET /v1/rules": Needs(needs=(GET_INCIDENT,), everywhere=True),
    "GET /v1/refusals": KNOWN,
    "GET /v1/events": KNOWN,
    "GET /v1/search": Needs(path="/v1/search?q=evil.test", ok=404),  # no index in these tests
    "POST /v1/hunt": Needs(needs=(GET_INCIDENT, GET_EVIDENCE, HUNT), ok=415, own_words=True),
    "GET /v1/openapi.json": KNOWN,
    "GET /v1/wireshark/profile.zip": KNOWN,
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": OPEN,
    "GET /static/{version}/{name}": Needs(path="/static/x/site.css", is_open=True),
    "GET /static/{version}/vendor/{name}": Needs(
        path="/static/x/vendor/uPlot.min.css", is_open=True
    ),
    "GET /": KNOWN,
    "GET /targets": KNOWN,
    "GET /rules": Needs(needs=(GET_INCIDENT,), everywhere=True),
    "GET /capture": KNOWN,
    "GET /search": KNOWN,
    "GET /incidents/{id}": Needs(needs=(GET_INCIDENT,)),
    "GET /incidents/{id}/packets": Needs(needs=(GET_INCIDENT, GET_EVIDENCE)),
}


def path_of(route: str, incident: str) -> str:
    """The address under which these tests ask for a route."""
    _, _, own = route.partition(" ")
    return (TABLE[route].path or own).replace("{id}", incident)
