"""Objects of the Kubernetes API as facts: the real ones, the old ones, and those that mean harm."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.formats import kube
from tripshark.formats.kube import Backends, Meta, Workload
from tripshark.model.pod import NodeFacts, Owner, PodFacts, ServiceFacts

DIGEST = "sha256:" + "ab" * 32
SECOND = 1_000_000_000


def body(value: object) -> bytes:
    return json.dumps(value).encode()


POD: dict[str, Any] = {
    "metadata": {
        "name": "web-7d9f-x2x",
        "namespace": "shop",
        "uid": "u1",
        "resourceVersion": "17",
        "creationTimestamp": "1970-01-01T00:00:05Z",
        "labels": {"app": "web", "pod-template-hash": "7d9f"},
        "annotations": {
            "tripshark.dev/record": "headers",
            "kubectl.kubernetes.io/last-applied": "x",
        },
        "ownerReferences": [
            {"kind": "Something", "name": "else", "uid": "o0"},
            {"kind": "ReplicaSet", "name": "web-7d9f", "uid": "o1", "controller": True},
        ],
    },
    "spec": {
        "nodeName": "n1",
        "serviceAccountName": "web",
        "containers": [{"name": "main", "image": "web:1"}],
    },
    "status": {
        "phase": "Running",
        "startTime": "1970-01-01T00:00:06Z",
        "podIP": "10.0.0.7",
        "podIPs": [{"ip": "10.0.0.7"}, {"ip": "FD00::7"}, {"ip": "nonsense"}],
        "containerStatuses": [
            {
                "image": "docker.io/library/web:1",
                "imageID": f"docker.io/library/web@{DIGEST}",
                "containerID": "containerd://" + "c1" * 32,
                "lastState": {"terminated": {"containerID": "containerd://" + "c0" * 32}},
            },
            {"image": "side:2", "imageID": "", "containerID": None, "lastState": {}},
        ],
        "initContainerStatuses": [{"containerID": "containerd://" + "c2" * 32, "lastState": None}],
    },
}


def test_a_pod_becomes_facts() -> None:
    """Names, places, times, images with digests, every container it has or had."""
    assert kube.pod(body(POD)) == PodFacts(
        namespace="shop",
        name="web-7d9f-x2x",
        uid="u1",
        node="n1",
        labels={"app": "web", "pod-template-hash": "7d9f"},
        annotations={"tripshark.dev/record": "headers"},
        service_account="web",
        addresses=("10.0.0.7", "fd00::7"),
        owner=Owner(kind="ReplicaSet", name="web-7d9f", uid="o1"),
        images=(f"docker.io/library/web:1@{DIGEST}", "side:2"),
        containers=("c1" * 32, "c2" * 32, "c0" * 32),
        created_ns=5 * SECOND,
        started_ns=6 * SECOND,
    )


def test_a_pod_that_nobody_runs_yet_has_what_it_asked_for() -> None:
    """Images of its spec, no address, no container."""
    young = {
        "metadata": {
            "name": "p",
            "labels": None,
            "ownerReferences": [{"kind": "Node", "name": "n"}],
        },
        "spec": {"containers": [{"image": "a:1"}, {"name": "b"}], "hostNetwork": True},
        "status": {"phase": "Succeeded", "podIP": "10.1.1.1"},
    }
    facts = kube.pod(body(young))
    assert facts.images == ("a:1",)
    assert facts.addresses == ("10.1.1.1",)
    assert facts.owner is None
    assert facts.host_network
    assert facts.finished
    assert kube.pod(body({"metadata": {"name": "p"}, "spec": {}})).addresses == ()


@pytest.mark.parametrize(
    ("image", "id", "said"),
    [
        ("web:1", f"docker-pullable://web@{DIGEST}", f"web:1@{DIGEST}"),
        ("web:1", f"docker://{DIGEST}", f"web:1@{DIGEST}"),
        ("web:1", DIGEST, f"web:1@{DIGEST}"),
        (f"web@{DIGEST}", f"web@{DIGEST}", f"web@{DIGEST}"),
        ("web:1", "web:1", "web:1"),
        (None, None, None),
    ],
)
def test_each_runtime_writes_digests_its_own_way(
    image: str | None, id: str | None, said: str | None
) -> None:
    """`NAME@sha256:…` from all of them, the bare name where there is none."""
    status = {"containerStatuses": [{"image": image, "imageID": id}]}
    facts = kube.pod(body({"metadata": {"name": "p"}, "spec": {}, "status": status}))
    assert facts.images == ((said,) if said else ())


def test_a_service_has_all_of_its_addresses() -> None:
    """Cluster, external and load balancer's; a headless one has none."""
    made = {
        "metadata": {
            "name": "db",
            "namespace": "shop",
            "uid": "s1",
            "creationTimestamp": "1970-01-01T00:00:01Z",
        },
        "spec": {
            "clusterIP": "10.96.0.9",
            "clusterIPs": ["10.96.0.9", "fd01::9"],
            "externalIPs": ["192.0.2.1"],
            "selector": {"app": "db"},
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"hostname": "lb"}]}},
    }
    assert kube.service(body(made)) == ServiceFacts(
        namespace="shop",
        name="db",
        uid="s1",
        addresses=("10.96.0.9", "fd01::9", "192.0.2.1", "198.51.100.1"),
        selector={"app": "db"},
        created_ns=SECOND,
    )
    headless = {"metadata": {"name": "h"}, "spec": {"clusterIP": "None"}, "status": {}}
    assert kube.service(body(headless)).addresses == ()
    assert kube.service(body({**headless, "status": None})).addresses == ()
    empty = {**headless, "status": {"loadBalancer": {}}}
    assert kube.service(body(empty)).addresses == ()


def test_backends_come_from_slices_and_from_endpoints() -> None:
    """Ready or not: those that are leaving still have connections."""
    part = {
        "metadata": {
            "name": "db-1",
            "namespace": "shop",
            "uid": "e1",
            "labels": {kube.SERVICE_LABEL: "db"},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": False}},
            {"addresses": None},
            {"addresses": ["10.0.0.2", "db.example"]},
        ],
    }
    expected = Backends(
        uid="e1", namespace="shop", service="db", addresses=("10.0.0.1", "10.0.0.2")
    )
    assert kube.endpoint_slice(body(part)) == expected
    assert kube.endpoint_slice(body({"metadata": {"name": "x"}, "endpoints": None})) == Backends(
        uid="", namespace="", service=""
    )
    old = {
        "metadata": {"name": "db", "namespace": "shop", "uid": "e1"},
        "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}]},
            {"addresses": None},
        ],
    }
    assert kube.endpoints(body(old)) == expected
    assert kube.endpoints(body({"metadata": {"name": "db"}})).addresses == ()


def test_one_object_cannot_fill_the_memory() -> None:
    """Of a list of endpoints no more than MAX_BACKENDS count."""
    many = [{"addresses": [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"]} for n in range(6000)]
    found = kube.endpoint_slice(body({"metadata": {"name": "x"}, "endpoints": many}))
    assert len(found.addresses) == kube.MAX_BACKENDS


def test_a_node_has_addresses() -> None:
    """Inside and outside; its name is none."""
    made = {
        "metadata": {"name": "n1", "uid": "m1", "creationTimestamp": None},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.7"},
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "x" * 100},
            ]
        },
    }
    assert kube.node(body(made)) == NodeFacts(name="n1", uid="m1", addresses=("192.0.2.7",))
    assert kube.node(body({"metadata": {"name": "n1"}})).addresses == ()


def test_a_workload_says_which_pods_are_its_own() -> None:
    """As a selector that the API takes back."""
    made = {
        "metadata": {
            "name": "web",
            "ownerReferences": [{"kind": "CronJob", "name": "c", "uid": "u", "controller": True}],
        },
        "spec": {
            "selector": {
                "matchLabels": {"app": "web", "tier": "a"},
                "matchExpressions": [
                    {"key": "k", "operator": "In", "values": ["a", "b"]},
                    {"key": "l", "operator": "NotIn", "values": ["c"]},
                    {"key": "m", "operator": "Exists"},
                    {"key": "n", "operator": "DoesNotExist"},
                ],
            }
        },
    }
    assert kube.workload(body(made)) == Workload(
        selector="app=web,tier=a,k in (a,b),l notin (c),m,!n",
        owner=Owner(kind="CronJob", name="c", uid="u"),
    )
    assert kube.workload(body({"metadata": {}, "spec": {}})) == Workload()
    assert kube.workload(body({"metadata": {}})) == Workload()
    assert kube.workload(body({"metadata": {}, "spec": {"selector": {}}})) == Workload()
    assert kube.owner(body(made)) == Owner(kind="CronJob", name="c", uid="u")
    assert str(kube.owner(body(made))) == "CronJob/c"


def test_a_deployment_can_be_told_by_its_replica_sets_name() -> None:
    """Where the pod's hash is the name's end, and nowhere else."""
    facts = kube.pod(body(POD))
    assert kube.deployment_of(facts) == Owner(kind="Deployment", name="web")
    for labels, owner in (
        ({}, {"kind": "ReplicaSet", "name": "web-7d9f", "controller": True}),
        ({"pod-template-hash": "7d9f"}, {"kind": "ReplicaSet", "name": "web", "controller": True}),
        ({"pod-template-hash": "7d9f"}, {"kind": "Job", "name": "x-7d9f", "controller": True}),
        ({"pod-template-hash": "7d9f"}, {"kind": "ReplicaSet", "name": "web-7d9f"}),
    ):
        other = {
            "metadata": {"name": "p", "labels": labels, "ownerReferences": [owner]},
            "spec": {},
        }
        assert kube.deployment_of(kube.pod(body(other))) is None


def test_what_every_object_says_of_itself() -> None:
    """A bookmark has a version and nothing else."""
    assert kube.meta(body(POD)) == Meta(
        name="web-7d9f-x2x", namespace="shop", uid="u1", version="17"
    )
    bookmark = {"kind": "Pod", "metadata": {"resourceVersion": "9", "creationTimestamp": None}}
    assert kube.meta(body(bookmark)) == Meta(version="9")


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-01T00:00:00", "1950-01-01T00:00:00Z"])
def test_a_time_that_is_none_is_zero(text: str) -> None:
    """Times come from the server, but never end a decoding."""
    made = {"metadata": {"name": "p", "creationTimestamp": text}, "spec": {}}
    assert kube.pod(body(made)).created_ns == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip

DECODERS = [
    kube.pod,
    kube.service,
    kube.endpoint_slice,
    kube.endpoints,
    kube.node,
    kube.meta,
    kube.owner,
    kube.workload,
]


@given(st.binary(max_size=200), st.sampled_from(DECODERS))
def test_any_bytes_are_facts_or_bad_input(data: bytes, decoder: Any) -> None:
    """Nothing else is ever raised."""
    with contextlib.suppress(BadInput):
        decoder(data)


@given(st.data(), st.sampled_from(DECODERS))
def test_any_value_in_any_place_is_facts_or_bad_input(data: st.DataObject, decoder: Any) -> None:
    """A pod in which one thing, anywhere, is of another kind."""
    made = json.loads(json.dumps(POD))
    at: Any = made
    for _ in range(data.draw(st.integers(0, 5))):
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key]:
            break
        at = at[key]
    keys = list(at) if isinstance(at, dict) else list(range(len(at)))
    at[data.draw(st.sampled_from(keys))] = data.draw(json_values)
    with contextlib.suppress(BadInput):
        decoder(body(made))


def test_depth_is_no_weapon() -> None:
    """A hundred thousand brackets in a field nobody reads."""
    for decoder in DECODERS:
        with pytest.raises(BadInput):
            decoder(b'{"metadata":{"name":"x","managedFields":' + b"[" * 100_000)
