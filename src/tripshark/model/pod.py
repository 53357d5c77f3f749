"""What is known of pods and containers, by the runtime that runs them and by the Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container as its runtime knows it."""

    id: str  # in full, without "containerd://"
    name: str = ""
    image: str = ""  # as the pod asks for it
    digest: str = ""  # "sha256:…", of the image that really runs
    pid: int = 0  # of its first process, as the host numbers it; 0: none (yet, or any more)
    started_ns: int = 0
    ended_ns: int = 0  # 0 while it runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A pod sandbox (or a plain container with a network of its own) as its runtime knows it.

    One network namespace belongs to it, unless it lives in the host's.
    """

    id: str  # of the sandbox, in full
    runtime: str  # "containerd", "cri-o", "docker", "podman"
    namespace: str = ""
    pod: str = ""  # a plain container's name where no Kubernetes is
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[Container, ...] = ()
    pid: int = 0  # of a process in its network namespace; 0: none known
    netns: str = ""  # path of its namespace's file, where there is one
    inode: int = 0  # of its network namespace; 0: not known (yet)
    host_network: bool = False
    addresses: tuple[str, ...] = ()
    created_ns: int = 0
    gone_ns: int = 0  # 0 while it is there; the last that was seen of it otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who made a pod, one step up: a ReplicaSet, a Job, a DaemonSet."""

    kind: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """A pod as the Kubernetes API knows it."""

    namespace: str
    name: str
    uid: str
    node: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    service_account: str = ""
    addresses: tuple[str, ...] = ()
    host_network: bool = False
    owner: Owner | None = None  # the top one: Deployment, StatefulSet, DaemonSet, CronJob
    images: tuple[str, ...] = ()  # "NAME@sha256:…" where the digest is known
    containers: tuple[str, ...] = ()  # full ids
    created_ns: int = 0
    started_ns: int = 0  # its node took it on: whatever address it has, it has since then or later
    finished: bool = False  # Succeeded or Failed: its address may belong to another by now


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """A service and who is behind it."""

    namespace: str
    name: str
    uid: str = ""
    addresses: tuple[str, ...] = ()  # ClusterIPs, external and load balancer addresses
    selector: Mapping[str, str] = field(default_factory=dict)
    backends: tuple[str, ...] = ()  # addresses of its EndpointSlices
    created_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A machine of the cluster."""

    name: str
    uid: str = ""
    addresses: tuple[str, ...] = ()
    created_ns: int = 0
