"""What happens to history when the recorder itself, its memory or its client fails."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.recorder.conftest import (
    Nets,
    Process,
    connected,
    number,
    numbers,
    packets,
    sh,
    target,
    until,
    until_async,
)
from tests.recorder.test_recording import frozen_with
from tripshark.errors import NotFound, Transient
from tripshark.formats.wire import Frozen
from tripshark.model.target import Target
from tripshark.recorder.client import RecorderClient

pytestmark = pytest.mark.root

Start = Callable[..., Process]


async def freeze_again(client: RecorderClient, key: object) -> Frozen:
    async def ask() -> tuple[Frozen, ...]:
        return await client.freeze([key])  # type: ignore[list-item]

    return (await until_async(ask))[0]


async def test_kill_9_keeps_history_keys_and_tombstones(start: Start, nets: Nets) -> None:
    """A killed recorder comes back with the same targets, rings, counters and history, alive and dead."""
    pod, _ = nets.pod()
    dead, _ = nets.pod("dead")
    process = start()
    async with connected(process) as client:
        found = await target(client, pod, rings=2)
        doomed = await target(client, dead, rings=2)
        nets.send(pod, 200).wait()
        nets.send(dead, 100).wait()
        nets.delete(dead)
        before = await frozen_with(client, pod, 200)

        async def buried() -> bool:
            return any(each.gone_ns for each in await client.targets())

        await until_async(buried)
        process.kill_worker()
        nets.send(pod, 50).wait()
        after = await freeze_again(client, found.key)
        assert numbers(after) == [*range(200), *range(50)]
        assert {each.ring for each in before.copies} == {each.ring for each in after.copies}
        assert all(each.gaps == () for each in after.copies)
        assert max(each.packets for each in after.copies) >= 250
        grave = await freeze_again(client, doomed.key)
        assert numbers(grave) == list(range(100))
        assert not grave.copies[0].live


async def test_kill_9_during_a_follow_loses_nothing(start: Start, nets: Nets) -> None:
    """The client takes the stream up again where it was; the ring held what came meanwhile."""
    pod, _ = nets.pod()
    process = start()
    async with connected(process) as client:
        found = await target(client, pod, rings=2)
        (frozen,) = await client.freeze([found.key])
        nets.send(pod, 2000, 1000)
        seen: dict[tuple[str, int, int], int | None] = {}
        killed = False
        async for chunk in client.follow(
            frozen, until_ns=time.time_ns() + 3_000_000_000, max_bytes=1 << 30
        ):
            for copy in chunk.copies:
                for seq, position, _, data in packets(copy):
                    seen.setdefault((copy.ring, seq, position), number(data))
            if not killed and len(seen) > 300:
                process.kill_worker()
                killed = True
        assert killed
        got = [seen[name] for name in sorted(seen) if seen[name] is not None]
        assert got == list(range(2000))


async def test_a_stopped_recorder_says_what_it_missed(start: Start, nets: Nets) -> None:
    """A ring that filled up while nobody handed blocks back has a gap or a loss, with its time and count."""
    pod, _ = nets.pod()
    process = start(per_target=1 << 20)
    async with connected(process) as client:
        found = await target(client, pod)
        worker = process.worker
        os.kill(worker, signal.SIGSTOP)
        began = time.time_ns()
        nets.send(pod, 3000, size=1000).wait()
        os.kill(worker, signal.SIGKILL)
        frozen = await freeze_again(client, found.key)
        (eth0,) = [each for each in frozen.copies if each.interface.name == "eth0"]
        assert eth0.drops > 1000
        assert sum(each[2] for each in eth0.losses) == eth0.drops
        ((gap_from, gap_to),) = eth0.gaps
        assert began < gap_from < gap_to <= time.time_ns()
        assert eth0.losses[0][:2] == (gap_from, gap_to)


async def test_sighup_replaces_the_worker(start: Start, nets: Nets) -> None:
    """An upgrade is a new worker process with the same history."""
    pod, _ = nets.pod()
    process = start()
    async with connected(process) as client:
        found = await target(client, pod, rings=2)
        nets.send(pod, 100).wait()
        await frozen_with(client, pod, 100)
        old = process.worker
        process.child.send_signal(signal.SIGHUP)
        until(lambda: process.worker != old)
        assert numbers(await freeze_again(client, found.key)) == list(range(100))


async def test_the_worker_ends_with_its_holder(start: Start, nets: Nets) -> None:
    """No recorder is left behind when the holder is killed."""
    nets.pod()
    process = start()
    worker = process.worker
    process.child.kill()
    until(lambda: not Path(f"/proc/{worker}").exists())


async def test_sigterm_ends_cleanly(start: Start, nets: Nets) -> None:
    """Exit code 0, and the socket is removed."""
    nets.pod()
    process = start()
    assert process.stop() == 0
    assert not Path(process.config.socket).exists()
    async with connected(process) as client:
        with pytest.raises(Transient, match="away"):
            await client.targets()


async def test_memory_is_shared_and_bounded(start: Start, nets: Nets) -> None:
    """Rings never take more than `total`: those who come last get headers only or nothing, say so, and get it later."""
    names = [nets.add(f"n{each}") for each in range(4)]
    total = 1 << 20
    process = start(per_target=1 << 20, total=total)
    late = [nets.add(f"late{each}") for each in range(2)]
    async with connected(process) as client:

        async def listed() -> dict[str, Target] | None:
            found = {each.name: each for each in await client.targets() if each.alive}
            return found if len(found) == 6 else None

        found = await until_async(listed)
        assert found is not None
        assert sum(ring.bytes for each in found.values() for ring in each.rings) <= total
        notes = [found[f"netns:{each}"].note for each in [*names, *late]]
        assert notes == ["headers only, for lack of memory"] * 4 + ["over budget"] * 2
        assert all(found[f"netns:{each}"].rings == () for each in late)
        stats = await client.stats()
        assert int(str(stats["ring_bytes"])) <= total == stats["ring_limit"]
        assert (stats["reduced"], stats["over_budget"]) == (4, 2)
        for each in names[:3]:
            nets.delete(each)

        async def recorded() -> bool:
            left = {each.name: each for each in await client.targets() if each.alive}
            return all(
                left[f"netns:{each}"].note != "over budget" and left[f"netns:{each}"].rings
                for each in [names[3], *late]
            )

        await until_async(recorded)


async def test_tombstones_expire_by_budget_oldest_first(start: Start, nets: Nets) -> None:
    """When copies have no more memory the oldest tombstone goes; it is counted, and the target says so."""
    pods = [nets.pod(f"p{each}")[0] for each in range(2)]
    # not the far ends: their links die with the pods', and what they held is copied too
    process = start(copies=300_000, include=tuple(pods))
    async with connected(process) as client:
        keys = []
        for pod in pods:
            keys.append((await target(client, pod, rings=2)).key)
            nets.send(pod, 200, size=1000).wait()
            await client.release(await frozen_with(client, pod, 200))
        for pod, key in zip(pods, keys, strict=True):
            nets.delete(pod)

            async def noticed(key: object = key) -> bool:
                return any(each.key == key and each.gone_ns for each in await client.targets())

            await until_async(noticed)  # one after the other

        async def forgotten() -> bool:  # not by a look at it, which takes of the same memory
            return int(str((await client.stats())["expired"])) >= 1

        await until_async(forgotten)
        (frozen,) = await freeze_both(client, keys[1:])
        assert len(numbers(frozen)) == 200
        (older,) = await freeze_both(client, keys[:1])
        assert numbers(older) == []
        assert older.expired_ns > 0
        with pytest.raises(NotFound):
            await freeze_both(client, ["nobody"])
        assert (await client.stats())["copies_bytes"] <= 300_000  # type: ignore[operator]


async def freeze_both(client: RecorderClient, keys: list[object]) -> tuple[Frozen, ...]:
    return await client.freeze(keys)  # type: ignore[arg-type]


async def test_an_expired_part_is_told(start: Start, nets: Nets) -> None:
    """A target that lives on says up to when its earlier interfaces' history was discarded."""
    pod, world = nets.pod()
    process = start(tombstone_s=1)
    async with connected(process) as client:
        nets.pair(pod, world, 2, "net1", "w1")
        found = await target(client, pod, rings=3)
        nets.send(pod, 40, peer="10.77.2.2").wait()
        (frozen,) = await client.freeze([found.key])
        assert frozen.expired_ns == 0
        newest = max(each.newest_ns for each in (await target(client, pod)).rings)
        sh(f"ip -n {pod} link del net1")

        async def expired() -> int:
            (frozen,) = await client.freeze([found.key])
            await client.release(frozen)
            return frozen.expired_ns

        assert newest <= await until_async(expired) <= time.time_ns()


async def test_frozen_memory_is_given_back(start: Start, nets: Nets) -> None:
    """Released histories and those of a client that left cost nothing; what does not fit is refused for now."""
    pod, _ = nets.pod()
    process = start(copies=1 << 20)
    async with connected(process) as client:
        found = await target(client, pod, rings=2)
        nets.send(pod, 400, size=1000).wait()
        first = await frozen_with(client, pod, 400)
        with pytest.raises(Transient, match="no memory"):
            await freeze_both(client, [found.key] * 3)
        await client.release(first)
        assert len(numbers(first)) == 400
        (again,) = await client.freeze([found.key])
        assert len(numbers(again)) == 400
        client.close()

        async def nothing() -> bool:
            return (await client.stats())["copies_bytes"] == 0

        await until_async(nothing)
