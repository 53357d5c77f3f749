"""The scout at real runtimes: what it knows of pods, how they die, and what happens to runtimes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers.cri import CriError
from tests.containers.runtime import Containerd, start_containerd, why_not
from tests.scout.conftest import Process, connected, runtime, sandbox, until
from tripshark.errors import BadInput, Transient
from tripshark.model.pod import Sandbox

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

Start = Callable[..., Process]


@pytest.fixture
def clean(containerd: Containerd) -> Iterator[Containerd]:
    """The session's containerd, without pods of this test afterwards."""
    yield containerd
    containerd.remove_all()


async def test_a_pod_is_known_as_its_runtime_knows_it(clean: Containerd, start: Start) -> None:
    """Identity, labels, annotations, container, image, process, namespace and address are the real ones."""
    pod = clean.run_pod(
        "checkout",
        "shop",
        labels={"app": "checkout"},
        annotations={"tripshark.dev/record": "full"},
    )
    async with connected(start(clean.socket)) as client:
        found = await sandbox(client, "checkout")
        assert (found.id, found.runtime) == (pod.sandbox_id, "containerd")
        assert (found.namespace, found.uid) == ("shop", pod.uid)
        assert found.labels == {"app": "checkout"}
        assert found.annotations == {"tripshark.dev/record": "full"}
        assert (found.netns, found.inode, found.addresses) == (pod.netns, pod.inode, (pod.ip,))
        assert not found.host_network
        (container,) = found.containers
        assert (container.id, container.name, container.pid) == (
            pod.container_ids[0],
            "main",
            pod.pids[0],
        )
        assert container.image == "localhost/work:1"
        assert re.fullmatch("sha256:[0-9a-f]{64}", container.digest)
        assert 0 < found.created_ns <= container.started_ns
        assert os.stat(f"/proc/{found.pid}/ns/net").st_ino == pod.inode


async def test_a_new_pod_is_told_of_without_being_asked_for(
    clean: Containerd, start: Start
) -> None:
    """`changed` returns for its start and for its end; what it was is remembered with the time it ended."""
    async with connected(start(clean.socket, every_s=60.0)) as client:
        await client.sandboxes()
        changed = asyncio.gather(client.changed())
        pod = await asyncio.to_thread(clean.run_pod, "born", "shop")
        await asyncio.wait_for(changed, 30)
        alive = await sandbox(
            client, "born", lambda each: each.containers and each.containers[0].pid
        )
        await client.sandboxes()
        await asyncio.to_thread(clean.remove_pod, pod)
        dead = await sandbox(client, "born", lambda each: each.gone_ns)
        assert (dead.id, dead.inode, dead.uid) == (alive.id, pod.inode, pod.uid)
        assert dead.gone_ns > alive.containers[0].started_ns
        assert dead.containers[0].ended_ns
        found = await client.find(pod.container_ids[0][:12])
        assert found is not None
        assert found.gone_ns == dead.gone_ns


async def test_twelve_digits_find_containers_and_sandboxes(
    clean: Containerd, start: Start
) -> None:
    """As Falco writes them, as Kubernetes writes them, and in full; nothing else is an id."""
    pod = clean.run_pod("found", "shop")
    async with connected(start(clean.socket)) as client:
        names = [
            pod.container_ids[0][:12],
            f"containerd://{pod.container_ids[0]}",
            pod.sandbox_id[:12],
            pod.sandbox_id,
        ]
        for name in names:
            found = await client.find(name)
            assert found is not None
            assert found.id == pod.sandbox_id, name
        assert await client.find("0123456789ab") is None
        for bad in ("", "host", "../../x", "0123", "f" * 65):
            with pytest.raises(BadInput):
                await client.find(bad)


async def test_the_runtime_is_asked_afresh_for_an_id_that_is_not_known_yet(
    clean: Containerd, start: Start
) -> None:
    """A container that ends before anybody looked is found as long as its runtime remembers it."""
    async with connected(start(clean.socket, every_s=60.0, netns_dirs=("/nowhere",))) as client:
        pod = clean.run_pod("brief", "shop", argv=["/bin/true"])
        found = await client.find(pod.container_ids[0][:12])
        assert found is not None
        assert (found.pod, found.inode) == ("brief", pod.inode)

        async def removed() -> bool:
            try:
                await asyncio.to_thread(clean.call, "RemoveContainer", _id(pod.container_ids[0]))
            except CriError:  # it has not noticed the end yet
                return False
            return True

        await until(removed)

        async def kept() -> Sandbox | None:
            again = await client.find(pod.container_ids[0][:12])
            return again if again and again.containers[0].ended_ns else None

        assert (await until(kept)).pod == "brief"


async def test_the_machines_own_network_is_named_as_such(clean: Containerd, start: Start) -> None:
    """A pod with hostNetwork has the host's inode and says so."""
    clean.run_pod("agent", "kube-system", host_network=True)
    async with connected(start(clean.socket)) as client:
        found = await sandbox(client, "agent")
        assert found.host_network
        assert found.inode == os.stat("/proc/self/ns/net").st_ino
        assert (found.netns, found.addresses) == ("", ())


async def test_a_stopped_pod_is_dead_before_it_is_removed(clean: Containerd, start: Start) -> None:
    """Its namespace is gone although its runtime still lists it; also for a scout that was started afterwards."""
    pod = clean.run_pod("stopped", "shop")
    async with connected(start(clean.socket)) as client:
        await sandbox(client, "stopped")
        await asyncio.to_thread(clean.stop_pod, pod)
        dead = await sandbox(client, "stopped", lambda each: each.gone_ns)
        assert dead.inode == pod.inode
    async with connected(start(clean.socket)) as later:
        found = await later.find(pod.container_ids[0][:12])
        assert found is not None
        assert found.gone_ns
        assert found.uid == pod.uid


async def test_tombstones_end(clean: Containerd, start: Start) -> None:
    """After the tombstone time a dead pod is forgotten, though its runtime still lists it."""
    pod = clean.run_pod("old", "shop")
    async with connected(start(clean.socket, tombstone_s=1)) as client:
        await sandbox(client, "old")
        await asyncio.to_thread(clean.stop_pod, pod)

        async def forgotten() -> bool:
            return not any(each.pod == "old" for each in await client.sandboxes())

        await until(forgotten)


async def test_pods_outlive_their_runtime_and_are_missed_without_it(start: Start) -> None:
    """While containerd is away its pods live on here; one that ends meanwhile is dead; all is well when it is back."""
    with start_containerd() as mine:
        stays = mine.run_pod("stays", "shop")
        ends = mine.run_pod("ends", "shop")
        async with connected(start(mine.socket)) as client:
            await sandbox(client, "ends")
            await asyncio.to_thread(mine.kill)
            await runtime(client, mine.socket, lambda each: each["state"] in ("failing", "absent"))
            assert not (await sandbox(client, "stays")).gone_ns
            pause = (await sandbox(client, "ends")).pid
            await asyncio.to_thread(_unmount, ends.netns)
            for pid in (*ends.pids, pause):
                os.kill(pid, signal.SIGKILL)
            await sandbox(client, "ends", lambda each: each.gone_ns)
            await asyncio.to_thread(mine.start)
            told = await runtime(client, mine.socket, lambda each: each["state"] == "followed")
            assert told["met"] == 2
            assert (await sandbox(client, "stays")).inode == stays.inode


async def test_a_runtime_that_hangs_holds_up_nobody_else(
    clean: Containerd, deaf: str, start: Start
) -> None:
    """Pods of the other are known at once, questions are answered, and the state says who does not answer."""
    pod = clean.run_pod("quick", "shop")
    async with connected(start(deaf, clean.socket)) as client:
        assert (await sandbox(client, "quick")).inode == pod.inode
        assert await client.find(pod.container_ids[0][:12])
        assert await client.find("0123456789ab") is None
        told = await runtime(client, deaf, lambda each: each["state"] == "failing")
        assert "no answer" in str(told["error"])


async def test_a_runtime_that_stops_answering_is_left_and_met_again(start: Start) -> None:
    """A containerd that is frozen amid everything is said to fail, and followed again once it moves."""
    with start_containerd() as mine:
        mine.run_pod("calm", "shop")
        async with connected(start(mine.socket)) as client:
            await sandbox(client, "calm")
            os.kill(mine.pid, signal.SIGSTOP)
            try:
                await runtime(client, mine.socket, lambda each: each["state"] == "failing")
                assert not (await sandbox(client, "calm")).gone_ns
            finally:
                os.kill(mine.pid, signal.SIGCONT)
            await runtime(client, mine.socket, lambda each: each["state"] == "followed")


async def test_two_runtimes_are_followed_at_once(clean: Containerd, start: Start) -> None:
    """Each keeps its own pods; one that appears later is found by itself."""
    with start_containerd() as other:
        one = clean.run_pod("one", "shop")
        late = str(other.folder / "late.sock")
        async with connected(start(clean.socket, late)) as client:
            await sandbox(client, "one")
            two = other.run_pod("two", "shop")
            os.link(other.socket, late)
            assert (await sandbox(client, "two")).inode == two.inode
            assert (await sandbox(client, "one")).inode == one.inode


async def test_the_scout_keeps_one_right_and_one_thread(clean: Containerd, start: Start) -> None:
    """CAP_SYS_PTRACE alone is left in every set, and no new one can be won."""
    process = start(clean.socket)
    status = Path(f"/proc/{process.child.pid}/status").read_text()
    sets = dict(re.findall(r"^(Cap\w+|NoNewPrivs|Threads):\s+(\w+)$", status, re.MULTILINE))
    only = f"{1 << 19:016x}"
    assert (sets["CapPrm"], sets["CapEff"], sets["CapBnd"]) == (only, only, only)
    assert (sets["CapInh"], sets["CapAmb"]) == ("0" * 16, "0" * 16)
    assert (sets["NoNewPrivs"], sets["Threads"]) == ("1", "1")


async def test_a_scout_that_was_killed_is_found_again(clean: Containerd, start: Start) -> None:
    """The client says that it is away, then goes on where it was; waiting for changes ends with the news."""
    clean.run_pod("lasting", "shop")
    process = start(clean.socket)
    async with connected(process) as client:
        await sandbox(client, "lasting")
        process.child.kill()
        process.child.wait()
        assert process.child.stdout is not None
        process.child.stdout.close()
        with pytest.raises(Transient, match="scout"):
            await client.sandboxes()
        process.start()
        await asyncio.wait_for(client.changed(), 30)
        assert (await sandbox(client, "lasting")).namespace == "shop"


def _id(container: str) -> bytes:
    data = container.encode()
    return bytes([0x0A, len(data)]) + data


def _unmount(path: str) -> None:
    subprocess.run(["umount", path], check=True)
    os.unlink(path)
