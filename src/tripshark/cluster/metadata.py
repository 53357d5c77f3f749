"""Who runs where, says the Kubernetes API: this node's pods, services and their backends, nodes, and others on request.

A node mirrors its own pods alone (by `spec.nodeName`); of services, endpoints and nodes it keeps addresses and little else.
Everything about other nodes' pods is asked when it is needed, and remembered for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Never, TypeVar

from tripshark.cluster.answers import Object
from tripshark.cluster.api import KubeApi
from tripshark.cluster.mirror import DENIED_PATIENCE_S, WATCH_S, Mirror
from tripshark.cluster.remembered import Remembered
from tripshark.errors import BadInput, Denied, NotFound, TooMany, TripsharkError
from tripshark.formats import kube
from tripshark.formats.kube import Backends
from tripshark.model.addresses import AddressBook, Holder, HolderKind, plain
from tripshark.model.pod import NodeFacts, Owner, PodFacts, ServiceFacts
from tripshark.ports import Clock

MAX_REMEMBERED = 4096  # answers of each kind
MAX_WORKLOAD_PODS = 1000  # pods of one workload that are told
KNOWN_S = 20.0  # how long an answer about other nodes' pods is good
UNKNOWN_S = 5.0  # … that there is nobody
DIGITS = 12  # of a container's id, as Falco tells it
_ASKING = 4  # requests at a time
_WAITING = 256  # …and waiting for their turn
_OWNERS = {"ReplicaSet": "/apis/apps/v1", "Job": "/apis/batch/v1"}
_WORKLOADS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/{}",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets/{}",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets/{}",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets/{}",
    "Job": "/apis/batch/v1/namespaces/{}/jobs/{}",
}

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

_Holds = TypeVar("_Holds", ServiceFacts, NodeFacts)

OnHolder = Callable[[str, Holder, int, int], None]
"""(address, holder, from_ns, left_ns): whose it is since when; `left_ns` is 0 while it holds it."""


def note_in(book: AddressBook) -> OnHolder:
    """Writes tenures into an address book."""

    def note(address: str, holder: Holder, from_ns: int, left_ns: int) -> None:
        if left_ns:
            book.leaves(holder, left_ns)
        else:
            book.holds(address, holder, from_ns)

    return note


@dataclass(slots=True)
class _Service:
    """A service and the lists of its backends, whichever of them is known first."""

    facts: ServiceFacts | None = None
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by the list's identity


@dataclass(slots=True)
class _Asking:
    """A question under way, and how many wait for its answer."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    who: int = 0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was found about somebody, perhaps nobody."""

    pods: tuple[PodFacts, ...] = ()


class Metadata:
    """The cluster as a node needs it. What is not async answers from memory and costs next to nothing.

    `run` works until it is cancelled. `on_holder` hears of every address that is seen to be taken or left,
    those of other nodes' pods when they are asked for; it must not raise. Questions raise what `KubeApi` raises when there is
    no answer (`NotPermitted`, `Transient`), so that "nobody" and "cannot tell" are never confused.
    """

    def __init__(
        self,
        api: KubeApi,
        clock: Clock,
        *,
        node: str,
        services: bool = True,
        nodes: bool = True,
        on_holder: OnHolder | None = None,
        on_pods: Callable[[], None] | None = None,
        watch_s: float = WATCH_S,
        denied_s: float = DENIED_PATIENCE_S,
    ) -> None:
        self.node = node
        self._api = api
        self._clock = clock
        self._on_holder = on_holder
        self._on_pods = on_pods
        self._pods: dict[str, PodFacts] = {}  # by uid, with the topmost owner
        self._by_name: dict[tuple[str, str], str] = {}
        self._by_container: dict[str, str] = {}  # by the first digits of the id
        self._services: dict[tuple[str, str], _Service] = {}
        self._at: dict[str, set[tuple[str, str]]] = {}  # address → services
        self._node_at: dict[str, NodeFacts] = {}
        self._left: OrderedDict[str, int] = OrderedDict()  # address → when its last pod left it
        self._owners: OrderedDict[str, Owner | None] = (
            OrderedDict()
        )  # by the ReplicaSet's or Job's uid
        self._unowned: set[str] = set()  # pods whose topmost owner is to be asked for
        self._ask = asyncio.Event()
        self._answers: Remembered[_Answer] = Remembered(MAX_REMEMBERED)
        self._asking = asyncio.Semaphore(_ASKING)
        self._under_way: dict[object, _Asking] = {}
        self._waiting = 0
        self._may_not_ask_owners = False
        self._slices_path = ""
        self._denied_s = denied_s
        self._pod_mirror: Mirror[PodFacts] = Mirror(
            api,
            "/api/v1/pods",
            params={"fieldSelector": f"spec.nodeName={node}"},
            decode=kube.pod,
            on_change=self._pod_changed,
            watch_s=watch_s,
            denied_s=denied_s,
        )
        self._service_mirror: Mirror[ServiceFacts] = Mirror(
            api,
            "/api/v1/services",
            decode=kube.service,
            on_change=self._service_changed,
            watch_s=watch_s,
            denied_s=denied_s,
        )
        self._slice_mirror: Mirror[Backends] = Mirror(
            api,
            "",
            decode=kube.endpoint_slice,
            on_change=self._backends_changed,
            tells_missing=True,
            watch_s=watch_s,
            denied_s=denied_s,
        )
        self._node_mirror: Mirror[NodeFacts] = Mirror(
            api,
            "/api/v1/nodes",
            decode=kube.node,
            on_change=self._node_changed,
            watch_s=watch_s,
            denied_s=denied_s,
        )
        self._mirrors: dict[str, Mirror[Any]] = {"pods": self._pod_mirror}
        if services:
            self._mirrors["services"] = self._service_mirror
        if nodes:
            self._mirrors["nodes"] = self._node_mirror
        self._with_services = services

    async def run(self) -> Never:
        """Follow the API for ever. Nothing that goes wrong there ends it."""
        async with asyncio.TaskGroup() as tasks:
            for each in self._mirrors.values():
                tasks.create_task(each.run())
            if self._with_services:
                tasks.create_task(self._follow_backends())
            tasks.create_task(self._find_owners())
        raise AssertionError("mirrors do not end")  # pragma: no cover

    async def wait_synced(self) -> None:
        """Until everything that is mirrored has been complete once. With a timeout, please: rights may be missing."""
        for each in self._mirrors.values():
            await each.wait_synced()
        if self._with_services:
            await self._slice_mirror.wait_synced()

    def state(self) -> Mapping[str, object]:
        """What is mirrored, how well, and what is in the way."""
        mirrors = {name: each.state() for name, each in self._mirrors.items()}
        if self._with_services:
            mirrors["endpoints"] = self._slice_mirror.state()
        return {
            "node": self.node,
            "mirrors": mirrors,
            "requests": self._api.requests,
            "failures": self._api.failures,
            "remembered": len(self._answers),
            "owners": len(self._owners),
            "owners_denied": self._may_not_ask_owners,
        }

    # ---------------------------------------------------------------------- this node's pods

    def pods(self) -> Sequence[PodFacts]:
        """Those of this node; the same object as long as nothing changed."""
        return tuple(self._pods.values())

    def pod(self, namespace: str, name: str) -> PodFacts | None:
        return self._pods.get(self._by_name.get((namespace, name), ""))

    def pod_by_uid(self, uid: str) -> PodFacts | None:
        return self._pods.get(uid)

    def pod_by_container(self, id: str) -> PodFacts | None:
        """By a container's id, 12 digits or more."""
        found = self._pods.get(self._by_container.get(id[:DIGITS], ""))
        if found is None or not any(each.startswith(id) for each in found.containers):
            return None
        return found

    # ---------------------------------------------------------------------- services

    def services_at(self, address: str) -> Sequence[ServiceFacts]:
        """Services that have this address for themselves, with their backends."""
        found = [self._services[key] for key in sorted(self._at.get(plain(address), ()))]
        return tuple(_joined(each) for each in found if each.facts is not None)

    def service(self, namespace: str, name: str) -> ServiceFacts | None:
        """With its backends."""
        found = self._services.get((namespace, name))
        return None if found is None or found.facts is None else _joined(found)

    async def backends_of(self, address: str) -> tuple[str, ...]:
        """Addresses behind the services at this address."""
        found = [backend for each in self.services_at(address) for backend in each.backends]
        return tuple(dict.fromkeys(found))

    # ---------------------------------------------------------------------- anywhere

    async def lookup_pod(self, namespace: str, name: str) -> PodFacts | None:
        """A pod on whichever node; None when there is none."""
        if (here := self.pod(namespace, name)) is not None:
            return here
        if not _is_name(namespace) or not _is_name(name):
            return None

        async def ask() -> tuple[PodFacts, ...]:
            try:
                found = await self._api.raw(f"/api/v1/namespaces/{namespace}/pods/{name}")
            except NotFound:
                return ()
            return (await self._topped(kube.pod(found)),)

        found = await self._remember(("pod", namespace, name), ask)
        return found[0] if found else None

    async def lookup_container(self, id: str, node: str) -> PodFacts | None:
        """Whose container this is (12 digits or more), among the pods of a node; None when it is nobody's."""
        if (here := self.pod_by_container(id)) is not None:
            return here
        if not _is_name(node) or len(id) < DIGITS:
            return None

        async def ask() -> tuple[PodFacts, ...]:
            params = {"fieldSelector": f"spec.nodeName={node}", "resourceVersion": "0"}
            for each in await self._pods_by("/api/v1/pods", params):
                if any(container.startswith(id) for container in each.containers):
                    return (await self._topped(each),)
            return ()

        found = await self._remember(("container", id, node), ask)
        return found[0] if found else None

    async def pods_of(self, kind: str, namespace: str, name: str) -> tuple[PodFacts, ...]:
        """Every pod of a workload or a service that runs, on whichever nodes; () when there is no such thing.

        `kind`: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob, Service or Pod.
        """
        if not _is_name(namespace) or not _is_name(name):
            return ()
        if kind == "Pod":
            found = await self.lookup_pod(namespace, name)
            return () if found is None else (found,)

        async def ask() -> tuple[PodFacts, ...]:
            try:
                if kind == "CronJob":
                    return await self._cron_pods(namespace, name)
                selector = await self._selector(kind, namespace, name)
            except NotFound:
                return ()
            return await self._selected(namespace, selector) if selector else ()

        return await self._remember((kind, namespace, name), ask)

    async def owner_of_address(self, address: str) -> Holder | None:
        """Who holds an address now: a node, a service, or a pod anywhere (only by its first address family)."""
        address = plain(address)
        if not address:
            return None
        if (machine := self._node_at.get(address)) is not None:
            return _node_holder(machine)
        if services := self.services_at(address):
            return _service_holder(services[0])
        for each in self._pods.values():
            if address in each.addresses and not each.finished and not each.host_network:
                return _pod_holder(each)

        async def ask() -> tuple[PodFacts, ...]:
            params = {"fieldSelector": f"status.podIP={address}", "resourceVersion": "0"}
            found = await self._pods_by("/api/v1/pods", params)
            own = [each for each in found if not each.finished and not each.host_network]
            for each in own:
                self._tell_pod(each, each.addresses)
            return tuple(own)

        found = await self._remember(("address", address), ask)
        return _pod_holder(found[0]) if found else None

    async def _remember(
        self, key: object, ask: Callable[[], Awaitable[tuple[PodFacts, ...]]]
    ) -> tuple[PodFacts, ...]:
        """An answer asked for once, a few at a time."""
        if (known := self._answers.get(key)) is not None:
            return known.pods
        if self._waiting >= _WAITING:
            raise TooMany("too many questions wait for the API server", after=1.0)
        self._waiting += 1
        asking = self._under_way.setdefault(key, _Asking())
        asking.who += 1
        try:
            async with asking.lock:  # whoever asks the same waits for the first one's answer
                if (known := self._answers.get(key)) is None:
                    async with self._asking:
                        known = _Answer(await ask())
                    self._answers.put(key, known, KNOWN_S if known.pods else UNKNOWN_S)
        finally:
            self._waiting -= 1
            asking.who -= 1
            if not asking.who:
                del self._under_way[key]
        return known.pods

    async def _selector(self, kind: str, namespace: str, name: str) -> str:
        if kind == "Service":
            if (known := self.service(namespace, name)) is not None:
                return kube.selector_of(known.selector)
            found = await self._api.raw(f"/api/v1/namespaces/{namespace}/services/{name}")
            return kube.selector_of(kube.service(found).selector)
        if kind not in _WORKLOADS:
            raise BadInput(
                f"pods of a {kind} are not known",
                hint=f"one of {', '.join([*_WORKLOADS, 'CronJob', 'Service', 'Pod'])}",
            )
        found = await self._api.raw(_WORKLOADS[kind].format(namespace, name))
        return kube.workload(found).selector

    async def _selected(self, namespace: str, selector: str) -> tuple[PodFacts, ...]:
        params = {"labelSelector": selector}
        found = await self._pods_by(f"/api/v1/namespaces/{namespace}/pods", params)
        return tuple([await self._topped(each) for each in found if not each.finished])

    async def _cron_pods(self, namespace: str, name: str) -> tuple[PodFacts, ...]:
        """Pods of the jobs that a CronJob made."""
        found: list[PodFacts] = []
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        async with aclosing(self._api.pages(path)) as pages:
            jobs = [kube.workload(body) async for each in pages for body in each.items]
        for job in jobs:
            if job.owner is not None and (job.owner.kind, job.owner.name) == ("CronJob", name):
                found += await self._selected(namespace, job.selector) if job.selector else ()
                if len(found) >= MAX_WORKLOAD_PODS:
                    break
        return tuple(found)

    async def _pods_by(self, path: str, params: Mapping[str, str]) -> list[PodFacts]:
        found: list[PodFacts] = []
        page = 0 if "resourceVersion" in params else 250
        async with aclosing(self._api.pages(path, params=params, page=page)) as pages:
            async for each in pages:
                for body in each.items:
                    with contextlib.suppress(BadInput):
                        found.append(kube.pod(body))
                if len(found) >= MAX_WORKLOAD_PODS:
                    break
        return found[:MAX_WORKLOAD_PODS]

    # ---------------------------------------------------------------------- owners

    async def _topped(self, facts: PodFacts) -> PodFacts:
        """The same pod with its topmost owner, asked for when it is not known."""
        made_by = facts.owner
        if made_by is None or made_by.kind not in _OWNERS:
            return facts
        if made_by.uid not in self._owners:
            with contextlib.suppress(TripsharkError):  # its name tells, if need be
                await self._ask_owner(facts.namespace, made_by)
        return self._with_owner(facts)

    def _with_owner(self, facts: PodFacts) -> PodFacts:
        """… as far as it is known, or told by the name."""
        made_by = facts.owner
        if made_by is None or made_by.kind not in _OWNERS:
            return facts
        top = self._owners.get(made_by.uid)
        if top is None and made_by.uid not in self._owners:
            top = kube.deployment_of(facts)
        return facts if top is None else replace(facts, owner=top)

    async def _ask_owner(self, namespace: str, made_by: Owner) -> None:
        """Learn who made a ReplicaSet or Job; that it may not be asked is learnt, too."""
        if self._may_not_ask_owners or not _is_name(namespace) or not _is_name(made_by.name):
            return
        base = f"{_OWNERS[made_by.kind]}/namespaces/{namespace}"
        try:
            found = await self._api.raw(f"{base}/{made_by.kind.lower()}s/{made_by.name}")
        except NotFound:
            return  # gone already: its name still tells
        except Denied:
            self._may_not_ask_owners = True
            return
        if kube.meta(found).uid == made_by.uid:
            self._owners[made_by.uid] = kube.owner(found)
        while len(self._owners) > MAX_REMEMBERED:
            self._owners.popitem(last=False)

    async def _find_owners(self) -> Never:
        """Ask for the topmost owners of this node's pods, one ReplicaSet or Job after the other."""
        while True:
            try:
                async with asyncio.timeout(self._denied_s):
                    await self._ask.wait()
            except TimeoutError:
                if self._may_not_ask_owners:  # perhaps we may by now
                    self._may_not_ask_owners = False
                    self._unowned |= {
                        uid for uid, each in self._pod_mirror.items.items() if _unsure(each)
                    }
            self._ask.clear()
            while self._unowned:
                uid = self._unowned.pop()
                raw = self._pod_mirror.items.get(uid)
                if raw is None or raw.owner is None:
                    continue
                if raw.owner.uid not in self._owners:
                    try:
                        await self._ask_owner(raw.namespace, raw.owner)
                    except TripsharkError:
                        self._unowned.add(uid)
                        await asyncio.sleep(1.0)
                        continue
                if self._pod_mirror.items.get(uid) is raw:
                    self._keep(uid, self._with_owner(raw))

    # ---------------------------------------------------------------------- what the mirrors tell

    def _keep(self, uid: str, facts: PodFacts) -> None:
        if self._pods.get(uid) != facts:
            self._pods[uid] = facts
            if self._on_pods is not None:
                self._on_pods()

    def _pod_changed(self, old: PodFacts | None, new: PodFacts | None) -> None:
        if old is not None:
            for each in old.containers:
                if self._by_container.get(each[:DIGITS]) == old.uid:
                    del self._by_container[each[:DIGITS]]
            if new is None:
                self._pods.pop(old.uid, None)
                if self._by_name.get((old.namespace, old.name)) == old.uid:
                    del self._by_name[old.namespace, old.name]
                if self._on_pods is not None:
                    self._on_pods()
        if new is not None:
            self._by_name[new.namespace, new.name] = new.uid
            for each in new.containers:
                self._by_container[each[:DIGITS]] = new.uid
            self._keep(new.uid, self._with_owner(new))
            if _unsure(new) and new.owner is not None and new.owner.uid not in self._owners:
                self._unowned.add(new.uid)
                self._ask.set()
        self._pod_addresses(old, new)

    def _pod_addresses(self, old: PodFacts | None, new: PodFacts | None) -> None:
        had = () if old is None or old.finished else old.addresses
        has = () if new is None or new.finished else new.addresses
        lost = [each for each in had if each not in has]
        if old is not None and lost:
            now = self._clock.now_ns()
            for address in lost:
                self._tell(address, _pod_holder(old), 0, now)
                if not old.host_network:
                    self._left[address] = now
                    self._left.move_to_end(address)
            while len(self._left) > MAX_REMEMBERED:
                self._left.popitem(last=False)
            if new is not None:  # whoever leaves one address is taken to have left them all
                for address in has:
                    self._tell(address, _pod_holder(new), now, 0)
        elif new is not None:
            self._tell_pod(new, [each for each in has if each not in had])

    def _tell_pod(self, facts: PodFacts, addresses: Sequence[str]) -> None:
        began = facts.started_ns or facts.created_ns
        for address in addresses:
            self._tell(address, _pod_holder(facts), max(began, self._left.get(address, 0)), 0)

    def _service_changed(self, old: ServiceFacts | None, new: ServiceFacts | None) -> None:
        known = new or old
        if known is None:
            return
        key = (known.namespace, known.name)
        if old is not None:
            for address in old.addresses:
                self._at[address].discard(key)
                if not self._at[address]:
                    del self._at[address]
        entry = self._services.setdefault(key, _Service())
        entry.facts = new
        if new is not None:
            for address in new.addresses:
                self._at.setdefault(address, set()).add(key)
        elif not entry.lists:
            del self._services[key]
        self._tell_all(old, new, _service_holder)

    def _backends_changed(self, old: Backends | None, new: Backends | None) -> None:
        if old is not None:
            entry = self._services.get((old.namespace, old.service))
            if entry is not None:
                entry.lists.pop(old.uid, None)
                if not entry.lists and entry.facts is None:
                    del self._services[old.namespace, old.service]
        if new is not None:
            entry = self._services.setdefault((new.namespace, new.service), _Service())
            entry.lists[new.uid] = new.addresses

    def _node_changed(self, old: NodeFacts | None, new: NodeFacts | None) -> None:
        for address in old.addresses if old is not None else ():
            self._node_at.pop(address, None)
        if new is not None:
            for address in new.addresses:
                self._node_at[address] = new
        self._tell_all(old, new, _node_holder)

    def _tell_all(
        self, old: _Holds | None, new: _Holds | None, holder: Callable[[_Holds], Holder]
    ) -> None:
        """Addresses that came and went with a change of a service or node."""
        had = old.addresses if old is not None else ()
        has = new.addresses if new is not None else ()
        lost = [each for each in had if each not in has]
        now = self._clock.now_ns()
        if old is not None:
            for address in lost:
                self._tell(address, holder(old), 0, now)
        if new is not None:
            for address in has if lost else [each for each in has if each not in had]:
                # of an address that came later than its holder nobody says when
                self._tell(address, holder(new), now if old is not None else new.created_ns, 0)

    def _tell(self, address: str, holder: Holder, from_ns: int, left_ns: int) -> None:
        if self._on_holder is not None:
            self._on_holder(address, holder, from_ns, left_ns)

    async def _follow_backends(self) -> Never:
        """By EndpointSlices where the server has them, else by Endpoints."""
        patience = 1.0
        while True:
            try:
                self._slice_mirror.path, self._slice_mirror.decode = await self._backends_source()
                patience = 1.0
                await self._slice_mirror.run()
            except TripsharkError:
                await asyncio.sleep(patience)
                patience = min(60.0, patience * 2)

    async def _backends_source(self) -> tuple[str, Callable[[bytes], Backends]]:
        try:
            group: Object = await self._api.get("/apis/discovery.k8s.io")
        except NotFound:
            return "/api/v1/endpoints", kube.endpoints
        listed = group.get("versions")
        served = [
            each.get("version")
            for each in (listed if isinstance(listed, list) else ())
            if isinstance(each, dict)
        ]
        for version in ("v1", "v1beta1"):
            if version in served:
                return f"/apis/discovery.k8s.io/{version}/endpointslices", kube.endpoint_slice
        return "/api/v1/endpoints", kube.endpoints


def _joined(entry: _Service) -> ServiceFacts:
    assert entry.facts is not None  # noqa: S101 (whoever calls has looked)
    backends = dict.fromkeys(each for listed in entry.lists.values() for each in listed)
    return replace(entry.facts, backends=tuple(backends))


def _unsure(facts: PodFacts) -> bool:
    """Whether somebody above its maker is to be asked for."""
    return facts.owner is not None and facts.owner.kind in _OWNERS


def _is_name(text: str) -> bool:
    """What can name an object: alerts and captures bring all kinds of words, and these go into paths."""
    return _NAME.fullmatch(text) is not None


def _pod_holder(facts: PodFacts) -> Holder:
    return Holder(
        kind=HolderKind.POD,
        name=f"{facts.namespace}/{facts.name}",
        uid=facts.uid,
        node=facts.node,
        guest=facts.host_network,
    )


def _service_holder(facts: ServiceFacts) -> Holder:
    return Holder(kind=HolderKind.SERVICE, name=f"{facts.namespace}/{facts.name}", uid=facts.uid)


def _node_holder(facts: NodeFacts) -> Holder:
    return Holder(kind=HolderKind.NODE, name=facts.name, uid=facts.uid, node=facts.name)
