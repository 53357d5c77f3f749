"""Captures beyond this node: what it asks of others, and what Capture resources ask of it.

The API server is the way between nodes. Every node watches all resources and decides from local facts whether it is
concerned; from the watch's event to the frozen history there is no round trip. What a program must bring along is
`LocalSide` (what this node does, see `captures_care`) and `Asks` (where its own asks wait, see `captures_asks`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Never

import msgspec

from tripshark.cluster.api import KubeApi
from tripshark.cluster.captures_asks import Asks, FolderAsks, Outbox
from tripshark.cluster.captures_care import Admission, Care, LocalSide, Ways
from tripshark.cluster.mirror import Mirror
from tripshark.cluster.problems import Conflict
from tripshark.errors import BadInput, NotFound, TripsharkError
from tripshark.formats.capture_resource import Resource, collection, read
from tripshark.formats.capture_schema import CAPTURE, CLUSTER_CAPTURE
from tripshark.model.fleet import FleetRequest, Phase
from tripshark.ports import Clock

__all__ = ["Asks", "Captures", "FolderAsks", "LocalSide", "Ways"]

log = logging.getLogger(__name__)

_LANES: Final = 2  # requests to the API server at once, for the resources of one namespace
_MOST_DELETED: Final = 50  # of one sweep
_MINUTE_NS: Final = 60 * 10**9


class Captures:
    """Implements `ports.Fleet`, and is the controller of both kinds of resources on this node.

    `ask` works from the start; everything else happens in `run`, which never ends by itself.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        node: str,
        clock: Clock,
        local: LocalSide,
        asks: Asks,
        ways: Ways | None = None,
    ) -> None:
        self._api = api
        self._node = node
        self._clock = clock
        self._local = local
        self._ways = ways or Ways()
        self.outbox = Outbox(api, asks, clock)
        self._admission = _Admission(clock, self._ways, self._busy)
        self._cares: dict[str, Care] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup
        self.deleted = 0
        self.mirrors = tuple(
            Mirror(
                api,
                collection(kind),
                decode=_decode,
                on_change=self._on_change,
                denied_s=self._ways.denied_s,
            )
            for kind in (CAPTURE, CLUSTER_CAPTURE)
        )

    async def ask(self, request: FleetRequest) -> str:
        """Ask every node concerned, durably; the resource's name. The same ask again is the same resource.

        Raises `BadInput` for what no resource can say, `Transient` when it cannot be made durable.
        """
        return await self.outbox.ask(request)

    async def run(self) -> Never:
        """Watch, capture, report, sum up, tidy up, and send what was asked."""
        async with asyncio.TaskGroup() as self._tasks:
            for mirror in self.mirrors:
                self._tasks.create_task(mirror.run())
            self._tasks.create_task(self.outbox.run())
            await self._sweep()

    @property
    def refused(self) -> int:
        """Requests of others that came more often than this node takes them up."""
        return self._admission.refused

    def state(self) -> Mapping[str, object]:
        """For those who watch us."""
        return {
            "followed": [mirror.state() for mirror in self.mirrors],
            "at_work": sum(care.busy for care in self._cares.values()),
            "watched": len(self._running),
            "refused_for_rate": self._admission.refused,
            "asks_waiting": self.outbox.waiting,
            "asks_sent": self.outbox.sent,
            "asks_dropped": self.outbox.dropped,
            "asks_refused": self.outbox.refused,
            "asks_problem": self.outbox.problem,
            "deleted": self.deleted,
        }

    # ------------------------------------------------------------------------- what is watched

    def _on_change(self, old: Resource | None, new: Resource | None) -> None:
        """Called by the mirrors as soon as an event is read; what must happen at once begins here."""
        if new is None:
            if old is not None:
                self._forget(old.uid)
            return
        care = self._cares.get(new.uid)
        if care is None:
            if new.phase is not None and new.phase.final and not self._mends(new):
                return
            care = self._cares[new.uid] = Care(
                new,
                seen_ns=self._since(new),
                api=self._api,
                node=self._node,
                clock=self._clock,
                local=self._local,
                ways=self._ways,
                admission=self._admission,
            )
        else:
            care.update(new)
        self._run(new.uid, care)

    def _run(self, uid: str, care: Care) -> None:
        if uid in self._running:
            return
        task = self._tasks.create_task(care.run(), name=f"capture {care.resource.title}")
        self._running[uid] = task
        task.add_done_callback(lambda _: self._ended(uid, care))

    def _ended(self, uid: str, care: Care) -> None:
        """What changed while it was ending must not be missed."""
        task = self._running.pop(uid, None)
        if task is not None and not task.cancelled() and task.exception() is None and care.stirred:
            self._run(uid, care)

    def _mends(self, resource: Resource) -> bool:
        """Whether this node still has something to say about what is finished already."""
        own = [part for part in resource.parts if part.node == self._node]
        if any(not part.stage.final for part in own):
            return True
        young = self._clock.now_ns() - resource.created_ns <= self._ways.reach_ns
        return young and not own and resource.phase in (Phase.FAILED, Phase.PARTIAL)

    def _since(self, resource: Resource) -> int:
        """When it was made, by our clock: what was there when we came has the server's word, the rest came just now."""
        now_ns = self._clock.now_ns()
        if any(
            mirror.synced for mirror in self.mirrors if mirror.path == collection(resource.kind)
        ):
            return now_ns
        return min(resource.created_ns, now_ns) if resource.created_ns else now_ns

    def _forget(self, uid: str) -> None:
        """It was deleted: its captures end by their own budget, nobody is told any more."""
        self._cares.pop(uid, None)
        task = self._running.pop(uid, None)
        if task is not None:
            task.cancel()

    def _busy(self, namespace: str) -> int:
        return sum(
            care.busy for care in self._cares.values() if _whose(care.resource) == namespace
        )

    # ------------------------------------------------------------------------- tidying up

    async def _sweep(self) -> Never:
        """Delete what was finished longer ago than its ttl; whoever comes first."""
        while True:
            await asyncio.sleep(self._ways.sweep_s)
            now_ns = self._clock.now_ns()
            over = [
                each
                for mirror in self.mirrors
                for each in mirror.items.values()
                if each.finished_ns and not each.deleting and self._is_over(each, now_ns)
            ]
            for each in over[:_MOST_DELETED]:
                try:
                    await self._api.delete(each.path, uid=each.uid)
                    self.deleted += 1
                except (NotFound, Conflict):  # another node was first
                    continue
                except TripsharkError as problem:
                    log.warning("%s cannot be deleted: %s", each.title, problem)
                    break
            for uid in [uid for uid, care in self._cares.items() if self._is_done(uid, care)]:
                del self._cares[uid]

    def _is_over(self, resource: Resource, now_ns: int) -> bool:
        """Every node waits a little longer than the first: else all delete the same at once."""
        told = hashlib.blake2b(f"{resource.uid} {self._node}".encode(), digest_size=1).digest()
        spread_ns = int(told[0] / 255 * 2 * self._ways.sweep_s * 1e9)
        return now_ns - resource.finished_ns > resource.ttl_ns + spread_ns

    def _is_done(self, uid: str, care: Care) -> bool:
        phase = care.resource.phase
        return uid not in self._running and phase is not None and phase.final


class _Admission(Admission):
    """Whoever may create Captures in a namespace must not be able to exhaust this node."""

    def __init__(self, clock: Clock, ways: Ways, busy: Callable[[str], int]) -> None:
        self._clock = clock
        self._ways = ways
        self._busy = busy
        self._begun: dict[str, deque[int]] = {}
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self.refused = 0

    def admit(self, resource: Resource) -> str:
        namespace = _whose(resource)
        now_ns = self._clock.now_ns()
        whose = f"{'namespace' if resource.namespace else 'ClusterCaptures for'} {namespace}"
        begun = self._begun.setdefault(namespace, deque())
        while begun and now_ns - begun[0] > _MINUTE_NS:
            begun.popleft()
        why = ""
        if self._busy(namespace) >= self._ways.at_once:
            why = f"{self._ways.at_once} captures of {whose} are under way on this node already"
        elif len(begun) >= self._ways.per_minute:
            why = f"{self._ways.per_minute} captures of {whose} were begun here within a minute"
        if why:
            self.refused += 1
        else:
            begun.append(now_ns)
        return why

    def lane(self, namespace: str) -> asyncio.Semaphore:
        return self._lanes.setdefault(namespace, asyncio.Semaphore(_LANES))


def _whose(resource: Resource) -> str:
    """Whose share of this node a resource uses up: so a flood about one namespace leaves others theirs."""
    if resource.namespace or resource.request is None:
        return resource.namespace
    spaces = {aim.namespace or f"node {aim.name}" for aim in resource.request.aims}
    return f"{', '.join(sorted(spaces))} of the cluster"


_OBJECT = msgspec.json.Decoder(dict)


def _decode(body: bytes) -> Resource:
    """What the mirror keeps. Of what is finished the alert is not needed any more."""
    try:
        told = _OBJECT.decode(body)
    except (msgspec.MsgspecError, RecursionError) as problem:
        raise BadInput(f"not JSON: {problem}") from problem
    resource = read(told)
    if resource.request is not None and resource.phase in (Phase.COMPLETE, Phase.REFUSED):
        return replace(resource, request=replace(resource.request, alert=""))
    return resource
