"""The OpenAPI document, made from the same values that are routed.

A route is described by whoever writes it, with `schema`'s words:

    Described(
        "Incidents, newest first; `next` is the cursor for `before`.",
        answers={"200": "A page of incidents."},
        parameters=(Parameter("limit", "query", "At most this many.", whole(1, 500, default=50)),),
        gives=obj({"incidents": rows(shapes.INCIDENT), "next": maybe(TEXT)}),
        errors=(404,),
    )

`gives` is the shape of what the successful answers hold, `takes` that of the body. Answers without content (204, 303,
304, 307) have none. What every guarded route may answer (400, 401, 403, 429, 503) need not be named. Several media
types are a tuple; `media` that is not JSON needs no `gives`. `tests/web/test_openapi_true.py` asks every route for
hundreds of things, right and wrong ones, and refuses whatever this document does not say.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from tripshark import __version__
from tripshark.model.alert import Json
from tripshark.model.incident import State
from tripshark.web.schema import FLAG, TEXT, Schema, maybe, obj, one_of, text, whole, written

GUARDED: Final = (400, 401, 403, 429, 503)  # what a guarded route may always answer
_EMPTY = frozenset({"204", "303", "304", "307"})
CSRF_HEADER: Final = "X-Tripshark-CSRF"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value in a path, query string or header."""

    name: str
    where: str  # "path", "query" or "header"
    meaning: str
    schema: Schema = field(default_factory=lambda: TEXT)
    required: bool = False  # one of a path always is


@dataclass(frozen=True, slots=True)
class Described:
    """What is said of one route."""

    summary: str
    answers: Mapping[str, str]
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, str] = field(default_factory=dict)  # JSON keys and their meaning
    required: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()  # beside GUARDED
    media: str | tuple[str, ...] = "application/json"
    gives: Schema | None = None  # of an answer in JSON
    takes: Schema | None = None  # of the body; instead of `body` and `required`
    takes_media: str = "application/json"


_MOMENT: Final = (
    "20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}Z"
)
_FILLED: Final[Schema] = {"type": "string", "maxLength": 253, "pattern": "^[^\\u0000]*$"}
_USUAL: Final[Mapping[tuple[str, str], Schema]] = {  # what these names mean on every route
    ("path", "id"): text(pattern="^[a-z0-9][a-z0-9-]{0,63}$"),
    ("path", "node"): text(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
    ("path", "name"): text(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"),
    ("path", "note"): text(pattern="^[0-9a-f]{16}$"),
    ("query", "node"): text(pattern="^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"),
    ("query", "before"): text(pattern="^([a-z0-9][a-z0-9-]{0,63})?$"),
    ("query", "incident"): text(pattern="^[a-z0-9][a-z0-9-]{0,63}$"),
    ("query", "since"): text(
        pattern=f"^([0-9]{{1,4}}(\\.[0-9]{{1,3}})?(ms|s|m|h|d)?|{_MOMENT})?$"
    ),
    ("query", "at"): text(pattern=f"^([1-9][0-9]{{0,6}}|{_MOMENT})?$"),
    ("query", "file"): text(
        pattern="^(([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/)?[A-Za-z0-9][A-Za-z0-9_-]{0,80}\\.pcapng)?$"
    ),
    ("query", "limit"): whole(1, 500, default=50),
    ("query", "state"): one_of("", *(each.value for each in State)),
    **{
        ("query", name): _FILLED
        for name in ("namespace", "pod", "rule", "text", "target", "peer", "q")
    },
}


class Routed(Protocol):
    """A route as this module needs it."""

    @property
    def path(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def described(self) -> Described: ...


_ALERTS = Described(
    "One Falco event: raw Falco, Falcosidekick's webhook and Talon outputs, CloudEvents.",
    answers={"202": "Durable."},
    errors=(408, 413, 415),
    gives=obj({"alert": TEXT, "duplicate": FLAG, "incident": maybe(TEXT)}),
    takes={  # of Falco's own; whatever else it writes is taken as well
        "type": "object",
        "required": ["rule", "time", "priority"],
        "properties": {
            "rule": {
                "type": "string",
                "minLength": 1,
                "maxLength": 100,
                "pattern": "^[A-Za-z0-9 ]+$",
            },
            "time": {
                "type": "string",
                "pattern": f"^{_MOMENT}$",
            },
            "priority": {
                "enum": [
                    "Emergency",
                    "Alert",
                    "Critical",
                    "Error",
                    "Warning",
                    "Notice",
                    "Informational",
                    "Debug",
                ]
            },
            "output": {"type": "string"},
            "output_fields": {"type": ["object", "null"]},
        },
    },
)
_ERROR = obj({"error": obj(dict.fromkeys(("code", "message", "hint", "where"), TEXT))})
_SECURITY: Final[dict[str, Json]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of `signin.tokens`, of Kubernetes or of `ingest.auth`.",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "Such a token as the password of any user, for browsers.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-tripshark",
        "description": f"A browser that signed in; what changes something needs {CSRF_HEADER} too.",
    },
}


def document(
    routes: Iterable[Routed],
    *,
    guarded: bool = False,
    alerts: bool = True,
    also_open: Container[str] = (),
) -> dict[str, Json]:
    """The whole description as JSON.

    `guarded`: who asks has to be known, but for paths that are open or `also_open`; `alerts`: the listener takes those.
    """
    components: dict[str, Json] = {"Error": written(_ERROR, {})}
    described: dict[str, dict[str, Json]] = {}
    for path in ("/", "/v1/alerts") if alerts else ():
        described.setdefault(path, {})["post"] = _operation(
            _ALERTS, "post", components, guarded=guarded
        )
    for route in routes:
        operations = described.setdefault(route.path, {})
        operations[route.method.lower()] = _operation(
            route.described,
            route.method.lower(),
            components,
            is_open=route.is_open or route.path in also_open,
            guarded=guarded,
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tripshark",
            "version": __version__,
            "description": "Packets from before an alert fired: incidents, their evidence and what it shows.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {path: dict(operations) for path, operations in described.items()},
        "components": {
            "securitySchemes": _SECURITY,
            "schemas": dict(sorted(components.items())),
        },
    }


def _operation(
    it: Described,
    method: str,
    components: dict[str, Json],
    *,
    is_open: bool = False,
    guarded: bool = False,
) -> Json:
    ways: list[Json] = [] if guarded else [{}]
    ways += [{name: []} for name in _SECURITY]
    operation: dict[str, Json] = {
        "summary": it.summary,
        "responses": _responses(it, components, is_open=is_open),
        "security": [] if is_open else ways,
    }
    parameters = [*it.parameters]
    if method not in ("get", "head", "post") or (method == "post" and it is not _ALERTS):
        parameters.append(
            Parameter(CSRF_HEADER, "header", "Of a browser's session, as /v1/me gives it.")
        )
    if parameters:
        operation["parameters"] = [
            {
                "name": each.name,
                "in": each.where,
                "required": each.required or each.where == "path",
                "description": each.meaning,
                "schema": written(_schema(each), components),
            }
            for each in parameters
        ]
    takes = it.takes or (_of_body(it) if it.body else None)
    if takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {it.takes_media: {"schema": written(takes, components)}},
        }
    return operation


def _schema(it: Parameter) -> Schema:
    """Its own, or what its name means where it has none."""
    return _USUAL.get((it.where, it.name), TEXT) if it.schema == TEXT else it.schema


def _responses(it: Described, components: dict[str, Json], *, is_open: bool) -> dict[str, Json]:
    medias = (it.media,) if isinstance(it.media, str) else it.media
    responses: dict[str, Json] = {}
    for status, meaning in it.answers.items():
        responses[status] = {"description": meaning}
        if status not in _EMPTY:
            content: dict[str, Json] = {media: {} for media in medias}
            if it.gives is not None:
                content["application/json"] = {"schema": written(it.gives, components)}
            responses[status] = {"description": meaning, "content": content}
    error: dict[str, Json] = {
        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
    }
    said: dict[str, Json] = {"description": "The one error shape.", "content": error}
    if it.media == "text/html":
        said = {"description": "What is wrong, as a page.", "content": {"text/html": {}}}
    if it.media == "text/html" and not is_open:
        responses.setdefault("303", {"description": "Sign in first."})
    for status in sorted({*it.errors, *(() if is_open else GUARDED)}):
        responses.setdefault(str(status), said)
    return responses


def _of_body(it: Described) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(it.required),
        "properties": {name: {"description": meaning} for name, meaning in it.body.items()},
    }
