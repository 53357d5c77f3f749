"""Reads containers from Docker or Podman over their HTTP API, and makes sandboxes of those that share a network.

A container with a network of its own (or with the machine's) is a sandbox; one that was started in another's network
(`--network container:…`, the members of a Podman pod, dockershim's pods) belongs to the sandbox of that one.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import quote

from tripshark.errors import BadInput, NotFound, Transient
from tripshark.model.pod import Container, Sandbox
from tripshark.scout import http
from tripshark.scout.facts import (
    PodName,
    bounded,
    digest,
    dockershim,
    inside,
    load,
    number,
    own,
    pod_of,
    time_ns,
    word,
)
from tripshark.scout.netns import Namespaces
from tripshark.scout.runtime import MAX_CONTAINERS, MAX_SANDBOXES, Look

_SHIM_ANNOTATION = "annotation."  # dockershim keeps annotations among the labels
_FULL_ID = re.compile(r"[0-9a-f]{12,64}")
_EVENTS = "/events?filters=" + quote('{"type":["container"]}')
_AT_ONCE = 4  # questions under way


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inspected:
    """One container in detail."""

    id: str
    name: str
    state: str
    joins: str  # id (or name) of the container whose network it lives in; "" for its own
    host: bool
    labels: dict[str, str]
    container: Container
    netns: str
    inode: int
    addresses: tuple[str, ...]
    created_ns: int
    gone_ns: int  # first seen dead


class Docker:
    """Docker or Podman behind its socket."""

    def __init__(
        self, path: str, *, name: str, version: str, here: Namespaces, now: Callable[[], int]
    ) -> None:
        self.name = name
        self.version = version
        self.protocol = "Docker API"
        self._path = path
        self._here = here
        self._now = now
        self._known: dict[str, _Inspected] = {}
        self._pods: dict[str, tuple[str, dict[str, str]]] = {}  # Podman's, by the id of its infra

    @classmethod
    async def meet(cls, path: str, *, here: Namespaces, now: Callable[[], int]) -> Docker | None:
        """The engine, or None when something else answers HTTP there. Raises `Transient`, `Denied`, `BadInput`."""
        status, body = await http.get(path, "/version", timeout_s=2.0)
        if status != 200:
            return None
        said = load(body)
        version = word(inside(said, "Version"))
        if not version or inside(said, "ApiVersion") is None:
            return None
        parts = inside(said, "Components")
        names = [word(inside(each, "Name")) for each in parts] if isinstance(parts, list) else []
        podman = any("podman" in each.lower() for each in names)
        name = "podman" if podman else "docker"
        return cls(path, name=name, version=version, here=here, now=now)

    def close(self) -> None:
        """Nothing is held between questions."""

    async def hints(self, hint: Callable[[], None]) -> None:
        await http.listen(self._path, _EVENTS, lambda line: hint() if line.strip() else None)

    async def look(self) -> Look:
        listed = await self._get("/containers/json?all=1")
        if not isinstance(listed, list):
            raise BadInput("no list of containers", where=self._path)
        if self.name == "podman":
            self._pods = await self._podman_pods()
        unreadable = 0
        wanted: dict[str, str] = {}
        for each in listed[: MAX_SANDBOXES * 4]:
            id, state = word(inside(each, "Id")), word(inside(each, "State"))
            if _FULL_ID.fullmatch(id):
                wanted[id] = state
            else:
                unreadable += 1
        turn = asyncio.Semaphore(_AT_ONCE)

        async def inspect(id: str, state: str) -> _Inspected | None:
            known = self._known.get(id)
            if known is not None and known.state == state and self._still(known):
                return known
            async with turn:
                return await self._inspect(id)

        answers = await asyncio.gather(
            *(inspect(id, state) for id, state in wanted.items()), return_exceptions=True
        )
        seen: dict[str, _Inspected] = {}
        for answer in answers:
            if isinstance(answer, _Inspected):
                seen[answer.id] = answer
            elif isinstance(answer, BadInput):
                unreadable += 1
            elif isinstance(answer, BaseException) and not isinstance(answer, NotFound):
                raise answer
        self._known = seen
        sandboxes = self._grouped(seen)
        return Look(
            sandboxes=tuple(sandboxes[:MAX_SANDBOXES]),
            unreadable=unreadable,
            left_out=max(0, len(sandboxes) - MAX_SANDBOXES),
        )

    async def find(self, id: str) -> Sandbox | None:
        try:
            found = await self._inspect(id)
            around = dict(self._known) | {found.id: found}
            root = found
            for _ in range(8):
                if not root.joins:
                    break
                root = await self._inspect(root.joins)
                around[root.id] = root
        except NotFound:
            return None
        for sandbox in self._grouped(around):
            if sandbox.id == found.id or any(each.id == found.id for each in sandbox.containers):
                return sandbox
        return None

    # ---- one container --------------------------------------------------------------------------------------

    def _still(self, known: _Inspected) -> bool:
        """Whether it is the process that it was: a restart keeps the id and, soon enough, the state."""
        pid = known.container.pid
        if not pid:
            return True
        inode = self._here.at(f"/proc/{pid}/ns/net")
        return inode == known.inode if inode else os.path.exists(f"/proc/{pid}")

    async def _inspect(self, id: str) -> _Inspected:
        said = await self._get(f"/containers/{quote(id, safe='')}/json")
        full = word(inside(said, "Id"))
        if not _FULL_ID.fullmatch(full):
            raise BadInput("a container without an id", where=self._path)
        running = inside(said, "State", "Running") is True
        pid = number(inside(said, "State", "Pid")) if running else 0
        mode = word(inside(said, "HostConfig", "NetworkMode"))
        netns = word(inside(said, "NetworkSettings", "SandboxKey")) if running else ""
        labels = _texts(inside(said, "Config", "Labels"))
        name = word(inside(said, "Name")).lstrip("/")
        image = word(inside(said, "ImageDigest")) or word(inside(said, "Image"))
        ended = 0 if running else time_ns(inside(said, "State", "FinishedAt"))
        before = self._known.get(full)
        joins = mode.partition(":")[2] if mode.startswith("container:") else ""
        inode = self._here.of(pid, netns)
        gone = 0
        if not running:  # not started yet counts as not there yet
            gone = self._now() if before is not None and not before.gone_ns else ended or 1
        return _Inspected(
            id=full,
            name=name,
            state=word(inside(said, "State", "Status")),
            joins=joins,
            host=mode == "host" or bool(inode and inode == self._here.host),
            labels=labels,
            container=Container(
                id=full,
                name=name,
                image=word(inside(said, "Config", "Image")),
                digest=digest(image),
                pid=pid,
                started_ns=time_ns(inside(said, "State", "StartedAt")),
                ended_ns=ended,
            ),
            netns=netns or (before.netns if before else ""),
            inode=inode or (before.inode if before and not running else 0),
            addresses=_addresses(said) or (before.addresses if before and not running else ()),
            created_ns=time_ns(inside(said, "Created")),
            gone_ns=gone,
        )

    async def _podman_pods(self) -> dict[str, tuple[str, dict[str, str]]]:
        """Name and labels of each pod by the id of the container that holds its network."""
        pods = {}
        try:
            listed = await self._get(f"/v{quote(self.version, safe='')}/libpod/pods/json")
        except (NotFound, BadInput):  # an engine without pods
            return {}
        for each in listed if isinstance(listed, list) else ():
            if _FULL_ID.fullmatch(infra := word(inside(each, "InfraId"))):
                pods[infra] = (word(inside(each, "Name")), _texts(inside(each, "Labels")))
        return pods

    async def _get(self, url: str) -> object:
        status, body = await http.get(self._path, url)
        if status == 404:
            raise NotFound("the runtime does not know it", where=self._path)
        if status != 200:
            words = word(inside(_maybe(body), "message"))
            raise Transient(f"HTTP {status} {words}".rstrip(), where=self._path)
        found: object = load(body)
        return found

    # ---- sandboxes ------------------------------------------------------------------------------------------

    def _grouped(self, known: dict[str, _Inspected]) -> list[Sandbox]:
        names = {each.name: each.id for each in known.values()}
        members: dict[str, list[_Inspected]] = {}
        for each in known.values():
            members.setdefault(_root(each, known, names).id, []).append(each)
        return [self._sandbox(known[root], group) for root, group in members.items()]

    def _sandbox(self, root: _Inspected, group: list[_Inspected]) -> Sandbox:
        who, labels = pod_of(root.labels), root.labels
        shim = dockershim(root.name)
        infra = shim is not None and shim[0] == "POD"
        if shim is not None:
            who = shim[1]
        if root.id in self._pods:
            infra = True
            name, labels = self._pods[root.id]
            who = PodName(pod=name)
        containers = [
            replace(each.container, name=told[0])
            if (told := dockershim(each.name))
            else each.container
            for each in group
            if each is not root or not infra
        ]
        annotations = {
            name.removeprefix(_SHIM_ANNOTATION): value
            for name, value in labels.items()
            if name.startswith(_SHIM_ANNOTATION)
        }
        living = [each for each in group if not each.gone_ns]
        shown = root if not root.gone_ns else (living or [root])[0]  # who is in the namespace now
        gone = 0 if living else max(each.gone_ns for each in group)
        return Sandbox(
            id=root.id,
            runtime=self.name,
            namespace=who.namespace,
            pod=who.pod or root.name,
            uid=who.uid,
            labels=bounded(
                {
                    name: value
                    for name, value in own(labels).items()
                    if not name.startswith(_SHIM_ANNOTATION)
                }
            ),
            annotations=bounded(annotations),
            containers=tuple(
                sorted(containers, key=lambda each: each.started_ns)[-MAX_CONTAINERS:]
            ),
            pid=0 if gone else shown.container.pid,
            netns="" if root.host else root.netns,
            inode=self._here.host if root.host else shown.inode,
            host_network=root.host,
            addresses=root.addresses,
            created_ns=root.created_ns,
            gone_ns=gone,
        )


def _root(each: _Inspected, known: dict[str, _Inspected], names: dict[str, str]) -> _Inspected:
    """The container whose network it really is; itself where that one is not known, or they go in a circle."""
    found = each
    for _ in range(8):
        if not found.joins:
            return found
        after = known.get(names.get(found.joins, found.joins))
        if after is None:
            return found
        found = after
    return each


def _addresses(said: object) -> tuple[str, ...]:
    settings = inside(said, "NetworkSettings")
    networks = inside(settings, "Networks")
    found = [settings, *(networks.values() if isinstance(networks, dict) else ())]
    names = ("IPAddress", "GlobalIPv6Address")
    words = [word(inside(each, name)) for each in found[:64] for name in names]
    return tuple(dict.fromkeys(each for each in words if each))


def _texts(value: object) -> dict[str, str]:
    """A map of strings; whatever is none is left out."""
    if not isinstance(value, dict):
        return {}
    return {name: each for name, each in value.items() if isinstance(each, str)}


def _maybe(body: bytes) -> object:
    try:
        found: object = load(body)
    except BadInput:
        return None
    return found
