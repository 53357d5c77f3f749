"""The scout at a real Podman: plain containers, shared networks, pods, and containers that are started again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest

from tests.containers.podman import Podman, start_podman, why_not_podman
from tests.scout.conftest import Process, connected, runtime, sandbox

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(why_not_podman()), reason=why_not_podman() or "-"),
]


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with start_podman() as made:
        yield made


async def test_containers_become_sandboxes_by_the_network_they_live_in(
    podman: Podman, start: Callable[..., Process]
) -> None:
    """Its own, another container's, a pod's or the host's; names, labels, ids and inodes are the real ones."""
    web = podman.run("web", "--label", "com.docker.compose.project=shop")
    joined = podman.run("joined", "--network", "container:web")
    podman.run("hostly", "--network", "host")
    podman("pod", "create", "--name", "front", "--label", "tier=front")
    member = podman.run("member", "--pod", "front")
    async with connected(start(podman.socket)) as client:
        told = await runtime(client, podman.socket, lambda each: each["state"] == "followed")
        assert (told["runtime"], told["protocol"]) == ("podman", "Docker API")
        found = await sandbox(client, "web")
        assert (found.id, found.namespace, found.runtime) == (web, "", "podman")
        assert found.labels["com.docker.compose.project"] == "shop"
        assert {each.id for each in found.containers} == {web, joined}
        assert found.inode == os.stat(f"/proc/{found.pid}/ns/net").st_ino
        assert found.inode == os.stat(found.netns).st_ino
        assert len(found.addresses) == 1
        by_id = await client.find(joined[:12])
        assert by_id is not None
        assert by_id.id == web
        host = await sandbox(client, "hostly")
        assert host.host_network
        assert host.inode == os.stat("/proc/self/ns/net").st_ino
        pod = await sandbox(client, "front")
        assert (pod.labels, [each.id for each in pod.containers]) == ({"tier": "front"}, [member])


async def test_a_container_started_again_is_alive_and_dead(
    podman: Podman, start: Callable[..., Process]
) -> None:
    """The same id with its new namespace, and a tombstone with the one before; removed, it is dead twice."""
    podman.run("again")
    async with connected(start(podman.socket)) as client:
        first = await sandbox(client, "again")
        # while the first namespace is held, the kernel cannot give its number to the second
        with open(f"/proc/{first.pid}/ns/net"):
            await asyncio.to_thread(podman, "stop", "-t", "5", "again")
            await asyncio.to_thread(podman, "start", "again")
        second = await sandbox(
            client, "again", lambda each: not each.gone_ns and each.inode != first.inode
        )
        dead = await sandbox(client, "again", lambda each: each.gone_ns)
        assert (second.id, dead.inode) == (first.id, first.inode)
        await asyncio.to_thread(podman, "rm", "-f", "-t", "0", "again")
        await sandbox(client, "again", lambda each: each.gone_ns and each.inode == second.inode)
