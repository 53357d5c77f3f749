"""What the analyst is told of an incident: made the same way when it is sealed and when it is read again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tripshark.model.incident import Incident
from tripshark.model.question import MAX_QUESTION_ALERTS, AlertLine, Question
from tripshark.ports import AlertRow

_API = "default/svc/kubernetes"
"""The service by which every pod knows the Kubernetes API."""


def question(
    incident: Incident,
    rows: Iterable[AlertRow],
    *,
    addresses: Sequence[str],
    names: Mapping[str, str],
    others: int,
    node: str,
) -> Question:
    """`addresses` are the target's own, `names` those of the file, `others` the further pods in it, `node` the
    machine's name: addresses of that name are the node's.
    """
    alerts = [row.accepted.alert for row in rows]
    return Question(
        t0_ns=incident.t0_ns,
        target=incident.title,
        addresses=tuple(dict.fromkeys(addresses)),
        connections=tuple(each.connection for each in alerts if each.connection is not None),
        names=dict(names),
        manifest_sha256=incident.manifest_sha256,
        others=others,
        alerts=tuple(
            AlertLine(
                rule=each.rule,
                priority=each.priority.title,
                time_ns=each.time_ns,
                tags=each.tags,
            )
            for each in alerts[:MAX_QUESTION_ALERTS]
        ),
        node_addresses=tuple(
            address for address, name in names.items() if node and name in (node, f"node/{node}")
        ),
        api_server=tuple(address for address, name in names.items() if name == _API),
    )
