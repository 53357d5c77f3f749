"""Where one node's share of an incident lies in an object store, and what several shares make together.

An incident that several nodes recorded has one id and one *part* for each node. In the store a part is a folder,
`evidence/2026/11/23/<incident>/<node>/`, whose `manifest.json` is written last: where it is, the part is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NewType

from tripshark.errors import BadInput
from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId, Manifest, SealedFile, Word, file_name, incident_id
from tripshark.model.incident import EVERY, Incident, State
from tripshark.model.target import TargetKey

NodeName = NewType("NodeName", str)

ROOT = "evidence"
_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_DAY = re.compile(r"[0-9]{4}/[0-9]{2}/[0-9]{2}", re.ASCII)
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_MAX_TEXT = 4096
_INT64 = range(-(2**63), 2**63)
MAX_NAMESPACES = 1000


def node_name(text: str) -> NodeName:
    """The text as a node's name: 1 to 63 of a-z, 0-9, dot and dash. Raises `BadInput`.

    Names become parts of object names; this is the only gate through which text becomes one.
    """
    if _NODE.fullmatch(text) is None or ".." in text:
        raise BadInput(
            "that is no name of a node",
            where=repr(text[:80]),
            hint="1 to 63 of a-z, 0-9, dot and dash, as Kubernetes names them",
        )
    return NodeName(text)


def node_of(text: str) -> NodeName:
    """A machine's own name as a node's name: what cannot be in one becomes a dash; never empty."""
    plain = re.sub(r"[^a-z0-9.-]", "-", text.lower()).replace("..", "-")[:63].strip(".-")
    return node_name(plain or "node")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """One part's folder in the store, below the prefix of the operator's URL."""

    day: str  # "2026/11/23": when the incident was opened on that node, UTC
    incident: IncidentId
    node: NodeName

    @property
    def folder(self) -> str:
        return f"{ROOT}/{self.day}/{self.incident}/{self.node}"

    def key(self, name: str) -> str:
        """The object of one file. Raises `BadInput` for what is no file name."""
        return f"{self.folder}/{file_name(name)}"


def day_of(text: str) -> str:
    """The text as a day, `2026/11/23`. Raises `BadInput`."""
    if _DAY.fullmatch(text) is None:
        raise BadInput("that is no day", where=repr(text[:40]), hint="such as 2026/11/23")
    return text


def place_of(key: str) -> tuple[Place, str]:
    """The part that an object belongs to, and the file it is. Raises `BadInput` for an object of another kind."""
    match key.split("/"):
        case [root, year, month, day, incident, node, name] if root == ROOT:
            return (
                Place(
                    day=day_of(f"{year}/{month}/{day}"),
                    incident=incident_id(incident),
                    node=node_name(node),
                ),
                file_name(name),
            )
        case _:
            raise BadInput("that object is no file of a part", where=repr(key[:200]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One node's sealed share of an incident, as its manifest tells it."""

    place: Place
    incident: Incident  # of this node alone
    files: tuple[SealedFile, ...]
    manifest_sha256: str
    manifest_bytes: int
    key_id: str = ""  # who signed, "" where the signature does not hold
    own_alerts: int = (
        0  # alerts of Falco, every copy; those that another node passed on do not count
    )

    @property
    def node(self) -> NodeName:
        return self.place.node


def part_of(place: Place, manifest: Manifest, *, digest: str, size: int, where: str) -> Part:
    """What a manifest in the store says of its part. Everything in it may be hostile; nothing of it raises but `BadInput`.

    `digest` and `size` are of the manifest's bytes, `where` is the folder as people read it.
    """
    if manifest.incident != place.incident:
        raise BadInput("the manifest is of another incident", where=place.folder)
    what, why, who = (_group(manifest.details, name) for name in ("what", "why", "who"))
    when = _group(manifest.details, "when")
    alerts = why.get("alerts")
    told = [each for each in alerts if isinstance(each, dict)] if isinstance(alerts, list) else []
    first: Mapping[str, Json] = told[0] if told else {}
    counted = max(1, _number(why.get("alerts_counted")))
    passed_on = [each for each in told if _text(each.get("via")).startswith("capture:")]
    opened_ns = _number(when.get("opened_ns")) or manifest.created_ns
    packets = max(0, _number(what.get("packets")))
    incident = Incident(
        id=place.incident,
        state=State.SEALED if packets else State.EMPTY,
        target=TargetKey(_text(_group(manifest.details, "where").get("target"), 200)),
        title=_text(what.get("title"), 500),
        namespace=_text(who.get("namespace"), 253),
        pod=_text(who.get("pod"), 253),
        rule=_text(why.get("rule"), 500),
        falco_rule=_text(first.get("rule"), 500),
        priority=_text(first.get("priority"), 40),
        t0_ns=_number(when.get("t0_ns")) or opened_ns,
        opened_ns=opened_ns,
        sealed_ns=manifest.created_ns,
        alerts=counted,
        packets=packets,
        bytes=max(0, _number(what.get("bytes"))),
        word=manifest.ledger.word,
        folder=where,
        manifest_sha256=digest,
        namespaces=_namespaces(who),
    )
    return Part(
        place=place,
        incident=incident,
        files=manifest.files,
        manifest_sha256=digest,
        manifest_bytes=size,
        own_alerts=max(0, counted - len(passed_on)),
    )


def joined(parts: Iterable[Part]) -> Incident:
    """One incident of all its parts (at least one): opened by the first, as bad as the worst, seen by all."""
    ordered = sorted(parts, key=lambda each: (each.incident.opened_ns, each.place))
    first = ordered[0].incident
    if len(ordered) == 1:
        return first
    order = list(Word)
    problems = [
        f"{each.node}: {each.incident.problem}" for each in ordered if each.incident.problem
    ]
    summaries = dict.fromkeys(each.incident.summary for each in ordered if each.incident.summary)
    return replace(
        first,
        state=State.SEALED
        if any(each.incident.state is State.SEALED for each in ordered)
        else first.state,
        t0_ns=min(each.incident.t0_ns for each in ordered),
        sealed_ns=max(each.incident.sealed_ns for each in ordered),
        alerts=max(1, sum(each.own_alerts for each in ordered)),
        packets=sum(each.incident.packets for each in ordered),
        bytes=sum(each.incident.bytes for each in ordered),
        word=max((each.incident.word for each in ordered), key=order.index),
        summary=" · ".join(summaries)[:_MAX_TEXT],
        problem="; ".join(problems)[:_MAX_TEXT],
        namespaces=tuple(sorted({name for each in ordered for name in each.incident.held})),
    )


def namespaces_in(manifest: Manifest) -> tuple[str, ...]:
    """Whose packets the evidence holds, as its manifest tells it; `EVERY` where it does not tell clearly."""
    return _namespaces(_group(manifest.details, "who"))


def _namespaces(who: Mapping[str, Json]) -> tuple[str, ...]:
    """Whose packets these are. What is not said clearly counts as everybody's."""
    said = who.get("namespaces")
    if said is None:  # an older manifest names one target
        said = [who.get("namespace")]
    if not isinstance(said, list) or not 0 < len(said) <= MAX_NAMESPACES:
        return (EVERY,)
    names = {each for each in said if isinstance(each, str) and _NAMESPACE.fullmatch(each)}
    return tuple(sorted(names)) if len(names) == len(said) else (EVERY,)


def _group(told: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    group = told.get(name)
    return group if isinstance(group, dict) else {}


def _text(value: Json, most: int = _MAX_TEXT) -> str:
    return value[:most] if isinstance(value, str) else ""


def _number(value: Json) -> int:
    return value if type(value) is int and value in _INT64 else 0
