"""Who else an alert concerns: the other end, a workload's other pods, and other nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.respond.worlds import an_alert
from tripshark.errors import BadInput
from tripshark.formats.rulefile import load
from tripshark.formats.wire import Chunk, Frozen
from tripshark.model.alert import Alert, Connection, Endpoint, Proto
from tripshark.model.filter import Scope
from tripshark.model.fleet import Aim, Aimed, FleetRequest
from tripshark.model.plan import Defaults, Plan, Reason, Refusal
from tripshark.model.target import (
    Elsewhere,
    Identity,
    Interface,
    Members,
    PeerEnd,
    Resolution,
    RingState,
    Target,
    TargetKey,
    TargetKind,
)
from tripshark.ports import Record
from tripshark.respond import orders
from tripshark.respond.asking import Asking
from tripshark.respond.batch import Case
from tripshark.respond.orders import Order
from tripshark.respond.pipeline import Far, Pipeline

ALERT = replace(
    an_alert(),
    connection=Connection(
        client=Endpoint(ip_address("10.0.0.7"), 41000),
        server=Endpoint(ip_address("10.0.0.9"), 5432),
        proto=Proto.TCP,
    ),
)


def pod(name: str, address: str) -> Target:
    interface = Interface(name="eth0", ifindex=2, hardware_type=1, addresses=(f"{address}/24",))
    return Target(
        key=TargetKey(f"key-{name}"),
        kind=TargetKind.CONTAINER,
        name=f"container:{name}",
        inode=1,
        since_ns=0,
        identity=Identity(namespace="shop", pod=name, uid=f"uid-{name}", node="here"),
        rings=(RingState(ring=f"r-{name}", interface=interface, live=True, bytes=1, snaplen=1),),
    )


NOBODY = Members()


class Around:
    """Implements ports.Targets, ports.Recorder and ports.Neighbours out of what it is given."""

    def __init__(
        self, *targets: Target, peer: PeerEnd | None = None, members: Members = NOBODY
    ) -> None:
        self.targets_ = targets
        self.peer = peer
        self.members = members

    async def all(self) -> tuple[Target, ...]:
        return self.targets_

    async def resolve(self, alert: Alert) -> Resolution:
        return Resolution(target=self.targets_[0], reason="given")

    async def resolve_late(self, alert: Alert) -> Resolution:
        return await self.resolve(alert)

    async def find(self, name: str) -> Resolution:
        return Resolution(target=None, reason="nobody")

    async def peer_of(self, alert: Alert, target: Target) -> PeerEnd | None:
        return self.peer

    async def workload_of(self, target: Target) -> Members:
        return self.members

    async def expand(self, kind: str, namespace: str, name: str) -> Members:
        return self.members

    async def widen_addresses(self, alert: Alert) -> tuple[str, ...]:
        return ()

    async def targets(self) -> tuple[Target, ...]:
        return self.targets_

    async def inode_of(self, pid: int) -> int | None:
        return None

    async def attach(self, pid: int) -> TargetKey:
        return TargetKey("")

    async def record(self, assign: object) -> None:
        return

    async def freeze(self, keys: Sequence[TargetKey]) -> tuple[Frozen, ...]:
        return ()

    def follow(self, frozen: Frozen, *, until_ns: int, max_bytes: int) -> AsyncIterator[Chunk]:
        raise AssertionError("nothing is followed here")

    async def release(self, frozen: Frozen) -> None:
        return


def pipeline(around: Around, rule: str, *, fleet: bool = True) -> Pipeline:
    loaded = load([("rules.yaml", rule)])
    assert not loaded.problems
    return Pipeline(
        rules=loaded.rules,
        targets=around,
        recorder=around,
        defaults=Defaults(),
        neighbours=around,
        fleet=fleet,
    )


EVERYTHING = "- rule: All\n  match: {priority: '>=Debug'}\n  capture: {}\n"
WORKLOAD = "- rule: All\n  match: {priority: '>=Debug'}\n  capture: {scope: workload}\n"
OF_DATABASES = """
- rule: Databases
  match: {where: 'target.labels["tier"] == "db"'}
  capture: {}
"""


def here(target: Target) -> Resolution:
    return Resolution(target=target, reason="given")


async def test_the_other_end_on_this_node_is_a_part_of_its_own() -> None:
    """Its filter is the same connection as seen from there: the alert's pod is the peer."""
    web, db = pod("web", "10.0.0.7"), pod("db", "10.0.0.9")
    around = Around(web, db, peer=PeerEnd(address="10.0.0.9", target=db))
    found = await pipeline(around, EVERYTHING).decide(ALERT, here(web), now_ns=5)
    assert isinstance(found.answer, Plan)
    (part,) = found.also
    assert part.target is db
    assert part.plan.target == db.key
    assert "10.0.0.7" in part.plan.rungs[0].core
    assert "10.0.0.9" in part.plan.rungs[0].core
    assert part.plan.rungs[1].scope is Scope.PEER
    assert "10.0.0.7" in part.plan.rungs[1].core
    assert not found.far


async def test_behind_a_service_the_flow_is_told_by_the_clients_port() -> None:
    """The server's own address and port are behind the service's: what is common is the client."""
    web, db = pod("web", "10.0.0.7"), pod("db", "10.0.0.9")
    service = replace(
        ALERT,
        connection=replace(ALERT.connection, server=Endpoint(ip_address("10.96.0.5"), 80)),
    )
    around = Around(web, db, peer=PeerEnd(address="10.0.0.9", target=db, via="shop/svc/db"))
    found = await pipeline(around, EVERYTHING).decide(service, here(web), now_ns=5)
    (part,) = found.also
    assert all("10.96.0.5" not in rung.core for rung in part.plan.rungs)
    assert "10.0.0.7" in part.plan.rungs[0].core


async def test_the_other_end_on_another_node_is_asked_for() -> None:
    """The request names the pod by uid, and the alert's pod as the peer."""
    web = pod("web", "10.0.0.7")
    there = Elsewhere(node="there", namespace="data", pod="db", uid="uid-db")
    around = Around(web, peer=PeerEnd(address="10.0.0.9", elsewhere=there))
    found = await pipeline(around, EVERYTHING).decide(ALERT, here(web), now_ns=5)
    (far,) = found.far
    assert far.aim == Aim(kind=Aimed.POD, name="db", namespace="data", uid="uid-db")
    assert (far.scope, far.peer) == (Scope.PEER, "10.0.0.7")
    alone = await pipeline(around, EVERYTHING, fleet=False).decide(ALERT, here(web), now_ns=5)
    assert not alone.far


async def test_a_workload_is_all_of_its_pods() -> None:
    """Those recorded here are parts, those on other nodes are asked for; none twice."""
    one, two = pod("web-1", "10.0.0.7"), pod("web-2", "10.0.0.8")
    there = Elsewhere(node="there", namespace="shop", pod="web-3", uid="uid-3")
    around = Around(one, two, members=Members(targets=(one, two), elsewhere=(there,)))
    found = await pipeline(around, WORKLOAD).decide(ALERT, here(one), now_ns=5)
    assert [part.target for part in found.also] == [two]
    assert [far.aim.name for far in found.far] == ["web-3"]
    assert found.far[0].scope is Scope.POD


async def test_an_alert_at_the_wrong_node_is_passed_on_only_if_a_rule_could_want_it() -> None:
    """The rules are asked with what is known of the pod from here; the refusal says where it went."""
    around = Around(pod("web", "10.0.0.7"))
    for labels, reason, asked in (
        ({"tier": "db"}, Reason.ELSEWHERE, 1),
        ({"tier": "web"}, Reason.NO_RULE, 0),
    ):
        there = Elsewhere(node="there", namespace="shop", pod="db", uid="u", labels=labels)
        lost = Resolution(target=None, reason="not here", elsewhere=there)
        found = await pipeline(around, OF_DATABASES).decide(ALERT, lost, now_ns=5)
        assert isinstance(found.answer, Refusal)
        assert found.answer.reason is reason
        assert len(found.far) == asked


def test_an_order_survives_the_journal_and_keeps_to_this_nodes_limits() -> None:
    """What is written is what is read; nobody may ask for more than this node gives."""
    request = FleetRequest(
        aims=(Aim(kind=Aimed.POD, name="db", namespace="shop", uid="u"),),
        t0_ns=7,
        scope=Scope.PEER,
        peer="10.0.0.7",
        max_bytes=1 << 60,
        rule="All",
        alert='{"rule":"X","priority":"Notice","time":"2026-11-24T00:00:00Z","output_fields":{}}',
    )
    target = pod("db", "10.0.0.9")
    order = Order(request=request, resource="shop/x", target=target.key)
    assert orders.decode(orders.encode(order)) == order
    alert = orders.alert_of(order)
    assert alert.rule == "X"
    plan = orders.plan_of(order, alert, target, Defaults(), now_ns=9)
    assert plan.limits.max_bytes == Defaults().limits.max_bytes
    assert "10.0.0.7" in plan.rungs[0].core
    assert not orders.wants_rules(order)
    assert orders.wants_rules(replace(order, request=replace(request, rule="")))


def test_an_order_without_an_alert_speaks_for_itself() -> None:
    """A resource made by hand carries none."""
    aim = Aim(kind=Aimed.POD, name="db", namespace="shop")
    order = Order(
        request=FleetRequest(aims=(aim,), t0_ns=7, by="kubectl"),
        resource="shop/x",
        target=TargetKey("k"),
    )
    alert = orders.alert_of(order)
    assert (alert.time_ns, alert.source) == (7, "capture")
    with pytest.raises(BadInput):
        orders.decode(b'{"request": 1}')


async def test_a_namespaced_capture_reaches_no_further_than_its_namespace() -> None:
    """Whoever forges an alert in it gains nothing: not the host, not other namespaces' pods, here or elsewhere."""
    web, db = pod("web", "10.0.0.7"), pod("db", "10.0.0.9")
    foreign = replace(db, identity=replace(db.identity, namespace="data"))
    there = Elsewhere(node="there", namespace="data", pod="x", uid="u")
    peer = PeerEnd(address="10.0.0.9", target=foreign, elsewhere=there)
    found = await pipeline(Around(web, foreign, peer=peer), EVERYTHING).decide(
        ALERT, here(web), now_ns=5
    )
    assert found.also
    assert found.far
    own = found.confined("shop")
    assert isinstance(own.answer, Plan)
    assert not own.also
    assert not own.far
    other = found.confined("data")
    assert isinstance(other.answer, Refusal)
    host = replace(web, kind=TargetKind.HOST, key=TargetKey("host"))
    everything = "- rule: All\n  match: {priority: '>=Debug'}\n  capture: {scope: node}\n"
    node = await pipeline(Around(web, host), everything).decide(ALERT, here(web), now_ns=5)
    assert isinstance(node.answer, Plan)
    assert isinstance(node.confined("shop").answer, Refusal)
    order = Order(request=FleetRequest(aims=(), t0_ns=1), resource="shop/x", target=TargetKey("k"))
    assert orders.confines(order) == "shop"
    assert orders.confines(replace(order, resource="x")) == ""


async def test_an_alert_that_was_passed_on_is_passed_on_verbatim() -> None:
    """What another node is asked carries Falco's own words, not the order they came in."""
    asked: list[FleetRequest] = []

    class Nodes:
        async def ask(self, request: FleetRequest) -> str:
            asked.append(request)
            return "name"

    words = '{"rule":"X","priority":"Notice","time":"2026-11-24T00:00:00Z","output_fields":{}}'
    order = Order(
        request=FleetRequest(aims=(), t0_ns=1, alert=words), resource="x", target=TargetKey("k")
    )
    far = Far(aim=Aim(kind=Aimed.POD, name="db", namespace="shop"), scope=Scope.PEER)
    for via, body, said in (
        ("webhook", words.encode(), words),
        ("capture:x#1", orders.encode(order), words),
        ("manual", b"{}", ""),
    ):
        record = Record(seq=1, received_ns=1, via=via, body=body)
        asking = Asking(Nodes(), origin="here")
        refusal = Refusal(reason=Reason.ELSEWHERE, message="there")
        await asking.pass_on(Case(record, ALERT, "m"), far, refusal)
        assert asked.pop().alert == said
