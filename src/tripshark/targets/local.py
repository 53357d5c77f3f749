"""Which namespace an alert means on this machine, and which other ends, pods and nodes it concerns.

Everything is answered from what is known here: the recorder's namespaces joined with the runtime's pods, the
cluster's facts and the settings' static map. Only who is not known is asked for, and briefly: alerts are taken in
order, and one about a stranger must not hold up the others. `resolve` waits at most `asking.PATIENCE_S` in all for others;
what may become known within seconds is marked `later`, and `resolve_late` has the time to try again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import SequenceMatcher

from tripshark.errors import NotFound, Transient, TripsharkError
from tripshark.model.addresses import AddressBook, HolderKind
from tripshark.model.alert import Alert
from tripshark.model.pod import PodFacts, Sandbox
from tripshark.model.recording import Mode, Policy, Recording
from tripshark.model.target import (
    Elsewhere,
    Members,
    PeerEnd,
    Resolution,
    Target,
    TargetKey,
    TargetKind,
)
from tripshark.ports import Clock
from tripshark.targets.asking import LATE_S, PATIENCE_S, Patience, Purse
from tripshark.targets.clues import DIGITS, Clues, clues
from tripshark.targets.known import HEARD_NS, Household, Sandboxes
from tripshark.targets.neighbours import Neighbourhood, at, ends_of, held_by
from tripshark.targets.sources import Assignable, Cluster, Namespaces, Resident, Runtime
from tripshark.targets.view import Unrecorded, View

__all__ = ["LocalTargets", "Resident"]

FRESH_NS = 200_000_000  # answers younger than this are used again
RETRY_NS = 50_000_000  # what is not known is asked again this soon
STALE_NS = 60_000_000_000  # what was known this long ago serves while the recorder is away
SHARE = 10  # looking at everybody may cost one part of so many of the time
HEAVY_S = 0.02  # a look that takes longer is not made at each piece of news
AGAIN_S = 0.1  # a container that was just created may be known so much later
STRANGERS = 8  # a second: more alerts about unknown containers wait for nobody
RESEND_NS = 60_000_000_000  # what the recorder was told is told again this often
TOMBSTONE_NS = 600_000_000_000


class LocalTargets:
    """Implements `ports.Targets` and `ports.Neighbours`. Runtime, cluster and book are optional, and may be away."""

    def __init__(
        self,
        recorder: Namespaces,
        residents: Sequence[Resident],
        clock: Clock,
        *,
        node: str,
        runtime: Runtime | None = None,
        cluster: Cluster | None = None,
        policy: Policy | None = None,
        book: AddressBook | None = None,
        tombstone_ns: int = TOMBSTONE_NS,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._node = node
        self._runtime = runtime
        self._cluster = cluster
        self._book = book
        self._policy = policy
        self._sandboxes = Sandboxes(runtime, tombstone_ns=tombstone_ns)
        self._household = Household(
            residents, self._sandboxes, cluster, policy or Policy(), node=node
        )
        self._purse = Purse()
        self._neighbours = Neighbourhood(cluster, book, node=node, purse=self._purse)
        self._view = View(())
        self._looked_ns = 0
        self._fresh_ns = FRESH_NS
        self._retry_ns = RETRY_NS
        self._look_s = 0.0
        self._looking = asyncio.Lock()
        self._asked: deque[float] = deque(maxlen=STRANGERS)
        self._strangers: dict[str, float] = {}  # container → when nobody knew it
        self._sent: dict[TargetKey, Recording] = {}
        self._sent_ns = 0
        self._told = 0

    # ------------------------------------------------------------------------------------- everybody

    async def all(self) -> tuple[Target, ...]:
        return (await self._look(self._fresh_ns)).targets

    async def guests(self) -> tuple[Target, ...]:
        """Pods in the host's network: the host's target under each one's name."""
        return (await self._look(self._fresh_ns)).guests

    async def _look(self, age_ns: int, *, heard_ns: int = HEARD_NS) -> View:
        """What is known, asked anew when older than this. A recorder that is just being restarted keeps its targets.

        `heard_ns`: how old the runtime's list may be.
        """
        if self._looked_ns and self._clock.now_ns() - self._looked_ns < age_ns:
            return self._view
        async with self._looking:
            now_ns = self._clock.now_ns()
            if self._looked_ns and now_ns - self._looked_ns < age_ns:
                return self._view  # somebody else has just looked
            began = asyncio.get_running_loop().time()
            try:
                found = await self._recorder.targets()
                inodes = {
                    resident.pid: await self._recorder.inode_of(resident.pid)
                    for resident in self._household.residents
                    if resident.pid is not None
                }
            except Transient:
                if self._looked_ns and now_ns - self._looked_ns < STALE_NS:
                    return self._view
                raise
            await self._sandboxes.hear(now_ns, age_ns=heard_ns)
            self._view = self._household.view(found, inodes, now_ns)
            self._look_s = asyncio.get_running_loop().time() - began
            self._fresh_ns = max(FRESH_NS, round(SHARE * self._look_s * 1e9))
            self._retry_ns = max(RETRY_NS, self._fresh_ns // 5)
            self._looked_ns = now_ns
            with suppress(TripsharkError):  # whoever sees a pod first has it recorded as it must
                await self._tell(self._view)
        return self._view

    async def attach_residents(self) -> None:
        """Have the namespaces recorded that the static map knows only by a process of theirs."""
        for resident in self._household.residents:
            if resident.pid is not None:
                with suppress(NotFound):
                    await self._recorder.attach(resident.pid)

    async def reconcile(self) -> int:
        """After news from the runtime or the cluster: have everybody recorded as the policy says.

        Namespaces that the recorder does not find by itself are attached by a process in them. Returns how many
        targets were told something new. Raises `Transient` when the recorder is away.
        """
        before = self._told
        if self._look_s > HEAVY_S:  # thousands of pods came and went: alerts come first
            await asyncio.sleep(min(1.0, 3 * self._look_s))
        view = await self._look(0, heard_ns=0)
        if await self._attach_homeless(view):
            view = await self._look(0)
        await self._tell(view)
        return self._told - before

    async def _tell(self, view: View) -> None:
        """Tell the recorder what is to be recorded of whom, as far as it has not been told."""
        if self._policy is None or not isinstance(self._recorder, Assignable):
            return
        wanted = self._household.assignments(view)
        now_ns = self._clock.now_ns()
        if now_ns - self._sent_ns >= RESEND_NS:
            self._sent, self._sent_ns = {}, now_ns
        changed = {key: each for key, each in wanted.items() if self._sent.get(key) != each}
        if changed:
            await self._recorder.record(changed)
            self._told += len(changed)
        self._sent = wanted

    async def _attach_homeless(self, view: View) -> bool:
        attached = False
        for each in view.strangers:
            attached |= each.sandbox is not None and await self._attach(each.sandbox)
        return attached

    async def _attach(self, sandbox: Sandbox) -> bool:
        """Record the namespace of a pod from now on, if the policy wants that."""
        if sandbox.pid <= 0 or sandbox.gone_ns or sandbox.host_network:
            return False
        if self._household.wish(sandbox).mode is Mode.OFF:
            return False
        with suppress(NotFound, Transient):
            await self._recorder.attach(sandbox.pid)
            return True
        return False

    # ------------------------------------------------------------------------------------- alerts

    async def resolve(self, alert: Alert) -> Resolution:
        """Strongest evidence first; what is not known at once is looked up afresh before giving up."""
        return await self._resolve(alert, None)

    async def _resolve(self, alert: Alert, patience: Patience | None) -> Resolution:
        """With this much patience, or as much as there is for those who are taken in order."""
        said = clues(alert)
        view = await self._look(self._fresh_ns)
        answer = await self._local(alert, said, view)
        if answer.target is not None:
            return answer
        view = await self._look(self._retry_ns, heard_ns=RETRY_NS)
        return await self._ask_around(alert, said, view, patience or self._purse.patience())

    async def resolve_late(self, alert: Alert) -> Resolution:
        """The same with up to two seconds of patience: for alerts that `resolve` marked `later`, beside the others."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LATE_S
        pause = AGAIN_S
        while True:
            for id, _ in clues(alert).containers:
                self._strangers.pop(id[:DIGITS], None)
            answer = await self._resolve(alert, Patience(max(PATIENCE_S, until - loop.time())))
            if answer.target is not None or not answer.later or loop.time() + pause > until:
                return answer
            await asyncio.sleep(pause)
            pause *= 2

    async def _ask_around(
        self, alert: Alert, said: Clues, view: View, patience: Patience
    ) -> Resolution:
        """Nobody known fits: ask the runtime, then the cluster, and take an address's holder at last."""
        answer = await self._local(alert, said, view)
        if answer.target is not None:
            return answer
        foreign = self._foreign(alert, said, view)
        later = False
        unrecorded = _unrecorded(said, view)
        if unrecorded is not None and unrecorded.sandbox is not None:
            if await self._attach(unrecorded.sandbox):
                answer = await self._local(alert, said, await self._look(0))
                if answer.target is not None:
                    return answer
        elif not foreign and said.containers:
            found, later = await self._ask_runtime(said, patience)
            if found:
                view = await self._look(0)
                answer = await self._local(alert, said, view)
                if answer.target is not None:
                    return answer
                later = False
        elsewhere = await self._elsewhere(alert, said, foreign, patience)
        if elsewhere is not None:
            return Resolution(
                target=None,
                reason=f"{elsewhere.title} runs on node {elsewhere.node}, not on {self._node}",
                hint=f"tripshark on {elsewhere.node} records it",
                elsewhere=elsewhere,
            )
        held = self._by_address(alert, view)
        if held:
            return Resolution(target=held[0], reason=f"the alert's address {held[1]} is its own")
        elsewhere = await self._elsewhere_by_address(alert, patience)
        if elsewhere is not None:
            return Resolution(
                target=None,
                reason=f"the alert's address belongs to {elsewhere.title} on {elsewhere.node}",
                hint=f"tripshark on {elsewhere.node} records it",
                elsewhere=elsewhere,
            )
        tried = [answer.reason] if answer.reason else []
        if about := _audited(alert):
            return Resolution(
                target=None,
                reason=f"the audit event is about {about}, and only a pod has packets",
                hint="let the rule match pods alone (match.where), or capture its pods by hand",
            )
        if alert.connection:
            tried.append("none of its addresses belongs to a recorded namespace")
        return Resolution(
            target=None,
            reason="; ".join(tried) or "the alert names no pod, container, process or address",
            hint=self._hint(said),
            later=later or patience.in_vain,
        )

    def _hint(self, said: Clues) -> str:
        """What would have told whom this alert means."""
        if self._runtime is not None and (said.containers or said.pod):
            return (
                f"is it a pod of this node ({self._node}), and did it live within recorder.tombstone? an alert "
                "belongs to the tripshark of its own node"
                + ("" if said.pod else ", or names the pod: k8s.ns.name and k8s.pod.name")
            )
        return (
            "let Falco add proc.pid and fd.cip to its output (append_output), "
            "or name the namespace under targets.static"
        )

    async def _local(self, alert: Alert, said: Clues, view: View) -> Resolution:
        """From what is known, without addresses; what did not fit is in the reason."""
        t0_ns = alert.time_ns
        tried: list[str] = []
        for id, field in said.containers:
            found = view.by_container(id, t0_ns)
            if found:
                return self._fits(alert, found, f"{field} is {id[:DIGITS]}")
        if said.uid and (found := view.by_uid(said.uid, t0_ns)):
            return self._fits(alert, found, f"the pod's uid is {said.uid}")
        for id, _ in said.containers[:1]:
            tried.append(f"container {id[:DIGITS]!r} is not known here")
        if said.pod:
            name = f"{said.namespace}/{said.pod}" if said.namespace else said.pod
            found = view.by_pod(said.namespace, said.pod, said.uid, t0_ns)
            if found:
                return self._fits(alert, found, f"{said.pod_by} is {name}")
            tried.append(f"pod {name!r} is not known here")
        unrecorded = _unrecorded(said, view)
        if unrecorded is not None:
            tried = [unrecorded.reason]
        is_ours = not self._foreign(alert, said, view)
        if alert.pid is not None and is_ours and unrecorded is None:
            inode = await self._inode_of(alert.pid)
            found = view.by_inode(inode, t0_ns) if inode else None
            if found and not (alert.container_id and found.kind is TargetKind.HOST):
                return self._fits(alert, found, f"process {alert.pid} lives in its namespace")
            tried.append(f"process {alert.pid} is gone or lives in an unrecorded namespace")
        if alert.on_host and is_ours:
            if view.host:
                return Resolution(
                    target=view.host, reason="the alert is about a process of the host"
                )
            tried.append("the host itself is not recorded (recorder.host)")
        return Resolution(target=None, reason="; ".join(tried))

    def _fits(self, alert: Alert, target: Target, reason: str) -> Resolution:
        """A pod in the host's network comes with what narrows it: its packets have no namespace of their own."""
        if target.kind is TargetKind.HOST and target.identity.pod:
            narrowed = (
                "the alert's connection narrows them"
                if alert.connection is not None
                else "nothing in the alert narrows them"
            )
            reason = f"{reason}; {target.note}; {narrowed}"
        return Resolution(target=target, reason=reason)

    async def _inode_of(self, pid: int) -> int | None:
        try:
            return await self._recorder.inode_of(pid)
        except Transient:
            return None

    async def _ask_runtime(self, said: Clues, patience: Patience) -> tuple[bool, bool]:
        """Whether a runtime knows one of these after all; and whether one may yet."""
        if self._runtime is None:
            return False, False
        loop = asyncio.get_running_loop()
        now = loop.time()
        ids = [
            id for id, _ in said.containers if now - self._strangers.get(id[:DIGITS], -1e9) > 1.0
        ]
        busy = len(self._asked) == STRANGERS and now - self._asked[0] < 1.0
        if not ids or busy:
            return False, True
        self._asked.append(now)
        for again in (False, True):
            if again:
                await patience.pause(AGAIN_S)
            for id in ids:
                sandbox = await patience.ask(self._runtime.find(id))
                if sandbox is not None:
                    self._sandboxes.learn(sandbox)
                    await self._attach_unknown(sandbox)
                    return True, False
        if len(self._strangers) >= 1024:
            self._strangers.clear()
        self._strangers.update((id[:DIGITS], loop.time()) for id in ids)
        return False, True

    async def _attach_unknown(self, sandbox: Sandbox) -> None:
        if not sandbox.inode or self._view.by_inode(sandbox.inode) is None:
            await self._attach(sandbox)

    def _by_address(self, alert: Alert, view: View) -> tuple[Target, str] | None:
        """Last resort: one target alone holds one of the addresses; client before server."""
        for address in ends_of(alert):
            found = view.by_address(address, alert.time_ns)
            if found is not None:
                return found, address
        return None

    # ------------------------------------------------------------------------------------- other nodes

    def _foreign(self, alert: Alert, said: Clues, view: View) -> str:
        """The node that sent this alert, where that is surely another one; its pids mean nothing here.

        Without a node's name Falco's hostname may be that of its own pod or container.
        """
        if said.node:
            return said.node if said.node != self._node else ""
        host = alert.hostname
        if self._cluster is None or not host or host == self._node or view.is_pod(host):
            return ""
        return host if self._book is not None and self._book.is_node(host) else ""

    async def _elsewhere(
        self, alert: Alert, said: Clues, foreign: str, patience: Patience
    ) -> Elsewhere | None:
        """Where the pod runs that the alert names, when that is another node."""
        if self._cluster is None:
            return None
        facts = self._cluster.pod_by_uid(said.uid) if said.uid else None
        for id, _ in said.containers:
            facts = facts or self._cluster.pod_by_container(id)
        if facts is None and said.pod and said.namespace:
            facts = self._cluster.pod(said.namespace, said.pod) or await patience.ask(
                self._cluster.lookup_pod(said.namespace, said.pod)
            )
        if facts is None and foreign and said.containers:
            facts = await patience.ask(
                self._cluster.lookup_container(said.containers[0][0], foreign)
            )
        if facts is not None and facts.node and not _contradicts(facts, said, alert):
            return None if facts.node == self._node else at(facts)
        if foreign:
            return Elsewhere(node=foreign, namespace=said.namespace, pod=said.pod, uid=said.uid)
        return None

    async def _elsewhere_by_address(self, alert: Alert, patience: Patience) -> Elsewhere | None:
        """Last resort, for an alert that names nobody."""
        if alert.on_host or self._cluster is None:
            return None
        for address in ends_of(alert):
            holder = await self._neighbours.holder(address, alert.time_ns, patience)
            is_pod = holder is not None and holder.kind == HolderKind.POD
            if holder is not None and is_pod and holder.node not in ("", self._node):
                return held_by(holder)
        return None

    # ------------------------------------------------------------------------------------- neighbours

    async def peer_of(self, alert: Alert, target: Target) -> PeerEnd | None:
        """The other end of the alert's connection, where it is a pod that somebody records.

        Behind a service's address there may be many: then the first of `peers_of`.
        """
        return next(iter(await self.peers_of(alert, target)), None)

    async def peers_of(self, alert: Alert, target: Target) -> tuple[PeerEnd, ...]:
        """All pods that may be the other end: one, or those behind a service's address, recorded here first."""
        try:
            view = await self._look(self._fresh_ns)
        except Transient:
            return ()
        return await self._neighbours.peers_of(alert, target, view)

    async def widen_addresses(self, alert: Alert) -> tuple[str, ...]:
        """Addresses behind the service that the alert's peer is: a filter for it must take them in as well.

        More than a filter can take in are none: its ladder then widens by itself.
        """
        return await self._neighbours.behind(alert)

    async def workload_of(self, target: Target) -> Members:
        """Every pod of the workload that this one belongs to, itself among them."""
        return await self._neighbours.workload_of(target, await self._look(self._fresh_ns))

    async def expand(self, kind: str, namespace: str, name: str) -> Members:
        """The pods of a `Deployment`, `StatefulSet`, … or of a `Service`; what a `Node` records.

        Those recorded here come with their tombstones, living ones first. The API tells of other nodes; when it
        is away what is known here is all, and the reason says so. Raises `Transient` when the recorder is away.
        """
        view = await self._look(self._fresh_ns)
        return await self._neighbours.expand(kind, namespace, name, view)

    # ------------------------------------------------------------------------------------- people

    async def find(self, name: str) -> Resolution:
        """A target as people write it: `ns/pod`, `ns/deployment/name`, `ns/service/name`, `netns:NAME`, `host`,
        `node:NAME`, `pid:N`, `container:ID`.

        A process in a namespace that is not recorded yet is recorded from now on.
        """
        view = await self._look(0)
        found = view.by_name(name)
        if found is None and (pid := _pid_of(name)):
            return await self._of_process(pid)
        if found is None and name.startswith("container:"):
            found = await self._of_container(name.removeprefix("container:"), view)
        if found:
            return Resolution(target=found, reason=f"{name} was asked for")
        if (members := await self._members(name)) is not None:
            first = members.targets[0] if members.targets else None
            if first is not None:
                return Resolution(target=first, reason=members.reason, members=members)
            if members.elsewhere:
                nodes = ", ".join(dict.fromkeys(each.node for each in members.elsewhere))
                return Resolution(
                    target=None,
                    reason=f"{members.reason}, none of them on {self._node}",
                    hint=f"tripshark on {nodes} records them; a Capture asks all nodes",
                    elsewhere=members.elsewhere[0],
                )
        elif (elsewhere := await self._named_elsewhere(name)) is not None:
            return Resolution(
                target=None,
                reason=f"{elsewhere.title} runs on node {elsewhere.node}",
                hint=f"tripshark on {elsewhere.node} records it",
                elsewhere=elsewhere,
            )
        near = ", ".join(_like(name, view)[:8]) or "nothing"
        why = view.unrecorded(name, name.removeprefix("container:")[:DIGITS])
        return Resolution(
            target=None,
            reason=why.reason if why else f"no target is called {name!r}",
            hint=f"recorded are: {near}",
        )

    async def _of_container(self, id: str, view: View) -> Target | None:
        found = view.by_container(id)
        if found is None and len(id) >= DIGITS and id.isalnum():
            asked = Clues(containers=((id, "container"),))
            if (await self._ask_runtime(asked, Patience()))[0]:
                found = (await self._look(0)).by_container(id)
        return found

    async def _members(self, name: str) -> Members | None:
        """`ns/deployment/name`, `ns/service/name`, `node:NAME`; None when it is written like none of these."""
        if name.startswith("node:"):
            return await self.expand("Node", "", name.removeprefix("node:"))
        parts = name.split("/")
        if len(parts) != 3 or not all(parts):
            return None
        kind = _KINDS.get(parts[1].lower(), parts[1])
        found = await self.expand(kind, parts[0], parts[2])
        # a service may lead to addresses of other namespaces: whoever names one namespace means no other
        here = tuple(each for each in found.targets if each.identity.namespace == parts[0])
        far = tuple(each for each in found.elsewhere if each.namespace == parts[0])
        return replace(found, targets=here, elsewhere=far)

    async def _named_elsewhere(self, name: str) -> Elsewhere | None:
        namespace, slash, pod = name.partition("/")
        if self._cluster is None or not slash or not pod or "/" in pod:
            return None
        facts = await Patience(LATE_S).ask(self._cluster.lookup_pod(namespace, pod))
        is_far = facts is not None and facts.node and facts.node != self._node
        return at(facts) if facts is not None and is_far else None

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
        found = (await self._look(0)).by_name(key)
        return Resolution(target=found, reason=f"process {pid} lives in its namespace")


_KINDS = {
    "deployment": "Deployment",
    "deploy": "Deployment",
    "statefulset": "StatefulSet",
    "sts": "StatefulSet",
    "daemonset": "DaemonSet",
    "ds": "DaemonSet",
    "replicaset": "ReplicaSet",
    "rs": "ReplicaSet",
    "job": "Job",
    "cronjob": "CronJob",
    "cj": "CronJob",
    "service": "Service",
    "svc": "Service",
}


def _like(name: str, view: View) -> list[str]:
    """Who lives here, by how much their names resemble what was asked for; pods before bare namespaces."""
    titles = {
        each.title: not each.identity.pod for each in (*view.targets, *view.guests) if each.alive
    }
    return sorted(
        titles, key=lambda each: (titles[each], -SequenceMatcher(None, name, each).ratio(), each)
    )


def _unrecorded(said: Clues, view: View) -> Unrecorded | None:
    return view.unrecorded(
        *(id[:DIGITS] for id, _ in said.containers),
        said.uid,
        f"{said.namespace}/{said.pod}" if said.pod and not said.uid else "",
    )


def _audited(alert: Alert) -> str:
    """What an audit event is about, when that is no pod."""
    kind, name, namespace = (
        alert.fields.get(f"ka.target.{each}") for each in ("resource", "name", "namespace")
    )
    if alert.source != "k8s_audit" or alert.pod:
        return ""
    whole = "/".join(str(each) for each in (namespace, name) if each)
    return f"{kind or 'something'} {whole}".strip()


def _contradicts(facts: PodFacts, said: Clues, alert: Alert) -> bool:
    """A pod of that name, but not the one meant: another uid, or born after the event."""
    if said.uid and facts.uid and said.uid != facts.uid:
        return True
    return not said.uid and facts.created_ns > alert.time_ns + 2_000_000_000


def _pid_of(name: str) -> int | None:
    """`pid:4242`: no process has more than ten digits."""
    number = name.removeprefix("pid:")
    is_pid = number != name and number.isascii() and number.isdigit() and len(number) <= 10
    return int(number) if is_pid else None
