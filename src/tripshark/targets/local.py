"""Which namespace an alert means on this machine: the recorder's targets joined with the configured identities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from tripshark.errors import NotFound, Transient
from tripshark.model.alert import Alert
from tripshark.model.target import Identity, Resolution, Target, TargetKey, TargetKind
from tripshark.ports import Clock

FRESH_NS = 200_000_000  # answers younger than this are used again
RETRY_NS = 50_000_000  # what is not known is asked again this soon
STALE_NS = 60_000_000_000  # what was known this long ago serves while the recorder is away
SLACK_NS = 1_000_000_000  # between an event and the moment a namespace was seen to come or go


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


class LocalTargets:
    """Implements `ports.Targets`. Containers will be a second source of identities beside `residents`."""

    def __init__(
        self, recorder: Namespaces, residents: Sequence[Resident], clock: Clock, *, node: str
    ) -> None:
        self._recorder = recorder
        self._residents = tuple(residents)
        self._clock = clock
        self._node = node
        self._known: tuple[Target, ...] = ()
        self._known_ns = 0

    async def all(self) -> tuple[Target, ...]:
        return await self._all(FRESH_NS)

    async def _all(self, age_ns: int) -> tuple[Target, ...]:
        """What is known, asked anew when older than this. A recorder that is just being restarted keeps its targets."""
        now_ns = self._clock.now_ns()
        if self._known and now_ns - self._known_ns < age_ns:
            return self._known
        try:
            found = await self._recorder.targets()
            inodes = {
                resident.pid: await self._recorder.inode_of(resident.pid)
                for resident in self._residents
                if resident.pid is not None
            }
        except Transient:
            if self._known and now_ns - self._known_ns < STALE_NS:
                return self._known
            raise
        self._known = tuple(self._named(target, inodes) for target in found)
        self._known_ns = now_ns
        return self._known

    def _named(self, target: Target, inodes: dict[int, int | None]) -> Target:
        for resident in self._residents:
            by_name = resident.netns and target.name == f"netns:{resident.netns}"
            by_pid = resident.pid is not None and (
                target.name == f"pid:{resident.pid}" or inodes.get(resident.pid) == target.inode
            )
            if by_name or by_pid:
                node = resident.identity.node or self._node
                return replace(target, identity=replace(resident.identity, node=node))
        return replace(target, identity=replace(target.identity, node=self._node))

    async def attach_residents(self) -> None:
        """Have the namespaces recorded that the static map knows only by a process of theirs."""
        for resident in self._residents:
            if resident.pid is not None:
                with suppress(NotFound):
                    await self._recorder.attach(resident.pid)

    async def _of_process(self, pid: int) -> Resolution:
        """The target of a process's namespace, recorded from now on if it was not."""
        try:
            key = await self._recorder.attach(pid)
        except (NotFound, Transient) as problem:
            return Resolution(
                target=None,
                reason=problem.message,
                hint=problem.hint or "pid:N is a process as this machine numbers it",
            )
        found = _best(await self._all(0), lambda t: t.key == key)
        return Resolution(target=found, reason=f"process {pid} lives in its namespace")

    async def resolve(self, alert: Alert) -> Resolution:
        """Strongest evidence first; what is not known at once is looked up afresh before giving up."""
        answer = await self._resolve(alert, await self._all(FRESH_NS))
        if answer.target is None:
            answer = await self._resolve(alert, await self._all(RETRY_NS))
        return answer

    async def _resolve(self, alert: Alert, known: Sequence[Target]) -> Resolution:
        tried: list[str] = []
        if alert.container_id:
            wanted = alert.container_id
            found = _best(
                known,
                lambda t: any(_same_container(each, wanted) for each in t.identity.containers),
                alert.time_ns,
            )
            if found:
                return Resolution(target=found, reason=f"container.id is {wanted[:12]}")
            tried.append(f"container {wanted[:12]!r} is not known here")
        if alert.pod and alert.namespace:
            name = f"{alert.namespace}/{alert.pod}"
            found = _best(
                known,
                lambda t: t.identity.namespace == alert.namespace and t.identity.pod == alert.pod,
                alert.time_ns,
            )
            if found:
                return Resolution(target=found, reason=f"k8s.pod.name is {name}")
            tried.append(f"pod {name!r} is not known here")
        if alert.pid is not None:
            inode = await self._inode_of(alert.pid)
            found = _best(known, lambda t: t.inode == inode, alert.time_ns) if inode else None
            if found and not (alert.container_id and found.kind is TargetKind.HOST):
                return Resolution(
                    target=found, reason=f"process {alert.pid} lives in its namespace"
                )
            tried.append(f"process {alert.pid} is gone or lives in an unrecorded namespace")
        if alert.on_host:
            found = _best(known, lambda t: t.kind is TargetKind.HOST)
            if found:
                return Resolution(target=found, reason="the alert is about a process of the host")
            tried.append("the host itself is not recorded (recorder.host)")
        held = self._by_address(alert, known)
        if held:
            return Resolution(target=held[0], reason=f"the alert's address {held[1]} is its own")
        if alert.connection:
            tried.append("none of its addresses belongs to a recorded namespace")
        return Resolution(
            target=None,
            reason="; ".join(tried) or "the alert names no pod, container, process or address",
            hint="let Falco add proc.pid and fd.cip to its output (append_output), "
            "or name the namespace under targets.static",
        )

    async def _inode_of(self, pid: int) -> int | None:
        try:
            return await self._recorder.inode_of(pid)
        except Transient:
            return None

    def _by_address(self, alert: Alert, known: Sequence[Target]) -> tuple[Target, str] | None:
        """Last resort: one target alone holds one of the addresses; client before server."""
        if alert.connection is None:
            return None
        for endpoint in (alert.connection.client, alert.connection.server):
            address = endpoint.address
            if address is None or address.is_loopback or address.is_unspecified:
                continue
            holders = [t for t in known if str(address) in t.addresses]
            then = [t for t in holders if _was_there(t, alert.time_ns)]
            likely = then or [t for t in holders if t.alive] or holders
            if len({target.key for target in likely}) == 1:
                return likely[0], str(address)
        return None

    async def find(self, name: str) -> Resolution:
        """A target as people write it: `ns/pod`, `netns:NAME`, `host`, `pid:N`, `container:ID`.

        A process in a namespace that is not recorded yet is recorded from now on.
        """
        known = await self._all(0)
        found = _best(known, lambda t: name in (t.name, t.key, t.identity.name))
        if found is None and (pid := _pid_of(name)):
            return await self._of_process(pid)
        if found is None and name.startswith("container:"):
            wanted = name.removeprefix("container:")
            found = _best(
                known,
                lambda t: any(_same_container(each, wanted) for each in t.identity.containers),
            )
        if found:
            return Resolution(target=found, reason=f"{name} was asked for")
        near = ", ".join(sorted(t.title for t in known)[:8]) or "nothing"
        return Resolution(
            target=None, reason=f"no target is called {name!r}", hint=f"recorded are: {near}"
        )


def _pid_of(name: str) -> int | None:
    """`pid:4242`: no process has more than ten digits."""
    number = name.removeprefix("pid:")
    is_pid = number != name and number.isascii() and number.isdigit() and len(number) <= 10
    return int(number) if is_pid else None


def _best(
    known: Iterable[Target], fits: Callable[[Target], bool], t0_ns: int = 0
) -> Target | None:
    """Who was there at T0; else the living one, else the one that died last.

    A name or an address that was used again belongs to whoever held it when the event happened.
    """
    return max(
        (target for target in known if fits(target)),
        key=lambda target: (
            _was_there(target, t0_ns),
            target.alive,
            target.gone_ns,
            target.since_ns,
        ),
        default=None,
    )


def _was_there(target: Target, t0_ns: int) -> bool:
    return target.since_ns - SLACK_NS <= t0_ns and (
        target.alive or target.gone_ns + SLACK_NS >= t0_ns
    )


def _same_container(known: str, asked: str) -> bool:
    """Falco prints 12 hex digits of an id that a runtime knows in full."""
    return len(asked) >= 12 and (known.startswith(asked) or asked.startswith(known))
