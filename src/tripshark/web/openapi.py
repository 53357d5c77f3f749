"""The OpenAPI document, made from the same values that are routed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tripshark import __version__
from tripshark.model.alert import Json


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value in a path or query string."""

    name: str
    where: str  # "path" or "query"
    meaning: str


@dataclass(frozen=True, slots=True)
class Described:
    """What is said of one route."""

    summary: str
    answers: Mapping[str, str]
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, str] = field(default_factory=dict)  # JSON keys and their meaning
    required: tuple[str, ...] = ()
    errors: tuple[int, ...] = (400, 401)
    media: str = "application/json"


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
    answers={"202": "Durable: {alert, duplicate, incident}."},
    errors=(400, 401, 408, 413, 415, 429, 503),
)


def document(routes: Iterable[Routed]) -> dict[str, Json]:
    """The whole description as JSON."""
    described: dict[str, dict[str, Json]] = {}
    for path in ("/", "/v1/alerts"):
        described.setdefault(path, {})["post"] = _operation(_ALERTS, is_open=False)
    for route in routes:
        operations = described.setdefault(route.path, {})
        operations[route.method.lower()] = _operation(route.described, is_open=route.is_open)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tripshark", "version": __version__},
        "paths": {path: dict(operations) for path, operations in described.items()},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": {
                            "type": "object",
                            "required": ["code", "message", "hint", "where"],
                            "properties": {
                                name: {"type": "string"}
                                for name in ("code", "message", "hint", "where")
                            },
                        }
                    },
                }
            },
        },
    }


def _operation(it: Described, *, is_open: bool) -> Json:
    operation: dict[str, Json] = {
        "summary": it.summary,
        "responses": {
            **{
                status: {"description": meaning, "content": {it.media: {}}}
                for status, meaning in it.answers.items()
            },
            **{
                str(status): {
                    "description": "The one error shape.",
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
                    },
                }
                for status in it.errors
            },
        },
        "security": [] if is_open else [{}, {"bearer": []}, {"basic": []}],
    }
    if it.parameters:
        operation["parameters"] = [
            {
                "name": each.name,
                "in": each.where,
                "required": each.where == "path",
                "description": each.meaning,
                "schema": {"type": "string"},
            }
            for each in it.parameters
        ]
    if it.body:
        operation["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": list(it.required),
                        "properties": {
                            name: {"description": meaning} for name, meaning in it.body.items()
                        },
                    }
                }
            },
        }
    return operation
