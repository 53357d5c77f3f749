"""Streams after a freeze: ends, newcomers, deaths, and consumers that are too slow."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest

from tests.recorder.conftest import (
    Nets,
    Process,
    connected,
    number,
    packets,
    target,
)
from tripshark.errors import Denied
from tripshark.formats.wire import Chunk
from tripshark.recorder.client import RecorderClient

pytestmark = pytest.mark.root

Start = Callable[..., Process]


def in_s(seconds: float) -> int:
    return time.time_ns() + int(seconds * 1e9)


def seen_in(chunks: list[Chunk], interface: str) -> list[int]:
    """Numbers by (ring, seq, position), each once, in order."""
    found = {
        (copy.ring, seq, position): n
        for chunk in chunks
        for copy in chunk.copies
        if copy.interface.name == interface
        for seq, position, _, data in packets(copy)
        if (n := number(data)) is not None
    }
    return [found[name] for name in sorted(found)]


async def test_it_ends_by_bytes(start: Start, nets: Nets) -> None:
    """A follow ends at its budget of raw bytes, with at most the block in which that was reached."""
    pod, _ = nets.pod()
    async with connected(start()) as client:
        (frozen,) = await client.freeze([(await target(client, pod, rings=2)).key])
        sender = nets.send(pod, 5000, 20_000, size=1000)
        chunks = [
            each async for each in client.follow(frozen, until_ns=in_s(20), max_bytes=1_000_000)
        ]
        sender.wait()
        assert chunks[-1].ended == "bytes"
        got = seen_in(chunks, "eth0")
        assert got == list(range(len(got)))
        assert 700 < len(got) < 5000


async def test_new_interfaces_are_followed_and_death_ends_it(start: Start, nets: Nets) -> None:
    """What appears while following is followed; a namespace's death delivers the rest and ends it."""
    pod, world = nets.pod()
    async with connected(start()) as client:
        (frozen,) = await client.freeze([(await target(client, pod, rings=2)).key])
        chunks: list[Chunk] = []

        async def follow() -> None:
            async for each in client.follow(frozen, until_ns=in_s(30), max_bytes=1 << 30):
                chunks.append(each)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            await asyncio.to_thread(nets.pair, pod, world, 2, "net1", "w1")
            await target(client, pod, rings=3)
            for peer in ("10.77.1.2", "10.77.2.2"):
                await asyncio.to_thread(nets.send(pod, 300, 3000, peer=peer).wait)
            await asyncio.to_thread(nets.delete, pod)
        assert chunks[-1].ended == "gone"
        assert seen_in(chunks, "eth0") == list(range(300))
        assert seen_in(chunks, "net1") == list(range(300))


async def test_a_slow_consumer_loses_only_for_itself_and_it_is_counted(
    start: Start, nets: Nets
) -> None:
    """Who does not read finds blocks overwritten, and how many; the recorder queues nothing for it."""
    pod, _ = nets.pod()
    process = start(per_target=2 << 20)
    async with connected(process) as slow, connected(process) as quick:
        found = await target(quick, pod, rings=1)
        (frozen,) = await slow.freeze([found.key])
        (same,) = await quick.freeze([found.key])
        kept: list[Chunk] = []
        begin = await asyncio.to_thread(nets.sender, pod, 6000, 4000, size=1200)
        until_ns = in_s(5)

        async def watch() -> None:
            async for each in quick.follow(same, until_ns=until_ns, max_bytes=1 << 30):
                kept.append(each)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch())
            stream = slow.follow(frozen, until_ns=until_ns, max_bytes=1 << 30)
            first = await anext(stream)
            await asyncio.to_thread(begin().wait)
            memory = (await quick.stats())["copies_bytes"]
            late = [first, *[each async for each in stream]]
        assert seen_in(kept, "eth0") == list(range(6000))
        assert sum(copy.overwritten for each in late for copy in each.copies) > 0
        got = seen_in(late, "eth0")
        assert got == sorted(set(got))
        assert len(got) < 6000
        assert late[-1].ended == "time"
        assert isinstance(memory, int)
        assert memory < 32 << 20


async def test_closing_the_iterator_ends_it_early(start: Start, nets: Nets) -> None:
    """Nothing goes on for a consumer that left."""
    pod, _ = nets.pod()
    async with connected(start()) as client:
        (frozen,) = await client.freeze([(await target(client, pod, rings=2)).key])
        stream = client.follow(frozen, until_ns=in_s(30), max_bytes=1 << 30)
        await anext(stream)
        assert (await client.stats())["follows"] == 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert (await client.stats())["follows"] == 0


async def test_a_refusal_reaches_the_caller(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever is refused altogether is told why, not only that the recorder went away."""
    path = str(tmp_path_factory.mktemp("s") / "r.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        client = RecorderClient(path)
        asked = asyncio.get_running_loop().run_in_executor(None, listener.accept)
        answer = asyncio.gather(client.targets(), return_exceptions=True)
        served, _ = await asked
        with served:
            served.send(b'{"t":"error","id":0,"code":"denied","message":"not you"}')
            (problem,) = await answer
        client.close()
        assert isinstance(problem, Denied)
