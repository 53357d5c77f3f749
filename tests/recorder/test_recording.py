"""The recorder against real namespaces and real packets."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.recorder.conftest import (
    Nets,
    Process,
    connected,
    has_link,
    number,
    numbers,
    packets,
    sh,
    target,
    until,
    until_async,
)
from tripshark.formats.wire import Frozen
from tripshark.recorder.client import RecorderClient

pytestmark = pytest.mark.root

Start = Callable[..., Process]


async def frozen_with(client: RecorderClient, name: str, count: int, **options: object) -> Frozen:
    """A freeze of that target that holds `count` numbered packets."""
    found = await target(client, name)

    async def ask() -> Frozen | None:
        (frozen,) = await client.freeze([found.key])
        if len(numbers(frozen)) >= count:
            return frozen
        await client.release(frozen)
        return None

    frozen = await until_async(ask)
    assert frozen is not None
    return frozen


async def test_history_holds_every_packet_once(start: Start, nets: Nets) -> None:
    """What was sent before anybody asked is in the freeze, each packet once and in order."""
    pod, _ = nets.pod()
    async with connected(start()) as client:
        await target(client, pod, rings=2)
        nets.send(pod, 500).wait()
        frozen = await frozen_with(client, pod, 500)
        assert numbers(frozen) == list(range(500))
        assert frozen.expired_ns == 0
        eth0 = next(each for each in frozen.copies if each.interface.name == "eth0")
        assert eth0.live
        assert eth0.reaches_ns == eth0.opened_ns
        assert eth0.interface.addresses == ("10.77.1.1/24",)
        assert eth0.drops == 0
        assert eth0.packets >= 500


async def test_the_seam_loses_and_doubles_nothing(start: Start, nets: Nets) -> None:
    """Freeze and follow together hold every packet of a 1 kHz stream; (ring, seq, position) names each once."""
    pod, _ = nets.pod()
    async with connected(start()) as client:
        found = await target(client, pod, rings=2)
        sender = nets.send(pod, 3000, 1000)
        await frozen_with(client, pod, 700)
        (frozen,) = await client.freeze([found.key])
        seen = {
            (copy.ring, seq, position): number(data)
            for copy in frozen.copies
            for seq, position, _, data in packets(copy)
        }
        until_ns = time.time_ns() + 3_500_000_000
        ended = ""
        async for chunk in client.follow(frozen, until_ns=until_ns, max_bytes=1 << 30):
            ended = chunk.ended
            for copy in chunk.copies:
                assert copy.overwritten == 0
                for seq, position, _, data in packets(copy):
                    name = (copy.ring, seq, position)
                    assert seen.setdefault(name, number(data)) == number(data)
        sender.wait()
        assert ended == "time"
        got = [seen[name] for name in sorted(seen) if seen[name] is not None]
        assert got == list(range(3000))


async def test_a_dead_namespace_is_readable_and_not_pinned(start: Start, nets: Nets) -> None:
    """After its name is deleted the peer's veth vanishes, and the history is still there."""
    pod, world = nets.pod()
    async with connected(start()) as client:
        found = await target(client, pod, rings=2)
        nets.send(pod, 300).wait()
        nets.delete(pod)
        until(lambda: not has_link(world, "eth0"))  # long before the tombstone's end
        (frozen,) = await client.freeze([found.key])
        assert numbers(frozen) == list(range(300))
        assert frozen.target.gone_ns
        assert not any(each.live for each in frozen.copies)
        chunks = [
            each
            async for each in client.follow(
                frozen, until_ns=time.time_ns() + 10**10, max_bytes=1 << 30
            )
        ]
        assert [each.ended for each in chunks] == ["gone"]


async def test_a_link_that_goes_down_and_up_is_still_recorded(start: Start, nets: Nets) -> None:
    """Down and up again: the same ring goes on."""
    pod, _ = nets.pod()
    async with connected(start()) as client:
        await target(client, pod, rings=2)
        nets.send(pod, 50).wait()
        sh(f"ip -n {pod} link set eth0 down")
        sh(f"ip -n {pod} link set eth0 up")
        until(lambda: "state UP" in sh(f"ip -n {pod} link show eth0"))
        nets.send(pod, 50).wait()
        frozen = await frozen_with(client, pod, 100)
        assert numbers(frozen) == [*range(50), *range(50)]
        assert sum(each.interface.name == "eth0" for each in frozen.copies) == 1


async def test_interfaces_that_come_and_go(start: Start, nets: Nets) -> None:
    """An interface added later gets a ring, a renamed one keeps it, a deleted one becomes a tombstone."""
    pod, world = nets.pod()
    async with connected(start()) as client:
        await target(client, pod, rings=2)
        nets.pair(pod, world, 2, "net1", "w1")
        found = await target(client, pod, rings=3)
        sh(f"ip -n {pod} link set net1 down")
        sh(f"ip -n {pod} link set net1 name net9")
        sh(f"ip -n {pod} link set net9 up")
        nets.send(pod, 40, peer="10.77.2.2").wait()

        async def renamed() -> bool:
            found = await target(client, pod, rings=3)
            return any(each.interface.name == "net9" for each in found.rings)

        await until_async(renamed)
        sh(f"ip -n {pod} link del net9")

        async def buried() -> bool:
            return any(not each.live for each in (await target(client, pod, rings=2)).rings)

        await until_async(buried)
        (frozen,) = await client.freeze([found.key])
        assert numbers(frozen, "net9") == list(range(40))
        assert frozen.target.alive


async def test_a_short_lived_namespace_is_recorded_from_its_birth(
    start: Start, nets: Nets
) -> None:
    """A namespace that appears after the recorder, speaks at once and dies is kept, and known to be new."""
    async with connected(start()) as client:
        pod, _ = nets.pod("brief")
        await target(client, pod, rings=2)
        nets.send(pod, 20).wait()
        nets.delete(pod)

        async def dead() -> bool:
            return any(each.gone_ns for each in await client.targets())

        await until_async(dead)
        (gone,) = [each for each in await client.targets() if each.name == f"netns:{pod}"]
        assert gone.seen_born
        (frozen,) = await client.freeze([gone.key])
        assert numbers(frozen) == list(range(20))
