"""A capture asked for by hand, said in the same words as an alert, so that it takes the same way."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from ipaddress import ip_address

import msgspec

from tripshark.errors import BadInput
from tripshark.model.alert import Alert, Connection, Endpoint, Priority
from tripshark.model.filter import Scope, ladder
from tripshark.model.fleet import FleetRequest
from tripshark.model.plan import Defaults, Plan, Reason, Refusal
from tripshark.model.target import Target
from tripshark.ports import CaptureRequest

VIA = "manual"
RULE = "Capture by hand"
_REQUEST = msgspec.json.Decoder(CaptureRequest)


def encode(request: CaptureRequest) -> bytes:
    return msgspec.json.encode(request)


def decode(body: bytes) -> CaptureRequest:
    """Raises `BadInput`."""
    try:
        return _REQUEST.decode(body)
    except msgspec.MsgspecError as problem:
        raise BadInput(f"not a capture request: {problem}") from problem


def endpoint(peer: str) -> Endpoint:
    """`203.0.113.66`, `203.0.113.66:4444`, `2001:db8::66`, `[2001:db8::66]:4444`. Raises `BadInput`."""
    text, port = peer, None
    if peer.startswith("["):
        text, _, tail = peer[1:].partition("]")
        port = tail.removeprefix(":") or None
    elif peer.count(":") == 1:
        text, _, port = peer.partition(":")
    try:
        address = ip_address(text)
        number = int(port) if port is not None else None
    except ValueError as problem:
        raise BadInput(
            f"{peer!r} is not a peer", hint="write 203.0.113.66:4444 or [2001:db8::66]:4444"
        ) from problem
    if number is not None and not 0 < number < 65_536:
        raise BadInput(f"{peer!r}: a port is 1 to 65535")
    return Endpoint(address=address, port=number)


def alert_of(request: CaptureRequest, *, received_ns: int) -> Alert:
    """The request as an alert: T0 is when it was asked."""
    return Alert(
        rule=RULE,
        priority=Priority.INFORMATIONAL,
        time_ns=received_ns,
        source=VIA,
        output=f"capture of {request.target} asked by {request.by}",
        connection=towards(request.peer),
    )


def plan_of(
    request: CaptureRequest, alert: Alert, target: Target, defaults: Defaults
) -> Plan | Refusal:
    """What was asked, where nothing was said what the settings say."""
    scope = scope_of(request)
    if scope in (Scope.WORKLOAD, Scope.SERVICE):
        return Refusal(
            reason=Reason.UNSUPPORTED,
            message=f"a capture by hand has no scope {scope}: it names the {scope} itself",
            hint="tripshark capture NAMESPACE/deployment/NAME or NAMESPACE/service/NAME",
        )
    return planned(
        request,
        alert,
        target,
        defaults,
        rule=RULE,
        rule_hash=hashlib.sha256(encode(request)).hexdigest(),
        t0_ns=alert.time_ns,
        max_bytes=request.max_bytes or defaults.limits.max_bytes,
        reason=f"asked by {request.by}",
    )


def scope_of(request: CaptureRequest | FleetRequest) -> Scope:
    """What was asked; else as narrow as can be told from what was."""
    return request.scope or (Scope.PEER if request.peer else Scope.POD)


def planned(
    request: CaptureRequest | FleetRequest,
    alert: Alert,
    target: Target,
    defaults: Defaults,
    *,
    rule: str,
    rule_hash: str,
    t0_ns: int,
    max_bytes: int,
    reason: str,
) -> Plan:
    """A plan for what was asked outright, without a rule: it never ends because nothing comes."""
    scope = scope_of(request)
    return Plan(
        rule=rule,
        rule_hash=rule_hash,
        target=target.key,
        t0_ns=t0_ns,
        before_ns=defaults.before_ns if request.before_ns is None else request.before_ns,
        after_ns=defaults.after_ns if request.after_ns is None else request.after_ns,
        idle_ns=0,
        scope=scope,
        rungs=ladder(alert, scope, target.addresses),
        snaplen=defaults.snaplen,
        user_filter=request.filter,
        limits=replace(defaults.limits, max_bytes=max_bytes),
        reason=reason,
    )


def towards(peer: str) -> Connection | None:
    """A connection of which no more is known than who the other end is. Raises `BadInput`."""
    return Connection(client=Endpoint(), server=endpoint(peer)) if peer else None
