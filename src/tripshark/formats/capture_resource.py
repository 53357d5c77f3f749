"""A fleet request as the Kubernetes resource that carries it, and everything such a resource says, read back.

Whoever may create a Capture in one namespace writes its spec: it is hostile. What is written is checked against the
schema first, and a Capture that means anything outside its own namespace is no request but a problem with a reason.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tripshark.errors import BadInput
from tripshark.formats.capture_schema import (
    CAPTURE,
    CLUSTER_CAPTURE,
    GROUP,
    MAX_ALERT,
    MAX_MESSAGE,
    MAX_PARTS,
    PLURALS,
    SPECS,
    STATUS,
    VERSION,
    Schema,
    check,
)
from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId, rfc3339
from tripshark.model.filter import Scope
from tripshark.model.fleet import (
    DEFAULT_TTL_NS,
    MAX_AFTER_NS,
    MAX_BEFORE_NS,
    Aim,
    Aimed,
    Condition,
    FleetRequest,
    PartKey,
    PartReport,
    Phase,
    Problem,
    Stage,
    labels,
)
from tripshark.model.units import ns_of

API_VERSION: Final = f"{GROUP}/{VERSION}"
MAX_OWN_ALERT: Final = 16_384
"""Characters of an alert in a namespaced Capture: every node holds what is not finished, and people make thousands."""
MIN_TTL_NS: Final = 60 * 10**9
MAX_TTL_NS: Final = 90 * 86_400 * 10**9
HOST_UID: Final = "host"
"""The uid under which a node reports itself."""

_MOMENT: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.]([0-9]{1,9}))?Z"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A Capture or ClusterCapture as the API server holds it."""

    kind: str
    namespace: str  # "" of a ClusterCapture
    name: str
    uid: str
    version: str  # resourceVersion
    created_ns: int
    deleting: bool
    request: FleetRequest | None  # None: `problem` says why
    problem: Problem | None
    ttl_ns: int = DEFAULT_TTL_NS
    phase: Phase | None = None
    progress: str = ""  # "2/3" parts sealed
    packets: int = 0
    finished_ns: int = 0
    expected: tuple[PartKey, ...] | None = None
    parts: tuple[PartReport, ...] = ()
    conditions: Mapping[str, tuple[Condition, str]] | None = None  # type → it, and since when

    @property
    def path(self) -> str:
        """Where the API serves it."""
        return f"{collection(self.kind, self.namespace)}/{self.name}"

    @property
    def title(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def incident_of(known: Resource) -> IncidentId:
    """The incident that all parts of a request belong to, the same on every node.

    Whoever may make a Capture in one namespace can write the id of anybody's incident into it. So a namespaced one's is
    made of its namespace and what it says: it joins no incident but those of Captures of the same namespace, whichever id
    it names. Cluster-scoped ones are the nodes' and the administrators', and mean what they say.
    """
    said = known.request.incident if known.request else None
    if said is not None and not known.namespace:
        return said
    if said is not None:
        head, told = said[:24].strip("-"), f"{known.namespace}/{said}"
    else:
        at = datetime.fromtimestamp(known.created_ns // 10**9, tz=UTC)
        head, told = f"{at:%Y%m%dt%H%M%S}", known.uid
    tail = hashlib.blake2b(told.encode(), digest_size=10).hexdigest()
    return IncidentId(f"{head}-{tail}")


def collection(kind: str, namespace: str = "") -> str:
    """The API's path of all resources of a kind, in one namespace or everywhere."""
    inner = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{API_VERSION}{inner}/{PLURALS[kind]}"


# ---------------------------------------------------------------------------------- writing


def resource(request: FleetRequest, name: str) -> dict[str, Json]:
    """The resource that asks for it. Raises `BadInput` for what no node would read; spans and sizes are cut to what may be."""
    kind = CAPTURE if request.namespace else CLUSTER_CAPTURE
    targets: list[Json] = [_target(aim, scoped=kind == CAPTURE) for aim in request.aims]
    said: dict[str, Json] = {
        "incident": request.incident,
        "t0": rfc3339(request.t0_ns) if request.t0_ns else None,
        "before": _duration(request.before_ns, 0, MAX_BEFORE_NS),
        "after": _duration(request.after_ns, 0, MAX_AFTER_NS),
        "scope": request.scope and request.scope.value,
        "peer": request.peer,
        "filter": request.filter,
        "maxBytes": request.max_bytes and min(max(request.max_bytes, 1000), 10**10),
        "rule": request.rule[:512],
        "alert": request.alert,
        "origin": request.origin,
        "requestedBy": request.by[:253],
        "ttl": _duration(request.ttl_ns, MIN_TTL_NS, MAX_TTL_NS),
    }
    spec: dict[str, Json] = {"target": targets[0]} if kind == CAPTURE else {"targets": targets}
    spec |= {key: value for key, value in said.items() if value not in (None, "")}
    metadata: dict[str, Json] = {"name": name, "labels": dict(labels(request))}
    if kind == CAPTURE:
        metadata["namespace"] = request.namespace
    check(SPECS[kind], spec, "spec")
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def carries(alert: str) -> bool:
    """Whether an alert's body is short enough to travel with a request."""
    return len(alert) <= MAX_ALERT


def part_status(parts: Iterable[PartReport]) -> dict[str, Json]:
    """What one node owns of a resource's status: its own parts."""
    return {"parts": [_part_out(part) for part in parts]}


def whole_status(
    known: Resource,
    *,
    phase: Phase,
    conditions: Sequence[Condition],
    parts: Sequence[PartReport],
    expected: Sequence[PartKey] | None,
    now_ns: int,
) -> dict[str, Json]:
    """What whoever sums up owns of the status: everything but the parts."""
    silent = len({*(expected or ())} - {part.key for part in parts})
    good = sum(part.stage.good for part in parts)
    aims = known.request.aims if known.request else ()
    said: dict[str, Json] = {
        "phase": phase.value,
        "target": ", ".join(str(aim) for aim in aims)[:MAX_MESSAGE] or "?",
        "progress": f"{good}/{len(parts) + silent}",
        "packets": sum(part.packets for part in parts),
        "conditions": [_condition_out(each, known.conditions, now_ns) for each in conditions],
    }
    if expected is not None:
        said["expected"] = [{"node": e.node, "uid": e.uid} for e in expected[:MAX_PARTS]]
    if phase.final:
        same = known.phase is not None and known.phase.final and known.finished_ns
        said["finished"] = rfc3339(known.finished_ns if same else now_ns)
    return said


def status_patch(
    known: Resource, status: Mapping[str, Json], *, version: str = ""
) -> dict[str, Json]:
    """The body of a server-side apply; with `version` only if nothing changed since."""
    metadata: dict[str, Json] = {"name": known.name}
    if known.namespace:
        metadata["namespace"] = known.namespace
    if version:
        metadata["resourceVersion"] = version
    return {
        "apiVersion": API_VERSION,
        "kind": known.kind,
        "metadata": metadata,
        "status": dict(status),
    }


def _target(aim: Aim, *, scoped: bool) -> Json:
    if aim.kind is Aimed.NODE:
        return {"node": aim.name}
    told: dict[str, Json] = {aim.kind.value: aim.name}
    if aim.kind is Aimed.WORKLOAD:
        told = {"workload": {"kind": aim.workload, "name": aim.name}}
    if aim.uid:
        told["uid"] = aim.uid
    return told if scoped else told | {"namespace": aim.namespace}


def _duration(ns: int | None, least_ns: int, most_ns: int) -> str | None:
    """Exact to the millisecond below three hours, to the second above."""
    if ns is None:
        return None
    ns = min(max(ns, least_ns), most_ns)
    return f"{ns // 10**6}ms" if ns < 10**13 else f"{ns // 10**9}s"


def _part_out(part: PartReport) -> Json:
    said: dict[str, Json] = {
        "node": part.node,
        "uid": part.uid,
        "target": part.target[:320],
        "incident": part.incident,
        "state": part.stage.value,
        "reason": part.reason[:64],
        "message": part.message[:MAX_MESSAGE],
        "word": part.word,
        "packets": part.packets,
        "bytes": part.bytes,
        "sha256": part.sha256,
        "location": part.location[:MAX_MESSAGE],
        "frozen": rfc3339(part.frozen_ns) if part.frozen_ns else "",
        "at": rfc3339(part.at_ns) if part.at_ns else "",
    }
    return {key: value for key, value in said.items() if value != ""}


def _condition_out(
    said: Condition, before: Mapping[str, tuple[Condition, str]] | None, now_ns: int
) -> Json:
    """A condition keeps its time while its answer stays the same."""
    known, since = (before or {}).get(said.type, (None, ""))
    changed = known is None or known.status != said.status
    told: dict[str, Json] = {
        "type": said.type,
        "status": "True" if said.status else "False",
        "reason": said.reason[:64],
        "lastTransitionTime": _seconds(now_ns) if changed else since,
    }
    if said.message:  # API servers of old turn an applied "" into null, and refuse that
        told["message"] = said.message[:MAX_MESSAGE]
    return told


def _seconds(ns: int) -> str:
    return rfc3339(ns // 10**9 * 10**9).replace(".000000000", "")


# ---------------------------------------------------------------------------------- reading


def read(told: Mapping[str, Json]) -> Resource:
    """A resource as the API server sent it. Raises `BadInput` only for what has no name or kind at all.

    A spec that is not as it should be becomes a `problem`; of the status what cannot be read is left out.
    """
    kind = told.get("kind")
    metadata = told.get("metadata")
    if not isinstance(kind, str) or kind not in SPECS or not isinstance(metadata, dict):
        raise BadInput("neither a Capture nor a ClusterCapture", where=str(kind)[:60])
    name, uid = metadata.get("name"), metadata.get("uid")
    if not isinstance(name, str) or not isinstance(uid, str) or not name or not uid:
        raise BadInput(f"a {kind} without name or uid", where="metadata")
    namespace = metadata.get("namespace")
    space = namespace if kind == CAPTURE and isinstance(namespace, str) else ""
    created_ns = moment(str(metadata.get("creationTimestamp", ""))) or 0
    request, problem = None, None
    try:
        request = _request(told.get("spec"), kind, space, created_ns)
    except _Outside as outside:
        problem = Problem(reason="OutsideNamespace", message=str(outside))
    except BadInput as bad:
        problem = Problem(reason="Invalid", message=f"{bad.where}: {bad.message}")
    status = told.get("status")
    known = status if isinstance(status, dict) else {}
    phase = known.get("phase")
    return Resource(
        kind=kind,
        namespace=space,
        name=name,
        uid=uid,
        version=str(metadata.get("resourceVersion", "")),
        created_ns=created_ns,
        deleting="deletionTimestamp" in metadata,
        request=request,
        problem=problem,
        ttl_ns=request.ttl_ns if request else DEFAULT_TTL_NS,
        phase=Phase(phase) if phase in list(Phase) and isinstance(phase, str) else None,
        progress=_word(known, "progress"),
        packets=_number(known, "packets"),
        finished_ns=moment(str(known.get("finished", ""))) or 0,
        expected=_expected(known.get("expected")),
        parts=tuple(_part_in(each) for each in _items(known, "parts")),
        conditions={
            str(each["type"]): (_condition_in(each), str(each["lastTransitionTime"]))
            for each in _items(known, "conditions")
        },
    )


def moment(text: str) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time in UTC, None for anything else."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(each) for each in found.groups()[:6])
    try:
        at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    ns = (at - _EPOCH) // timedelta(seconds=1) * 10**9 + int((found[7] or "").ljust(9, "0"))
    return ns if 0 <= ns < 2**63 else None


class _Outside(BadInput):
    """A namespaced request that means something elsewhere."""


def _request(spec: Json, kind: str, namespace: str, created_ns: int) -> FleetRequest:
    check(SPECS[kind], spec, "spec")
    said = _mapping(spec)
    if kind == CAPTURE:
        aims = [_aim(_mapping(said["target"]), "spec.target", namespace)]
    else:
        aims = [
            _aim(_mapping(each), f"spec.targets[{at}]", "")
            for at, each in enumerate(_list(said["targets"]))
        ]
    t0 = _word(said, "t0")
    # the server stamps whole seconds: what came within that second, before it was asked, is meant too
    t0_ns = moment(t0) if t0 else created_ns + 10**9 - 1
    if t0_ns is None:
        raise BadInput(f"{t0!r} is no moment", where="spec.t0")
    if kind == CAPTURE and len(_word(said, "alert")) > MAX_OWN_ALERT:
        raise BadInput(f"at most {MAX_OWN_ALERT} characters in a namespace", where="spec.alert")
    scope, incident, most = _word(said, "scope"), _word(said, "incident"), said.get("maxBytes")
    return FleetRequest(
        aims=tuple(aims),
        t0_ns=t0_ns,
        before_ns=_span(said, "before", 0, MAX_BEFORE_NS),
        after_ns=_span(said, "after", 0, MAX_AFTER_NS),
        scope=Scope(scope) if scope else None,
        peer=_word(said, "peer"),
        filter=_word(said, "filter"),
        max_bytes=most if isinstance(most, int) else None,
        incident=IncidentId(incident) if incident else None,
        rule=_word(said, "rule"),
        alert=_word(said, "alert"),
        origin=_word(said, "origin"),
        by=_word(said, "requestedBy"),
        ttl_ns=_span(said, "ttl", MIN_TTL_NS, MAX_TTL_NS) or DEFAULT_TTL_NS,
        wide=kind == CLUSTER_CAPTURE and len(aims) == 1,
    )


def _aim(target: Mapping[str, Json], where: str, own: str) -> Aim:
    """`own` is the namespace of a Capture, which may mean no other; "" for a ClusterCapture, which must say one."""
    namespace = _word(target, "namespace")
    if own and namespace not in ("", own):
        raise _Outside(
            f"a Capture in {own} may mean pods of {own} alone, not of {namespace}: ask with a ClusterCapture",
            where=f"{where}.namespace",
        )
    if "node" in target:
        if namespace:
            raise BadInput("a node has no namespace", where=f"{where}.namespace")
        return Aim(kind=Aimed.NODE, name=_word(target, "node"))
    namespace = own or namespace
    if not namespace:
        raise BadInput("is missing", where=f"{where}.namespace")
    if "uid" in target and "pod" not in target:
        raise BadInput("belongs to a pod", where=f"{where}.uid")
    if "workload" in target:
        workload = _mapping(target["workload"])
        return Aim(
            kind=Aimed.WORKLOAD,
            name=_word(workload, "name"),
            namespace=namespace,
            workload=_word(workload, "kind"),
        )
    kind = Aimed.SERVICE if "service" in target else Aimed.POD
    return Aim(kind=kind, name=_word(target, kind), namespace=namespace, uid=_word(target, "uid"))


def _span(said: Mapping[str, Json], name: str, least_ns: int, most_ns: int) -> int | None:
    text = _word(said, name)
    if not text:
        return None
    ns = ns_of(text)  # its pattern has been checked
    if not least_ns <= ns <= most_ns:
        raise BadInput(
            f"{text}; {least_ns // 10**9}s to {most_ns // 10**9}s may be", where=f"spec.{name}"
        )
    return ns


def _items(status: Mapping[str, Json], name: str) -> list[dict[str, Json]]:
    """The entries of a list in the status that are as they should be."""
    schema = _mapping(_mapping(_mapping(STATUS["properties"])[name])["items"])
    return [_mapping(each) for each in _list(status.get(name))[:MAX_PARTS] if _fits(schema, each)]


def _expected(told: Json) -> tuple[PartKey, ...] | None:
    if not isinstance(told, list):
        return None
    return tuple(
        PartKey(node=str(each["node"]), uid=str(each["uid"]))
        for each in _items({"expected": told}, "expected")
    )


def _fits(schema: Schema, value: Json) -> bool:
    try:
        check(schema, value, "")
    except BadInput:
        return False
    return True


def _part_in(told: Mapping[str, Json]) -> PartReport:
    return PartReport(
        node=_word(told, "node"),
        uid=_word(told, "uid"),
        target=_word(told, "target"),
        incident=_word(told, "incident"),
        stage=Stage(_word(told, "state")),
        reason=_word(told, "reason"),
        message=_word(told, "message"),
        word=_word(told, "word"),
        packets=_number(told, "packets"),
        bytes=_number(told, "bytes"),
        sha256=_word(told, "sha256"),
        location=_word(told, "location"),
        frozen_ns=moment(_word(told, "frozen")) or 0,
        at_ns=moment(_word(told, "at")) or 0,
    )


def _condition_in(told: Mapping[str, Json]) -> Condition:
    return Condition(
        type=_word(told, "type"),
        status=told["status"] == "True",
        reason=_word(told, "reason"),
        message=_word(told, "message"),
    )


def _word(told: Mapping[str, Json], name: str) -> str:
    found = told.get(name)
    return found if isinstance(found, str) else ""


def _number(told: Mapping[str, Json], name: str) -> int:
    found = told.get(name)
    return found if isinstance(found, int) else 0


def _mapping(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
