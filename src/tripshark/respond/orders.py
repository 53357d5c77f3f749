"""A capture that another node, or a Capture resource, asked of this one, as a record of the journal."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import msgspec

from tripshark.errors import BadInput
from tripshark.formats import falco
from tripshark.model.alert import Alert, Connection, Endpoint, Priority
from tripshark.model.fleet import FleetRequest
from tripshark.model.plan import Defaults, Plan
from tripshark.model.target import Target, TargetKey
from tripshark.respond.manual import RULE, endpoint, planned, towards

VIA = "capture:"
"""Followed by the resource's namespace and name: how the records of orders are told from alerts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One target's share of a request."""

    request: FleetRequest
    resource: str  # "payments/20261124t…": where it was asked
    target: TargetKey


# Made at import: two threads that have msgspec learn a class at the same moment crash Python.
_ORDER = msgspec.json.Decoder(Order)


def encode(order: Order) -> bytes:
    return msgspec.json.encode(order)


def decode(body: bytes) -> Order:
    """Raises `BadInput`."""
    try:
        return _ORDER.decode(body)
    except msgspec.MsgspecError as problem:
        raise BadInput(f"not an order: {problem}") from problem


def alert_of(order: Order) -> Alert:
    """The alert that was passed on; where there is none, the request in an alert's words. Raises `BadInput`."""
    request = order.request
    if request.alert:
        return falco.decode(request.alert.encode(errors="surrogatepass"))
    return Alert(
        rule=request.rule or RULE,
        priority=Priority.INFORMATIONAL,
        time_ns=request.t0_ns,
        source="capture",
        output=f"capture asked by {request.by or request.origin or 'nobody said who'}"
        f" as {order.resource}",
        connection=towards(request.peer),
    )


def wants_rules(order: Order) -> bool:
    """An alert that reached the wrong node: what is to be captured is for the rules of this one to say."""
    return bool(order.request.alert) and not order.request.rule


def confines(order: Order) -> str:
    """The namespace beyond which nothing may be captured: of a namespaced resource its own.

    Whoever may make a Capture in a namespace writes the alert that it claims to be about; what rules make of it must not
    reach further than he does. Cluster-scoped resources ("" here) are the nodes' and the administrators'.
    """
    namespace, slash, _ = order.resource.partition("/")
    return namespace if slash else ""


def plan_of(order: Order, alert: Alert, target: Target, defaults: Defaults, now_ns: int) -> Plan:
    """What was asked, where nothing was said what this node's settings say. No limit of this node is exceeded."""
    request = order.request
    if request.peer:  # who the other end is from here, which need not be whom the alert names
        proto = alert.connection.proto if alert.connection else None
        other = Connection(client=Endpoint(), server=endpoint(request.peer), proto=proto)
        alert = replace(alert, connection=other, hints=())
    most = defaults.limits.max_bytes
    return planned(
        request,
        alert,
        target,
        defaults,
        rule=request.rule or RULE,
        rule_hash=hashlib.sha256(encode(order)).hexdigest(),
        t0_ns=min(request.t0_ns, now_ns),
        max_bytes=min(request.max_bytes or most, most),
        reason=f"asked as {order.resource} by {request.origin or request.by or 'hand'}",
    )
