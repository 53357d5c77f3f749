"""Incidents and alerts as rows of the catalogue, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from ipaddress import ip_address
from typing import Any, cast

from tripshark.model.alert import (
    Accepted,
    Alert,
    AlertId,
    Connection,
    Endpoint,
    Json,
    Priority,
    Proto,
)
from tripshark.model.evidence import IncidentId, Word, canonical
from tripshark.model.incident import Incident, State
from tripshark.model.plan import Reason, Refusal
from tripshark.model.target import TargetKey
from tripshark.ports import AlertRow

Row = Mapping[str, Any]  # as SQLAlchemy hands it out
_MAX_TEXT = 4096  # of a column; the verbatim body and `decoded` keep the whole
_INT64 = range(-(2**63), 2**63)
_ALERT = tuple(each.name for each in fields(Alert))
_encode = json.JSONEncoder(
    separators=(",", ":")
).encode  # keeps NaN, huge numbers, lone surrogates


def incident_out(incident: Incident) -> dict[str, Any]:
    """Column values of one incident."""
    row: dict[str, Any] = {}
    for each in fields(incident):
        value = getattr(incident, each.name)
        row[each.name] = _number(value) if isinstance(value, int) else value
        if isinstance(value, str):
            row[each.name] = _text(str(value), 1 << 20)
    row["plan"] = canonical(incident.plan).decode()
    row["namespaces"] = canonical(incident.namespaces).decode()
    return row


def incident_in(row: Row) -> Incident:
    """The incident of one row."""
    return Incident(
        **{
            **row,
            "id": IncidentId(row["id"]),
            "state": State(row["state"]),
            "target": TargetKey(row["target"]),
            "word": Word(row["word"]),
            "plan": json.loads(row["plan"]),
            "namespaces": tuple(json.loads(row["namespaces"])),
        }
    )


def alert_out(row: AlertRow) -> dict[str, Any]:
    """Column values of one alert and what became of it."""
    accepted, alert, refusal = row.accepted, row.accepted.alert, row.refusal
    decoded = _decoded_out(alert)
    return {
        "id": accepted.id,
        "seq": accepted.seq,
        "received_ns": _number(accepted.received_ns),
        "via": _text(accepted.via),
        "body": accepted.body,
        "rule": _text(alert.rule),
        "priority": int(alert.priority),
        "time_ns": _number(alert.time_ns),
        "source": _text(alert.source),
        "hostname": _maybe(alert.hostname),
        "namespace": _maybe(alert.namespace),
        "pod": _maybe(alert.pod),
        "decoded": decoded,
        "repeats": row.repeats,
        "last_ns": _number(row.last_ns),
        "touched_ns": _number(max(accepted.received_ns, row.last_ns)),
        "size": len(accepted.body) + len(decoded),
        "incident": row.incident,
        "reason": refusal and str(refusal.reason),
        "message": refusal and _text(refusal.message),
        "hint": refusal and _text(refusal.hint),
        "refused_by": refusal and _text(refusal.rule),
    }


def alert_in(row: Row) -> AlertRow:
    """The alert of one row."""
    refusal = None
    if row["reason"] is not None:
        refusal = Refusal(
            reason=Reason(row["reason"]),
            message=row["message"],
            hint=row["hint"],
            rule=row["refused_by"],
        )
    return AlertRow(
        accepted=Accepted(
            id=AlertId(row["id"]),
            seq=row["seq"],
            received_ns=row["received_ns"],
            alert=_decoded_in(row["decoded"]),
            body=bytes(row["body"]),
            via=row["via"],
        ),
        incident=None if row["incident"] is None else IncidentId(row["incident"]),
        refusal=refusal,
        repeats=row["repeats"],
        last_ns=row["last_ns"],
    )


def _decoded_out(alert: Alert) -> str:
    told: dict[str, Any] = {name: getattr(alert, name) for name in _ALERT}
    told["tags"], told["priority"] = list(alert.tags), int(alert.priority)
    told["hints"] = [_endpoint_out(hint) for hint in alert.hints]
    told["connection"] = None
    if (connection := alert.connection) is not None:
        told["connection"] = {
            "client": _endpoint_out(connection.client),
            "server": _endpoint_out(connection.server),
            "proto": connection.proto,
            "listening": connection.listening,
        }
    try:
        text = _encode(told)
    except (RecursionError, ValueError, TypeError):
        text = canonical(told).decode()
    return text


def _decoded_in(text: str) -> Alert:
    told = json.loads(text)
    told["tags"], told["priority"] = tuple(told["tags"]), Priority(told["priority"])
    told["hints"] = tuple(_endpoint_in(hint) for hint in told["hints"])
    if (connection := told["connection"]) is not None:
        told["connection"] = Connection(
            client=_endpoint_in(connection["client"]),
            server=_endpoint_in(connection["server"]),
            proto=connection["proto"] and Proto(connection["proto"]),
            listening=connection["listening"],
        )
    return Alert(**{name: value for name, value in told.items() if name in _ALERT})


def _endpoint_out(endpoint: Endpoint) -> list[Json]:
    return [None if endpoint.address is None else str(endpoint.address), endpoint.port]


def _endpoint_in(told: list[Json]) -> Endpoint:
    address, port = told
    return Endpoint(
        address=None if address is None else ip_address(cast("str", address)),
        port=cast("int | None", port),
    )


def _text(value: str, limit: int = _MAX_TEXT) -> str:
    """As every database can keep it: no NUL (PostgreSQL), no lone surrogate (UTF-8), bounded."""
    if value.isascii() and len(value) <= limit and "\0" not in value:
        return value
    cut = value if len(value) <= limit else value[: limit - 1] + "…"
    return cut.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def _maybe(value: str | None) -> str | None:
    return None if value is None else _text(value)


def _number(value: int) -> int:
    return min(max(value, _INT64[0]), _INT64[-1])
