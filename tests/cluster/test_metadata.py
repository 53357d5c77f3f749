"""A node knows its own pods, every service and node, and finds out about others; bounded, and with no right too many."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from tests.cluster.control import Plane
from tests.cluster.fake import FakeApi
from tests.cluster.waiting import running, until
from tripshark.cluster.api import KubeApi
from tripshark.cluster.login import in_cluster
from tripshark.cluster.metadata import Metadata, note_in
from tripshark.cluster.permissions import PERMISSIONS
from tripshark.cluster.problems import NotPermitted
from tripshark.errors import BadInput
from tripshark.model.addresses import AddressBook, HolderKind
from tripshark.model.pod import Owner

SHOP = "/api/v1/namespaces/shop"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
SECOND = 1_000_000_000


class Now:
    """The machine's clock."""

    def now_ns(self) -> int:
        return time.time_ns()


def pod(
    ip: str = "",
    *,
    node: str = "n1",
    labels: dict[str, str] | None = None,
    owner: tuple[str, str, str] | None = None,
    container: str = "",
    phase: str = "Running",
    host: bool = False,
    started: str = "2026-01-01T00:00:00Z",
) -> dict[str, Any]:
    meta: dict[str, Any] = {"labels": labels or {}}
    if owner:
        kind, name, uid = owner
        meta["ownerReferences"] = [{"kind": kind, "name": name, "uid": uid, "controller": True}]
    status: dict[str, Any] = {"phase": phase, "startTime": started}
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    if container:
        status["containerStatuses"] = [{"containerID": f"containerd://{container}"}]
    spec = {"nodeName": node, "hostNetwork": host, "containers": [{"name": "c", "image": "x"}]}
    return {"metadata": meta, "spec": spec, "status": status}


def service(ip: str, **selector: str) -> dict[str, Any]:
    return {"spec": {"clusterIP": ip, "clusterIPs": [ip], "selector": selector}}


def part(service: str, *addresses: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": [each]} for each in addresses],
    }


@asynccontextmanager
async def followed(api: KubeApi, **options: Any) -> AsyncIterator[Metadata]:
    """The cluster as node n1 knows it, once it knows."""
    metadata = Metadata(api, Now(), node=options.pop("node", "n1"), **options)
    async with running(metadata.run()):
        async with asyncio.timeout(40):
            await metadata.wait_synced()
        yield metadata


async def test_this_nodes_pods_by_every_name(fake_api: FakeApi, fake: KubeApi) -> None:
    """By name, by uid, by a container's first twelve digits; those of other nodes are not kept."""
    container = "0123456789ab" + "c" * 52
    fake_api.put(f"{SHOP}/pods/web", pod("10.0.0.1", container=container))
    fake_api.put(f"{SHOP}/pods/far", pod("10.0.0.2", node="n2"))
    async with followed(fake) as metadata:
        (web,) = metadata.pods()
        assert metadata.pod("shop", "web") is web
        assert metadata.pod_by_uid(web.uid) is web
        assert metadata.pod_by_container(container[:12]) is web
        assert metadata.pod_by_container(container) is web
        assert metadata.pod_by_container("0123456789abd") is None
        assert metadata.pod("shop", "far") is None
        # a container that starts anew has another id; the last one is still its own
        fake_api.change(
            f"{SHOP}/pods/web",
            {
                "status": {
                    "containerStatuses": [
                        {
                            "containerID": "containerd://" + "d" * 64,
                            "lastState": {
                                "terminated": {"containerID": f"containerd://{container}"}
                            },
                        }
                    ]
                }
            },
        )
        await until(lambda: metadata.pod_by_container("d" * 12), "the new container")
        assert metadata.pod_by_container(container[:12]) is not None
        fake_api.remove(f"{SHOP}/pods/web")
        await until(lambda: not metadata.pods(), "its end")
        assert metadata.pod("shop", "web") is None
        assert metadata.pod_by_container("d" * 12) is None


async def test_a_name_used_again_is_another_pod(fake_api: FakeApi, fake: KubeApi) -> None:
    """The uid decides, whatever order the news come in."""
    fake_api.put(f"{SHOP}/pods/db-0", pod("10.0.0.1"))
    async with followed(fake) as metadata:
        (first,) = metadata.pods()
        fake_api.remove(f"{SHOP}/pods/db-0")
        fake_api.put(f"{SHOP}/pods/db-0", pod("10.0.0.2"))
        await until(lambda: (metadata.pod("shop", "db-0") or first).uid != first.uid, "the second")
        assert metadata.pod_by_uid(first.uid) is None
        assert len(metadata.pods()) == 1


async def test_owners_are_followed_to_the_top(fake_api: FakeApi, fake: KubeApi) -> None:
    """ReplicaSet → Deployment, Job → CronJob, each asked for once; whoever owns nothing above stays."""
    fake_api.put(
        "/apis/apps/v1/namespaces/shop/replicasets/web-7d9f",
        {
            "metadata": {
                "uid": "r1",
                "ownerReferences": [
                    {"kind": "Deployment", "name": "web", "uid": "d1", "controller": True}
                ],
            }
        },
    )
    fake_api.put(
        "/apis/batch/v1/namespaces/shop/jobs/night-1",
        {
            "metadata": {
                "uid": "j1",
                "ownerReferences": [
                    {"kind": "CronJob", "name": "night", "uid": "c1", "controller": True}
                ],
            }
        },
    )
    fake_api.put("/apis/apps/v1/namespaces/shop/replicasets/bare", {"metadata": {"uid": "r2"}})
    for number in range(5):
        fake_api.put(f"{SHOP}/pods/web-{number}", pod(owner=("ReplicaSet", "web-7d9f", "r1")))
    fake_api.put(f"{SHOP}/pods/night", pod(owner=("Job", "night-1", "j1")))
    fake_api.put(f"{SHOP}/pods/bare", pod(owner=("ReplicaSet", "bare", "r2")))
    fake_api.put(f"{SHOP}/pods/db-0", pod(owner=("StatefulSet", "db", "s1")))
    # a ReplicaSet that is gone by now
    gone = pod(owner=("ReplicaSet", "old-5c4", "r9"), labels={"pod-template-hash": "5c4"})
    fake_api.put(f"{SHOP}/pods/old", gone)
    expected = {
        **{f"web-{n}": Owner(kind="Deployment", name="web", uid="d1") for n in range(5)},
        "night": Owner(kind="CronJob", name="night", uid="c1"),
        "bare": Owner(kind="ReplicaSet", name="bare", uid="r2"),
        "db-0": Owner(kind="StatefulSet", name="db", uid="s1"),
        "old": Owner(kind="Deployment", name="old"),
    }
    async with followed(fake) as metadata:
        await until(lambda: {e.name: e.owner for e in metadata.pods()} == expected, "owners")
    assert fake_api.count("get", "replicasets") == 3
    assert fake_api.count("get", "jobs") == 1


async def test_owners_nobody_may_ask_for_are_told_by_name(
    fake_api: FakeApi, fake: KubeApi
) -> None:
    """… and asked for again later, in case the right was given."""
    fake_api.faults.deny |= {("get", "replicasets"), ("get", "jobs")}
    owner = {"kind": "Deployment", "name": "web", "uid": "d1", "controller": True}
    fake_api.put(
        "/apis/apps/v1/namespaces/shop/replicasets/web-7d9f",
        {"metadata": {"uid": "r1", "ownerReferences": [owner]}},
    )
    made = pod(owner=("ReplicaSet", "web-7d9f", "r1"), labels={"pod-template-hash": "7d9f"})
    fake_api.put(f"{SHOP}/pods/web", made)
    async with followed(fake, denied_s=0.2) as metadata:
        await until(lambda: metadata.state()["owners_denied"], "the refusal")
        assert metadata.pods()[0].owner == Owner(kind="Deployment", name="web")
        fake_api.faults.deny.clear()
        top = Owner(kind="Deployment", name="web", uid="d1")
        await until(lambda: metadata.pods()[0].owner == top, "the right")


@pytest.mark.parametrize("served", ["v1", "v1beta1", "endpoints"])
async def test_services_have_their_backends(fake_api: FakeApi, fake: KubeApi, served: str) -> None:
    """From whatever the server has of that; in parts, which come and go in any order."""
    if served != "v1":
        del fake_api._kinds["discovery.k8s.io", "v1"]
    if served == "endpoints":
        del fake_api._kinds["discovery.k8s.io", "v1beta1"]
        fake_api.put(
            f"{SHOP}/endpoints/db",
            {"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}]},
        )
    else:
        base = f"/apis/discovery.k8s.io/{served}/namespaces/shop/endpointslices"
        fake_api.put(f"{base}/db-a", part("db", "10.0.0.1"))
        fake_api.put(f"{base}/db-b", part("db", "10.0.0.2"))
    fake_api.put(f"{SHOP}/services/db", service("10.96.0.9", app="db"))
    async with followed(fake) as metadata:
        (found,) = metadata.services_at("10.96.0.9")
        assert (found.namespace, found.name) == ("shop", "db")
        assert await metadata.backends_of("10.96.0.9") == ("10.0.0.1", "10.0.0.2")
        assert metadata.services_at("10.96.0.10") == ()
        if served != "endpoints":
            fake_api.remove(f"{base}/db-a")
            await until(
                lambda: metadata.services_at("10.96.0.9")[0].backends == ("10.0.0.2",), "b"
            )
        fake_api.change(
            f"{SHOP}/services/db",
            {"spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]}},
        )
        await until(lambda: metadata.services_at("10.96.0.10"), "its move")
        assert metadata.services_at("10.96.0.9") == ()
        fake_api.remove(f"{SHOP}/services/db")
        await until(lambda: not metadata.services_at("10.96.0.10"), "its end")


async def test_addresses_have_a_history(fake_api: FakeApi, fake: KubeApi) -> None:
    """A pod, then nobody, then another pod; a finished one has none; guests of a node do not own its address."""
    book = AddressBook()
    fake_api.put(
        "/api/v1/nodes/n1",
        {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}},
    )
    fake_api.put(f"{SHOP}/services/db", service("10.96.0.9"))
    fake_api.put(f"{SHOP}/pods/first", pod("10.0.0.1"))
    fake_api.put(f"{SHOP}/pods/guest", pod("192.0.2.7", host=True))

    def holder(address: str) -> str:
        found = book.at(address, time.time_ns())
        return found.title if found else ""

    async with followed(fake, on_holder=note_in(book)):
        await until(lambda: holder("10.0.0.1") == "shop/first", "the first")
        assert holder("10.96.0.9") == "shop/svc/db"
        assert holder("192.0.2.7") == "node/n1"
        assert [each.holder.name for each in book.guests("192.0.2.7", 0, time.time_ns())] == [
            "shop/guest"
        ]
        fake_api.change(f"{SHOP}/pods/first", {"status": {"phase": "Succeeded"}})
        await until(lambda: not holder("10.0.0.1"), "its end")
        fake_api.put(f"{SHOP}/pods/second", pod(""))
        fake_api.change(
            f"{SHOP}/pods/second",
            {"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}},
        )
        await until(lambda: holder("10.0.0.1") == "shop/second", "the second")
        first, second = book.between("10.0.0.1", 0, time.time_ns())
        assert (first.holder.name, second.holder.name) == ("shop/first", "shop/second")
        # though it says it started long ago, it had not this address while the other had it
        assert first.to_ns <= second.from_ns
        fake_api.remove(f"{SHOP}/services/db")
        await until(lambda: not holder("10.96.0.9"), "the service's end")


async def test_a_service_that_loses_one_address_keeps_the_other(
    fake_api: FakeApi, fake: KubeApi
) -> None:
    """Whoever leaves an address is not gone from all of them."""
    book = AddressBook()
    fake_api.put(
        f"{SHOP}/services/db", {"spec": {"clusterIP": "10.96.0.9", "externalIPs": ["192.0.2.1"]}}
    )
    async with followed(fake, on_holder=note_in(book)) as metadata:
        fake_api.change(f"{SHOP}/services/db", {"spec": {"externalIPs": None}})
        await until(lambda: not metadata.services_at("192.0.2.1"), "the loss")
        assert book.at("192.0.2.1", time.time_ns()) is None
        kept = book.at("10.96.0.9", time.time_ns())
        assert kept is not None
        assert kept.kind == HolderKind.SERVICE


async def test_others_are_asked_for_and_remembered(fake_api: FakeApi, fake: KubeApi) -> None:
    """Somebody or nobody, each asked for once, however many ask at the same time."""
    book = AddressBook()
    fake_api.put(f"{SHOP}/pods/far", pod("10.0.9.1", node="n9"))
    fake_api.put(f"{SHOP}/pods/done", pod("10.0.9.2", node="n9", phase="Failed"))
    async with followed(fake, on_holder=note_in(book)) as metadata:
        before = fake_api.count("list", "pods")
        holders = await asyncio.gather(*(metadata.owner_of_address("10.0.9.1") for _ in range(20)))
        assert {each.title for each in holders if each} == {"shop/far"}
        assert all(each is not None and each.node == "n9" for each in holders)
        for _ in range(3):
            assert await metadata.owner_of_address("10.0.9.2") is None
            assert await metadata.owner_of_address("10.0.9.3") is None
            assert await metadata.owner_of_address("no address") is None
        assert fake_api.count("list", "pods") - before == 3
        found = book.at("10.0.9.1", time.time_ns())
        assert found is not None
        assert found.title == "shop/far"
        for _ in range(3):
            far = await metadata.lookup_pod("shop", "far")
            assert far is not None
            assert far.node == "n9"
            assert await metadata.lookup_pod("shop", "nobody") is None
        assert fake_api.count("get", "pods") == 2


async def test_names_that_are_none_go_into_no_path(fake_api: FakeApi, fake: KubeApi) -> None:
    """An alert's words cannot make us ask for something else."""
    async with followed(fake) as metadata:
        before = len(fake_api.requests)
        for bad in ("../secrets/x", "a/b", "x?watch=1", "", "A", "x" * 300, "a%2fb", "a\n"):
            assert await metadata.lookup_pod("shop", bad) is None
            assert await metadata.lookup_pod(bad, "web") is None
            assert await metadata.pods_of("Deployment", bad, "web") == ()
        assert len(fake_api.requests) == before


async def test_pods_of_a_workload(fake_api: FakeApi, fake: KubeApi) -> None:
    """By its own selector, on all nodes; finished ones are none of it."""
    selector = {"spec": {"selector": {"matchLabels": {"app": "web"}}}}
    for group, kind in (("apps", "deployments"), ("apps", "statefulsets"), ("apps", "daemonsets")):
        fake_api.put(f"/apis/{group}/v1/namespaces/shop/{kind}/web", selector)
    owner = {"kind": "CronJob", "name": "night", "uid": "c", "controller": True}
    fake_api.put(
        "/apis/batch/v1/namespaces/shop/jobs/night-1",
        {"metadata": {"ownerReferences": [owner]}, **selector},
    )
    fake_api.put("/apis/batch/v1/namespaces/shop/jobs/other", selector)
    fake_api.put(f"{SHOP}/services/web", service("10.96.0.1", app="web"))
    fake_api.put(f"{SHOP}/services/none", service("10.96.0.2"))
    for number in range(3):
        fake_api.put(f"{SHOP}/pods/web-{number}", pod(node=f"n{number}", labels={"app": "web"}))
    fake_api.put(f"{SHOP}/pods/done", pod(labels={"app": "web"}, phase="Succeeded"))
    fake_api.put(f"{SHOP}/pods/other", pod(labels={"app": "x"}))
    fake_api.put("/api/v1/namespaces/elsewhere/pods/web", pod(labels={"app": "web"}))
    async with followed(fake) as metadata:
        for kind, name in (
            ("Deployment", "web"),
            ("StatefulSet", "web"),
            ("DaemonSet", "web"),
            ("Service", "web"),
            ("CronJob", "night"),
            ("Job", "other"),
        ):
            found = await metadata.pods_of(kind, "shop", name)
            assert [each.name for each in found] == ["web-0", "web-1", "web-2"], kind
        assert await metadata.pods_of("Deployment", "shop", "none") == ()
        assert await metadata.pods_of("Service", "shop", "none") == ()
        assert [each.name for each in await metadata.pods_of("Pod", "shop", "other")] == ["other"]
        with pytest.raises(BadInput, match="one of"):
            await metadata.pods_of("Secret", "shop", "web")


async def test_one_right_less_costs_one_thing(fake_api: FakeApi, fake: KubeApi) -> None:
    """Without services, endpoints and nodes the pods are known all the same."""
    fake_api.faults.deny |= {("list", "services"), ("list", "nodes"), ("list", "endpointslices")}
    fake_api.put(f"{SHOP}/pods/web", pod("10.0.0.1"))
    metadata = Metadata(fake, Now(), node="n1", denied_s=0.2)
    async with running(metadata.run()):
        await until(metadata.pods, "the pod")
        mirrors: Any = metadata.state()["mirrors"]
        await until(
            lambda: all(
                metadata.state()["mirrors"][each]["denied"]
                for each in ("services", "nodes", "endpoints")
            ),  # type: ignore[index]
            "what is missing",
        )
        assert mirrors["pods"]["denied"] is False
        fake_api.faults.deny.clear()
        async with asyncio.timeout(40):
            await metadata.wait_synced()


# ------------------------------------------------------------------------------ a large cluster

MEASURE = """
import asyncio, gc, json, sys, time
from tripshark.cluster.api import KubeApi
from tripshark.cluster.login import Fixed, Login
from tripshark.cluster.metadata import Metadata, note_in
from tripshark.model.addresses import AddressBook

class Now:
    def now_ns(self): return time.time_ns()

def rss():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def peak():
    # not getrusage: that remembers the parent's
    return next(int(each.split()[1]) * 1024 for each in open("/proc/self/status") if each.startswith("VmHWM"))

async def main():
    login = Login(server=sys.argv[1], credential=Fixed(), trust=None)
    book = AddressBook()
    async with KubeApi(login) as api:
        await api.get("/version")
        before, cpu = rss(), time.process_time()
        began = time.monotonic()
        metadata = Metadata(api, Now(), node="n1", on_holder=note_in(book))
        task = asyncio.ensure_future(metadata.run())
        await metadata.wait_synced()
        took = time.monotonic() - began
        after = rss()
        for n in range(0, 10000, 500):
            await metadata.owner_of_address(f"10.2.{n >> 8}.{n & 255}")
        await metadata.pods_of("Deployment", "big", "all")
        asked = rss()
        print(json.dumps({
            "synced_s": round(took, 2), "cpu_s": round(time.process_time() - cpu, 2),
            "grown_mb": round((after - before) / 1e6, 1), "asked_mb": round((asked - before) / 1e6, 1),
            "peak_mb": round((peak() - before) / 1e6, 1),
            "base_mb": round(before / 1e6, 1),
            "pods": len(metadata.pods()), "services": len(metadata.services_at("10.96.7.207")),
            "backends": len(await metadata.backends_of("10.96.7.207")), "tenures": len(book)}))
        task.cancel()

asyncio.run(main())
"""


async def test_a_large_cluster_fits(fake_api: FakeApi) -> None:
    """10,000 pods, 2,000 services with five backends each, 500 nodes: a node's share of memory stays small."""
    padding = {f"example.dev/annotation-{n}": "x" * 200 for n in range(10)}
    made: dict[str, dict[str, Any]] = {}
    for number in range(10_000):
        node = "n1" if number % 100 == 0 else f"n{number % 100}x"
        ip = f"10.2.{number >> 8}.{number & 255}"
        one = pod(ip, node=node, labels={"app": "all", "n": str(number)})
        one["metadata"]["annotations"] = padding
        made[f"/api/v1/namespaces/big/pods/p{number}"] = one
    for number in range(2_000):
        name, ip = f"s{number}", f"10.96.{number >> 8}.{number & 255}"
        made[f"/api/v1/namespaces/big/services/{name}"] = {
            "metadata": {"annotations": padding},
            **service(ip, app=name),
        }
        behind = [f"10.2.{each >> 8}.{each & 255}" for each in range(number * 5, number * 5 + 5)]
        path = f"/apis/discovery.k8s.io/v1/namespaces/big/endpointslices/{name}-a"
        made[path] = part(name, *behind)
    for number in range(500):
        address = {"type": "InternalIP", "address": f"192.168.{number >> 8}.{number & 255}"}
        made[f"/api/v1/nodes/node{number}"] = {"status": {"addresses": [address]}}
    selector = {"matchLabels": {"app": "all"}}
    made["/apis/apps/v1/namespaces/big/deployments/all"] = {"spec": {"selector": selector}}
    fake_api.fill(made)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", MEASURE, fake_api.url],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert (found["pods"], found["services"], found["backends"]) == (100, 1, 5)
    assert found["grown_mb"] < 40
    assert found["peak_mb"] < 90


# ------------------------------------------------------------------------------ a real server and real rights

USED = [
    (each.feature, each.group, each.resource, verb)
    for each in PERMISSIONS
    if each.feature in ("pods", "services", "nodes", "workloads")
    for verb in each.verbs
]


def rules(*but: tuple[str, str, str]) -> list[dict[str, object]]:
    """What is declared, but for these."""
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        for _, group, resource, verb in USED
        if (group, resource, verb) not in but
    ]


class Cluster:
    """A few things of every kind on a real server, and an account that may look at them."""

    def __init__(self, plane: Plane, space: str) -> None:
        self.plane, self.space = plane, space
        labels = {"app": "web"}
        spec = {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "x"}]},
            },
        }
        apps = f"/apis/apps/v1/namespaces/{space}"
        core = f"/api/v1/namespaces/{space}"
        named: dict[str, Any] = {"metadata": {"name": "web"}}
        owner = plane.call("POST", f"{apps}/deployments", {**named, "spec": spec})
        plane.call("POST", f"{apps}/daemonsets", {**named, "spec": spec})
        plane.call(
            "POST", f"{apps}/statefulsets", {**named, "spec": {**spec, "serviceName": "web"}}
        )
        meta = {"name": "web-1", "ownerReferences": [reference(owner)]}
        replicas = plane.call("POST", f"{apps}/replicasets", {"metadata": meta, "spec": spec})
        job = {"template": {"spec": {**spec["template"]["spec"], "restartPolicy": "Never"}}}  # type: ignore[index]
        cron = {
            "apiVersion": "batch/v1beta1",
            "kind": "CronJob",
            "metadata": {"name": "night", "uid": "11111111-1111-1111-1111-111111111111"},
        }
        meta = {"name": "night-1", "ownerReferences": [reference(cron)]}
        night = plane.call(
            "POST", f"/apis/batch/v1/namespaces/{space}/jobs", {"metadata": meta, "spec": job}
        )
        ports = [{"port": 80}]
        plane.call(
            "POST", f"{core}/services", {**named, "spec": {"selector": labels, "ports": ports}}
        )
        self.address = plane.call("GET", f"{core}/services/web")["spec"]["clusterIP"]
        plane.call(
            "POST",
            f"/apis/discovery.k8s.io/v1beta1/namespaces/{space}/endpointslices",
            {
                "metadata": {"name": "web-a", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.7.0.1"]}],
            },
        )
        node = {"metadata": {"name": f"{space}-n1"}}
        plane.call("POST", "/api/v1/nodes", node)
        plane.call(
            "PATCH",
            f"/api/v1/nodes/{space}-n1/status",
            {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.77"}]}},
            "application/merge-patch+json",
        )
        self.node = f"{space}-n1"
        plane.pod(space, "web-a", node=self.node, ip="10.7.0.1", labels=labels, owner=replicas)
        plane.pod(space, "web-b", node="elsewhere", ip="10.7.0.2", labels=labels, owner=replicas)
        plane.pod(
            space,
            "night-a",
            node=self.node,
            labels={"controller-uid": night["metadata"]["uid"]},
            owner=night,
        )
        self.user = f"system:serviceaccount:{space}:agent"
        self.folder = plane.service_account(space, "agent")

    def api(self) -> KubeApi:
        host, _, port = self.plane.url.removeprefix("https://").rpartition(":")
        return KubeApi(in_cluster(host, port, self.folder), tries=1)

    def close(self) -> None:
        self.plane.call("DELETE", f"/api/v1/nodes/{self.node}")


def reference(owner: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


@pytest.fixture(scope="module")
def cluster(real_api: Plane) -> Iterator[Cluster]:
    with real_api.namespace() as space:
        made = Cluster(real_api, space)
        yield made
        made.close()


@contextmanager
def granted(cluster: Cluster, given: list[dict[str, object]]) -> Iterator[None]:
    undo = cluster.plane.grant(cluster.user, given)
    try:
        yield
    finally:
        undo()


Use = Callable[[Metadata, Cluster], Awaitable[object]]


async def workload(metadata: Metadata, cluster: Cluster, kind: str, name: str = "web") -> bool:
    found = await metadata.pods_of(kind, cluster.space, name)
    return {each.name for each in found} >= ({"web-a", "web-b"} if name == "web" else {"night-a"})


async def own_pods(metadata: Metadata, cluster: Cluster) -> bool:
    return {each.name for each in metadata.pods()} == {"web-a", "night-a"}


def denied(metadata: Metadata, which: str) -> bool:
    mirrors: Any = metadata.state()["mirrors"]
    return bool(mirrors[which]["denied"])


def problem_of(metadata: Metadata, which: str) -> str:
    mirrors: Any = metadata.state()["mirrors"]
    return str(mirrors[which]["problem"])


def mirrored(which: str) -> Use:
    async def use(metadata: Metadata, cluster: Cluster) -> bool:
        mirrors: Any = metadata.state()["mirrors"]
        return (
            mirrors[which]["items"] > 0
            and mirrors[which]["watches"] > 0
            and not denied(metadata, which)
        )

    return use


async def far_pod(metadata: Metadata, cluster: Cluster) -> bool:
    found = await metadata.lookup_pod(cluster.space, "web-b")
    return found is not None and found.node == "elsewhere"


async def deployments_pod(metadata: Metadata, cluster: Cluster) -> bool:
    found = metadata.pod(cluster.space, "web-a")
    return found is not None and str(found.owner) == "Deployment/web"


async def cron_jobs_pod(metadata: Metadata, cluster: Cluster) -> bool:
    found = metadata.pod(cluster.space, "night-a")
    return found is not None and str(found.owner) == "CronJob/night"


async def unmirrored_service(metadata: Metadata, cluster: Cluster) -> bool:
    found = await Metadata(metadata._api, Now(), node="n", services=False).pods_of(
        "Service", cluster.space, "web"
    )
    return {each.name for each in found} == {"web-a", "web-b"}


USES: dict[tuple[str, str, str], Use] = {
    ("", "pods", "get"): far_pod,
    ("", "pods", "list"): own_pods,
    ("", "pods", "watch"): mirrored("pods"),
    ("", "services", "get"): unmirrored_service,
    ("", "services", "list"): mirrored("services"),
    ("", "services", "watch"): mirrored("services"),
    ("discovery.k8s.io", "endpointslices", "list"): mirrored("endpoints"),
    ("discovery.k8s.io", "endpointslices", "watch"): mirrored("endpoints"),
    ("", "nodes", "list"): mirrored("nodes"),
    ("", "nodes", "watch"): mirrored("nodes"),
    ("apps", "deployments", "get"): lambda m, c: workload(m, c, "Deployment"),
    ("apps", "statefulsets", "get"): lambda m, c: workload(m, c, "StatefulSet"),
    ("apps", "daemonsets", "get"): lambda m, c: workload(m, c, "DaemonSet"),
    ("apps", "replicasets", "get"): deployments_pod,
    ("batch", "jobs", "get"): cron_jobs_pod,
    ("batch", "jobs", "list"): lambda m, c: workload(m, c, "CronJob", "night"),
}


async def works(use: Use, metadata: Metadata, cluster: Cluster) -> bool:
    try:
        return bool(await use(metadata, cluster))
    except NotPermitted:
        return False


def test_every_declared_right_has_a_use() -> None:
    """And nothing is used that is not declared."""
    assert sorted(USES) == sorted((group, resource, verb) for _, group, resource, verb in USED)


async def test_the_declared_rights_suffice(cluster: Cluster) -> None:
    """A real service account with exactly these does everything."""
    with granted(cluster, rules()):
        async with (
            cluster.api() as api,
            followed(api, node=cluster.node, denied_s=0.3) as metadata,
        ):
            loop = asyncio.get_running_loop()
            deadline = loop.time() + 40
            waiting = dict(USES)
            while waiting:
                done = [key for key, use in waiting.items() if await works(use, metadata, cluster)]
                for key in done:
                    del waiting[key]
                assert loop.time() < deadline, f"does not work: {sorted(waiting)}"
                await asyncio.sleep(0.05)
            assert await metadata.backends_of(cluster.address) == ("10.7.0.1",)
            holder = await metadata.owner_of_address("10.7.0.2")
            assert holder is not None
            assert holder.title == f"{cluster.space}/web-b"


@pytest.mark.parametrize("missing", sorted(USES), ids=".".join)
async def test_each_right_is_needed(cluster: Cluster, missing: tuple[str, str, str]) -> None:
    """Without it exactly what it is for fails, and what is missing is named."""
    group, resource, verb = missing
    with granted(cluster, rules(missing)):
        async with cluster.api() as api:
            metadata = Metadata(api, Now(), node=cluster.node, denied_s=0.3)
            async with running(metadata.run()):
                if verb in ("list", "watch") and resource != "jobs":
                    which = "endpoints" if resource == "endpointslices" else resource
                    rule = f'apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]'
                    await until(lambda: rule in problem_of(metadata, which), "the refusal")
                else:
                    async with asyncio.timeout(40):
                        await metadata.wait_synced()
                    if USES[missing] in (deployments_pod, cron_jobs_pod):
                        await until(lambda: metadata.state()["owners_denied"], "the refusal")
                assert not await works(USES[missing], metadata, cluster)
