"""What this node does of what Capture resources ask, and how far it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tripshark.cluster.metadata import Metadata
from tripshark.errors import NotFound, Refused, Transient
from tripshark.formats.capture_resource import HOST_UID
from tripshark.model.evidence import IncidentId
from tripshark.model.fleet import Aim, Aimed, FleetRequest, PartKey, PartReport, Stage
from tripshark.model.incident import Incident, State
from tripshark.model.pod import PodFacts
from tripshark.model.target import Target, TargetKey, TargetKind
from tripshark.respond.orders import VIA, Order
from tripshark.respond.wishes import Wishes
from tripshark.settings import Settings
from tripshark.store.catalogue import SqlCatalogue
from tripshark.targets.local import LocalTargets

MAX_BEGUN = 4096  # parts whose incident is remembered

_STAGES = {
    State.OPEN: Stage.CAPTURING,
    State.SEALING: Stage.CAPTURING,
    State.SEALED: Stage.SEALED,
    State.EMPTY: Stage.EMPTY,
    State.REMOVED: Stage.SEALED,
    State.FAILED: Stage.FAILED,
}


class Local:
    """Implements `captures_care.LocalSide`: this node's part in what Capture resources ask."""

    def __init__(
        self,
        *,
        node: str,
        targets: LocalTargets,
        metadata: Metadata,
        catalogue: SqlCatalogue,
        wishes: Wishes,
        caught_up: Callable[[], bool],
        location: Callable[[Incident], str],
    ) -> None:
        """`caught_up`: what the journal held when we started has been worked off; `location` of sealed evidence."""
        self._node = node
        self._targets = targets
        self._metadata = metadata
        self._catalogue = catalogue
        self._wishes = wishes
        self._caught_up = caught_up
        self._location = location
        self._news = asyncio.Event()
        self._begun: dict[str, IncidentId] = {}  # as our own rows tell, never as a resource does

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
        if not self._caught_up():
            raise Transient("what was asked earlier is still being worked off", after=0.3)
        known = await self._known(id)
        if known is None:
            await self._wishes.order(order, _via(id, order))
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
        its = self._begun.get(id)
        if its is None:  # a look through all rows: not at each incident's end
            row = await self._catalogue.by_via(_tail(id))
            if row is None:
                return None
            if row.refusal is not None:
                raise Refused(row.refusal.message, hint=row.refusal.hint)
            its = IncidentId(row.incident or "")
        incident = await self._catalogue.incident(its)
        if incident is None:
            return None
        if len(self._begun) >= MAX_BEGUN:
            self._begun.clear()
        self._begun[id] = its
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
