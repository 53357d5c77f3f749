"""Tells of incidents where `kubectl describe pod` shows them: as events of the pod.

Telling is a courtesy: it never fails whoever tells, and a storm of alerts does not become a storm of events.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tripshark.cluster.answers import Object
from tripshark.cluster.api import KubeApi
from tripshark.errors import NotFound, TripsharkError
from tripshark.model.pod import PodFacts
from tripshark.ports import Clock

log = logging.getLogger(__name__)

MAX_MESSAGE = 1024  # characters; the API server takes no more
MAX_KEPT = 1024  # events that are counted on rather than told again
_COMPONENT = "tripshark"
_POD_BURST, _POD_EVERY_S = 10, 30.0
_ALL_BURST, _ALL_EVERY_S = 50, 0.5


@dataclass(slots=True)
class _Told:
    """An event that is there already."""

    name: str
    count: int


class _Bucket:
    """So many at once, then one every so many seconds."""

    def __init__(self, burst: int, every_s: float) -> None:
        self._burst, self._every_s = burst, every_s
        self._free = float(burst)
        self._at = 0.0

    def take(self, now: float) -> bool:
        self._free = min(self._burst, self._free + (now - self._at) / self._every_s)
        self._at = now
        if self._free < 1:
            return False
        self._free -= 1
        return True


class Events:
    """Writes events of pods. The same words again raise the count of the one that is there."""

    def __init__(self, api: KubeApi, clock: Clock, *, node: str) -> None:
        self.told = 0
        self.suppressed = 0  # by the rate
        self.failed = 0
        self.problem = ""
        self._api = api
        self._clock = clock
        self._node = node
        self._kept: OrderedDict[tuple[str, str, str], _Told] = OrderedDict()
        self._pods: OrderedDict[str, _Bucket] = OrderedDict()
        self._all = _Bucket(_ALL_BURST, _ALL_EVERY_S)
        self._lock = asyncio.Lock()

    async def tell(
        self, pod: PodFacts, reason: str, message: str, *, warning: bool = False
    ) -> bool:
        """Whether it was told. `reason` is one word in CamelCase, `message` a sentence; raises nothing of ours."""
        words = "".join(each if each.isprintable() else " " for each in message)
        if len(words) > MAX_MESSAGE:
            words = f"{words[: MAX_MESSAGE - 1]}…"
        key = (pod.uid, reason, words)
        async with self._lock:
            if not self._may(pod.uid):
                self.suppressed += 1
                return False
            try:
                await self._tell(pod, key, warning=warning)
            except TripsharkError as problem:
                self.failed += 1
                if self.problem != (said := str(problem)):
                    self.problem = said
                    log.warning("no event could be told: %s", problem)
                return False
            self.told += 1
            self.problem = ""
            return True

    def state(self) -> Mapping[str, object]:
        """For those who watch us."""
        return {
            "told": self.told,
            "suppressed": self.suppressed,
            "failed": self.failed,
            "problem": self.problem,
        }

    def _may(self, uid: str) -> bool:
        now = asyncio.get_running_loop().time()
        bucket = self._pods.setdefault(uid, _Bucket(_POD_BURST, _POD_EVERY_S))
        self._pods.move_to_end(uid)
        while len(self._pods) > MAX_KEPT:
            self._pods.popitem(last=False)
        return bucket.take(now) and self._all.take(now)

    async def _tell(self, pod: PodFacts, key: tuple[str, str, str], *, warning: bool) -> None:
        now_ns = self._clock.now_ns()
        now = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        base = f"/api/v1/namespaces/{pod.namespace}/events"
        there = self._kept.get(key)
        if there is not None:
            try:
                more: Object = {"count": there.count + 1, "lastTimestamp": now}
                await self._api.patch(f"{base}/{there.name}", more)
            except NotFound:  # they live for an hour
                del self._kept[key]
            else:
                there.count += 1
                self._kept.move_to_end(key)
                return
        _, reason, words = key
        made = _Told(f"{pod.name[:200].rstrip('.-')}.{now_ns:x}", 1)
        body: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": made.name, "namespace": pod.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": pod.namespace,
                "name": pod.name,
                "uid": pod.uid,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": words,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": _COMPONENT, "host": self._node},
            "reportingComponent": _COMPONENT,
            "reportingInstance": self._node,
        }
        await self._api.create(base, body)
        self._kept[key] = made
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
