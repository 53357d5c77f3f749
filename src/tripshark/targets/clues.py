"""What an alert says of who it is about: ids, names and the node, in the many words that Falco has for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tripshark.model.alert import Alert, Json, missing

DIGITS = 12  # of a container's id: what Falco prints, and enough to tell containers apart
_ID = re.compile(r"[0-9a-f]{12,64}")
_UID = re.compile(r"[0-9A-Za-z-]{8,64}")
_DOCKERSHIM = re.compile(
    r"/?k8s_(?P<container>[^_]+)_(?P<pod>[^_]+)_(?P<namespace>[^_]+)_(?P<uid>[0-9A-Za-z-]+)_[0-9]+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clues:
    """Strongest first, as the alert says them; "" and () for what it does not."""

    containers: tuple[tuple[str, str], ...] = ()  # (id of 12 or more digits, the field's name)
    uid: str = ""
    namespace: str = ""
    pod: str = ""
    pod_by: str = ""  # the field that names it
    node: str = ""  # as Kubernetes calls it: said outright


def clues(alert: Alert) -> Clues:
    """Everything that names a pod; nothing of it is believed before somebody known fits it."""
    fields = alert.fields
    ids: dict[str, str] = {}
    if alert.container_id:
        ids[alert.container_id] = "container.id"
    for key in ("container.full_id", "k8s.pod.full_sandbox_id", "k8s.pod.sandbox_id"):
        value = _text(fields, key)
        if _ID.fullmatch(value):
            ids.setdefault(value, key)
    uid = _text(fields, "k8s.pod.uid") or _text(fields, "k8s.pod.id")
    namespace, pod, pod_by = alert.namespace or "", alert.pod or "", "k8s.pod.name"
    if pod and alert.source == "k8s_audit":
        pod_by = "the audit event's pod"
    if not pod or not uid:
        shim = _DOCKERSHIM.fullmatch(_text(fields, "container.name"))
        if shim and pod in ("", shim["pod"]) and namespace in ("", shim["namespace"]):
            if not pod:
                pod, namespace, pod_by = shim["pod"], shim["namespace"], "container.name"
            uid = uid or shim["uid"]
    return Clues(
        containers=tuple(ids.items()),
        uid=uid if _UID.fullmatch(uid) else "",
        namespace=namespace,
        pod=pod,
        pod_by=pod_by,
        node=_text(fields, "k8s.node.name") or _text(fields, "k8smeta.node.name"),
    )


def _text(fields: Mapping[str, Json], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) and not missing(value) else ""
