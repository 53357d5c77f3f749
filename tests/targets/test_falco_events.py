"""Every Falco event that we have, sent to a node full of pods."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.targets.places import (
    HERE,
    Clustered,
    Place,
    Recorded,
    Runtimes,
    S,
    facts_of,
    sandbox,
    target,
)
from tripshark.errors import BadInput
from tripshark.formats import falco
from tripshark.model.alert import Alert
from tripshark.model.pod import Container
from tripshark.model.target import TargetKind

EVENTS = Path(__file__).parents[1] / "falco-events"


def decoded() -> list[tuple[str, Alert]]:
    found = []
    for path in sorted(EVENTS.rglob("*.json")):
        try:
            found.append((path.stem, falco.decode(path.read_bytes())))
        except BadInput:
            continue
    return found


ALERTS = decoded()


def full_node() -> Place:
    """110 pods; the containers that the events name are among them, each in a pod of its own."""
    ids = sorted({each.container_id for _, each in ALERTS if each.container_id})
    pods, namespaces = [], [target("host", "192.0.2.1", inode=1)]
    named = sorted(
        {(a.namespace, a.pod) for _, a in ALERTS if a.namespace and a.pod and not a.container_id}
    )
    for number in range(max(110, len(ids) + len(named))):
        id = ids[number] if number < len(ids) else f"{number:012x}"
        namespace, pod = "crowd", f"pod-{number}"
        if len(ids) <= number < len(ids) + len(named):
            namespace, pod = named[number - len(ids)]
        made = sandbox(
            number + 0x1000,
            pod,
            inode=1000 + number,
            namespace=namespace,
            containers=(Container(id=id.ljust(64, "0"), name="main"),),
        )
        pods.append(made)
        namespaces.append(target(f"netns:{number}", f"10.244.0.{number}", inode=1000 + number))
    return Place(
        recorder=Recorded(tuple(namespaces)),
        runtime=Runtimes(tuple(pods)),
        cluster=Clustered([facts_of(each, HERE) for each in pods]),
    )


def test_there_are_events() -> None:
    """Real ones and built ones."""
    assert len(ALERTS) > 10


@pytest.mark.parametrize(("name", "said"), ALERTS, ids=[name for name, _ in ALERTS])
async def test_each_event_finds_its_pod_or_says_why_not(name: str, said: Alert) -> None:
    """By its container where it names one, by the pod's name, or the host; never anybody else."""
    there = full_node()
    answer = await there.targets.resolve(said)
    if said.container_id:
        assert answer.target
        assert any(
            each.startswith(said.container_id) for each in answer.target.identity.containers
        )
    elif said.namespace and said.pod:
        assert answer.target
        assert answer.target.title == f"{said.namespace}/{said.pod}"
    elif said.on_host:
        assert answer.target
        assert answer.target.kind is TargetKind.HOST
    else:
        assert answer.target is None
        assert answer.reason


def audit(**fields: str) -> Alert:
    body = {
        "rule": "Attach/Exec Pod",
        "priority": "Notice",
        "source": "k8s_audit",
        "time": "2026-11-23T10:00:00Z",
        "output_fields": {f"ka.{key}": value for key, value in fields.items()},
    }
    return falco.decode(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"target.resource": "pods", "target.subresource": "exec"}, "netns:p"),
        ({"target.resource": "pods", "target.subresource": "attach"}, "netns:p"),
        ({"target.resource": "pods", "target.subresource": "portforward"}, "netns:p"),
        ({"target.resource": "pods"}, "netns:p"),
        ({"target.resource": "deployments"}, None),
        ({"target.resource": "serviceaccounts"}, None),
        ({}, None),
    ],
)
async def test_an_audit_event_means_a_pod_only_if_its_resource_is_one(
    fields: dict[str, str], wanted: str | None
) -> None:
    """A deployment or an account of the same name is somebody else."""
    there = Place(
        recorder=Recorded((target("netns:p", inode=5),)),
        runtime=Runtimes((sandbox(1, "web", inode=5, created_ns=S),)),
    )

    said = audit(**{"target.name": "web", "target.namespace": "shop", **fields})
    answer = await there.targets.resolve(said)
    assert (answer.target.key if answer.target else None) == wanted
    if wanted:
        assert "the audit event's pod" in answer.reason
