"""What runtimes say, made fit to be passed on: bounded texts, times in nanoseconds, pods by dockershim's names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tripshark.errors import BadInput

OURS = "tripshark.dev/"
_MAX_VALUE = 1024  # of an annotation: deployments carry whole documents in them
_MAX_ALL = 16_384
_MAX_WORD = 512
_ID = re.compile(r"[0-9a-f]{8,64}")
_DIGEST = re.compile(r"[a-z0-9+._-]{1,32}:[0-9a-f]{32,128}")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")
_POD = ("io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid")


@dataclass(frozen=True, slots=True)
class PodName:
    """Who a sandbox is, in Kubernetes' words."""

    namespace: str = ""
    pod: str = ""
    uid: str = ""


def container_id(text: str) -> str:
    """A container's or sandbox's id, or its first digits. Raises `BadInput`."""
    plain = text.rpartition("://")[2].strip().lower()
    if not _ID.fullmatch(plain):
        raise BadInput("no container id", hint="8 to 64 hex digits, as Falco's container.id")
    return plain


def word(text: object) -> str:
    """A name, a path or an image: one line of bounded length."""
    return text[:_MAX_WORD] if isinstance(text, str) else ""


def digest(reference: str) -> str:
    """`sha256:…` out of `sha256:…` or `name@sha256:…`; "" when there is none."""
    last = reference.rpartition("@")[2]
    return last if _DIGEST.fullmatch(last) else ""


def bounded(pairs: Mapping[str, str]) -> dict[str, str]:
    """Labels or annotations without the giants among them; ours are kept before all others."""
    left = _MAX_ALL
    kept: dict[str, str] = {}
    for name in sorted(pairs, key=lambda each: (not each.startswith(OURS), each)):
        size = len(name) + len(pairs[name])
        if len(pairs[name]) <= _MAX_VALUE and size <= left:
            kept[name] = pairs[name]
            left -= size
    return kept


def pod_of(labels: Mapping[str, str]) -> PodName:
    """By the labels that a kubelet puts on everything it starts."""
    name, namespace, uid = (word(labels.get(each, "")) for each in _POD)
    return PodName(namespace=namespace, pod=name, uid=uid)


def own(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that the pod's author gave it."""
    return {
        name: value
        for name, value in labels.items()
        if name not in _POD and not name.startswith("io.kubernetes.container.")
    }


def dockershim(name: str) -> tuple[str, PodName] | None:
    """`k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`: the container's name (`POD`: the sandbox itself) and its pod."""
    parts = name.lstrip("/").split("_")
    if len(parts) < 6 or parts[0] != "k8s":
        return None
    container, pod, namespace, uid = (word(each) for each in parts[1:5])
    return container, PodName(namespace=namespace, pod=pod, uid=uid)


def time_ns(text: object) -> int:
    """An RFC 3339 time as nanoseconds; 0 for none, and for year 1, which is how Go writes none."""
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return 0
    zone = "+00:00" if found[3] == "Z" else found[3]
    try:
        at = datetime.fromisoformat(found[1] + zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return 0
    seconds = int(at.timestamp()) if at.year > 1970 else 0
    return seconds and seconds * 1_000_000_000 + int((found[2] or "").ljust(9, "0"))


def load(data: bytes | str) -> Any:  # noqa: ANN401 — JSON has no better name in Python
    """A runtime's JSON. Raises `BadInput`."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise BadInput("a runtime's answer that is no JSON") from problem


def inside(value: object, *path: str) -> Any:  # noqa: ANN401 — as above
    """A value in an object in an object …; None where one of them is missing or is no object."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def number(value: object) -> int:
    """A count or a pid; 0 for anything else."""
    return value if type(value) is int and 0 < value < 1 << 62 else 0
