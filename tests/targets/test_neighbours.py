"""Whom else an alert concerns: other ends, services, workloads, nodes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.targets.places import (
    HERE,
    THERE,
    Clustered,
    Place,
    Recorded,
    Runtimes,
    S,
    alert,
    facts_of,
    holder_of,
    sandbox,
    target,
)
from tripshark.errors import Transient
from tripshark.model.addresses import Holder, HolderKind
from tripshark.model.alert import Alert, Connection, Endpoint
from tripshark.model.pod import ServiceFacts
from tripshark.model.target import Elsewhere, Target

SHOP = sandbox(0x10, "shop", inode=41, created_ns=S, addresses=("10.244.0.7",))
TILL = sandbox(0x20, "till", inode=42, created_ns=S, addresses=("10.244.0.8",))
FAR = facts_of(sandbox(0x30, "far", addresses=("10.244.1.9",)), THERE)
VIP = "10.96.0.10"
SERVICE = ServiceFacts(
    namespace="shop",
    name="ledger",
    addresses=(VIP,),
    backends=("10.244.1.9", "10.244.0.8"),
)


def place(**parts: object) -> Place:
    given = {
        "recorder": Recorded(
            (
                target("netns:a", "10.244.0.7", inode=41, since_s=1),
                target("netns:b", "10.244.0.8", inode=42, since_s=1),
                target("host", "192.0.2.1", inode=1),
            )
        ),
        "runtime": Runtimes((SHOP, TILL)),
        "cluster": Clustered([facts_of(SHOP), facts_of(TILL), FAR], [SERVICE]),
        **parts,
    }
    return Place(**given)  # type: ignore[arg-type]


def to(server: str, client: str = "10.244.0.7", **more: object) -> Alert:
    connection = Connection(
        client=Endpoint(ip_address(client), 40000),
        server=Endpoint(ip_address(server), 443),
        **more,
    )  # type: ignore[arg-type]
    return alert(connection=connection)


async def own(there: Place) -> Target:
    found = (await there.targets.find("netns:a")).target
    assert found
    return found


async def test_the_other_end_is_a_pod_here_or_on_another_node() -> None:
    """Whichever end the target is; with the peer's address and why."""
    there = place()
    here = await own(there)
    for asked in (to("10.244.0.8"), to("10.244.0.7", client="10.244.0.8")):
        end = await there.targets.peer_of(asked, here)
        assert end
        assert end.target
        assert (end.target.key, end.address, end.elsewhere) == ("netns:b", "10.244.0.8", None)
    end = await there.targets.peer_of(to("10.244.1.9"), here)
    assert end
    assert end.elsewhere == Elsewhere(node=THERE, namespace="shop", pod="far", uid=FAR.uid)
    assert "far" in end.reason


@pytest.mark.parametrize(
    "asked",
    [
        alert(),
        to("203.0.113.66"),
        to("10.250.0.1"),
        to("127.0.0.1"),
        to("192.0.2.1"),  # the node itself: no pod
        to("10.244.0.7"),  # itself
        to("10.244.0.8", listening=True),
    ],
)
async def test_not_every_alert_has_another_end(asked: Alert) -> None:
    """Outside the cluster, the node, itself, or nobody at all."""
    there = place()
    assert await there.targets.peer_of(asked, await own(there)) is None


async def test_the_other_end_is_whoever_held_the_address_then() -> None:
    """By the recorder's own knowledge of namespaces, then by the history of addresses."""
    there = place(
        recorder=Recorded(
            (
                target("netns:a", "10.244.0.7", inode=41, since_s=1),
                target("netns:b", "10.244.0.8", inode=42, since_s=1, gone_s=890, key="dead"),
                target("netns:c", "10.244.0.8", inode=43, since_s=895, key="alive"),
            )
        )
    )
    here = await own(there)
    for at_s, key in ((880, "dead"), (900, "alive")):
        end = await there.targets.peer_of(replace(to("10.244.0.8"), time_ns=at_s * S), here)
        assert end
        assert end.target
        assert end.target.key == key
    there.book.holds("10.244.1.9", holder_of(FAR), 100 * S)
    successor = replace(holder_of(FAR), name="shop/next", uid="n", node="node-3")
    there.book.holds("10.244.1.9", successor, 500 * S)
    for at_s, pod in ((400, "far"), (600, "next")):
        end = await there.targets.peer_of(replace(to("10.244.1.9"), time_ns=at_s * S), here)
        assert end
        assert end.elsewhere
        assert end.elsewhere.pod == pod
    assert not (there.cluster and there.cluster.asked)


async def test_who_came_to_an_address_later_is_not_the_other_end() -> None:
    """The API knows who has it now; the history, that this was after the event."""
    there = place()
    here = await own(there)
    there.book.holds("10.244.1.9", holder_of(FAR), 950 * S)
    assert await there.targets.peer_of(to("10.244.1.9"), here) is None
    end = await there.targets.peer_of(replace(to("10.244.1.9"), time_ns=949 * S), here)
    assert end  # the API counts in seconds


async def test_the_history_names_pods_here_by_uid_or_name() -> None:
    """A pod whose addresses the recorder could not read is found all the same."""
    there = place(
        recorder=Recorded(
            (
                target("netns:a", "10.244.0.7", inode=41, since_s=1),
                target("netns:b", inode=42, since_s=1),
            )
        )
    )
    here = await own(there)
    for uid in (TILL.uid, ""):
        there.book.holds(
            "10.244.0.8", Holder(kind=HolderKind.POD, name="shop/till", uid=uid, node=HERE), S
        )
        end = await there.targets.peer_of(to("10.244.0.8"), here)
        assert end
        assert end.target
        assert end.target.key == "netns:b"
        there.book.leaves(uid or "pod:shop/till", 2 * S)
    unknown = Holder(kind=HolderKind.POD, name="shop/unknown", uid="x", node=HERE)
    there.book.holds("10.244.0.9", unknown, S)
    assert await there.targets.peer_of(to("10.244.0.9"), here) is None


async def test_behind_a_service_there_are_pods_here_and_elsewhere() -> None:
    """Those recorded here come first; the service is told."""
    there = place()
    ends = await there.targets.peers_of(to(VIP), await own(there))
    assert [(each.address, each.via) for each in ends] == [
        ("10.244.0.8", "shop/svc/ledger"),
        ("10.244.1.9", "shop/svc/ledger"),
    ]
    first = await there.targets.peer_of(to(VIP), await own(there))
    assert first == ends[0]


async def test_a_filter_takes_in_whoever_is_behind_a_service() -> None:
    """Either way round; a plain peer has nobody behind it, and too many are none."""
    there = place()
    behind = ("10.244.0.8", "10.244.1.9")
    assert await there.targets.widen_addresses(to(VIP)) == behind
    assert await there.targets.widen_addresses(to("10.244.0.7", client=VIP)) == behind
    assert await there.targets.widen_addresses(to("10.244.0.8")) == ()
    assert await there.targets.widen_addresses(alert()) == ()
    assert there.cluster
    there.cluster.services[0] = replace(
        SERVICE, backends=(*(f"10.244.3.{each}" for each in range(200)), "hostile")
    )
    assert await there.targets.widen_addresses(to(VIP)) == ()


async def test_a_workload_has_its_pods_on_every_node_and_its_dead_here() -> None:
    """The API tells of the living; the recorder's tombstones of the dead of the same owner."""
    dead = target("netns:x", inode=44, since_s=1, gone_s=800, key="dead")
    gone = sandbox(
        0x40,
        "checkout-77-old",
        inode=44,
        created_ns=S,
        gone_ns=800 * S,
        labels={"pod-template-hash": "77"},
    )
    there = place(runtime=Runtimes((SHOP, TILL, gone)))
    there.recorder.found += (dead,)
    here = await own(there)
    for found in (
        await there.targets.workload_of(here),
        await there.targets.expand("Deployment", "shop", "checkout"),
    ):
        assert [each.key for each in found.targets] == ["netns:a", "netns:b", "dead"]
        assert [each.node for each in found.elsewhere] == [THERE]
        assert "4 pods" in found.reason
    service = await there.targets.expand("Service", "shop", "ledger")
    assert [each.key for each in service.targets] == ["netns:b"]
    assert [each.pod for each in service.elsewhere] == ["far"]
    assert (await there.targets.expand("Deployment", "shop", "nothing")).targets == ()


async def test_a_pod_without_an_owner_is_a_workload_of_one() -> None:
    """And one whose workload cannot be asked for keeps at least itself."""
    there = place(cluster=None)
    here = await own(there)
    alone = await there.targets.workload_of(here)
    assert alone.targets == (here,)
    owned = replace(here, identity=replace(here.identity, owner="Deployment/elsewhere"))
    assert (await there.targets.workload_of(owned)).targets == (owned,)
    for trick in (f"Node/{HERE}", f"node/{THERE}", "Service/ledger", "Pod/till-0"):
        forged = replace(here, identity=replace(here.identity, owner=trick))
        found = await place().targets.workload_of(forged)  # its author wrote that
        assert (found.targets, found.elsewhere) == ((forged,), ())


@pytest.mark.parametrize("trouble", ["away", "hangs"])
async def test_without_the_api_a_workload_is_who_is_known_here(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the reason says so."""
    monkeypatch.setattr("tripshark.targets.neighbours.LATE_S", 0.05)
    there = place()
    await there.targets.all()
    setattr(there.cluster, trouble, True)
    found = await there.targets.expand("Deployment", "shop", "checkout")
    assert [each.key for each in found.targets] == ["netns:a", "netns:b"]
    assert "could not be asked" in found.reason


async def test_a_node_is_its_host_or_all_its_pods() -> None:
    """The host's rings see what pods exchange; without them each pod's own."""
    there = place()
    assert [t.key for t in (await there.targets.expand("Node", "", HERE)).targets] == ["host"]
    there.recorder.found = there.recorder.found[:2]
    there.clock.now += S
    assert [t.key for t in (await there.targets.expand("node", "", HERE)).targets] == [
        "netns:a",
        "netns:b",
    ]
    assert (await there.targets.expand("node", "", THERE)).elsewhere == (Elsewhere(node=THERE),)


async def test_a_recorder_that_is_away_leaves_an_alert_without_other_ends() -> None:
    """The capture of the target itself must not fail for it."""
    there = place()
    here = await own(there)
    there.recorder.away = True
    there.clock.now += 120 * S
    assert await there.targets.peer_of(to("10.244.0.8"), here) is None
    with pytest.raises(Transient):
        await there.targets.expand("Node", "", HERE)
