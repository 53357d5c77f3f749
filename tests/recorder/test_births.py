"""Pods that come and go as runtimes make them: from their first packet on, without a trace after their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.sandboxes import Sandbox, inside

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
    until_async,
)
from tests.recorder.test_recording import frozen_with
from tripshark.errors import NotFound
from tripshark.formats.ring import decode
from tripshark.model.target import Target
from tripshark.recorder.client import RecorderClient

pytestmark = pytest.mark.root

Start = Callable[..., Process]


@pytest.fixture
def pod(nets: Nets) -> Iterator[Callable[[], Sandbox]]:
    """Makes sandboxes on a world of their own."""
    world = nets.add("births")
    made: list[Sandbox] = []

    def make() -> Sandbox:
        made.append(Sandbox(f"/run/netns/{world}", len(made), prefix=f"cni-{nets.prefix}"))
        return made[-1]

    yield make
    for each in made:
        with contextlib.suppress(OSError):
            each.remove()


async def named(client: RecorderClient, name: str) -> Target:
    async def ask() -> list[Target]:
        return [each for each in await client.targets() if each.name == f"netns:{name}"]

    return (await until_async(ask))[0]


async def test_the_first_packets_of_a_pod(
    start: Start, nets: Nets, pod: Callable[[], Sandbox]
) -> None:
    """A pod that speaks at once when its interface is up, 5 ms after it was born: each packet is recorded once."""
    process = start(include=(f"cni-{nets.prefix}*",))
    in_time = 0
    async with connected(process) as client:
        for _ in range(12):
            box = pod()
            box.make()
            await asyncio.sleep(0.005)
            spoke_ns = time.time_ns()
            box.plug(20)
            found = await target(client, box.name, rings=2)
            box.speak(range(20, 30))

            async def last(found: Target = found) -> bool:
                (frozen,) = await client.freeze([found.key])
                got = numbers(frozen)
                await client.release(frozen)
                return 29 in got

            await until_async(last)
            (frozen,) = await client.freeze([found.key])
            got = numbers(frozen)
            assert got == sorted(set(got)), "none twice, and in order"
            begun_ns = min(e.opened_ns for e in frozen.copies if e.interface.name == "eth0")
            if begun_ns < spoke_ns:
                in_time += 1
                assert got == list(range(30))
                early = min(frozen.copies, key=lambda each: (each.live, each.opened_ns))
                assert not early.live
                assert len(decode(early)) == early.packets
                assert {len(data) for *_, data in packets(early) if number(data)} <= {82}
                kinds = {data[12:14] for *_, data in packets(early)}
                assert b"\x08\x00" in kinds
            await client.release(frozen)
            box.remove()
    assert in_time >= 6, "a busy machine may be late now and then, but not as a rule"


async def test_a_pod_that_lives_300_ms(
    start: Start, nets: Nets, pod: Callable[[], Sandbox]
) -> None:
    """It is dead before anybody asks; what it said is there, and its veth is not."""
    process = start(include=(f"cni-{nets.prefix}*",))
    async with connected(process) as client:
        box = pod()
        box.make()
        await asyncio.sleep(0.02)
        box.plug(15)
        await asyncio.sleep(0.28)
        box.remove()

        async def dead() -> bool:
            return not (await named(client, box.name)).alive

        await until_async(dead)
        found = await named(client, box.name)
        assert found.seen_born
        (frozen,) = await client.freeze([found.key])
        assert numbers(frozen) == list(range(15))
        world = f"{nets.prefix}births"

        async def unplugged() -> bool:
            return not has_link(world, "v0")

        await until_async(unplugged)


def held(pid: int) -> dict[str, int]:
    """What a process holds: descriptors by kind, threads, resident memory in MiB."""
    kinds: dict[str, int] = {"fds": 0, "memfds": 0, "sockets": 0}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            link = os.readlink(each)
            kinds["fds"] += 1
            kinds["memfds"] += link.startswith("/memfd:")
            kinds["sockets"] += link.startswith("socket:")
    status = Path(f"/proc/{pid}/status").read_text()
    words = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    kinds["threads"] = int(words["Threads"])
    kinds["mib"] = int(words["VmRSS"].split()[0]) >> 10
    return kinds


async def test_churn_leaves_nothing_behind(
    start: Start, nets: Nets, pod: Callable[[], Sandbox]
) -> None:
    """200 pods, a dozen a second, each recorded: then descriptors, threads, targets and veths are as before."""
    process = start(include=(f"cni-{nets.prefix}*",), tombstone_s=1, per_target=2 << 20)
    world = f"{nets.prefix}births"
    async with connected(process) as client:

        async def life() -> None:
            box = pod()
            await asyncio.to_thread(box.make)
            await asyncio.sleep(0.02)
            await asyncio.to_thread(box.plug, 3)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(box.remove)

        async def some(count: int) -> None:
            async with asyncio.TaskGroup() as lives:
                for _ in range(count):
                    lives.create_task(life())
                    await asyncio.sleep(0.07)

        async def quiet() -> bool:
            stats = await client.stats()
            return (stats["targets"], stats["gone"], stats["tombstones"]) == (0, 0, 0)

        await some(20)  # threads are started and caches filled by then
        await until_async(quiet, 30)
        before = [held(process.child.pid), held(process.worker)]
        worker = process.worker
        await some(180)
        seen = int(str((await client.stats())["expired"]))
        await until_async(quiet, 30)

        now: list[dict[str, int]] = []

        async def as_before() -> bool:
            now[:] = held(process.child.pid), held(process.worker)
            for old, new in zip(before, now, strict=True):
                joined = new["threads"] - old["threads"]  # the crew grows up to its full number
                allowed = {"threads": 34 - old["threads"], "fds": joined, "mib": 12}
                if any(new[kind] > old[kind] + max(0, allowed.get(kind, 0)) for kind in old):
                    return False
            return True

        try:
            await until_async(as_before, 30)
        except AssertionError as problem:
            raise AssertionError(f"{before} became {now}") from problem
        assert process.worker == worker
        assert seen > 100, "what they said was recorded, and expired in time"
        links = inside(
            f"/run/netns/{world}", lambda: os.listdir("/proc/thread-self/net/dev_snmp6")
        )
        assert [each for each in links if each.startswith("v")] == []


async def test_namespaces_below_several_directories(
    start: Start, nets: Nets, tmp_path: Path
) -> None:
    """Directories are watched, also those that do not exist yet, nor what they are in; each may vanish again."""
    one, two = tmp_path / "a", tmp_path / "deep" / "er" / "b"
    process = start(netns_dirs=(str(one), str(two)), include=("*",))
    spare = nets.add("spare")
    other = nets.add("other")

    def bind(name: str, path: Path) -> None:
        path.touch()
        sh(f"mount --bind /run/netns/{name} {path}")

    try:
        async with connected(process) as client:
            assert await client.targets() == ()
            two.mkdir(parents=True)
            bind(spare, two / "x")
            found = await named(client, "x")
            one.mkdir()
            bind(other, one / "y")
            bind(spare, one / "again")
            await named(client, "y")
            await target(client, "y")
            assert [each.name for each in await client.targets()] == ["netns:x", "netns:y"]
            sh(f"umount {two / 'x'}")
            (two / "x").unlink()
            shutil.rmtree(tmp_path / "deep")
            two.mkdir(parents=True)
            bind(other, two / "z")
            sh(f"umount {one / 'y'}")
            (one / "y").unlink()
            sh(f"umount {one / 'again'}")
            (one / "again").unlink()

            async def gone() -> bool:
                return not next(e for e in await client.targets() if e.key == found.key).alive

            await until_async(gone)
            assert (await named(client, "y")).alive, "it has another name by now"
    finally:
        sh(f"umount {one}/* {two}/*", check=False)


async def test_the_host_is_recorded_once(start: Start, nets: Nets) -> None:
    """A process of the host's network, and a name for it, mean the target `host`; none where the host is not wanted."""
    name = f"{nets.prefix}host"
    sh(f"ip netns attach {name} {os.getpid()}")
    nets.names.append(name)
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as sleeper:
        async with connected(start(host=True)) as client:
            (host,) = await client.targets()
            assert host.name == "host"
            assert await client.attach(sleeper.pid) == host.key
            assert await client.attach(os.getpid()) == host.key
            assert len(await client.targets()) == 1
        async with connected(start()) as client:
            assert await client.targets() == ()
            with pytest.raises(NotFound, match="not recorded"):
                await client.attach(sleeper.pid)
            assert await client.targets() == ()
        assert sleeper.stdin is not None
        sleeper.stdin.close()


async def test_a_crowded_node_goes_on_with_less(
    start: Start, nets: Nets, pod: Callable[[], Sandbox]
) -> None:
    """Who is there already gets smaller rings when others come, loses no packet by it, and gets them back."""
    process = start(include=(f"cni-{nets.prefix}*",), per_target=4 << 20, total=8 << 20)
    async with connected(process) as client:
        first = pod()
        first.make()
        first.plug()
        found = await target(client, first.name, rings=2)
        assert found.note == ""
        whole = sum(each.bytes for each in found.rings if each.live)
        first.speak(range(500))
        others = [pod() for _ in range(5)]
        for each in others:
            each.make()
            first.speak(range(500, 520))
        for each in others:
            await target(client, each.name)

        async def shrunk() -> bool:
            rings = (await named(client, first.name)).rings
            return sum(each.bytes for each in rings if each.live) < whole

        await until_async(shrunk)
        found = await named(client, first.name)
        assert "for lack of memory" in found.note
        frozen = await frozen_with(client, first.name, 600)
        assert sorted(numbers(frozen)) == sorted([*range(500), *[*range(500, 520)] * 5])
        stats = await client.stats()
        assert int(str(stats["ring_bytes"])) <= 8 << 20
        assert int(str(stats["shrunk"])) >= 1
        for each in others:
            each.remove()

        async def grown() -> bool:
            found = await named(client, first.name)
            rings = [each.bytes for each in found.rings if each.live]
            return sum(rings) == whole and found.note == ""

        await until_async(grown)
        assert len(numbers((await client.freeze([found.key]))[0])) == 600
