"""Who lives in which network namespace now, and who did a while ago, from everything the runtimes told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from tripshark.errors import BadInput
from tripshark.model.pod import Container, Sandbox

MAX_GONE = 4096
_ENDED = 16  # containers of a living sandbox that its runtime has forgotten already

Grave = tuple[
    str, int
]  # id and inode: a plain container that is started again has a new namespace


class Book:
    """`edition` grows with every change; it begins at a time, so that a reader notices another book as well."""

    def __init__(self, *, tombstone_ns: int, now: Callable[[], int]) -> None:
        self.edition = now()
        self.forgotten = 0  # dead ones dropped before their time, for want of room
        self._tombstone_ns = tombstone_ns
        self._now = now
        self._living: dict[str, dict[str, Sandbox]] = {}  # by source, by id
        self._gone: dict[Grave, Sandbox] = {}
        self._kubelets: set[str] = set()  # sources through which a kubelet starts pods
        self._changed = asyncio.Event()

    def tells_pods(self, source: str) -> None:
        """A CRI is here, and so from now on nobody else says which pod a sandbox is.

        With a Docker beside it whoever starts a container gives it the name and labels of any pod.
        """
        if source in self._kubelets:
            return
        first = not self._kubelets
        self._kubelets.add(source)
        if first:
            for other, known in self._living.items():
                if other != source:
                    self._living[other] = {id: _unnamed(each) for id, each in known.items()}
            self._gone = {grave: _unnamed(each) for grave, each in self._gone.items()}
            self._stir()

    def take(self, source: str, sandboxes: Sequence[Sandbox]) -> bool:
        """All that one runtime lists now. True when something is different from before."""
        now = self._now()
        before = self._living.get(source, {})
        living: dict[str, Sandbox] = {}
        changed = self._expire(now)
        is_pods = not self._kubelets or source in self._kubelets
        for each in sandboxes if is_pods else map(_unnamed, sandboxes):
            old = before.get(each.id)
            if not each.gone_ns:
                if old is not None and old.inode and each.inode and old.inode != each.inode:
                    changed |= self._bury(old, now)
                    old = None
                fuller = _with_ended(each, old, now, self._tombstone_ns)
                living[each.id] = fuller
                changed |= fuller != old
                for inode in (each.inode, 0):  # taken for dead, it was not
                    changed |= self._gone.pop((each.id, inode), None) is not None
            elif each.gone_ns > now - self._tombstone_ns:
                full = _with_ended(each, old, each.gone_ns, self._tombstone_ns)
                changed |= self._bury(full, each.gone_ns)
        for id, old in before.items():
            if id not in living:
                changed |= self._bury(old, now)
        self._living[source] = living
        if changed:
            self._stir()
        return changed

    def put(self, source: str, sandbox: Sandbox) -> None:
        """One that was asked for by itself."""
        all_of_it = dict(self._living.get(source, {})) | {sandbox.id: sandbox}
        self.take(source, tuple(all_of_it.values()))

    def keep(self, source: str, lives: Callable[[Sandbox], bool]) -> None:
        """Its runtime is away: its pods go on without it, those that do not are buried."""
        known = self._living.get(source, {})
        self.take(source, [each for each in known.values() if lives(each)])

    def sandboxes(self) -> tuple[Sandbox, ...]:
        """The living, then the dead of the last while."""
        if self._expire(self._now()):
            self._stir()
        living: dict[str, Sandbox] = {}
        for known in self._living.values():
            for id, each in known.items():
                living[id] = _merged(living[id], each) if id in living else each
        gone = [
            each
            for (id, inode), each in self._gone.items()
            if id not in living or living[id].inode != inode
        ]
        return (*living.values(), *gone)

    def find(self, id: str) -> Sandbox | None:
        """By the first digits of its id or of a container's; the living before the dead. Raises `BadInput` for doubt."""
        for alive in (True, False):
            found = {
                each.id: each
                for each in self.sandboxes()
                if (each.gone_ns == 0) is alive
                and (each.id.startswith(id) or any(c.id.startswith(id) for c in each.containers))
            }
            if len(found) > 1:
                raise BadInput(f"{len(found)} containers begin with {id}", hint="give more of it")
            if found:
                return next(iter(found.values()))
        return None

    def counts(self) -> tuple[int, int]:
        """How many live, how many are remembered."""
        all_of_them = self.sandboxes()
        gone = sum(1 for each in all_of_them if each.gone_ns)
        return len(all_of_them) - gone, gone

    async def wait(self, edition: int, seconds: float) -> None:
        """Until there is another edition, or for so long."""
        try:
            async with asyncio.timeout(seconds):
                while self.edition == edition:
                    await self._changed.wait()
        except TimeoutError:
            return

    def _bury(self, sandbox: Sandbox, at_ns: int) -> bool:
        grave = (sandbox.id, sandbox.inode)
        known = self._gone.get(grave)
        if (
            known is None and sandbox.inode == 0
        ):  # a dead one heard of again, now without its namespace
            known = next((each for each in self._gone.values() if each.id == sandbox.id), None)
        if known is not None:
            if known.uid or not sandbox.uid:
                return False
            grave = (known.id, known.inode)  # who knows the pod names the dead as well
            sandbox = replace(sandbox, inode=known.inode)
        ended = tuple(
            each if each.ended_ns else replace(each, pid=0, ended_ns=at_ns)
            for each in sandbox.containers
        )
        self._gone[grave] = replace(sandbox, gone_ns=at_ns, pid=0, containers=ended)
        while len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]
            self.forgotten += 1
        return True

    def _expire(self, now: int) -> bool:
        old = [
            grave for grave, each in self._gone.items() if each.gone_ns <= now - self._tombstone_ns
        ]
        for grave in old:
            del self._gone[grave]
        return bool(old)

    def _stir(self) -> None:
        self.edition += 1
        self._changed.set()
        self._changed = asyncio.Event()


def _with_ended(sandbox: Sandbox, before: Sandbox | None, now: int, keep_ns: int) -> Sandbox:
    """With the containers that its runtime has removed lately: alerts about them may still come."""
    if before is None:
        return sandbox
    listed = {each.id for each in sandbox.containers}
    ended = [
        each if each.ended_ns else replace(each, pid=0, ended_ns=now)
        for each in before.containers
        if each.id not in listed
    ]
    kept = [each for each in ended if each.ended_ns > now - keep_ns][-_ENDED:]
    return replace(sandbox, containers=(*kept, *sandbox.containers)) if kept else sandbox


def _unnamed(sandbox: Sandbox) -> Sandbox:
    """A container as what it certainly is."""
    if not (sandbox.namespace or sandbox.uid or sandbox.annotations):
        return sandbox
    name = f"{sandbox.runtime}-{sandbox.id[:12]}"
    return replace(sandbox, namespace="", pod=name, uid="", annotations={})


def _merged(one: Sandbox, other: Sandbox) -> Sandbox:
    """The same sandbox told by two runtimes (a CRI in front of Docker): who knows the pod names it, both add facts."""
    if other.uid and not one.uid:
        one, other = other, one
    containers: dict[str, Container] = {each.id: each for each in other.containers}
    for each in one.containers:
        also = containers.get(each.id)
        containers[each.id] = replace(each, pid=also.pid) if also and not each.pid else each
    return replace(
        one,
        pid=one.pid or other.pid,
        netns=one.netns or other.netns,
        inode=one.inode or other.inode,
        host_network=one.host_network or other.host_network,
        addresses=one.addresses or other.addresses,
        containers=tuple(sorted(containers.values(), key=lambda each: each.started_ns)),
    )
