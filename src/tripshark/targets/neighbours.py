"""Whom else an alert concerns: the other end of its connection, the pods of a workload, a service or a node."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from tripshark.errors import TripsharkError
from tripshark.model.addresses import AddressBook, Holder, HolderKind, plain
from tripshark.model.alert import Alert
from tripshark.model.filter import MAX_ALSO
from tripshark.model.pod import PodFacts
from tripshark.model.target import Elsewhere, Members, PeerEnd, Target, TargetKind
from tripshark.targets.asking import LATE_S, Patience, Purse
from tripshark.targets.sources import Cluster
from tripshark.targets.view import View

MAX_ENDS = 16  # behind one service
_NO_WORKLOADS = frozenset({"", "node", "service", "pod"})
"""What `expand` knows besides. Pods' authors write their owners, and a static pod's is its node: all of whose packets are
not that pod's workload."""
_CLOCKS_NS = 2_000_000_000
_ALWAYS_NS = 1 << 62


class Neighbourhood:
    """Asks the history of addresses and the cluster, where there are any."""

    def __init__(
        self, cluster: Cluster | None, book: AddressBook | None, *, node: str, purse: Purse
    ) -> None:
        self._cluster = cluster
        self._purse = purse
        self._book = book
        self._node = node

    async def holder(self, address: str, at_ns: int, patience: Patience) -> Holder | None:
        """Whose address this was then, as the history knows, or is now, as the API does."""
        holder = self._then(address, at_ns)
        if holder is None and self._cluster is not None and ip_address(address).is_private:
            holder = await patience.ask(self._cluster.owner_of_address(address))
            if holder is not None and self._book is not None:
                began_later = bool(self._book.between(address, at_ns, _ALWAYS_NS))
                return self._then(address, at_ns) or (None if began_later else holder)
        return holder

    def _then(self, address: str, at_ns: int) -> Holder | None:
        """The API counts in seconds, and by its own clock: a tenure may seem to begin a little late."""
        if self._book is None:
            return None
        return self._book.at(address, at_ns) or self._book.at(address, at_ns + _CLOCKS_NS)

    async def peers_of(self, alert: Alert, target: Target, view: View) -> tuple[PeerEnd, ...]:
        """All pods that may be the other end: one, or those behind a service's address, recorded here first."""
        address = self._other_end(alert, target)
        if not address:
            return ()
        patience = self._purse.patience()
        direct = await self._end_at(address, alert, target, view, patience)
        if direct is not None:
            return (direct,)
        if self._cluster is None:
            return ()
        services = self._cluster.services_at(address)
        if not services:
            return ()
        via = f"{services[0].namespace}/svc/{services[0].name}"
        behind = await patience.ask(self._cluster.backends_of(address)) or ()
        ends = []
        for each in sorted(set(behind))[:MAX_ENDS]:
            end = await self._end_at(each, alert, target, view, patience, via=via)
            if end is not None:
                ends.append(end)
        return tuple(sorted(ends, key=lambda end: end.target is None))

    def _other_end(self, alert: Alert, target: Target) -> str:
        """The address of the connection that is not the target's own; the server's where neither is."""
        connection = alert.connection
        if connection is None or connection.listening:
            return ""
        own = {plain(each) for each in target.addresses}
        ends = [each for each in ends_of(alert) if each not in own]
        server = str(connection.server.address)
        return server if server in ends else (ends[0] if ends else "")

    async def _end_at(
        self,
        address: str,
        alert: Alert,
        target: Target,
        view: View,
        patience: Patience,
        *,
        via: str = "",
    ) -> PeerEnd | None:
        found = view.by_address(address, alert.time_ns)
        if found is not None:
            if found.key == target.key or found.kind is TargetKind.HOST:
                return None
            return PeerEnd(address=address, target=found, via=via, reason=f"{address} is its own")
        holder = await self.holder(address, alert.time_ns, patience)
        if holder is None or holder.kind != HolderKind.POD or holder.guest:
            return None
        here = view.by_uid(holder.uid, alert.time_ns) if holder.uid else None
        if here is None and holder.node == self._node:
            namespace, _, pod = holder.name.partition("/")
            here = view.by_pod(namespace, pod, holder.uid, alert.time_ns)
        if here is not None:
            is_other = here.key != target.key and here.kind is not TargetKind.HOST
            reason = f"{address} was {holder.name}'s"
            return (
                PeerEnd(address=address, target=here, via=via, reason=reason) if is_other else None
            )
        if not holder.node or holder.node == self._node:
            return None
        return PeerEnd(
            address=address,
            elsewhere=held_by(holder),
            via=via,
            reason=f"{address} is {holder.name}'s on {holder.node}",
        )

    async def behind(self, alert: Alert) -> tuple[str, ...]:
        """Addresses that stand for the alert's peer as well: those behind a service's address, and it for them.

        More than a filter can take in are none: its ladder then widens by itself.
        """
        if self._cluster is None or alert.connection is None:
            return ()
        patience = self._purse.patience()
        found: dict[str, None] = {}
        for address in reversed(ends_of(alert)):
            if self._cluster.services_at(address):
                behind = await patience.ask(self._cluster.backends_of(address)) or ()
                found.update(dict.fromkeys(filter(None, map(plain, behind))))
        for address in ends_of(alert):
            found.pop(address, None)
        return tuple(sorted(found)) if len(found) <= MAX_ALSO else ()

    async def workload_of(self, target: Target, view: View) -> Members:
        """Every pod of the workload that this one belongs to, itself among them."""
        kind, slash, name = target.identity.owner.partition("/")
        if not slash or kind.lower() in _NO_WORKLOADS:
            return Members(
                targets=(target,), reason=f"{target.title} belongs to no workload that is known"
            )
        found = await self.expand(kind, target.identity.namespace, name, view)
        if target.key in {each.key for each in found.targets}:
            return found
        return Members(
            targets=(target, *found.targets), elsewhere=found.elsewhere, reason=found.reason
        )

    async def expand(self, kind: str, namespace: str, name: str, view: View) -> Members:
        """The pods of a `Deployment`, `StatefulSet`, … or of a `Service`; what a `Node` records.

        Those recorded here come with their tombstones, living ones first. The API tells of other nodes; when it
        is away what is known here is all, and the reason says so. Raises `Transient` when the recorder is away.
        """
        if kind.lower() == "node":
            return self._of_node(view, name)
        facts: tuple[PodFacts, ...] = ()
        away = "no cluster is asked"
        if self._cluster is not None:
            try:
                async with asyncio.timeout(LATE_S):
                    facts = await self._cluster.pods_of(kind, namespace, name)
                away = ""
            except (TripsharkError, TimeoutError) as problem:
                away = f"the API server could not be asked: {str(problem) or 'no answer in time'}"
        uids = {each.uid for each in facts}
        owner = f"{kind}/{name}".lower()
        here = {
            target.key: target
            for target in (*view.targets, *view.guests)
            if target.identity.uid in uids
            or (target.identity.namespace == namespace and target.identity.owner.lower() == owner)
        }
        elsewhere = tuple(at(each) for each in facts if each.node and each.node != self._node)
        targets = tuple(
            sorted(here.values(), key=lambda each: (not each.alive, each.title, each.since_ns))
        )
        many = len(targets) + len(elsewhere)
        reason = f"{kind} {namespace}/{name} has {many} pod{'' if many == 1 else 's'}"
        if away:
            reason += f" here; {away}"
        return Members(targets=targets, elsewhere=elsewhere, reason=reason)

    def _of_node(self, view: View, name: str) -> Members:
        """The host's own rings see what its pods exchange with others; without them each pod's."""
        if name != self._node:
            return Members(elsewhere=(Elsewhere(node=name),), reason=f"{name} is another node")
        if view.host is not None:
            return Members(targets=(view.host,), reason=f"{name} is this node")
        return Members(
            targets=tuple(each for each in view.targets if each.alive),
            reason=f"{name} is this node; its own network is not recorded (recorder.host), all its pods' are",
        )


def ends_of(alert: Alert) -> tuple[str, ...]:
    """The connection's addresses that can be somebody's; client before server."""
    if alert.connection is None:
        return ()
    found = (alert.connection.client.address, alert.connection.server.address)
    return tuple(
        str(each)
        for each in found
        if each is not None and not each.is_loopback and not each.is_unspecified
    )


def at(facts: PodFacts) -> Elsewhere:
    return Elsewhere(node=facts.node, namespace=facts.namespace, pod=facts.name, uid=facts.uid)


def held_by(holder: Holder) -> Elsewhere:
    namespace, _, pod = holder.name.partition("/")
    return Elsewhere(node=holder.node, namespace=namespace, pod=pod, uid=holder.uid)
