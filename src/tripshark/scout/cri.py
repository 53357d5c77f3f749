"""Reads pods from a runtime that speaks the Container Runtime Interface, v1 or v1alpha2 (their fields are the same).

Field numbers are those of Kubernetes' cri-api, runtime/v1/api.proto; what `verbose` adds differs between runtimes and
may be missing altogether.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tripshark.errors import BadInput, NotFound, Permanent
from tripshark.model.pod import Container, Sandbox
from tripshark.scout.facts import (
    PodName,
    bounded,
    digest,
    inside,
    load,
    number,
    own,
    pod_of,
    word,
)
from tripshark.scout.grpc import Channel
from tripshark.scout.netns import Namespaces
from tripshark.scout.protobuf import Message, encode, peek
from tripshark.scout.runtime import MAX_CONTAINERS, MAX_SANDBOXES, Look

_READY = 0  # PodSandboxState
_RUNNING, _EXITED = 1, 2  # ContainerState
_NODE = 2  # NamespaceMode: the machine's own network
_TRIES = 20  # how often a sandbox without a namespace is asked again

_MAKING_NS = 60_000_000_000  # a sandbox that is not ready after so long never will be

_EVENTS = "/containerd.services.events.v1.Events/Subscribe"
_TOPICS = ('topic~="/tasks/(create|start|exit|delete)"', 'topic~="/containers/(create|delete)"')


@dataclass(slots=True)
class _Pod:
    """What was heard of one sandbox."""

    state: int
    sandbox: Sandbox
    tries: int = 0
    containers: dict[str, tuple[int, Container]] = field(default_factory=dict)  # by id: (state, …)


class Cri:
    """A runtime behind a CRI socket. Most of each look is known already: only what is new is asked for in detail."""

    def __init__(
        self,
        channel: Channel,
        *,
        service: str,
        name: str,
        version: str,
        here: Namespaces,
        now: Callable[[], int],
    ) -> None:
        self.name = name
        self.version = version
        self.protocol = f"CRI {service.split('.')[1]}"
        self._channel = channel
        self._service = service
        self._here = here
        self._now = now
        self._pods: dict[str, _Pod] = {}

    @classmethod
    async def meet(
        cls, channel: Channel, *, here: Namespaces, now: Callable[[], int]
    ) -> Cri | None:
        """The runtime, or None when whoever listens speaks gRPC but not this. Raises as `Channel.ask`."""
        for service in ("runtime.v1.RuntimeService", "runtime.v1alpha2.RuntimeService"):
            try:
                answer = Message(await channel.ask(f"/{service}/Version", timeout_s=2.0))
            except (Permanent, NotFound):
                continue
            name, version = word(answer.text(2)), word(answer.text(3))
            return cls(
                channel,
                service=service,
                name=name or "unknown",
                version=version,
                here=here,
                now=now,
            )
        return None

    def close(self) -> None:
        self._channel.close()

    async def hints(self, hint: Callable[[], None]) -> None:
        """containerd broadcasts what happens; others do not know the request, which ends this at once."""
        try:
            await self._channel.listen(_EVENTS, encode({1: _TOPICS}), lambda _: hint())
        except Permanent:
            return

    async def look(self) -> Look:
        pods = Message(await self._ask("ListPodSandbox")).messages(1)
        containers = Message(await self._ask("ListContainers")).messages(1)
        unreadable = 0
        listed: dict[str, list[bytes]] = {}
        for item in containers:
            try:
                listed.setdefault(peek(item, 2, 6)[0], []).append(item)
            except BadInput:
                unreadable += 1
        seen: dict[str, _Pod] = {}
        for item in pods[:MAX_SANDBOXES]:
            try:
                id, state = peek(item, 1, 3)
                pod = await self._pod(id, state)
                unreadable += await self._take_containers(pod, listed.get(id, ()))
            except NotFound:  # it was removed between two questions
                continue
            except BadInput:
                unreadable += 1
                continue
            seen[id] = pod
        self._pods = seen
        return Look(
            sandboxes=tuple(each.sandbox for each in seen.values()),
            unreadable=unreadable,
            left_out=max(0, len(pods) - MAX_SANDBOXES),
        )

    async def find(self, id: str) -> Sandbox | None:
        answer = await self._ask("ListContainers", encode({1: encode({1: id})}))
        sandbox_id = ""
        for item in Message(answer).messages(1)[:1]:
            sandbox_id, _ = peek(item, 2, 6)
        try:
            status = Message(await self._status("PodSandboxStatus", sandbox_id or id)).message(1)
            full = status.text(1)
            pod = await self._pod(full, status.number(3))
            answer = await self._ask("ListContainers", encode({1: encode({3: full})}))
            await self._take_containers(pod, Message(answer).messages(1))
        except NotFound:
            return None
        return pod.sandbox

    # ---- one sandbox ----------------------------------------------------------------------------------------

    async def _pod(self, id: str, state: int) -> _Pod:
        """With what is known of it, asked anew when its state has changed or its namespace was not there yet."""
        pod = self._pods.get(id)
        settled = pod is not None and (pod.sandbox.inode or pod.tries >= _TRIES)
        if pod is None or pod.state != state or (state == _READY and not settled):
            found = await self._read_sandbox(id, state)
            if pod is None:
                pod = self._pods[id] = _Pod(state, found)
            else:  # what it was while it lived is still true when it is dead
                before = pod.sandbox
                pod.sandbox = replace(
                    found,
                    netns=found.netns or before.netns,
                    inode=found.inode or before.inode,
                    addresses=found.addresses or before.addresses,
                    containers=before.containers,
                    gone_ns=before.gone_ns,
                )
            pod.state = state
            pod.tries += 1
        return pod

    async def _read_sandbox(self, id: str, state: int) -> Sandbox:
        answer = Message(await self._status("PodSandboxStatus", id))
        status = answer.message(1)
        meta, labels = status.message(2), status.pairs(7)
        by_label = pod_of(labels)
        who = PodName(
            namespace=word(meta.text(3)) or by_label.namespace,
            pod=word(meta.text(1)) or by_label.pod,
            uid=word(meta.text(2)) or by_label.uid,
        )
        pid, netns = 0, ""
        for info in _infos(answer):
            pid = pid or number(inside(info, "pid"))
            netns = netns or _network_path(info)
        host = status.message(6, 1, 2).number(1) == _NODE
        addresses = [status.message(5).text(1)]
        addresses += [Message(each).text(1) for each in status.message(5).messages(2)[:16]]
        inode = self._here.host if host else self._here.of(pid, netns)
        return Sandbox(
            id=status.text(1) or id,
            runtime=self.name,
            namespace=who.namespace,
            pod=who.pod,
            uid=who.uid,
            labels=bounded(own(labels)),
            annotations=bounded(status.pairs(8)),
            pid=pid,
            netns="" if host else netns,
            inode=inode,
            host_network=host or bool(inode and inode == self._here.host),
            addresses=tuple(word(each) for each in addresses if each),
            created_ns=max(0, status.number(4)),
        )

    async def _take_containers(self, pod: _Pod, items: list[bytes] | tuple[()]) -> int:
        """Bring its containers up to date, and whether it is still there; how many could not be read."""
        unreadable = 0
        known, pod.containers = pod.containers, {}
        for item in items[:MAX_CONTAINERS]:
            try:
                id, state = peek(item, 1, 6)
                before = known.get(id)
                if (
                    before is None
                    or before[0] != state
                    or (state == _RUNNING and not before[1].pid)
                ):
                    before = (state, await self._read_container(id, pod))
            except NotFound:
                continue
            except BadInput:
                unreadable += 1
                continue
            pod.containers[id] = before
        containers = tuple(
            sorted((each for _, each in pod.containers.values()), key=lambda each: each.started_ns)
        )
        sandbox = pod.sandbox
        inode = sandbox.inode
        if not inode and not sandbox.host_network:  # a runtime without pauses: its containers tell
            pids = [each.pid for each in containers if each.pid]
            inode = next((found for pid in pids if (found := self._here.of(pid, ""))), 0)
        if containers != sandbox.containers or inode != sandbox.inode:
            host = sandbox.host_network or bool(inode and inode == self._here.host)
            pid = sandbox.pid or next((each.pid for each in containers if each.pid), 0)
            pod.sandbox = replace(
                sandbox, containers=containers, inode=inode, host_network=host, pid=pid
            )
        self._bury(pod)
        return unreadable

    def _bury(self, pod: _Pod) -> None:
        """A sandbox that is not ready is gone, unless its namespace outlives its first process."""
        sandbox = pod.sandbox
        lives = pod.state == _READY or bool(
            sandbox.netns
            and sandbox.inode
            and not sandbox.host_network
            and self._here.named(sandbox.netns) == sandbox.inode
        )
        if lives:
            pod.sandbox = replace(sandbox, gone_ns=0) if sandbox.gone_ns else sandbox
        elif not sandbox.gone_ns:
            ended = max((each.ended_ns for each in sandbox.containers), default=0)
            first_seen_dead = pod.tries <= 1
            at = (ended or sandbox.created_ns) if first_seen_dead else 0
            young = sandbox.created_ns > self._now() - _MAKING_NS
            if first_seen_dead and young and not sandbox.containers:
                return  # some runtimes list a sandbox while it is being made
            pod.sandbox = replace(sandbox, pid=0, gone_ns=at or self._now())

    async def _read_container(self, id: str, pod: _Pod) -> Container:
        answer = Message(await self._status("ContainerStatus", id))
        status = answer.message(1)
        state, pid, ended = status.number(3), 0, max(0, status.number(6))
        for info in _infos(answer):
            pid = pid or number(inside(info, "pid"))
        if state == _EXITED and not ended:
            ended = self._now()
        return Container(
            id=status.text(1) or id,
            name=word(status.message(2).text(1)),
            image=word(status.message(8).text(1)),
            digest=digest(status.text(9)),
            pid=pid if state == _RUNNING else 0,
            started_ns=max(0, status.number(5)),
            ended_ns=0 if state == _RUNNING else ended,
        )

    async def _status(self, method: str, id: str) -> bytes:
        return await self._ask(method, encode({1: id, 2: 1}))

    async def _ask(self, method: str, request: bytes = b"") -> bytes:
        return await self._channel.ask(f"/{self._service}/{method}", request)


def _infos(answer: Message) -> Iterator[object]:
    """What `verbose` added, as far as it is JSON; containerd and CRI-O call it "info", nobody must."""
    for text in answer.pairs(2).values():
        try:
            yield load(text)
        except BadInput:
            continue


def _network_path(info: object) -> str:
    """The path of the network namespace in a sandbox's OCI specification, or in containerd 2's metadata."""
    spaces = inside(info, "runtimeSpec", "linux", "namespaces")
    for each in spaces if isinstance(spaces, list) else ():
        if inside(each, "type") == "network" and (path := word(inside(each, "path"))):
            return path
    return word(inside(info, "metadata", "NetNSPath")) or word(
        inside(info, "sandboxMetadata", "NetNSPath")
    )
