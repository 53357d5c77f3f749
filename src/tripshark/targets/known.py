"""What is known of who lives here at the moment, and for how long it is believed when its sources are away."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tripshark.errors import TripsharkError
from tripshark.model.pod import PodFacts, Sandbox
from tripshark.model.recording import Mode, Policy, Recording, stricter
from tripshark.model.target import Identity, Target, TargetKey, TargetKind
from tripshark.targets.clues import DIGITS
from tripshark.targets.identities import (
    given,
    guest,
    inhabitant,
    named,
    named_by_cluster,
)
from tripshark.targets.sources import Cluster, Resident, Runtime
from tripshark.targets.view import Unrecorded, View, same_container

HEARD_NS = 1_000_000_000  # a scout's list younger than this is used again
PAUSE_NS = 1_000_000_000  # a scout that did not answer is left alone this long
LIST_S = 0.1  # a scout's list takes a millisecond or two; nobody waits longer for it
MAX_SANDBOXES = 4096
NOWHERE = ("", 0)


Place = tuple[str, int]
"""A sandbox's id and its namespace's inode: a plain container that is started again keeps its id alone."""


class Sandboxes:
    """The runtime's pods, also those that it has forgotten lately."""

    def __init__(self, runtime: Runtime | None, *, tombstone_ns: int) -> None:
        self._runtime = runtime
        self._tombstone_ns = tombstone_ns
        self._known: OrderedDict[Place, Sandbox] = OrderedDict()
        self._places: dict[str, set[Place]] = {}  # by id
        self._heard_ns = 0
        self._away_ns = 0
        self.problem = "" if runtime else "no container runtime is asked"

    def all(self) -> Iterable[Sandbox]:
        return self._known.values()

    def get(self, place: Place) -> Sandbox | None:
        return self._known.get(place)

    @property
    def away(self) -> bool:
        return bool(self.problem)

    async def hear(self, now_ns: int, *, age_ns: int = HEARD_NS) -> None:
        """Ask for the list, unless it is younger than this; when the scout is away what was known stays."""
        if self._runtime is None or now_ns - self._heard_ns < age_ns:
            return
        if now_ns - self._away_ns < PAUSE_NS:
            return
        try:
            async with asyncio.timeout(LIST_S):
                found = await self._runtime.sandboxes()
        except (TripsharkError, TimeoutError) as problem:
            self._away_ns, self.problem = now_ns, str(problem) or "the scout does not answer"
            return
        self.problem = ""
        self._heard_ns = now_ns
        here = {self.learn(each) for each in found}
        for place, sandbox in tuple(self._known.items()):
            if place not in here and not sandbox.gone_ns:
                self._known[place] = replace(sandbox, gone_ns=now_ns)
        for place, sandbox in tuple(self._known.items()):
            if sandbox.gone_ns and sandbox.gone_ns + self._tombstone_ns < now_ns:
                self._drop(place)

    def learn(self, sandbox: Sandbox) -> Place:
        """One more, or news of one."""
        before = self._before(sandbox)
        if before is not None and sandbox != before:
            # Containers that ended are named in alerts that come late; pid and inode vanish with the pod.
            ids = {each.id for each in sandbox.containers}
            gone = tuple(each for each in before.containers if each.id not in ids)
            sandbox = replace(
                sandbox,
                containers=(*sandbox.containers, *gone)[:64],
                inode=sandbox.inode or before.inode,
                netns=sandbox.netns or before.netns,
                addresses=sandbox.addresses or before.addresses,
            )
        place = (sandbox.id, sandbox.inode)
        if before is None:
            self._places.setdefault(sandbox.id, set()).add(place)
        elif before.inode != sandbox.inode:
            self._drop((before.id, before.inode))
            self._places.setdefault(sandbox.id, set()).add(place)
        if before != sandbox:  # who looks twice is to see the same object
            self._known[place] = sandbox
        while len(self._known) > MAX_SANDBOXES:
            self._drop(next(iter(self._known)))
        return place

    def _before(self, sandbox: Sandbox) -> Sandbox | None:
        """What was known of the very same: by its namespace, where both are known."""
        exact = self._known.get((sandbox.id, sandbox.inode))
        if exact is not None:
            return exact
        others = [self._known[place] for place in self._places.get(sandbox.id, ())]
        if sandbox.inode:
            return next((each for each in others if not each.inode), None)
        return max(others, key=lambda each: (not each.gone_ns, each.gone_ns), default=None)

    def _drop(self, place: Place) -> None:
        del self._known[place]
        self._places[place[0]].discard(place)
        if not self._places[place[0]]:
            del self._places[place[0]]


def place_of(sandbox: Sandbox) -> Place:
    return sandbox.id, sandbox.inode


class Household:
    """Joins namespaces with their inhabitants, and remembers who they were."""

    def __init__(
        self,
        residents: Sequence[Resident],
        sandboxes: Sandboxes,
        cluster: Cluster | None,
        policy: Policy,
        *,
        node: str,
    ) -> None:
        self._residents = tuple(residents)
        self._sandboxes = sandboxes
        self._cluster = cluster
        self._policy = policy
        self._node = node
        self._remembered: dict[TargetKey, tuple[Identity, Place]] = {}
        self._dead: dict[TargetKey, tuple[int, Identity | None, Target]] = {}
        self._decided: dict[str, tuple[object, Recording]] = {}
        self._names: dict[Place, tuple[Sandbox, PodFacts | None, Identity]] = {}

    @property
    def residents(self) -> tuple[Resident, ...]:
        return self._residents

    def view(self, found: Sequence[Target], inodes: Mapping[int, int | None], now_ns: int) -> View:
        """Everybody, with names. `inodes` are those of the static map's processes."""
        by_inode: dict[int, list[Sandbox]] = {}
        by_netns: dict[str, list[Sandbox]] = {}
        for sandbox in self._sandboxes.all():
            if sandbox.host_network:
                continue
            if sandbox.inode:
                by_inode.setdefault(sandbox.inode, []).append(sandbox)
            elif sandbox.netns:
                by_netns.setdefault(sandbox.netns.rpartition("/")[2], []).append(sandbox)
        by_address = self._by_address() if self._cluster and self._sandboxes.away else {}
        targets, aliases, housed = [], [], set()
        dead: dict[TargetKey, tuple[int, Identity | None, Target]] = {}
        remembered: dict[TargetKey, tuple[Identity, Place]] = {}
        for target in found:
            candidates = by_inode.get(target.inode) or by_netns.get(
                target.name.removeprefix("netns:"), []
            )
            lives_here = inhabitant(target, candidates, now_ns) if candidates else None
            known = self._known(target, lives_here, by_address)
            if known is not None and target.kind is not TargetKind.HOST:
                remembered[target.key] = known
            full = self._buried(target, known) or self._bounded(
                self._titled(target, known, inodes), known
            )
            if not full.alive:
                dead[target.key] = (target.gone_ns, known[0] if known else None, full)
            if known is not None and known[1][0]:
                housed.add(known[1])
                aliases.append((target.name, full))
            targets.append(full)
        self._remembered, self._dead = remembered, dead
        self._names = {
            id: kept for id, kept in self._names.items() if self._sandboxes.get(id) is not None
        }
        host = next((each for each in targets if each.kind is TargetKind.HOST), None)
        guests, unrecorded = [], []
        for sandbox in self._sandboxes.all():
            if place_of(sandbox) in housed:
                continue
            identity = self._named(sandbox)
            if sandbox.host_network and host is not None:
                guests.append(
                    self._bounded(guest(host, identity, sandbox), (identity, place_of(sandbox)))
                )
            else:
                unrecorded.append(self._why_not(sandbox, identity))
        return View(targets, guests, unrecorded, aliases)

    def _bounded(self, target: Target, known: tuple[Identity, Place] | None) -> Target:
        """With no wider mode than the policy gives its inhabitant, whatever the recorder has been told so far."""
        if known is None:
            return target
        wish = self.recording(target.identity, self._annotations(known[1]))
        mode = stricter(target.mode, wish.mode)
        if mode == target.mode:
            return target
        return replace(target, mode=mode, note=target.note or wish.reason)

    def _buried(self, target: Target, known: tuple[Identity, Place] | None) -> Target | None:
        """The dead do not change, and a busy node has thousands: the same answer as before, if there was one."""
        kept = self._dead.get(target.key)
        if kept is None or kept[0] != target.gone_ns or len(kept[2].rings) != len(target.rings):
            return None
        return kept[2] if kept[1] is (known[0] if known else None) else None

    def _known(
        self, target: Target, sandbox: Sandbox | None, by_address: Mapping[str, PodFacts]
    ) -> tuple[Identity, Place] | None:
        """The identity and the sandbox: as is known now, else as was known."""
        before = self._remembered.get(target.key)
        if sandbox is not None:
            return self._named(sandbox), place_of(sandbox)
        if before is not None or target.kind is TargetKind.HOST or not by_address:
            return before
        for address in target.addresses:
            facts = by_address.get(address)
            if facts is not None and target.alive:
                return named_by_cluster(facts, node=self._node), NOWHERE
        return None

    def _named(self, sandbox: Sandbox) -> Identity:
        """The same answer for the same facts: most of a node's pods do not change from one look to the next."""
        facts = self._facts(sandbox)
        kept = self._names.get(place_of(sandbox))
        if kept is not None and kept[0] is sandbox and kept[1] is facts:
            return kept[2]
        identity = named(sandbox, facts, node=self._node)
        self._names[place_of(sandbox)] = (sandbox, facts, identity)
        return identity

    def _by_address(self) -> dict[str, PodFacts]:
        """This node's pods by their addresses: for when no runtime can tell."""
        if self._cluster is None:
            return {}
        return {
            address: facts
            for facts in self._cluster.pods()
            if not facts.host_network and not facts.finished
            for address in facts.addresses
        }

    def _facts(self, sandbox: Sandbox) -> PodFacts | None:
        """What the API says of it, or said last: it forgets a pod when it is deleted."""
        if self._cluster is None or not sandbox.uid:
            return None
        kept = self._names.get(place_of(sandbox))
        found = self._cluster.pod_by_uid(sandbox.uid)
        if found is None and sandbox.containers:  # a static pod has another uid in the API
            found = self._cluster.pod_by_container(sandbox.containers[0].id)
            if found and (found.namespace, found.name) != (sandbox.namespace, sandbox.pod):
                found = None
        return found or (kept[1] if kept else None)

    def _titled(
        self,
        target: Target,
        known: tuple[Identity, Place] | None,
        inodes: Mapping[int, int | None],
    ) -> Target:
        seen = known[0] if known else None
        for resident in self._residents:
            by_name = resident.netns and target.name == f"netns:{resident.netns}"
            by_pid = resident.pid is not None and (
                target.name == f"pid:{resident.pid}" or inodes.get(resident.pid) == target.inode
            )
            by_container = (
                seen is not None
                and not resident.netns
                and resident.pid is None
                and _share_a_container(resident.identity, seen)
            )
            if by_name or by_pid or by_container:
                return replace(target, identity=given(resident.identity, seen, node=self._node))
        if known is None:
            return replace(target, identity=replace(target.identity, node=self._node))
        identity, place = known
        if place == NOWHERE:
            return replace(target, identity=identity)
        note = target.note
        if not target.rings:
            wish = self.recording(identity, self._annotations(place))
            note = f"{wish.reason}: it is not recorded" if wish.mode is Mode.OFF else note
        return replace(
            target,
            kind=TargetKind.CONTAINER,
            name=f"container:{place[0][:DIGITS]}",
            identity=identity,
            note=note,
        )

    def _why_not(self, sandbox: Sandbox, identity: Identity) -> Unrecorded:
        wish = self.wish(sandbox)
        if sandbox.host_network:
            why = "it lives in the host's network, and the host is not recorded (recorder.host)"
        elif wish.mode is Mode.OFF:
            why = f"{wish.reason}: it is not recorded"
        elif sandbox.gone_ns:
            why = "it is gone, and nothing was recorded of its namespace"
        else:
            why = "its network namespace is not recorded (yet)"
        return Unrecorded(identity=identity, reason=f"{identity.name}: {why}", sandbox=sandbox)

    def recording(self, identity: Identity, annotations: Mapping[str, str]) -> Recording:
        """What the policy says of somebody; the answer is kept while the question stays the same."""
        asked = (identity.namespace, dict(identity.labels), dict(annotations))
        key = identity.uid or identity.name
        kept = self._decided.get(key)
        if kept is not None and kept[0] == asked:
            return kept[1]
        answer = self._policy.decide(identity.namespace, identity.labels, annotations)
        if len(self._decided) >= MAX_SANDBOXES:
            self._decided.clear()
        self._decided[key] = (asked, answer)
        return answer

    def wish(self, sandbox: Sandbox) -> Recording:
        """The same of a pod that no target is known for."""
        return self.recording(self._named(sandbox), self._annotations_of(sandbox))

    def assignments(self, view: View) -> dict[TargetKey, Recording]:
        """What is to be recorded of everybody alive whose name is known."""
        return {
            target.key: self.recording(
                target.identity,
                self._annotations(self._remembered.get(target.key, (Identity(), NOWHERE))[1]),
            )
            for target in view.targets
            if target.alive and target.kind is not TargetKind.HOST and target.identity.name
        }

    def _annotations(self, place: Place) -> Mapping[str, str]:
        """As the API has them now, else as the runtime was told at the pod's birth."""
        sandbox = self._sandboxes.get(place)
        return {} if sandbox is None else self._annotations_of(sandbox)

    def _annotations_of(self, sandbox: Sandbox) -> Mapping[str, str]:
        facts = self._facts(sandbox)
        return facts.annotations if facts else sandbox.annotations


def _share_a_container(one: Identity, other: Identity) -> bool:
    return any(
        same_container(mine, theirs) for mine in one.containers for theirs in other.containers
    )
