"""What is asked of others to know who lives where: the recorder, a runtime's scout, the cluster, the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from tripshark.model.addresses import Holder
from tripshark.model.pod import PodFacts, Sandbox, ServiceFacts
from tripshark.model.recording import Recording
from tripshark.model.target import Identity, Target, TargetKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """One line of the configuration's static map: who lives in which namespace."""

    netns: str = ""
    pid: int | None = None
    identity: Identity = field(default_factory=Identity)


class Namespaces(Protocol):
    """What is asked of the recorder here."""

    async def targets(self) -> tuple[Target, ...]:
        """Everything recorded now, and tombstones; identities are empty."""

    async def inode_of(self, pid: int) -> int | None:
        """The network namespace's inode of a host pid, None when there is no such process."""

    async def attach(self, pid: int) -> TargetKey:
        """Record the namespace of a host process from now on. Raises `NotFound`, or `Transient` with the reason."""


@runtime_checkable
class Assignable(Protocol):
    """A recorder that can be told how much of whom to record."""

    async def record(self, assign: Mapping[TargetKey, Recording]) -> None:
        """From now on record these so. Raises `Transient`."""


class Runtime(Protocol):
    """What is asked of the scout. Every method raises `Transient` when it is away."""

    async def sandboxes(self) -> tuple[Sandbox, ...]:
        """Everybody who lives here, and who lately did."""

    async def find(self, container_id: str) -> Sandbox | None:
        """Asks the runtimes afresh: whose container or sandbox this is; 12 digits suffice."""


class Cluster(Protocol):
    """What is asked of the Kubernetes API's mirror. What is not async answers from memory."""

    def pods(self) -> Sequence[PodFacts]:
        """Of this node."""

    def pod(self, namespace: str, name: str) -> PodFacts | None: ...

    def pod_by_uid(self, uid: str) -> PodFacts | None: ...

    def pod_by_container(self, id: str) -> PodFacts | None: ...

    async def lookup_pod(self, namespace: str, name: str) -> PodFacts | None:
        """On whichever node."""

    async def lookup_container(self, id: str, node: str) -> PodFacts | None:
        """Whose container this is, among a node's pods."""

    async def pods_of(self, kind: str, namespace: str, name: str) -> tuple[PodFacts, ...]:
        """Of a workload or a service, on whichever nodes."""

    def services_at(self, address: str) -> Sequence[ServiceFacts]:
        """Services with this address for themselves."""

    async def backends_of(self, address: str) -> tuple[str, ...]:
        """Addresses behind the services at this address."""

    async def owner_of_address(self, address: str) -> Holder | None:
        """Who holds it now."""
