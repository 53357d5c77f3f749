"""What a Capture and a ClusterCapture may look like: one schema, for the API server and for us.

The definitions in `deploy/crds/` are written from it, and every node checks with it what it reads: the server may
be older than the definition, and a mirror may hold what another version let in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from tripshark.errors import BadInput
from tripshark.model.alert import Json
from tripshark.model.fleet import Aimed, Phase, Stage

GROUP: Final = "tripshark.dev"
VERSION: Final = "v1alpha1"
CAPTURE: Final = "Capture"
CLUSTER_CAPTURE: Final = "ClusterCapture"
PLURALS: Final = {CAPTURE: "captures", CLUSTER_CAPTURE: "clustercaptures"}

MAX_ALERT: Final = 262_144  # characters of an alert's body
MAX_PARTS: Final = 1000
MAX_MESSAGE: Final = 1024
MAX_AIMS: Final = 16

Schema = Mapping[str, Json]

_LABEL: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_SUBDOMAIN: Final = r"^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$"
_DURATION: Final = r"^[0-9]{1,7}(ms|s|m|h|d)$"
_MOMENT: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?Z$"
_PEER: Final = (
    r"^([0-9.]{7,15}|[0-9a-fA-F:.]{2,45})(:[0-9]{1,5})?$|^\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?$"
)


def _text(about: str, most: int, pattern: str = "", **more: Json) -> dict[str, Json]:
    told: dict[str, Json] = {"type": "string", "description": about, "maxLength": most}
    return told | ({"pattern": pattern} if pattern else {}) | more


def _count(about: str, most: int = 2**62, least: int = 0) -> dict[str, Json]:
    return {
        "type": "integer",
        "format": "int64",
        "description": about,
        "minimum": least,
        "maximum": most,
    }


def _object(about: str, properties: dict[str, Json], **more: Json) -> dict[str, Json]:
    return {"type": "object", "description": about, "properties": properties, **more}


def _one_of(names: list[str]) -> dict[str, Json]:
    """Exactly one of them, said to old servers, and to new ones so that people understand the answer."""
    has = ",".join(f"has(self.{name})" for name in names)
    return {
        "oneOf": [{"required": [name]} for name in names],
        "x-kubernetes-validations": [
            {
                "rule": f"[{has}].filter(x, x).size() == 1",
                "message": f"name exactly one of {', '.join(names)}",
            },
            {"rule": "!has(self.uid) || has(self.pod)", "message": "uid belongs to a pod"},
        ],
    }


def _target(names: list[str], namespace: str) -> dict[str, Json]:
    about: dict[str, Json] = {
        "pod": _text("A pod's name.", 253, _SUBDOMAIN, minLength=1),
        "uid": _text("The pod's uid, since a name may be used again.", 64, r"^[-A-Za-z0-9]+$"),
        "workload": _object(
            "All pods of a workload.",
            {
                "kind": _text(
                    "Deployment, StatefulSet, DaemonSet, Job, CronJob, …",
                    63,
                    r"^[A-Z][A-Za-z0-9]*$",
                ),
                "name": _text("Its name.", 253, _SUBDOMAIN, minLength=1),
            },
            required=["kind", "name"],
        ),
        "service": _text("All pods behind a service.", 63, _LABEL),
        "node": _text("A whole node: all that its host namespace sees.", 253, _SUBDOMAIN),
        "namespace": _text(namespace, 63, _LABEL),
    }
    kept = [*names, "uid", "namespace"]
    properties = {name: value for name, value in about.items() if name in kept}
    return _object("What to capture; exactly one of its kinds.", properties, **_one_of(names))


_CHOICES: Final[dict[str, Json]] = {
    "incident": _text(
        "The incident all parts belong to. Default: derived from this resource.",
        64,
        r"^[a-z0-9][-a-z0-9]*$",
    ),
    "t0": _text(
        "When it happened, RFC 3339 with up to nanoseconds, UTC. Default: when this was created.",
        30,
        _MOMENT,
    ),
    "before": _text("History before t0, at most 1h: 30s, 2m.", 12, _DURATION),
    "after": _text("What follows t0, at most 15m.", 12, _DURATION),
    "scope": {
        "type": "string",
        "description": "How much of each target's traffic.",
        "enum": ["flow", "peer", "pod", "node"],
    },
    "peer": _text(
        "The other end: 203.0.113.66, 203.0.113.66:4444, [2001:db8::66]:4444.", 54, _PEER
    ),
    "filter": _text("A capture filter, as tcpdump reads it.", 2048),
    "maxBytes": _count(
        "Bytes of packets in each part; the node's own limit holds as well.", 10**10, 1000
    ),
    "rule": _text("The rule that asked.", 512),
    "alert": _text("The alert's body, verbatim.", MAX_ALERT),
    "origin": _text("The node that asked.", 253),
    "requestedBy": _text("Who asked, as the asker says it: nobody checks this.", 253),
    "ttl": _text("How long this resource stays once it is finished. Default 1d.", 12, _DURATION),
}

_PART: Final = _object(
    "What one node says of one pod.",
    {
        "node": _text("The node.", 253),
        "uid": _text("The pod's uid; `host` for the node itself.", 64),
        "target": _text("namespace/pod.", 320),
        "incident": _text("The incident on that node.", 64),
        "state": {"type": "string", "enum": [stage.value for stage in Stage]},
        "reason": _text("Why, in a word.", 64),
        "message": _text("Why, in a sentence.", MAX_MESSAGE),
        "word": _text("Completeness: complete, truncated, expired, interrupted.", 16),
        "packets": _count("Packets sealed."),
        "bytes": _count("Bytes of packets sealed."),
        "sha256": _text("Of the part's manifest.", 64, r"^([0-9a-f]{64})?$"),
        "location": _text("Where the operator's settings put it.", MAX_MESSAGE),
        "frozen": _text("When the history was frozen.", 40),
        "at": _text("When this was so.", 40),
    },
    required=["node", "uid", "state"],
)

_CONDITION: Final = _object(
    "As kubectl wait knows them.",
    {
        "type": _text("Accepted, Frozen or Complete.", 64, minLength=1),
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "reason": _text("Why, in a word.", 64),
        "message": _text("Why, in a sentence.", MAX_MESSAGE),
        "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 40},
    },
    required=["type", "status", "reason", "lastTransitionTime"],
)

STATUS: Final = _object(
    "What came of it; written by the nodes.",
    {
        "phase": {"type": "string", "enum": [phase.value for phase in Phase]},
        "target": _text("What was asked for, in words.", MAX_MESSAGE),
        "progress": _text("Parts sealed, and how many there are to be.", 16),
        "packets": _count("Packets of all parts."),
        "finished": _text("When the phase became final; the ttl counts from here.", 40),
        "expected": {
            "type": "array",
            "maxItems": MAX_PARTS,
            "x-kubernetes-list-type": "atomic",
            "description": "Who should take part, as far as the API knows pods.",
            "items": _object(
                "A pod on a node.",
                {"node": _text("The node.", 253), "uid": _text("The pod's uid.", 64)},
                required=["node", "uid"],
            ),
        },
        "parts": {
            "type": "array",
            "maxItems": MAX_PARTS,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["node", "uid"],
            "items": _PART,
        },
        "conditions": {
            "type": "array",
            "maxItems": 8,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": _CONDITION,
        },
    },
)

_FIXED: Final[dict[str, Json]] = {
    "x-kubernetes-validations": [
        {"rule": "self == oldSelf", "message": "a request is never changed: make another one"}
    ]
}

SPECS: Final[Mapping[str, dict[str, Json]]] = {
    CAPTURE: _object(
        "What to capture. Where it goes is the operator's choice, never the asker's.",
        {
            "target": _target(
                [each.value for each in Aimed if each is not Aimed.NODE],
                "This resource's own namespace; any other is refused.",
            ),
            **_CHOICES,
        },
        required=["target"],
        **_FIXED,
    ),
    CLUSTER_CAPTURE: _object(
        "What to capture. Where it goes is the operator's choice, never the asker's.",
        {
            "targets": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_AIMS,
                "items": _target(
                    [each.value for each in Aimed],
                    "Where the pod, workload or service is.",
                ),
            },
            **_CHOICES,
        },
        required=["targets"],
        **_FIXED,
    ),
}


def definitions(*, cel: bool = True) -> tuple[dict[str, Json], ...]:
    """Both CustomResourceDefinitions. Without `cel` for API servers before 1.25, which do not know such rules."""
    found = tuple(_definition(kind) for kind in (CAPTURE, CLUSTER_CAPTURE))
    return found if cel else tuple(_mapping(_without_rules(each)) for each in found)


def check(schema: Schema, value: Json, where: str) -> None:
    """Raises `BadInput`, naming the field, where the API server would refuse `value`. Fields it prunes are ignored."""
    kind = schema["type"]
    if not isinstance(value, _TYPES[str(kind)]) or (kind == "integer" and isinstance(value, bool)):
        raise BadInput(f"must be of type {kind}", where=where)
    for problem in _problems(schema, value):
        raise BadInput(problem, where=where)
    if isinstance(value, dict):
        for name, inner in _mapping(schema.get("properties", {})).items():
            if name in value:
                check(_mapping(inner), value[name], f"{where}.{name}")
    elif isinstance(value, list):
        for at, each in enumerate(value):
            check(_mapping(schema["items"]), each, f"{where}[{at}]")


_TYPES: Final[Mapping[str, type]] = {"object": dict, "array": list, "string": str, "integer": int}


def _problems(schema: Schema, value: Json) -> Iterator[str]:
    if isinstance(value, dict):
        for name in _list(schema.get("required", [])):
            if name not in value:
                yield f"{name} is missing"
        kinds = [
            str(_list(_mapping(each)["required"])[0]) for each in _list(schema.get("oneOf", []))
        ]
        if kinds and sum(name in value for name in kinds) != 1:
            yield f"name exactly one of {', '.join(kinds)}"
    elif isinstance(value, list):
        if not _int(schema, "minItems", 0) <= len(value) <= _int(schema, "maxItems", 0):
            yield f"{len(value)} items; {schema.get('minItems', 0)} to {schema['maxItems']} may be"
    elif isinstance(value, str):
        if "enum" in schema and value not in _list(schema["enum"]):
            yield f"{value[:40]!r} is none of {', '.join(map(str, _list(schema['enum'])))}"
        if "enum" not in schema and len(value) > _int(schema, "maxLength", 0):
            yield f"{len(value)} characters; at most {schema['maxLength']} may be"
        if len(value) < _int(schema, "minLength", 0):
            yield "is empty"
        if "pattern" in schema and _compiled(str(schema["pattern"])).fullmatch(value) is None:
            yield f"{value[:60]!r} is not written as it should be"
    elif isinstance(value, int) and not schema["minimum"] <= value <= schema["maximum"]:  # type: ignore[operator]  # numbers of ours
        yield f"{value}; {schema['minimum']} to {schema['maximum']} may be"


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


def _int(schema: Schema, name: str, default: int) -> int:
    found = schema.get(name, default)
    return found if isinstance(found, int) else default


def _mapping(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _definition(kind: str) -> dict[str, Json]:
    plural, scoped = PLURALS[kind], kind == CAPTURE
    columns: list[Json] = [
        _column("Phase", ".status.phase"),
        _column("Target", ".status.target"),
        _column("Parts", ".status.progress"),
        _column("Packets", ".status.packets", "integer"),
        _column("Age", ".metadata.creationTimestamp", "date"),
        _column("Incident", ".spec.incident", priority=1),
        _column("Why", '.status.conditions[?(@.type=="Accepted")].message', priority=1),
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "tripshark"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if scoped else "Cluster",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "categories": ["tripshark"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": "Packets from before now, of "
                            + ("pods of this namespace." if scoped else "nodes and any pods."),
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": SPECS[kind],
                                "status": STATUS,
                            },
                        }
                    },
                }
            ],
        },
    }


def _column(name: str, path: str, type: str = "string", priority: int = 0) -> dict[str, Json]:
    column: dict[str, Json] = {"name": name, "type": type, "jsonPath": path}
    return column | ({"priority": priority} if priority else {})


def _without_rules(value: Json) -> Json:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k != "x-kubernetes-validations"}
        return {name: _without_rules(each) for name, each in kept.items()}
    return [_without_rules(each) for each in value] if isinstance(value, list) else value
