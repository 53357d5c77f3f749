"""What a node does with the Kubernetes API, screwed together: names and owners, and its part in Captures."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Never

import structlog

from tripshark.cluster import login
from tripshark.cluster.access import Access
from tripshark.cluster.api import KubeApi
from tripshark.cluster.captures import Captures
from tripshark.cluster.captures_asks import FolderAsks
from tripshark.cluster.events import Events
from tripshark.cluster.metadata import Metadata, note_in
from tripshark.errors import BadInput, Permanent, TripsharkError
from tripshark.model.addresses import AddressBook
from tripshark.model.incident import Incident, State
from tripshark.model.pod import PodFacts
from tripshark.model.target import Identity, TargetKey
from tripshark.ports import Clock
from tripshark.programs.local_side import Local, location_of
from tripshark.respond.manual import RULE
from tripshark.respond.wishes import Wishes
from tripshark.settings import Settings
from tripshark.store.catalogue import SqlCatalogue
from tripshark.targets.local import LocalTargets

log = structlog.get_logger("tripshark.cluster")

MAX_ENDED = 256  # incidents that wait to be told


def api_of(settings: Settings) -> KubeApi | None:
    """The API server that the settings mean; None where there is none. Raises `BadInput`, `NotFound`."""
    given = settings.kubernetes
    if given.enabled == "off":
        return None
    if given.kubeconfig is not None:
        return KubeApi(login.kubeconfig(given.kubeconfig))
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if host:
        return KubeApi(login.in_cluster(host, port))
    if given.enabled == "on":
        raise BadInput(
            "there is no cluster to be found",
            where="kubernetes.enabled",
            hint="run in a pod with a service account, or set kubernetes.kubeconfig",
        )
    return None


def access_of(settings: Settings, api: KubeApi | None) -> Access | None:
    """Who decides what readers may see, where Kubernetes is to decide. Raises `Permanent` where it cannot be asked."""
    if not settings.kubernetes.access:
        return None
    if api is None:
        raise Permanent(
            "kubernetes.access is on, and there is no cluster to ask",
            where="kubernetes.access",
            hint="run in a pod with a service account, or set kubernetes.kubeconfig",
        )
    return Access(api, audiences=settings.kubernetes.audiences)


@dataclass(slots=True)
class Cluster:
    """A node's side of the Kubernetes API. `captures` is there once the responder is."""

    api: KubeApi
    metadata: Metadata
    stirred: asyncio.Event = field(default_factory=asyncio.Event)  # pods of this node changed
    captures: Captures | None = None
    local: Local | None = None
    events: Events | None = None
    who: Callable[[TargetKey], Awaitable[Identity | None]] | None = (
        None  # whom an incident is about
    )
    ended: asyncio.Queue[Incident] = field(default_factory=lambda: asyncio.Queue(MAX_ENDED))

    @classmethod
    def of(cls, api: KubeApi, clock: Clock, book: AddressBook, *, node: str) -> Cluster:
        stirred = asyncio.Event()
        metadata = Metadata(
            api, clock, node=node, on_holder=note_in(book), on_pods=lambda: stirred.set()
        )
        return cls(api=api, metadata=metadata, stirred=stirred)

    @property
    def is_heard(self) -> bool:
        """Every mirror is complete and the last word of the API server is not old."""
        mirrors = self.metadata.state()["mirrors"]
        states = list(mirrors.values()) if isinstance(mirrors, dict) else []
        return bool(states) and all(each["synced"] and not each["problem"] for each in states)

    def problems(self) -> tuple[str, ...]:
        """Why owners and names of other nodes' pods may be old, or captures of other nodes late; () when all is well."""
        said: dict[str, None] = {}
        mirrors = self.metadata.state()["mirrors"]
        for each in mirrors.values() if isinstance(mirrors, dict) else ():
            if each["problem"]:
                said[str(each["problem"])] = None
        if self.captures is not None and self.captures.outbox.problem:
            said[str(self.captures.outbox.problem)] = None
        return tuple(f"the Kubernetes API is not followed: {each}" for each in said)

    def told(self, incident: Incident) -> None:
        """An incident ended."""
        if self.local is not None:
            self.local.stir()
        if self.events is not None and incident.pod and not self.ended.full():
            self.ended.put_nowait(
                incident
            )  # telling is a courtesy: of a storm the rest goes untold

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.metadata.run())
            if self.captures is not None:
                tasks.create_task(self.captures.run())
            if self.events is not None:
                tasks.create_task(self._tell(self.events))

    async def _tell(self, events: Events) -> Never:
        """Each incident as an event of its pod, where `kubectl describe pod` shows it."""
        while True:
            incident = await self.ended.get()
            with contextlib.suppress(TripsharkError):
                identity = await self.who(incident.target) if self.who is not None else None
                if identity is None or not identity.uid:
                    continue
                pod = PodFacts(
                    namespace=identity.namespace,
                    name=identity.pod,
                    uid=identity.uid,
                    node=identity.node,
                )
                asked_for = incident.falco_rule == RULE and incident.state is not State.FAILED
                await events.tell(pod, *_event_of(incident), warning=not asked_for)


def _event_of(incident: Incident) -> tuple[str, str]:
    """Reason and message of an incident's event."""
    by_hand = incident.falco_rule == RULE
    about = RULE if by_hand else f"Falco: {incident.falco_rule} ({incident.priority})"
    if incident.state is State.FAILED:
        return "PacketsLost", f"{about}; no evidence could be written: {incident.problem}"
    sealed = f"{incident.packets} packets are sealed as incident {incident.id}"
    return "PacketsCaptured", f"{about}; {sealed} ({incident.word.value})"


def events_of(cluster: Cluster, settings: Settings, *, clock: Clock, node: str) -> Events | None:
    """What tells of incidents in the cluster, where that is wanted."""
    return Events(cluster.api, clock, node=node) if settings.kubernetes.events else None


def take_part(
    cluster: Cluster,
    settings: Settings,
    *,
    node: str,
    clock: Clock,
    targets: LocalTargets,
    catalogue: SqlCatalogue,
    wishes: Wishes,
    caught_up: Callable[[], bool],
) -> None:
    """From now on this node asks others, and does what they and people ask of it."""
    folder = settings.data / "asks"
    folder.mkdir(exist_ok=True)
    cluster.local = Local(
        node=node,
        targets=targets,
        metadata=cluster.metadata,
        catalogue=catalogue,
        wishes=wishes,
        caught_up=caught_up,
        location=location_of(settings, node),
    )
    cluster.captures = Captures(
        cluster.api, node=node, clock=clock, local=cluster.local, asks=FolderAsks(folder)
    )
