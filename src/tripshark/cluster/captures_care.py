"""The life of one Capture on this node: who is concerned here, captured once, reported, and summed up by somebody."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from tripshark.cluster.api import KubeApi
from tripshark.cluster.problems import Conflict
from tripshark.errors import (
    BadInput,
    Denied,
    NotFound,
    Refused,
    TooMany,
    Transient,
    TripsharkError,
)
from tripshark.formats.capture_resource import (
    HOST_UID,
    Resource,
    incident_of,
    part_status,
    read,
    status_patch,
    whole_status,
)
from tripshark.model.fleet import (
    MAX_AFTER_NS,
    Condition,
    FleetRequest,
    PartKey,
    PartReport,
    Patience,
    Phase,
    Stage,
    Whole,
)
from tripshark.model.target import Target, TargetKind
from tripshark.ports import Clock
from tripshark.respond.orders import Order

log = logging.getLogger(__name__)

MAX_LOCAL: Final = 16  # parts of one request on one node
SUMMARY: Final = "tripshark"  # the field manager of phase and conditions, shared by all nodes


class LocalSide(Protocol):
    """What this node does for a request. Implemented where the parts are screwed together."""

    async def targets_of(self, request: FleetRequest) -> tuple[Target, ...]:
        """Targets of this node that are meant, alive or lately dead, from local facts only: no round trip to the API.

        Raises `Transient` when they cannot be known now.
        """

    async def expected(self, request: FleetRequest) -> tuple[PartKey, ...]:
        """Who should take part anywhere, as far as the API knows. May be slow. Raises `Transient`."""

    async def start(self, id: str, order: Order) -> PartReport:
        """Freeze and begin, durably; the very same `id` again, also after a restart, starts nothing and tells how far it is.

        `node` and `uid` of the answer are filled in by the caller. Raises `Refused`, `NotFound`, `BadInput`
        (a filter that libpcap does not take), `Transient`.
        """

    async def changed(self, id: str, known: PartReport) -> PartReport:
        """Waits until the part is further than `known`. Raises `NotFound` for an id that was never started here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How patient and how generous this node is."""

    patience: Patience = field(default_factory=Patience)
    reach_ns: int = 900 * 10**9  # a request older than this finds no history any more
    at_once: int = 4  # requests of one namespace that this node works on
    per_minute: int = 12  # that it begins
    turn_s: float = 2.0  # until the next in line sums up in the place of a silent one
    sweep_s: float = 30.0
    denied_s: float = (
        10.0  # between tries of what we may not: a server that has just come back denies at first
    )


class Admission(Protocol):
    """Whether this node takes up one more request of a namespace."""

    def admit(self, resource: Resource) -> str:
        """ "" and it counts from now on; else why not."""

    def lane(self, namespace: str) -> asyncio.Semaphore:
        """Who floods the API server with requests waits behind himself."""


class Care:
    """One resource, from the moment it is seen until nothing about it will change by us."""

    def __init__(
        self,
        resource: Resource,
        *,
        seen_ns: int,
        api: KubeApi,
        node: str,
        clock: Clock,
        local: LocalSide,
        ways: Ways,
        admission: Admission,
    ) -> None:
        self.resource = resource
        self.parts: dict[str, PartReport] = {}  # of this node, by uid
        self.busy = False  # this node's own captures are under way
        self._since_ns = seen_ns  # by our clock, which the server's need not agree with
        self._api = api
        self._node = node
        self._clock = clock
        self._local = local
        self._ways = ways
        self._admission = admission
        self._begun = False
        self._changed = asyncio.Event()
        self._told: dict[str, PartReport] = {}  # as the API server has them
        self._differs_s: float | None = None
        self._said = ""

    # ------------------------------------------------------------------------------- life

    def update(self, resource: Resource) -> None:
        """The resource changed; what was asked never does."""
        request, problem = self.resource.request, self.resource.problem
        self.resource = replace(resource, request=request, problem=problem)
        self._changed.set()

    @property
    def stirred(self) -> bool:
        """Whether something changed since it was last looked at."""
        return self._changed.is_set()

    async def run(self) -> None:
        """Until all is said and done here; runs again when it is called again."""
        try:
            async with asyncio.TaskGroup() as tasks:
                if not self._begun:
                    self._begun = True
                    await self._begin(tasks)
                await self._report()
        finally:
            self.busy = False

    async def _begin(self, tasks: asyncio.TaskGroup) -> None:
        resource, request = self.resource, self.resource.request
        own = {part.uid: part for part in resource.parts if part.node == self._node}
        self.parts = dict(own)
        self._told = dict(own)
        for part in own.values():
            if not part.stage.final:  # of an earlier life
                self.busy = True
                tasks.create_task(self._follow(f"{resource.uid}/{part.uid}", part))
        if request is None or resource.deleting:
            return
        if resource.phase in (Phase.COMPLETE, Phase.REFUSED):
            return
        targets = await self._concerned(request)
        fresh = [each for each in targets if _uid(each) not in own]
        if not fresh:
            return
        if self._clock.now_ns() - self._since_ns > self._ways.reach_ns:
            self._refuse(
                fresh, "TooOld", "this node was away when it was asked; the history is gone"
            )
            return
        if why := self._admission.admit(resource):
            self._refuse(fresh, "TooMany", why)
            return
        self.busy = True
        for target in fresh[:MAX_LOCAL]:
            tasks.create_task(self._part(target, request))
        self._refuse(
            fresh[MAX_LOCAL:], "TooMany", f"more than {MAX_LOCAL} pods of one request on one node"
        )

    async def _concerned(self, request: FleetRequest) -> list[Target]:
        """This node's targets that the request may mean. Whoever implements the look-up is not trusted with the rule
        that a namespaced request reaches its own namespace alone."""
        for pause in (0.1, 0.3, 1.0, 3.0, 10.0, None):
            try:
                found = await self._local.targets_of(request)
            except Transient as problem:
                if pause is None:
                    log.warning("%s: %s", self.resource.title, problem)
                    return []
                await asyncio.sleep(pause)
            else:
                break
        after_ns = MAX_AFTER_NS if request.after_ns is None else request.after_ns
        found = tuple(each for each in found if each.since_ns <= request.t0_ns + after_ns)
        if not self.resource.namespace:
            return list(found)
        own = [t for t in found if t.identity.namespace == self.resource.namespace]
        hosts = [t for t in own if t.kind is TargetKind.HOST]
        self._refuse(
            hosts,
            "HostNetwork",
            "its pod uses the node's own network, which is everybody's: ask with a ClusterCapture",
        )
        return [t for t in own if t.kind is not TargetKind.HOST]

    # ------------------------------------------------------------------------------- parts

    async def _part(self, target: Target, request: FleetRequest) -> None:
        """Start one part, whatever it takes, and tell of it until it is final."""
        id = f"{self.resource.uid}/{_uid(target)}"
        request = replace(request, incident=incident_of(self.resource))
        order = Order(request=request, resource=self.resource.title, target=target.key)
        pause = 0.1
        while True:
            try:
                report = await self._local.start(id, order)
            except Transient as problem:
                late = self._clock.now_ns() - self._since_ns > self._ways.reach_ns
                if late or isinstance(problem, TooMany):
                    self._end(target, Stage.FAILED, "Unavailable", problem)
                    return
                await asyncio.sleep(problem.after or pause)
                pause = min(2 * pause, 5.0)
            except (Refused, NotFound, Denied) as problem:
                self._end(target, Stage.REFUSED, "Refused", problem)
                return
            except TripsharkError as problem:
                self._end(target, Stage.FAILED, "Failed", problem)
                return
            else:
                report = replace(report, uid=_uid(target), target=report.target or target.title)
                await self._follow(id, self._note(report))
                return

    async def _follow(self, id: str, known: PartReport) -> None:
        while not known.stage.final:
            try:
                report = await self._local.changed(id, known)
            except Transient:
                await asyncio.sleep(1.0)
            except TripsharkError as problem:
                self._note(
                    replace(
                        known, stage=Stage.FAILED, reason="Lost", message=problem.message, at_ns=0
                    )
                )
                return
            else:
                known = self._note(
                    replace(report, uid=known.uid, target=report.target or known.target)
                )

    def _note(self, report: PartReport) -> PartReport:
        at_ns = report.at_ns or self._clock.now_ns()
        report = replace(report, node=self._node, at_ns=at_ns)
        self.parts[report.uid] = report
        self._changed.set()
        return report

    def _end(self, target: Target, stage: Stage, reason: str, problem: TripsharkError) -> None:
        words = f"{problem.message}: {problem.hint}" if problem.hint else problem.message
        self._note(
            PartReport(
                node=self._node,
                uid=_uid(target),
                target=target.title,
                stage=stage,
                reason=reason,
                message=words,
            )
        )

    def _refuse(self, targets: Sequence[Target], reason: str, why: str) -> None:
        for target in targets:
            self._end(target, Stage.REFUSED, reason, Refused(why))

    # ------------------------------------------------------------------------------- status

    async def _report(self) -> None:
        """Bring parts and summary to the API server, until nothing will change by us."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            wait = self._until_next()
            try:
                async with self._admission.lane(self.resource.namespace):
                    await self._tell_parts()
                    turn = await self._sum_up(loop.time())
            except NotFound:  # it was deleted, or there never was a status to write
                turn, self._told = None, dict(self.parts)
                if self._settled():
                    return
            except Conflict:
                turn = 0.2
            except Transient as problem:
                turn = max(1.0, problem.after or 0.0)
            except TripsharkError as problem:
                if str(problem) != self._said:  # once, however often it is tried
                    self._said = str(problem)
                    log.warning("status of %s not written: %s", self.resource.title, problem)
                turn = self._ways.denied_s
            else:
                if turn is None and self._settled() and wait is None:
                    return
            waits = [each for each in (wait, turn) if each is not None]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(waits, default=None))

    def _settled(self) -> bool:
        return all(part.stage.final for part in self.parts.values()) and self._told == self.parts

    async def _tell_parts(self) -> None:
        """Server-side apply of what this node alone owns: no two nodes ever collide."""
        if not self.parts or self._told == self.parts:
            return
        now = dict(self.parts)
        body = status_patch(self.resource, part_status(now[uid] for uid in sorted(now)))
        manager = f"tripshark-{self._node}"[:128]
        path = f"{self.resource.path}/status"
        self._learn(await self._api.apply(path, body, manager=manager, force=True))
        self._told = now
        if all(part.stage.final for part in now.values()):
            self.busy = False

    async def _sum_up(self, now_s: float) -> float | None:
        """Write phase and conditions if they are not what they should be and it is our turn; seconds until it is."""
        whole = self._whole(self.resource.expected)
        if not self._differs(whole):
            self._differs_s = None
            return None
        if self._differs_s is None:
            self._differs_s = now_s
        left = self._differs_s + self._turn_s() - now_s
        if left > 0:
            return left
        expected = self.resource.expected
        if expected is None and whole.problem is None and whole.request.aims:
            with contextlib.suppress(Transient, Denied, NotFound):
                expected = await self._local.expected(whole.request)
            whole = self._whole(expected)
        now_ns = self._clock.now_ns()
        said = whole_status(
            self.resource,
            phase=whole.phase(now_ns),
            conditions=whole.conditions(now_ns),
            parts=whole.parts,
            expected=None if expected is None else sorted(expected, key=lambda e: (e.node, e.uid)),
            now_ns=now_ns,
        )
        body = status_patch(self.resource, said, version=self.resource.version)
        told = await self._api.apply(
            f"{self.resource.path}/status", body, manager=SUMMARY, force=True
        )
        self._differs_s = None
        self._learn(told)
        return 0.0

    def _learn(self, told: Mapping[str, Any]) -> None:
        """What the server has now, before the watch tells it."""
        with contextlib.suppress(BadInput):
            self.update(read(told))

    def _whole(self, expected: Sequence[PartKey] | None) -> Whole:
        """What is known of all parts: others' from the resource, ours from ourselves."""
        others = [part for part in self.resource.parts if part.node != self._node]
        return Whole(
            request=self.resource.request or FleetRequest(aims=(), t0_ns=0),
            since_ns=self._since_ns,
            parts=[*others, *self.parts.values()],
            expected=expected,
            problem=self.resource.problem,
            patience=self._ways.patience,
        )

    def _differs(self, whole: Whole) -> bool:
        now_ns = self._clock.now_ns()
        known = self.resource
        if known.deleting:
            return False
        told: dict[str, Condition] = {t: c for t, (c, _) in (known.conditions or {}).items()}
        if known.phase is not whole.phase(now_ns):
            return True
        good = sum(part.stage.good for part in whole.parts)
        progress = f"{good}/{len(whole.parts) + len(whole.silent())}"
        if (known.progress, known.packets) != (progress, sum(p.packets for p in whole.parts)):
            return True
        return any(told.get(each.type) != each for each in whole.conditions(now_ns))

    def _turn_s(self) -> float:
        """How long to leave it to others: those who take part come first, in an order that all agree on."""
        nodes = {part.node for part in self.resource.parts} | (
            {self._node} if self.parts else set()
        )
        if self._node in nodes:
            line = sorted(nodes, key=self._lot)
            return min(line.index(self._node), 10) * self._ways.turn_s
        chance = self._lot(self._node) / 2**32
        return (15 + 30 * chance) * self._ways.turn_s if nodes else chance * self._ways.turn_s

    def _lot(self, node: str) -> int:
        told = hashlib.blake2b(f"{self.resource.uid} {node}".encode(), digest_size=4).digest()
        return int.from_bytes(told, "big")

    def _until_next(self) -> float | None:
        """Seconds until time alone may change the phase."""
        now_ns = self._clock.now_ns()
        moment = self._whole(self.resource.expected).next_ns(now_ns)
        return None if moment is None else max(0.0, (moment - now_ns) / 1e9) + 0.01


def _uid(target: Target) -> str:
    """A pod by its own uid; what has none by the recorder's key."""
    if target.kind is TargetKind.HOST:
        return HOST_UID
    return (target.identity.uid or str(target.key))[:64]
