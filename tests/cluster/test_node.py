"""What a real kubelet reports of real pods is what we make of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.cluster.node import RealNode
from tests.cluster.waiting import running, until
from tripshark.cluster.api import KubeApi
from tripshark.cluster.metadata import Metadata, note_in
from tripshark.model.addresses import AddressBook

pytestmark = pytest.mark.root


class Now:
    """The machine's clock."""

    def now_ns(self) -> int:
        return time.time_ns()


async def test_a_deployments_pod_from_birth_to_death(real_node: RealNode) -> None:
    """Address, container, digest, owner to the top, and the address's history; a job's pod that has ended has none."""
    book = AddressBook()
    labels = {"app": "web"}
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "containers": [{"name": "c", "image": "localhost/work:1", "command": ["/bin/sleep", "1000"]}],
            "terminationGracePeriodSeconds": 0,
        },
    }  # fmt: skip
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
    async with KubeApi(real_node.plane.login()) as api:
        metadata = Metadata(api, Now(), node=real_node.name, on_holder=note_in(book))
        async with running(metadata.run()):
            await asyncio.to_thread(real_node._wait_for_account, "default")
            await asyncio.to_thread(real_node.plane.apply, deployment)
            await until(
                lambda: any(each.addresses and each.containers for each in metadata.pods()),
                "the pod",
                90,
            )
            (web,) = [each for each in metadata.pods() if each.labels.get("app") == "web"]
            await until(
                lambda: str((metadata.pod_by_uid(web.uid) or web).owner) == "Deployment/web",
                "its owner",
            )
            (address,) = web.addresses
            holder = book.at(address, time.time_ns())
            assert holder is not None
            assert holder.title == f"default/{web.name}"
            assert metadata.pod_by_container(web.containers[0][:12]) is not None
            assert [
                each.uid for each in await metadata.pods_of("Deployment", "default", "web")
            ] == [web.uid]
            sandbox = next(
                each for each in real_node.pods("default") if each["metadata"]["uid"] == web.uid
            )
            assert sandbox["status"]["podIP"] == address
            ended = await asyncio.to_thread(real_node.run, "default", "once", ["/bin/true"])
            uid = ended["metadata"]["uid"]
            await until(
                lambda: (p := metadata.pod_by_uid(uid)) is not None and p.finished, "its end", 60
            )
            assert book.at(ended["status"]["podIP"], time.time_ns()) is None
            await asyncio.to_thread(
                real_node.plane.call, "DELETE", "/apis/apps/v1/namespaces/default/deployments/web"
            )
            await until(lambda: metadata.pod_by_uid(web.uid) is None, "the pod's end", 60)
            assert book.at(address, time.time_ns()) is None
