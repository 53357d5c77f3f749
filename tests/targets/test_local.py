"""Which namespace an alert means."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.respond.worlds import ManualClock, an_alert
from tripshark.errors import NotFound, Transient
from tripshark.model.alert import Alert, Connection, Endpoint
from tripshark.model.target import Identity, Interface, RingState, Target, TargetKey, TargetKind
from tripshark.targets.local import LocalTargets, Resident

S = 1_000_000_000
FULL = "d732c48fd7f5" + "0" * 52


def target(
    name: str,
    address: str = "",
    *,
    inode: int = 1,
    since_s: int = 0,
    gone_s: int = 0,
    key: str = "",
) -> Target:
    ring = RingState(
        ring=name + key,
        interface=Interface(
            name="eth0",
            ifindex=2,
            hardware_type=1,
            addresses=(f"{address}/24",) if address else (),
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
        since_ns=since_s * S,
        gone_ns=gone_s * S,
        rings=(ring,),
    )


class Recorded:
    """Namespaces and processes of a machine, as plain values."""

    def __init__(self, *found: Target, processes: dict[int, int] | None = None) -> None:
        self.found = found
        self.processes = processes or {}
        self.asked = 0
        self.away = False

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
        key = next((t.key for t in self.found if t.inode == self.processes[pid]), None)
        if key is None:
            key = TargetKey(f"pid:{pid}")
            self.found += (target(key, inode=self.processes[pid], key=key),)
        return key


RESIDENTS = (
    Resident(
        netns="shop0",
        identity=Identity(namespace="payments", pod="checkout-7d9f", containers=(FULL,)),
    ),
)


def local(recorded: Recorded, now_s: int = 1000) -> LocalTargets:
    return LocalTargets(recorded, RESIDENTS, ManualClock(now_s * S), node="n1")


def alert(**fields: object) -> Alert:
    return replace(an_alert(time_ns=900 * S), **{"namespace": None, "pod": None, **fields})


CASES = {
    "pod": (alert(namespace="payments", pod="checkout-7d9f"), "netns:shop0"),
    "container, 12 digits": (alert(container_id="d732c48fd7f5"), "netns:shop0"),
    "process": (alert(pid=77), "netns:shop0"),
    "client address": (
        alert(
            connection=Connection(client=Endpoint(ip_address("10.0.0.7"), 1), server=Endpoint())
        ),
        "netns:shop0",
    ),
    "server address (flipped)": (
        alert(
            connection=Connection(client=Endpoint(), server=Endpoint(ip_address("10.0.0.7"), 1))
        ),
        "netns:shop0",
    ),
    "host": (alert(on_host=True), "host"),
    "unknown container, known address": (
        alert(
            container_id="ffffffffffff",
            connection=Connection(client=Endpoint(ip_address("10.0.0.7"), 1), server=Endpoint()),
        ),
        "netns:shop0",
    ),
    "nothing": (alert(), None),
    "unknown pod": (alert(namespace="payments", pod="other"), None),
    "loopback address": (
        alert(
            connection=Connection(client=Endpoint(ip_address("127.0.0.1"), 1), server=Endpoint())
        ),
        None,
    ),
    "short container id": (alert(container_id="d732"), None),
}


@pytest.mark.parametrize("name", CASES)
async def test_an_alert_is_resolved_by_what_it_can_be_trusted_for(name: str) -> None:
    """Container, pod, process, address, host; else nothing, with the reason."""
    asked, wanted = CASES[name]
    machine = Recorded(
        target("netns:shop0", "10.0.0.7", inode=42),
        target("host", "192.0.2.1"),
        processes={77: 42},
    )
    answer = await local(machine).resolve(asked)
    assert (answer.target.name if answer.target else None) == wanted
    assert answer.reason
    assert answer.target or answer.hint


async def test_a_name_used_again_belongs_to_whoever_held_it_then() -> None:
    """T0 decides between the dead pod and its successor of the same name and address."""
    machine = Recorded(
        target("netns:shop0", "10.0.0.7", since_s=100, gone_s=950, key="dead"),
        target("netns:shop0", "10.0.0.7", since_s=960, key="alive"),
    )
    places = local(machine)
    for at_s, wanted in ((900, "dead"), (970, "alive"), (5, "alive")):
        for asked in (
            alert(namespace="payments", pod="checkout-7d9f"),
            alert(container_id=FULL),
        ):
            answer = await places.resolve(replace(asked, time_ns=at_s * S))
            assert answer.target
            assert answer.target.key == wanted


async def test_a_recorder_that_is_away_for_a_moment_keeps_its_targets() -> None:
    """An alert that comes meanwhile is resolved from what was known; after a minute nothing is believed any more."""
    machine, clock = Recorded(target("netns:shop0")), ManualClock(1000 * S)
    places = LocalTargets(machine, RESIDENTS, clock, node="n1")
    await places.all()
    machine.away = True
    asked = alert(namespace="payments", pod="checkout-7d9f", pid=7)
    clock.now += 30 * S
    assert (await places.resolve(asked)).target
    clock.now += 60 * S
    with pytest.raises(Transient):
        await places.resolve(asked)


async def test_two_holders_of_one_address_are_nobody() -> None:
    """An address alone is only believed when it is unambiguous."""
    machine = Recorded(
        target("netns:a", "10.0.0.7", key="a"), target("netns:b", "10.0.0.7", key="b")
    )
    connection = Connection(client=Endpoint(ip_address("10.0.0.7"), 1), server=Endpoint())
    assert (await local(machine).resolve(alert(connection=connection))).target is None


async def test_what_is_unknown_is_looked_up_afresh_once() -> None:
    """A pod that appeared within the last moment is found; what is known is not asked again."""
    machine, clock = Recorded(target("host")), ManualClock(1000 * S)
    places = LocalTargets(machine, RESIDENTS, clock, node="n1")
    await places.all()
    clock.now += S // 10
    machine.found = (target("netns:shop0"),)
    answer = await places.resolve(alert(namespace="payments", pod="checkout-7d9f"))
    assert answer.target
    assert machine.asked == 2


@pytest.mark.parametrize(
    "name",
    ["payments/checkout-7d9f", "netns:shop0", "pid:77", f"container:{FULL[:12]}", "host"],
)
async def test_people_find_targets_by_every_promised_name(name: str) -> None:
    """`ns/pod`, `netns:NAME`, `pid:N`, `container:ID`, `host`."""
    machine = Recorded(target("netns:shop0", inode=42), target("host"), processes={77: 42})
    answer = await local(machine).find(name)
    assert answer.target
    assert answer.target.name == ("host" if name == "host" else "netns:shop0")
    assert answer.target.identity.node == "n1"


async def test_an_unknown_name_is_answered_with_what_is_recorded() -> None:
    """The hint lists names that would work."""
    answer = await local(Recorded(target("netns:shop0"))).find("pid:x")
    assert answer.target is None
    assert "payments/checkout-7d9f" in answer.hint
