"""What a node does with the Kubernetes API, screwed together: names and owners, and its part in Captures."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never

import structlog

from tripshark.cluster import login
from tripshark.cluster.access import Access
from tripshark.cluster.api import KubeApi
from tripshark.cluster.captures import Captures
from tripshark.cluster.captures_asks import FolderAsks
from tripshark.cluster.events import Events
from tripshark.cluster.metadata import Metadata, note_in
from tripshark.errors import BadInput, NotFound, Permanent, Refused, Transient, TripsharkError
from tripshark.model.addresses import AddressBook
from tripshark.model.evidence import IncidentId
from tripshark.model.fleet import Aim, Aimed, FleetRequest, PartKey, PartReport, Stage
from tripshark.model.incident import Incident, State
from tripshark.model.pod import PodFacts
from tripshark.model.target import Identity, Target, TargetKey, TargetKind
from tripshark.ports import Clock
from tripshark.respond.manual import RULE
from tripshark.respond.orders import VIA, Order
from tripshark.respond.runner import Runner
from tripshark.settings import Settings
from tripshark.store.catalogue import SqlCatalogue
from tripshark.targets.local import LocalTargets

log = structlog.get_logger("tripshark.cluster")

MAX_ENDED = 256  # incidents that wait to be told
HOST_UID = "host"  # under which a node reports itself

_STAGES = {
    State.OPEN: Stage.CAPTURING,
    State.SEALING: Stage.CAPTURING,
    State.SEALED: Stage.SEALED,
    State.EMPTY: Stage.EMPTY,
    State.REMOVED: Stage.SEALED,
    State.FAILED: Stage.FAILED,
}


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
    return Access(api)


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


class Local:
    """Implements `captures_care.LocalSide`: this node's part in what Capture resources ask."""

    def __init__(
        self,
        *,
        node: str,
        targets: LocalTargets,
        metadata: Metadata,
        catalogue: SqlCatalogue,
        caught_up: Callable[[], bool],
        location: Callable[[Incident], str],
    ) -> None:
        """`caught_up`: what the journal held when we started has been worked off; `location` of sealed evidence."""
        self._node = node
        self._targets = targets
        self._metadata = metadata
        self.runner: Runner | None = None  # once there is one
        self._catalogue = catalogue
        self._caught_up = caught_up
        self._location = location
        self._news = asyncio.Event()

    def stir(self) -> None:
        """Something may have got further."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    # ------------------------------------------------------------------------------- who is meant

    async def targets_of(self, request: FleetRequest) -> tuple[Target, ...]:
        known = (*await self._targets.all(), *await self._targets.guests())
        found: dict[TargetKey, Target] = {}
        for aim in request.aims:
            for each in known:
                if self._means(aim, each) and _lived(each, aim, request):
                    found.setdefault(each.key, each)
        return tuple(found.values())

    def _means(self, aim: Aim, target: Target) -> bool:
        identity = target.identity
        if aim.kind is Aimed.NODE:
            return aim.name == self._node and target.kind is TargetKind.HOST
        if identity.namespace != aim.namespace:
            return False
        if aim.kind is Aimed.POD:
            return identity.pod == aim.name and aim.uid in ("", identity.uid)
        if aim.kind is Aimed.WORKLOAD:
            return identity.owner == f"{aim.workload}/{aim.name}"
        service = self._metadata.service(aim.namespace, aim.name)
        if service is None:
            return False
        chosen = bool(service.selector) and all(
            identity.labels.get(name) == value for name, value in service.selector.items()
        )
        return chosen or bool(set(service.backends) & set(target.addresses))

    async def expected(self, request: FleetRequest) -> tuple[PartKey, ...]:
        found: dict[PartKey, None] = {}
        for aim in request.aims:
            if aim.kind is Aimed.NODE:
                found[PartKey(node=aim.name, uid=HOST_UID)] = None
                continue
            for pod in await self._pods(aim):
                if pod.node and aim.uid in ("", pod.uid):
                    uid = HOST_UID if pod.host_network else pod.uid
                    found[PartKey(node=pod.node, uid=uid)] = None
        return tuple(found)

    async def _pods(self, aim: Aim) -> Iterable[PodFacts]:
        if aim.kind is Aimed.POD:
            pod = await self._metadata.lookup_pod(aim.namespace, aim.name)
            return () if pod is None else (pod,)
        kind = "Service" if aim.kind is Aimed.SERVICE else aim.workload
        return await self._metadata.pods_of(kind, aim.namespace, aim.name)

    # ------------------------------------------------------------------------------- captures

    async def start(self, id: str, order: Order) -> PartReport:
        if self.runner is None or not self._caught_up():
            raise Transient("what was asked earlier is still being worked off", after=0.3)
        known = await self._known(id)
        if known is None:
            await self.runner.order(order, _via(id, order))
            known = await self._known(id)
        if known is None:
            raise Transient("the part was begun and is not in the catalogue yet", after=1)
        return known

    async def changed(self, id: str, known: PartReport) -> PartReport:
        while True:
            news = self._news
            report = await self._known(id)
            if report is None:
                raise NotFound("this part was never begun here", where=id)
            if (report.stage, report.incident) != (known.stage, known.incident):
                return report
            await news.wait()

    async def _known(self, id: str) -> PartReport | None:
        """How far it is. Raises `Refused` with the reason when it was refused."""
        row = await self._catalogue.by_via(_tail(id))
        if row is None:
            return None
        if row.refusal is not None:
            raise Refused(row.refusal.message, hint=row.refusal.hint)
        incident = await self._catalogue.incident(IncidentId(row.incident or ""))
        if incident is None:
            return None
        uid = id.rpartition("/")[2]
        return self._report(incident, await asyncio.to_thread(_share, incident, uid))

    def _report(self, incident: Incident, share: _Share) -> PartReport:
        stage = _STAGES[incident.state]
        return PartReport(
            node="",
            uid="",
            incident=incident.id,
            stage=stage,
            message=incident.problem,
            word=incident.word.value if stage.good else "",
            packets=share.packets,
            bytes=share.bytes,
            sha256=incident.manifest_sha256,
            location=self._location(incident) if stage.good else "",
            frozen_ns=incident.opened_ns,
        )


def _lived(target: Target, aim: Aim, request: FleetRequest) -> bool:
    """Of a workload or a service those who were there within the window; whoever names a pod means it as it is."""
    if aim.kind in (Aimed.POD, Aimed.NODE) or target.alive or request.before_ns is None:
        return True
    return target.gone_ns >= request.t0_ns - request.before_ns


@dataclass(frozen=True, slots=True)
class _Share:
    packets: int
    bytes: int


def _share(incident: Incident, uid: str) -> _Share:
    """What one pod gave to an incident: all of it, where it is alone. Reads a file."""
    whole = _Share(incident.packets, incident.bytes)
    if not incident.folder:
        return whole
    try:
        told = json.loads(Path(incident.folder, "manifest.json").read_text(encoding="utf-8"))
        captures = told["details"]["what"]["captures"]
    except (OSError, ValueError, KeyError, TypeError):  # it was removed since
        return whole
    if len(captures) < 2:
        return whole
    own = [each for each in captures if uid in (each["who"]["uid"], each["who"]["target"])]
    return _Share(sum(each["packets"] for each in own), sum(each["bytes"] for each in own))


def _tail(id: str) -> str:
    """What ends the `via` of this order's journal record: whoever makes resources does not choose it."""
    return f"#{hashlib.sha256(id.encode()).hexdigest()[:24]}"


def _via(id: str, order: Order) -> str:
    return f"{VIA}{order.resource}{_tail(id)}"


def location_of(settings: Settings, node: str) -> Callable[[Incident], str]:
    """Where a node's sealed evidence is to be found, as people are told: by the operator's settings alone."""

    def location(incident: Incident) -> str:
        if settings.store.url:
            folder = Path(incident.folder)
            day = "/".join(folder.parts[-4:-1])
            return f"{settings.store.url.rstrip('/')}/evidence/{day}/{incident.id}/{node}"
        return f"{node}:{incident.folder}"

    return location


def events_of(cluster: Cluster, settings: Settings, *, clock: Clock, node: str) -> Events | None:
    """What tells of incidents in the cluster, where that is wanted."""
    return Events(cluster.api, clock, node=node) if settings.kubernetes.events else None


def captures_of(
    cluster: Cluster, settings: Settings, *, clock: Clock, local: Local, node: str
) -> Captures:
    """What asks other nodes, and does what they and people ask of this one."""
    folder = settings.data / "asks"
    folder.mkdir(exist_ok=True)
    return Captures(cluster.api, node=node, clock=clock, local=local, asks=FolderAsks(folder))
