"""Real pods of a real containerd, a real scout and a real recorder: an alert's container id alone names the pod."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from tests.containers.runtime import Containerd, why_not
from tests.recorder import conftest as recorders
from tests.respond.worlds import ManualClock, an_alert
from tests.scout import conftest as scouts
from tripshark.model.alert import Alert
from tripshark.model.recording import Policy
from tripshark.model.target import Target, TargetKind
from tripshark.recorder.client import RecorderClient
from tripshark.recorder.config import RecorderConfig
from tripshark.scout.client import ScoutClient
from tripshark.scout.config import ScoutConfig
from tripshark.targets.local import LocalTargets

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

T = TypeVar("T")


class Wall(ManualClock):
    """The machine's clock: the recorder's and the runtime's times are real here."""

    def now_ns(self) -> int:
        return time.time_ns()


async def until(ask: Callable[[], Awaitable[T | None]], seconds: float = 60) -> T:
    deadline = time.monotonic() + seconds
    while (found := await ask()) is None:
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.05)
    return found


@pytest.fixture
async def targets(tmp_path: Path, containerd: Containerd) -> AsyncIterator[LocalTargets]:
    recorder = recorders.Process(
        RecorderConfig(
            socket=str(tmp_path / "r.sock"),
            include=("cni-*",),
            per_target=1 << 20,
            total=64 << 20,
        )
    )
    scout = scouts.Process(
        ScoutConfig(socket=str(tmp_path / "s.sock"), sockets=(containerd.socket,), every_s=0.5)
    )
    recording, asking = RecorderClient(recorder.config.socket), ScoutClient(scout.config.socket)
    try:
        yield LocalTargets(recording, (), Wall(), node="n1", runtime=asking, policy=Policy())
    finally:
        recording.close()
        asking.close()
        scout.stop()
        recorder.stop()
        containerd.remove_all()


def alert(container: str) -> Alert:
    """As Falco sends it when its Kubernetes fields are null."""
    return replace(
        an_alert(time_ns=time.time_ns()), container_id=container[:12], namespace=None, pod=None
    )


async def test_a_container_id_alone_names_the_pod_also_when_it_is_gone(
    targets: LocalTargets, containerd: Containerd
) -> None:
    """Two pods and one in the host's network, living; then removed without a trace."""
    pods = [
        containerd.run_pod(
            f"checkout-7d9f-{name}", "payments", labels={"pod-template-hash": "7d9f"}
        )
        for name in ("aaaaa", "bbbbb")
    ]
    guest = containerd.run_pod("proxy", "kube-system", host_network=True)
    said = {pod.name: alert(pod.container_ids[0]) for pod in (*pods, guest)}

    async def whole(name: str) -> Target | None:
        found = (await targets.resolve(said[name])).target
        return found if found and (found.addresses or found.kind is TargetKind.HOST) else None

    for pod in pods:
        found = await until(lambda name=pod.name: whole(name))  # type: ignore[misc]
        assert found.title == f"payments/{pod.name}"
        assert (found.kind, found.inode) == (TargetKind.CONTAINER, pod.inode)
        assert found.identity.uid == pod.uid
        assert found.identity.owner == "Deployment/checkout"
        assert found.identity.images[0].startswith("localhost/work:1@sha256:")
        assert pod.ip in found.addresses
    host = await until(lambda: whole("proxy"))
    assert (host.kind, host.title) == (TargetKind.HOST, "kube-system/proxy")
    assert host.inode == guest.inode
    await targets.reconcile()

    for pod in pods:
        containerd.remove_pod(pod)

    async def buried(name: str) -> Target | None:
        found = await whole(name)
        return found if found and not found.alive else None

    for pod in pods:
        dead = await until(lambda name=pod.name: buried(name))  # type: ignore[misc]
        assert (dead.title, dead.inode) == (f"payments/{pod.name}", pod.inode)
        assert pod.ip in dead.addresses


async def test_a_pods_annotation_decides_how_it_is_recorded(
    targets: LocalTargets, containerd: Containerd
) -> None:
    """Told to the recorder as soon as the pod is known."""
    pod = containerd.run_pod("quiet", "payments", annotations={"tripshark.dev/record": "off"})

    async def silenced() -> Target | None:
        await targets.reconcile()
        found = (await targets.find("payments/quiet")).target
        return found if found and found.mode == "off" else None

    found = await until(silenced)
    assert found.inode == pod.inode
    assert not any(ring.live for ring in found.rings)
