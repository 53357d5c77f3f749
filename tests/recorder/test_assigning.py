"""What is recorded of whom is decided while it is recorded: off, headers or all, and how much memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest

from tests.recorder.conftest import (
    Nets,
    Process,
    connect_raw,
    connected,
    number,
    numbers,
    packets,
    target,
    until_async,
)
from tests.recorder.test_recording import frozen_with
from tests.recorder.test_surviving import freeze_again
from tripshark.formats.wire import Frozen, RingCopy
from tripshark.model.recording import Mode, Recording
from tripshark.model.target import Target, TargetKey
from tripshark.recorder.client import RecorderClient

pytestmark = pytest.mark.root

Start = Callable[..., Process]
OFF, HEADERS, FULL = (Recording(mode=each, reason="we say so") for each in Mode)


def numbered(frozen: Frozen) -> list[tuple[int, int]]:
    """(number, captured bytes) of every numbered packet on eth0, in the order of the copies."""
    return [
        (n, len(data))
        for copy in frozen.copies
        if copy.interface.name == "eth0"
        for *_, data in packets(copy)
        if (n := number(data)) is not None
    ]


def oldest_first(copies: tuple[RingCopy, ...]) -> list[RingCopy]:
    return sorted(copies, key=lambda each: each.opened_ns)


async def listed(client: RecorderClient, key: TargetKey) -> Target:
    return next(each for each in await client.targets() if each.key == key)


async def test_off_forgets_everything_at_once(start: Start, nets: Nets) -> None:
    """Rings are closed, history and tombstones are gone, the state says why; full opens new rings."""
    pod, world = nets.pod()
    async with connected(start(include=(pod,))) as client:
        nets.pair(pod, world, 2, "net1", "w1")
        found = await target(client, pod, rings=3)
        nets.send(pod, 30).wait()
        await frozen_with(client, pod, 30)
        before = time.time_ns()
        await client.record({found.key: OFF, TargetKey("nobody"): OFF})
        (frozen,) = await client.freeze([found.key])
        assert frozen.copies == ()
        assert frozen.expired_ns > before
        assert (frozen.target.mode, frozen.target.note) == ("off", "not recorded: we say so")
        stats = await client.stats()
        assert (stats["ring_bytes"], stats["tombstones"], stats["off"]) == (0, 0, 1)
        nets.send(pod, 30).wait()
        chunks = [
            each
            async for each in client.follow(
                frozen, until_ns=time.time_ns() + 10**10, max_bytes=1 << 30
            )
        ]
        assert [each.ended for each in chunks] == ["gone"]
        await client.record({found.key: FULL})
        await target(client, pod, rings=3)
        nets.send(pod, 7).wait()
        assert numbers(await frozen_with(client, pod, 7)) == list(range(7))


async def test_headers_cut_the_payloads_out_of_what_was_recorded(start: Start, nets: Nets) -> None:
    """Not a packet is lost, and of none more than 128 bytes can be read any more: rings, tombstones, dead targets."""
    pod, world = nets.pod()
    dead, _ = nets.pod("dead")
    async with connected(start()) as client:
        nets.pair(pod, world, 2, "net1", "w1")
        found = await target(client, pod, rings=3)
        doomed = await target(client, dead, rings=2)
        for net, peer in ((pod, "10.77.1.2"), (pod, "10.77.2.2"), (dead, "10.77.1.2")):
            nets.send(net, 300, size=700, peer=peer).wait()
        await frozen_with(client, pod, 300)
        nets.delete(dead)

        async def gone() -> bool:
            return not (await listed(client, doomed.key)).alive

        await until_async(gone)
        sender = nets.send(pod, 2000, 2000, size=700)
        await frozen_with(client, pod, 600)
        await client.record({found.key: HEADERS, doomed.key: HEADERS})
        (frozen, past) = await client.freeze([found.key, doomed.key])
        assert all(size <= 128 for _, size in numbered(frozen) + numbered(past))
        assert [n for n, _ in numbered(past)] == list(range(300))
        assert sender.wait() == 0

        async def all_there() -> Frozen | None:
            (frozen,) = await client.freeze([found.key])
            if len(numbered(frozen)) >= 2300:
                return frozen
            await client.release(frozen)
            return None

        whole = await until_async(all_there)
        assert whole is not None
        frozen = whole
        for copy in frozen.copies:
            assert all(len(data) <= 128 for *_, data in packets(copy))
            assert b"." * 100 not in bytes(copy.data)
            assert copy.snaplen == 128
        got = [n for n, _ in numbered(frozen)]
        assert sorted(got) == sorted([*range(300), *range(2000)])
        assert frozen.target.mode == "headers"
        assert frozen.expired_ns == 0
        await client.record({found.key: FULL})
        nets.send(pod, 10, size=700).wait()

        async def whole_again() -> bool:
            (frozen,) = await client.freeze([found.key])
            found_again = sum(size == 742 for _, size in numbered(frozen))
            await client.release(frozen)
            return found_again == 10

        await until_async(whole_again)


async def test_rings_change_size_without_a_seam(start: Start, nets: Nets) -> None:
    """While a target's share goes up and down under 4000 packets a second, each is in the history once."""
    pod, _ = nets.pod()
    async with connected(start(per_target=2 << 20)) as client:
        found = await target(client, pod, rings=2)
        (frozen,) = await client.freeze([found.key])
        sender = await asyncio.to_thread(nets.sender, pod, 12_000, 4000)
        seen: dict[tuple[str, int, int], int | None] = {}
        weights = iter([4, 1, 8, 2, 16, 1])
        changed = 0
        until_ns = time.time_ns() + 60_000_000_000
        stream = client.follow(frozen, until_ns=until_ns, max_bytes=1 << 30)
        sending = sender()
        async for chunk in stream:
            for copy in chunk.copies:
                assert copy.overwritten == 0
                for seq, position, _, data in packets(copy):
                    seen.setdefault((copy.ring, seq, position), number(data))
            if len(seen) > 1500 * (changed + 1) and changed < 6:
                changed += 1
                weight = next(weights)
                await client.record({found.key: Recording(mode=Mode.FULL, weight=weight)})
            if changed == 6 and 11_999 in seen.values():
                break
        await stream.aclose()  # type: ignore[attr-defined]
        sending.wait()
        got = [n for n in seen.values() if n is not None]
        assert sorted(got) == list(range(12_000))
        stats = await client.stats()
        assert int(str(stats["exchanges"])) >= 6
        assert len({ring for ring, *_ in seen}) >= 4
        (frozen,) = await client.freeze([found.key])
        left = [
            n
            for copy in oldest_first(frozen.copies)
            for *_, data in packets(copy)
            if (n := number(data)) is not None
        ]
        assert left == list(range(left[0], 12_000))
        if left[0]:
            assert frozen.expired_ns > 0


async def test_assignments_survive_the_worker(start: Start, nets: Nets) -> None:
    """A killed worker comes back with modes, weights and reasons, and goes on from there."""
    pods = [nets.pod(f"p{each}")[0] for each in range(3)]
    process = start(per_target=2 << 20)
    async with connected(process) as client:
        keys = [(await target(client, pod, rings=2)).key for pod in pods]
        nets.send(pods[1], 20, size=700).wait()
        heavy = Recording(mode=Mode.FULL, weight=4)
        await client.record(dict(zip(keys, (OFF, HEADERS, heavy), strict=True)))
        await freeze_again(client, keys[1])
        process.kill_worker()
        frozen = await freeze_again(client, keys[1])
        assert numbered(frozen) == [(n, 128) for n in range(20)]
        found = {each.key: each for each in await client.targets()}
        assert [(found[key].mode, found[key].weight) for key in keys] == [
            ("off", 1),
            ("headers", 1),
            ("full", 4),
        ]
        assert found[keys[0]].note == "not recorded: we say so"
        assert not any(each.live for each in found[keys[0]].rings)
        nets.send(pods[1], 5, size=700).wait()

        async def more() -> bool:
            return len(numbered(await freeze_again(client, keys[1]))) == 25

        await until_async(more)
        assert all(size == 128 for _, size in numbered(await freeze_again(client, keys[1])))
        assert int(str((await client.stats())["exchanges"])) == 0, "rings were left as they were"


async def test_a_worker_killed_amid_an_exchange_leaves_no_payload(
    start: Start, nets: Nets
) -> None:
    """However far it came: the next worker cuts what is still to be cut before anybody can read it."""
    pod, _ = nets.pod()
    process = start()
    async with connected(process) as client:
        found = await target(client, pod, rings=2)
        nets.send(pod, 100, size=700).wait()
        await frozen_with(client, pod, 100)
        await client.record({found.key: HEADERS})
        process.kill_worker()  # the answer comes before the exchange is done
        frozen = await freeze_again(client, found.key)
        assert all(size <= 128 for _, size in numbered(frozen))
        assert b"." * 100 not in b"".join(bytes(each.data) for each in frozen.copies)


async def test_unknown_namespaces_wait_for_a_decision(start: Start, nets: Nets) -> None:
    """With mode off nothing is recorded of a new namespace until somebody says so, and then at once."""
    async with connected(start(mode="off")) as client:
        pod, _ = nets.pod()
        found = await target(client, pod, rings=0)
        assert (found.mode, found.rings) == ("off", ())
        assert found.note == "not recorded: nobody has said yet that it is to be"
        await client.record({found.key: FULL})
        await target(client, pod, rings=2)
        nets.send(pod, 5).wait()
        assert len(numbers(await frozen_with(client, pod, 5))) == 5


async def test_wrong_assignments_are_refused_whole(start: Start, nets: Nets) -> None:
    """One mistake, and nothing is changed."""
    pod, _ = nets.pod()
    process = start()
    async with connected(process) as client:
        found = await target(client, pod, rings=2)
        with connect_raw(process.config.socket) as sock:
            sock.send(b'{"t":"hello","id":1,"version":1}')
            sock.recv(65_536)
            good = {"mode": "off", "weight": 1}
            for wrong in [
                7,
                {},
                {"mode": "loud", "weight": 1},
                {"mode": "full", "weight": 0},
                {"mode": "full", "weight": 17},
                {"mode": "full", "weight": True},
                {"mode": "full", "weight": 1, "reason": 7},
            ]:
                assign = {found.key: good, "other": wrong}
                sock.send(json.dumps({"t": "record", "id": 2, "assign": assign}).encode())
                answer = json.loads(sock.recv(65_536))
                assert (answer["t"], answer["code"]) == ("error", "bad_input"), wrong
            sock.send(b'{"t":"record","id":3,"assign":[]}')
            assert json.loads(sock.recv(65_536))["t"] == "error"
        assert (await listed(client, found.key)).mode == "full"
