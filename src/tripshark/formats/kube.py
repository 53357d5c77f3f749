"""What objects of the Kubernetes API say, as far as we care: JSON of a pod, a service, its endpoints, a node, as facts.

Whoever may create objects chooses what is in them. What cannot be read raises `BadInput` and never anything else; what
is no address is left out; of annotations only Tripshark's own are kept, others can be a quarter of a megabyte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TypeVar

import msgspec

from tripshark.errors import BadInput
from tripshark.model.pod import NodeFacts, Owner, PodFacts, ServiceFacts

OWN_ANNOTATIONS = "tripshark.dev/"
SERVICE_LABEL = "kubernetes.io/service-name"  # of an EndpointSlice
HASH_LABEL = "pod-template-hash"
MAX_BACKENDS = 5_000  # addresses kept of one slice or Endpoints object

_T = TypeVar("_T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What every object says of itself; a watch's bookmark has nothing but a version."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """Addresses behind a service; a service may have several such lists."""

    uid: str
    namespace: str
    service: str  # "": of none
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What makes pods: which pods it counts as its own, and who made it."""

    selector: str = (
        ""  # as the API takes it: "app=web,tier in (a,b)"; "": selects nothing by itself
    )
    owner: Owner | None = None


# ------------------------------------------------------------------------------ as they are written


class _Reference(msgspec.Struct):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""  # a watch's bookmark has none
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    creation_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Reference] | None = None


class _Any(msgspec.Struct):
    metadata: _Meta


class _Container(msgspec.Struct):
    name: str = ""
    image: str | None = None


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str | None = None
    service_account_name: str | None = None
    host_network: bool | None = None
    containers: list[_Container] | None = None


class _Ip(msgspec.Struct):
    ip: str | None = None


class _Terminated(msgspec.Struct, rename={"container_id": "containerID"}):
    container_id: str | None = None


class _LastState(msgspec.Struct):
    terminated: _Terminated | None = None


class _ContainerStatus(
    msgspec.Struct,
    rename={"container_id": "containerID", "image_id": "imageID", "last_state": "lastState"},
):
    image: str | None = None
    image_id: str | None = None
    container_id: str | None = None
    last_state: _LastState | None = None


class _PodStatus(
    msgspec.Struct,
    rename={
        "pod_ip": "podIP",
        "pod_ips": "podIPs",
        "start_time": "startTime",
        "containers": "containerStatuses",
        "first": "initContainerStatuses",
        "passing": "ephemeralContainerStatuses",
    },
):
    phase: str | None = None
    pod_ip: str | None = None
    pod_ips: list[_Ip] | None = None
    start_time: str | None = None
    containers: list[_ContainerStatus] | None = None
    first: list[_ContainerStatus] | None = None
    passing: list[_ContainerStatus] | None = None


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _PodSpec
    status: _PodStatus | None = None


class _ServiceSpec(
    msgspec.Struct,
    rename={
        "cluster_ip": "clusterIP",
        "cluster_ips": "clusterIPs",
        "external_ips": "externalIPs",
    },
):
    cluster_ip: str | None = None
    cluster_ips: list[str] | None = None
    external_ips: list[str] | None = None
    selector: dict[str, str] | None = None


class _LoadBalancer(msgspec.Struct):
    ingress: list[_Ip] | None = None


class _ServiceStatus(msgspec.Struct, rename="camel"):
    load_balancer: _LoadBalancer | None = None


class _Service(msgspec.Struct):
    metadata: _Meta
    spec: _ServiceSpec
    status: _ServiceStatus | None = None


class _SliceEndpoint(msgspec.Struct):
    addresses: list[str] | None = None


class _Slice(msgspec.Struct):
    metadata: _Meta
    endpoints: list[_SliceEndpoint] | None = None


class _Subset(msgspec.Struct, rename={"waiting": "notReadyAddresses"}):
    addresses: list[_Ip] | None = None
    waiting: list[_Ip] | None = None


class _Endpoints(msgspec.Struct):
    metadata: _Meta
    subsets: list[_Subset] | None = None


class _NodeAddress(msgspec.Struct):
    type: str = ""
    address: str = ""


class _NodeStatus(msgspec.Struct):
    addresses: list[_NodeAddress] | None = None


class _Node(msgspec.Struct):
    metadata: _Meta
    status: _NodeStatus | None = None


class _Expression(msgspec.Struct):
    key: str
    operator: str
    values: list[str] | None = None


class _Selector(msgspec.Struct, rename="camel"):
    match_labels: dict[str, str] | None = None
    match_expressions: list[_Expression] | None = None


class _WorkloadSpec(msgspec.Struct):
    selector: _Selector | None = None


class _Workload(msgspec.Struct):
    metadata: _Meta
    spec: _WorkloadSpec | None = None


_ANY = msgspec.json.Decoder(_Any)
_POD = msgspec.json.Decoder(_Pod)
_SERVICE = msgspec.json.Decoder(_Service)
_SLICE = msgspec.json.Decoder(_Slice)
_ENDPOINTS = msgspec.json.Decoder(_Endpoints)
_NODE = msgspec.json.Decoder(_Node)
_WORKLOAD = msgspec.json.Decoder(_Workload)


# ------------------------------------------------------------------------------ as facts


def meta(body: bytes) -> Meta:
    """Of any object. Raises `BadInput`, as everything here."""
    found = _read(_ANY, body).metadata
    return Meta(
        name=found.name,
        namespace=found.namespace or "",
        uid=found.uid or "",
        version=found.resource_version or "",
    )


def pod(body: bytes) -> PodFacts:
    """A pod. Its owner is the next one up: a ReplicaSet, not yet the Deployment."""
    read = _read(_POD, body)
    found, spec, status = read.metadata, read.spec, read.status or _PodStatus()
    containers = [
        *(status.containers or ()),
        *(status.first or ()),
        *(status.passing or ()),
    ]
    ids = [each.container_id for each in containers] + [
        each.last_state.terminated.container_id
        for each in containers
        if each.last_state is not None and each.last_state.terminated is not None
    ]
    images = [_image(each) for each in status.containers or ()] or [
        each.image or "" for each in spec.containers or ()
    ]
    ips = [each.ip for each in status.pod_ips or ()] or [status.pod_ip]
    return PodFacts(
        namespace=found.namespace or "",
        name=found.name,
        uid=found.uid or "",
        node=spec.node_name or "",
        labels=found.labels or {},
        annotations={
            key: value
            for key, value in (found.annotations or {}).items()
            if key.startswith(OWN_ANNOTATIONS)
        },
        service_account=spec.service_account_name or "",
        addresses=_addresses(ips),
        host_network=bool(spec.host_network),
        owner=_owner(found),
        images=tuple(dict.fromkeys(each for each in images if each)),
        containers=tuple(
            dict.fromkeys(each.rpartition("/")[2] for each in ids if each is not None and each)
        ),
        created_ns=_time_ns(found.creation_timestamp),
        started_ns=_time_ns(status.start_time),
        finished=status.phase in ("Succeeded", "Failed"),
    )


def service(body: bytes) -> ServiceFacts:
    """A service, without its backends: those are objects of their own."""
    read = _read(_SERVICE, body)
    found, spec = read.metadata, read.spec
    balancer = read.status.load_balancer if read.status is not None else None
    ingress = balancer.ingress if balancer is not None else None
    return ServiceFacts(
        namespace=found.namespace or "",
        name=found.name,
        uid=found.uid or "",
        addresses=_addresses(
            [
                spec.cluster_ip,
                *(spec.cluster_ips or ()),  # "None" is no address
                *(spec.external_ips or ()),
                *(each.ip for each in ingress or ()),
            ]
        ),
        selector=spec.selector or {},
        created_ns=_time_ns(found.creation_timestamp),
    )


def endpoint_slice(body: bytes) -> Backends:
    """An EndpointSlice, v1 or v1beta1, with all of its endpoints: those not ready have connections, too."""
    read = _read(_SLICE, body)
    found = read.metadata
    addresses = [address for each in read.endpoints or () for address in each.addresses or ()]
    return Backends(
        uid=found.uid or "",
        namespace=found.namespace or "",
        service=(found.labels or {}).get(SERVICE_LABEL, ""),
        addresses=_addresses(addresses[:MAX_BACKENDS]),
    )


def endpoints(body: bytes) -> Backends:
    """An Endpoints object: what came before EndpointSlices, named as its service."""
    read = _read(_ENDPOINTS, body)
    addresses = [
        each.ip
        for subset in read.subsets or ()
        for each in (*(subset.addresses or ()), *(subset.waiting or ()))
    ]
    return Backends(
        uid=read.metadata.uid or "",
        namespace=read.metadata.namespace or "",
        service=read.metadata.name,
        addresses=_addresses(addresses[:MAX_BACKENDS]),
    )


def node(body: bytes) -> NodeFacts:
    """A machine of the cluster, with its addresses inside and outside."""
    read = _read(_NODE, body)
    listed = read.status.addresses if read.status is not None else None
    return NodeFacts(
        name=read.metadata.name,
        uid=read.metadata.uid or "",
        addresses=_addresses([each.address for each in listed or ()]),
        created_ns=_time_ns(read.metadata.creation_timestamp),
    )


def owner(body: bytes) -> Owner | None:
    """Who made an object, None when nobody says so."""
    return _owner(_read(_ANY, body).metadata)


def workload(body: bytes) -> Workload:
    """A Deployment, ReplicaSet, StatefulSet, DaemonSet or Job."""
    read = _read(_WORKLOAD, body)
    selector = read.spec.selector if read.spec is not None else None
    terms = []
    if selector is not None:
        terms = [selector_of(selector.match_labels or {})] if selector.match_labels else []
        terms += [_term(each) for each in selector.match_expressions or ()]
    return Workload(selector=",".join(terms), owner=_owner(read.metadata))


def selector_of(labels: Mapping[str, str]) -> str:
    """Labels as a selector: all of them."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def deployment_of(facts: PodFacts) -> Owner | None:
    """The Deployment behind a pod's ReplicaSet, told by the name alone; its uid is not known."""
    made_by = facts.owner
    suffix = f"-{facts.labels.get(HASH_LABEL, '')}"
    if (
        made_by is not None
        and made_by.kind == "ReplicaSet"
        and len(suffix) > 1
        and made_by.name.endswith(suffix)
    ):
        return Owner(kind="Deployment", name=made_by.name.removesuffix(suffix))
    return None


def _read(how: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        return how.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise BadInput(f"not an object as Kubernetes has them: {problem}") from problem


def _owner(found: _Meta) -> Owner | None:
    for each in found.owner_references or ():
        if each.controller:
            return Owner(kind=each.kind, name=each.name, uid=each.uid)
    return None


def _image(status: _ContainerStatus) -> str:
    """`NAME@sha256:…`; the name alone where the runtime does not know the digest."""
    name, digest = status.image or "", (status.image_id or "").rpartition("@")[2]
    digest = digest.rpartition("/")[2]  # some write docker://sha256:…
    return f"{name.partition('@')[0]}@{digest}" if digest.startswith("sha256:") else name


def _addresses(given: list[str | None] | list[str]) -> tuple[str, ...]:
    """Those that are addresses, each once, in their usual writing."""
    found: dict[str, None] = {}
    for each in given:
        if not each or len(each) > 64:
            continue
        try:
            found[str(ip_address(each))] = None
        except ValueError:
            continue
    return tuple(found)


def _time_ns(text: str | None) -> int:
    """RFC 3339 as nanoseconds; 0 for none."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        return 0
    return max(0, (moment - _EPOCH) // timedelta(microseconds=1) * 1000)


def _term(each: _Expression) -> str:
    values = ",".join(each.values or ())
    match each.operator:
        case "In":
            return f"{each.key} in ({values})"
        case "NotIn":
            return f"{each.key} notin ({values})"
        case "DoesNotExist":
            return f"!{each.key}"
        case _:
            return each.key
