"""A node's recorder, its runtime and its cluster as plain values, for tests of who is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.respond.worlds import ManualClock, an_alert
from tripshark.errors import NotFound, Transient
from tripshark.model.addresses import AddressBook, Holder, HolderKind
from tripshark.model.alert import Alert
from tripshark.model.pod import Container, Owner, PodFacts, Sandbox, ServiceFacts
from tripshark.model.recording import Policy, Recording
from tripshark.model.target import Interface, RingState, Target, TargetKey, TargetKind
from tripshark.targets.local import LocalTargets, Resident

S = 1_000_000_000
HERE, THERE = "node-1", "node-2"


def hex_id(seed: int) -> str:
    """64 hex digits, the first 12 of which tell them apart."""
    return f"{seed:012x}" * 5 + "0000"


def target(
    name: str,
    *addresses: str,
    inode: int = 1,
    since_s: float = 0,
    gone_s: float = 0,
    key: str = "",
    born: bool = True,
) -> Target:
    """A namespace as the recorder tells of it: no identity."""
    ring = RingState(
        ring=name + key,
        interface=Interface(
            name="eth0",
            ifindex=2,
            hardware_type=1,
            addresses=tuple(f"{each}/24" for each in addresses),
        ),
        live=not gone_s,
        bytes=0,
        snaplen=0,
    )
    return Target(
        key=TargetKey(key or name),
        kind=TargetKind.HOST if name == "host" else TargetKind.NETNS,
        name=name,
        inode=inode,
        since_ns=round(since_s * S),
        gone_ns=round(gone_s * S),
        seen_born=born,
        rings=(ring,),
    )


def sandbox(seed: int, pod: str, *, inode: int = 0, **facts: object) -> Sandbox:
    """A pod as its runtime tells of it: sandbox id `hex_id(seed)`, one container `hex_id(seed + 1)`."""
    made = Sandbox(
        id=hex_id(seed),
        runtime="containerd",
        namespace="shop",
        pod=pod,
        uid=f"uid-{pod}-{seed}",
        containers=(
            Container(
                id=hex_id(seed + 1), name="main", image="img:1", digest="sha256:ab", pid=seed
            ),
        ),
        pid=seed,
        inode=inode,
    )
    return replace(made, **facts)  # type: ignore[arg-type]


def facts_of(each: Sandbox, node: str = HERE, **more: object) -> PodFacts:
    """The same pod as the API tells of it."""
    made = PodFacts(
        namespace=each.namespace,
        name=each.pod,
        uid=each.uid,
        node=node,
        owner=Owner(kind="Deployment", name="checkout"),
        service_account="cashier",
        labels={"app": "checkout"},
        containers=tuple(one.id for one in each.containers),
        addresses=each.addresses,
        host_network=each.host_network,
    )
    return replace(made, **more)  # type: ignore[arg-type]


@dataclass
class Recorded:
    """`targets.sources.Namespaces` and `Assignable`."""

    found: tuple[Target, ...] = ()
    processes: dict[int, int] = field(default_factory=dict)  # pid → inode
    away: bool = False
    asked: int = 0
    told: list[Mapping[TargetKey, Recording]] = field(default_factory=list)

    async def targets(self) -> tuple[Target, ...]:
        self.asked += 1
        if self.away:
            raise Transient("away")
        return self.found

    async def inode_of(self, pid: int) -> int | None:
        return self.processes.get(pid)

    async def attach(self, pid: int) -> TargetKey:
        if pid not in self.processes:
            raise NotFound(f"no process {pid}")
        inode = self.processes[pid]
        for each in self.found:
            if each.inode == inode and each.alive:
                return each.key
        made = target(f"pid:{pid}", inode=inode, key=f"attached-{pid}", born=False)
        self.found += (made,)
        return made.key

    async def record(self, assign: Mapping[TargetKey, Recording]) -> None:
        self.told.append(dict(assign))


@dataclass
class Runtimes:
    """`targets.sources.Runtime`. `late` are those that only `find` knows, after so many questions."""

    living: tuple[Sandbox, ...] = ()
    late: dict[str, tuple[int, Sandbox]] = field(default_factory=dict)
    away: bool = False
    hangs: bool = False
    listed: int = 0
    found: list[str] = field(default_factory=list)

    async def sandboxes(self) -> tuple[Sandbox, ...]:
        self.listed += 1
        await self._trouble()
        return self.living

    async def find(self, container_id: str) -> Sandbox | None:
        self.found.append(container_id)
        await self._trouble()
        for each in self.living:
            if any(id.startswith(container_id) for id in (each.id, *ids_of(each))):
                return each
        after, known = self.late.get(container_id[:12], (0, None))
        return known if self.found.count(container_id) >= after else None

    async def _trouble(self) -> None:
        if self.away:
            raise Transient("the scout is away")
        if self.hangs:
            await asyncio.Event().wait()


def ids_of(each: Sandbox) -> tuple[str, ...]:
    return tuple(one.id for one in each.containers)


@dataclass
class Clustered:
    """`targets.sources.Cluster` of one node among others: `everywhere` are the pods of all."""

    everywhere: list[PodFacts] = field(default_factory=list)
    services: list[ServiceFacts] = field(default_factory=list)
    away: bool = False
    hangs: bool = False
    asked: list[str] = field(default_factory=list)

    def pods(self) -> Sequence[PodFacts]:
        return [each for each in self.everywhere if each.node == HERE]

    def pod(self, namespace: str, name: str) -> PodFacts | None:
        return _one(e for e in self.pods() if (e.namespace, e.name) == (namespace, name))

    def pod_by_uid(self, uid: str) -> PodFacts | None:
        return _one(each for each in self.pods() if each.uid == uid)

    def pod_by_container(self, id: str) -> PodFacts | None:
        return _one(e for e in self.pods() if any(one.startswith(id) for one in e.containers))

    async def lookup_pod(self, namespace: str, name: str) -> PodFacts | None:
        await self._ask(f"pod {namespace}/{name}")
        return _one(e for e in self.everywhere if (e.namespace, e.name) == (namespace, name))

    async def lookup_container(self, id: str, node: str) -> PodFacts | None:
        await self._ask(f"container {id[:12]} on {node}")
        there = (each for each in self.everywhere if each.node == node)
        return _one(e for e in there if any(one.startswith(id) for one in e.containers))

    async def pods_of(self, kind: str, namespace: str, name: str) -> tuple[PodFacts, ...]:
        await self._ask(f"{kind} {namespace}/{name}")
        if kind == "Service":
            behind = {
                address
                for each in self.services
                if (each.namespace, each.name) == (namespace, name)
                for address in each.backends
            }
            return tuple(each for each in self.everywhere if behind & set(each.addresses))
        return tuple(
            each
            for each in self.everywhere
            if each.namespace == namespace and str(each.owner) == f"{kind}/{name}"
        )

    def services_at(self, address: str) -> Sequence[ServiceFacts]:
        return [each for each in self.services if address in each.addresses]

    async def backends_of(self, address: str) -> tuple[str, ...]:
        return tuple(one for each in self.services_at(address) for one in each.backends)

    async def owner_of_address(self, address: str) -> Holder | None:
        await self._ask(f"address {address}")
        found = _one(each for each in self.everywhere if address in each.addresses)
        return holder_of(found) if found else None

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise Transient("the API server is away")
        if self.hangs:
            await asyncio.Event().wait()


def _one(found):  # type: ignore[no-untyped-def]
    return next(iter(found), None)


def holder_of(facts: PodFacts) -> Holder:
    return Holder(
        kind=HolderKind.POD,
        name=f"{facts.namespace}/{facts.name}",
        uid=facts.uid,
        node=facts.node,
        guest=facts.host_network,
    )


@dataclass
class Place:
    """One node with everything about it that a test may change."""

    recorder: Recorded = field(default_factory=Recorded)
    runtime: Runtimes | None = field(default_factory=Runtimes)
    cluster: Clustered | None = None
    residents: tuple[Resident, ...] = ()
    policy: Policy | None = None
    clock: ManualClock = field(default_factory=lambda: ManualClock(1000 * S))
    book: AddressBook = field(default_factory=AddressBook)

    def __post_init__(self) -> None:
        self.targets = LocalTargets(
            self.recorder,
            self.residents,
            self.clock,
            node=HERE,
            runtime=self.runtime,
            cluster=self.cluster,
            policy=self.policy,
            book=self.book,
        )


def alert(**fields: object) -> Alert:
    """An alert of 900 s that says nothing but what is given."""
    said = {"namespace": None, "pod": None, **fields}
    return replace(an_alert(time_ns=900 * S), **said)  # type: ignore[arg-type]
