"""The whole flow of one alert, top to bottom: which target, which rules, freeze, plan or refusal, and who else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from ipaddress import ip_address

from tripshark.errors import BadInput, NotFound, Transient
from tripshark.formats.wire import Frozen
from tripshark.model.alert import Address, Alert, Connection, Endpoint
from tripshark.model.filter import Scope, ladder
from tripshark.model.fleet import Aim, Aimed
from tripshark.model.plan import Defaults, Plan, Reason, Refusal, decide
from tripshark.model.rule import RuleSet, Verdict, evaluate
from tripshark.model.target import (
    Elsewhere,
    Members,
    PeerEnd,
    Resolution,
    Target,
    TargetKey,
    TargetKind,
)
from tripshark.ports import CaptureRequest, Neighbours, Recorder, Targets
from tripshark.respond.spool import PEER

MAX_PARTS = 64  # of one incident on one node


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One more target of the same incident."""

    plan: Plan
    target: Target
    role: str = ""  # PEER: it sees the same packets from the other end


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """What another node is to capture of the same incident."""

    aim: Aim
    scope: Scope
    peer: str = ""  # "10.0.0.7" or "10.0.0.7:5432": whom the packets there are exchanged with


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done about one alert."""

    answer: Plan | Refusal
    target: Target | None
    also: tuple[Part, ...] = ()  # what else belongs to it: the other end, a workload's other pods
    far: tuple[Far, ...] = ()

    def confined(self, namespace: str) -> Decision:
        """The same without anything beyond one namespace."""
        target = self.target
        if isinstance(self.answer, Plan) and (
            target is None
            or target.kind is TargetKind.HOST
            or target.identity.namespace != namespace
        ):
            refusal = Refusal(
                reason=Reason.UNSUPPORTED,
                message=f"a Capture in {namespace} reaches no further than that namespace",
                hint="whoever may make a ClusterCapture can ask for more",
                rule=self.answer.rule,
            )
            return Decision(answer=refusal, target=None)
        return replace(
            self,
            also=tuple(
                part
                for part in self.also
                if part.target.identity.namespace == namespace
                and part.target.kind is not TargetKind.HOST
            ),
            far=tuple(each for each in self.far if each.aim.namespace == namespace),
        )


class Pipeline:
    """Decides; the runner does. `rules` is replaced as a whole when a reload succeeded.

    `neighbours` tells who else an alert concerns; `fleet`: other nodes can be asked.
    """

    def __init__(
        self,
        *,
        rules: RuleSet,
        targets: Targets,
        recorder: Recorder,
        defaults: Defaults,
        own_pids: Collection[int] = (),
        neighbours: Neighbours | None = None,
        fleet: bool = False,
        both_ends: bool = True,
    ) -> None:
        self.rules = rules
        self._targets = targets
        self._recorder = recorder
        self._defaults = defaults
        self._own_pids = own_pids
        self._neighbours = neighbours
        self._fleet = fleet
        self._both_ends = both_ends

    async def resolve(self, alert: Alert) -> Resolution | Refusal:
        """Which target is meant. Asks nobody but this machine."""
        if alert.is_internal:
            return Refusal(
                reason=Reason.INTERNAL, message="Falco about itself; watched as its heartbeat"
            )
        try:
            return await self._targets.resolve(alert)
        except Transient as away:
            return Refusal(
                reason=Reason.RECORDER_AWAY,
                message=away.message,
                hint=away.hint or "is `tripshark recorder` running? see `tripshark doctor`",
            )

    async def target(self, key: TargetKey) -> Target | None:
        """One that is known by its key. Raises `Transient`."""
        return next((each for each in await self._targets.all() if each.key == key), None)

    async def decide(self, alert: Alert, resolution: Resolution, *, now_ns: int) -> Decision:
        """What plan the rules make of it, or why none."""
        target = resolution.target
        if target is None and resolution.elsewhere is not None and self._fleet:
            return self._pass_on(alert, resolution, resolution.elsewhere)
        verdict = evaluate(self.rules, alert, target)
        host: Target | None = None
        try:
            host = await self._host() if _scope(verdict) is Scope.NODE else None
            answer = decide(
                alert,
                verdict,
                resolution,
                now_ns=now_ns,
                defaults=self._defaults,
                host=host,
                own_pids=self._own_pids,
                also=await self._also_known_as(alert),
                fleet=self._neighbours is not None,
            )
        except (BadInput, Transient) as problem:
            answer = Refusal(reason=Reason.UNSUPPORTED, message=problem.message, hint=problem.hint)
        if isinstance(answer, Plan) and host is not None:
            target = host
        if isinstance(answer, Refusal) or target is None:
            return Decision(answer=answer, target=target)
        return await self._with_others(alert, answer, target, _scope(verdict))

    def _pass_on(self, alert: Alert, resolution: Resolution, elsewhere: Elsewhere) -> Decision:
        """It reached the wrong node. Where no rule here could want it, nobody is troubled with it."""
        stand_in = Target(
            key=TargetKey(""),
            kind=TargetKind.CONTAINER,
            name=elsewhere.title,
            inode=0,
            since_ns=0,
            identity=elsewhere.identity,
        )
        verdict = evaluate(self.rules, alert, stand_in)
        if verdict.rule is None or verdict.capture is None or verdict.rule.dry_run:
            answer = decide(alert, verdict, resolution, now_ns=alert.time_ns)
            return Decision(answer=answer, target=None)
        refusal = Refusal(
            reason=Reason.ELSEWHERE,
            message=f"{elsewhere.title} is on {elsewhere.node}, which was asked to capture it",
            hint="its incident and evidence are found there, and at the hub",
            rule=verdict.rule.name,
        )
        far = Far(aim=_aim(elsewhere), scope=verdict.capture.scope or Scope.FLOW)
        return Decision(answer=refusal, target=None, far=(far,))

    async def _also_known_as(self, alert: Alert) -> tuple[Address, ...]:
        if self._neighbours is None or alert.connection is None:
            return ()
        return tuple(ip_address(each) for each in await self._neighbours.widen_addresses(alert))

    # ------------------------------------------------------------------------------- who else

    async def _with_others(
        self, alert: Alert, plan: Plan, target: Target, scope: Scope | None
    ) -> Decision:
        """The same incident's other targets, here and elsewhere."""
        also: list[Part] = []
        far: list[Far] = []
        if self._neighbours is not None:
            if scope in (Scope.WORKLOAD, Scope.SERVICE):
                members = await self._members(target, scope, alert)
                also += _parts(alert, plan, target, members, scope)
                far += [Far(aim=_aim(each), scope=Scope.POD) for each in members.elsewhere]
            elif self._both_ends and plan.scope in (Scope.FLOW, Scope.PEER):
                peer = await self._neighbours.peer_of(alert, target)
                if peer is not None:
                    also += self._other_end(alert, plan, target, peer)
                    own = _own_address(alert, target)
                    if peer.elsewhere is not None and peer.elsewhere.pod and own is not None:
                        far.append(Far(aim=_aim(peer.elsewhere), scope=Scope.PEER, peer=str(own)))
        return Decision(
            answer=plan,
            target=target,
            also=tuple(also[:MAX_PARTS]),
            far=tuple(far) if self._fleet else (),
        )

    async def _members(self, target: Target, scope: Scope, alert: Alert) -> Members:
        neighbours = self._neighbours
        if neighbours is None:
            return Members()
        if scope is Scope.SERVICE:
            peer = await neighbours.peer_of(alert, target)
            namespace, _, name = (peer.via if peer else "").partition("/svc/")
            if name:
                return await neighbours.expand("Service", namespace, name)
        return await neighbours.workload_of(target)

    def _other_end(self, alert: Alert, plan: Plan, target: Target, peer: PeerEnd) -> list[Part]:
        """The peer's own ring, if it is another pod of this node: there the alert's pod is the peer."""
        other = peer.target
        if other is None or other.key == target.key or other.kind is not TargetKind.CONTAINER:
            return []
        if not other.rings or target.kind is not TargetKind.CONTAINER:
            return []
        seen = _from_there(alert, target, peer)
        # behind a service no whole flow is known: nobody asked for one either
        scope = None if plan.scope is Scope.FLOW else plan.scope
        rungs = ladder(seen, scope, other.addresses)
        return [
            Part(
                plan=replace(
                    plan,
                    target=other.key,
                    rungs=rungs,
                    scope=rungs[0].scope,
                    reason=f"the other end of {plan.reason}",
                ),
                target=other,
                role=PEER,
            )
        ]

    # --------------------------------------------------------------------------------- freeze

    async def _host(self) -> Target | None:
        return next(
            (each for each in await self._targets.all() if each.kind is TargetKind.HOST), None
        )

    async def freeze(self, plan: Plan) -> Frozen | Refusal | None:
        """The history, now. None when the recorder is away for the moment: the capture will wait for it."""
        try:
            return (await self._recorder.freeze([plan.target]))[0]
        except NotFound as gone:
            return Refusal(
                reason=Reason.EXPIRED,
                message=gone.message,
                hint=gone.hint or "raise recorder.tombstone or recorder.copies",
                rule=plan.rule,
            )
        except Transient:
            return None


def by_hand(
    request: CaptureRequest, alert: Alert, plan: Plan, resolution: Resolution
) -> tuple[list[Part], list[Far]]:
    """The other pods, here and elsewhere, of the workload or the service that somebody asked for."""
    target, members = resolution.target, resolution.members
    if target is None or members is None:
        return [], []
    far = [Far(aim=_aim(each), scope=plan.scope, peer=request.peer) for each in members.elsewhere]
    return _parts(alert, plan, target, members, plan.scope)[:MAX_PARTS], far


def _parts(alert: Alert, plan: Plan, target: Target, members: Members, scope: Scope) -> list[Part]:
    """All of them but the first; of the dead only who lived within the window."""
    since_ns = plan.t0_ns - plan.before_ns
    wide = scope in (Scope.WORKLOAD, Scope.SERVICE)
    return [
        Part(
            plan=replace(
                plan,
                target=each.key,
                rungs=ladder(alert, scope, each.addresses),
                scope=Scope.POD if wide else scope,
                reason=f"{plan.reason}; {members.reason}",
            ),
            target=each,
        )
        for each in members.targets
        if each.key != target.key and each.rings and (each.alive or each.gone_ns >= since_ns)
    ]


def _scope(verdict: Verdict) -> Scope | None:
    return verdict.capture.scope if verdict.capture is not None else None


def _aim(elsewhere: Elsewhere) -> Aim:
    if not elsewhere.pod:
        return Aim(kind=Aimed.NODE, name=elsewhere.node)
    return Aim(
        kind=Aimed.POD, name=elsewhere.pod, namespace=elsewhere.namespace, uid=elsewhere.uid
    )


def _own_address(alert: Alert, target: Target) -> Address | None:
    """The target's address in the alert's connection; else its first one."""
    connection = alert.connection
    for endpoint in (connection.client, connection.server) if connection else ():
        if endpoint.address is not None and str(endpoint.address) in target.addresses:
            return endpoint.address
    return ip_address(target.addresses[0]) if target.addresses else None


def _from_there(alert: Alert, target: Target, peer: PeerEnd) -> Alert:
    """The alert as the other end sees the connection: its own address instead of a service's."""
    connection, address = alert.connection, _own_address(alert, target)
    if connection is None or address is None:
        return alert
    there = ip_address(peer.address)
    is_server = connection.server.address == address
    own = Endpoint(
        address=address, port=(connection.server if is_server else connection.client).port
    )
    # behind a service the port is another: the target's own port tells the flow
    theirs = connection.client if is_server else connection.server
    port = None if peer.via else theirs.port
    other = Endpoint(address=there, port=port)
    client, server = (other, own) if is_server else (own, other)
    return replace(
        alert,
        connection=Connection(client=client, server=server, proto=connection.proto),
        hints=(),
    )
