"""The scout at an engine that answers as Docker does: what a real Podman cannot show."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scout.conftest import Process, connected, runtime, sandbox, until
from tests.scout.fake_docker import FakeDocker, container, fake_docker

Start = Callable[..., Process]
WEB, SIDE, POD, MAIN, LOST = (digit * 64 for digit in "abcde")
ME = os.getpid()


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[FakeDocker]:
    with fake_docker(str(tmp_path / "docker.sock")) as made:
        yield made


async def test_dockershims_names_are_pods(docker: FakeDocker, start: Start) -> None:
    """k8s_POD_… is the sandbox and no container; k8s_main_… is a container of it, whatever the order."""
    labels = {
        "io.kubernetes.pod.uid": "u-1",
        "app": "checkout",
        "annotation.tripshark.dev/record": "off",
    }
    docker.put(
        container(MAIN, "k8s_main_checkout-7d_shop_u-1_0", mode=f"container:{POD}", pid=ME),
        container(
            POD, "k8s_POD_checkout-7d_shop_u-1_3", pid=ME, labels=labels, address="10.1.0.9"
        ),
    )
    async with connected(start(docker.path)) as client:
        found = await sandbox(client, "checkout-7d")
        assert (found.id, found.namespace, found.uid, found.runtime) == (
            POD,
            "shop",
            "u-1",
            "docker",
        )
        assert [(each.id, each.name) for each in found.containers] == [(MAIN, "main")]
        assert (found.labels, found.annotations) == (
            {"app": "checkout"},
            {"tripshark.dev/record": "off"},
        )
        assert found.addresses == ("10.1.0.9",)
        assert found.containers[0].started_ns == 1795554001_500000000
        assert found.containers[0].digest == "sha256:" + "ab" * 32


async def test_a_shared_network_is_one_sandbox_by_id_or_by_name(
    docker: FakeDocker, start: Start
) -> None:
    """Also when the owner is gone, or two name each other, which no engine allows."""
    docker.put(
        container(WEB, "web", pid=ME),
        container(SIDE, "side", mode="container:web", pid=ME),
        container(LOST, "orphan", mode=f"container:{'9' * 64}", pid=ME),
        container(POD, "ring-a", mode=f"container:{MAIN}", pid=ME),
        container(MAIN, "ring-b", mode=f"container:{POD}", pid=ME),
    )
    async with connected(start(docker.path)) as client:
        found = await sandbox(client, "web")
        assert {each.id for each in found.containers} == {WEB, SIDE}
        for name in ("orphan", "ring-a", "ring-b"):
            assert (await sandbox(client, name)).inode == os.stat("/proc/self/ns/net").st_ino


async def test_events_are_heard(docker: FakeDocker, start: Start) -> None:
    """A container that an event speaks of is known long before the next look; when it ends, it is dead."""
    async with connected(start(docker.path, every_s=600.0)) as client:
        await runtime(client, docker.path, lambda each: each["events"])
        docker.put(container(WEB, "late", pid=ME))

        async def told() -> bool:
            docker.tell()
            return any(each.pod == "late" for each in await client.sandboxes())

        await until(told)
        docker.put(container(WEB, "late", finished="2026-11-24T22:00:00Z"))

        async def dead() -> bool:
            docker.tell()
            return any(each.pod == "late" and each.gone_ns for each in await client.sandboxes())

        await until(dead)


async def test_one_bad_entry_spoils_no_other(docker: FakeDocker, start: Start) -> None:
    """What cannot be understood is counted and said."""
    broken = container(LOST, "broken", pid=ME) | {"Id": "../../etc"}
    docker.containers[LOST] = broken
    odd = container(WEB, "odd", pid=ME) | {"Config": None, "NetworkSettings": [], "Created": 7}
    docker.put(container(MAIN, "good", pid=ME), odd)
    async with connected(start(docker.path)) as client:
        await sandbox(client, "good")
        assert (await sandbox(client, "odd")).labels == {}
        assert (await runtime(client, docker.path, lambda each: each["unreadable"]))[
            "unreadable"
        ] == 1


async def test_only_what_is_new_is_asked_for_in_detail(docker: FakeDocker, start: Start) -> None:
    """However often is looked, a container that stays as it was is inspected once."""
    docker.put(container(WEB, "calm", pid=ME))
    async with connected(start(docker.path, every_s=0.1)) as client:
        await runtime(client, docker.path, lambda each: int(str(each["looks"])) > 8)
        assert sum(WEB in url for url in docker.asked) == 1
