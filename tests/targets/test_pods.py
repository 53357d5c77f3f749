"""Pods: namespaces joined with what runtimes and the API know of who lives in them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.targets.places import (
    HERE,
    THERE,
    Clustered,
    Place,
    Recorded,
    Runtimes,
    S,
    alert,
    facts_of,
    hex_id,
    sandbox,
    target,
)
from tripshark.errors import Transient
from tripshark.model.addresses import Holder, HolderKind
from tripshark.model.alert import Alert, Connection, Endpoint
from tripshark.model.pod import Container, Owner, Sandbox
from tripshark.model.recording import Mode, Policy, Selector
from tripshark.model.target import Elsewhere, Identity, TargetKey, TargetKind
from tripshark.targets.identities import owner_by_labels
from tripshark.targets.local import LocalTargets, Resident

POD = sandbox(
    0x10,
    "checkout-7d9f-x2v5t",
    inode=42,
    created_ns=100 * S,
    labels={"app": "checkout", "pod-template-hash": "7d9f", "io.kubernetes.pod.uid": "u"},
)
NETNS = target("netns:cni-1", "10.244.0.7", inode=42, since_s=100)


def place(**parts: object) -> Place:
    given = {
        "recorder": Recorded((NETNS, target("host", "192.0.2.1", inode=1))),
        "runtime": Runtimes((POD,)),
        **parts,
    }
    return Place(**given)  # type: ignore[arg-type]


def connected(client: str, server: str) -> Connection:
    return Connection(
        client=Endpoint(ip_address(client), 40000), server=Endpoint(ip_address(server), 443)
    )


async def resolved(there: Place, asked: Alert) -> str:
    answer = await there.targets.resolve(asked)
    if answer.elsewhere:
        return f"{answer.elsewhere.title}@{answer.elsewhere.node}"
    return answer.target.key if answer.target else ""


# --------------------------------------------------------------------------------------- identity


async def test_a_pod_has_the_identity_that_its_runtime_and_the_api_know() -> None:
    """Owner, service account, image digests, every id; the runtime's own labels are left out."""
    there = place(cluster=Clustered([facts_of(POD)]))
    pod, host = await there.targets.all()
    assert (pod.kind, pod.name) == (TargetKind.CONTAINER, "container:000000000010")
    assert pod.identity == Identity(
        namespace="shop",
        pod="checkout-7d9f-x2v5t",
        uid=POD.uid,
        labels={"app": "checkout"},
        owner="Deployment/checkout",
        node=HERE,
        service_account="cashier",
        images=("img:1@sha256:ab",),
        containers=(hex_id(0x10), hex_id(0x11)),
    )
    assert host.identity == Identity(node=HERE)


async def test_without_an_api_the_labels_tell_the_owner() -> None:
    """What Kubernetes' controllers write on their pods suffices."""
    pod, _ = await place().targets.all()
    assert pod.identity.owner == "Deployment/checkout"
    assert pod.identity.labels == {"app": "checkout", "pod-template-hash": "7d9f"}


@pytest.mark.parametrize(
    ("pod", "labels", "owner"),
    [
        ("web-6c5-abc", {"pod-template-hash": "6c5"}, "Deployment/web"),
        ("web-6c5-abc", {"pod-template-hash": "other"}, ""),
        ("db-0", {"statefulset.kubernetes.io/pod-name": "db-0"}, "StatefulSet/db"),
        ("dns-xk2", {"controller-revision-hash": "h"}, "DaemonSet/dns"),
        ("nightly-77-zz", {"job-name": "nightly-77"}, "Job/nightly-77"),
        ("nightly-77-zz", {"batch.kubernetes.io/job-name": "nightly-77"}, "Job/nightly-77"),
        ("alone", {}, ""),
    ],
)
def test_owners_are_read_off_labels(pod: str, labels: dict[str, str], owner: str) -> None:
    """A label that does not fit the pod's name proves nothing."""
    assert owner_by_labels(sandbox(1, pod, labels=labels)) == owner


async def test_an_inode_used_again_is_somebody_elses() -> None:
    """The number is the same, the lifetimes are not: each namespace keeps its own pod."""
    old = replace(POD, gone_ns=500 * S)
    new = sandbox(0x20, "next", inode=42, created_ns=501 * S)
    there = place(
        recorder=Recorded(
            (
                target("netns:cni-1", inode=42, since_s=100, gone_s=499.8, key="first"),
                target("netns:cni-2", inode=42, since_s=500.5, key="second"),
            )
        ),
        runtime=Runtimes((old, new)),
    )
    first, second = await there.targets.all()
    assert (first.identity.pod, second.identity.pod) == (POD.pod, "next")


async def test_a_new_namespace_is_not_called_by_the_pod_that_had_its_inode_before() -> None:
    """Also while the runtime has not told yet that the old pod is gone."""
    there = place(recorder=Recorded((target("netns:cni-2", inode=42, since_s=999, key="second"),)))
    (fresh,) = await there.targets.all()
    assert fresh.identity.pod == ""


async def test_a_namespace_of_another_name_is_another_pods() -> None:
    """In the same second, with the same number: the file that the runtime made for the pod tells them apart."""
    old = replace(POD, gone_ns=500 * S, netns="/var/run/netns/cni-1")
    there = place(
        recorder=Recorded(
            (
                target("netns:cni-1", inode=42, since_s=100, gone_s=499.8, key="first"),
                target("netns:cni-2", inode=42, since_s=499.9, gone_s=500.1, key="second"),
            )
        ),
        runtime=Runtimes((old,)),
    )
    first, second = await there.targets.all()
    assert (first.identity.pod, second.identity.pod) == (POD.pod, "")


async def test_a_docker_container_has_a_new_namespace_at_each_start() -> None:
    """It was created long ago; what counts is when it was started last."""
    container = Container(id=hex_id(0x30), started_ns=700 * S)
    docker = replace(
        sandbox(0x30, "web", inode=77, created_ns=1 * S),
        runtime="docker",
        namespace="",
        uid="",
        containers=(container,),
    )
    there = place(
        recorder=Recorded((target("netns:x", inode=77, since_s=700),)), runtime=Runtimes((docker,))
    )
    (web,) = await there.targets.all()
    assert web.title == "web"


async def test_a_namespace_without_inode_is_known_by_its_file() -> None:
    """A runtime that tells no inode tells the path."""
    there = place(runtime=Runtimes((replace(POD, inode=0, netns="/var/run/netns/cni-1"),)))
    assert (await there.targets.all())[0].identity.pod == POD.pod


async def test_a_static_pod_has_another_uid_in_the_api() -> None:
    """The runtime knows it by the hash of its file; its container tells that both mean the same pod."""
    mirror = facts_of(POD, uid="uid-of-the-mirror", owner=Owner(kind="Node", name=HERE))
    there = place(cluster=Clustered([mirror]))
    static = (await there.targets.all())[0].identity
    assert (static.owner, static.service_account) == (f"Node/{HERE}", "cashier")
    assert static.uid == POD.uid
    other = place(cluster=Clustered([replace(mirror, name="somebody")]))
    assert (await other.targets.all())[0].identity.service_account == ""


async def test_the_dead_keep_their_names() -> None:
    """The runtime and the API have forgotten the pod; the recorder has not. Then it is gone for good."""
    runtime, cluster = Runtimes((POD,)), Clustered([facts_of(POD)])
    there = place(runtime=runtime, cluster=cluster)
    before = (await there.targets.all())[0].identity
    runtime.living, cluster.everywhere = (), []
    there.recorder.found = (
        replace(NETNS, gone_ns=1001 * S),
        *there.recorder.found[1:],
    )
    for seconds in (2, 300, 3600):  # beyond every tombstone of a runtime
        there.clock.now += seconds * S
        dead = (await there.targets.all())[0]
        assert dead.identity == before
        assert not dead.alive
    assert await resolved(there, alert(container_id=hex_id(0x11)[:12])) == "netns:cni-1"
    there.recorder.found = there.recorder.found[1:]
    there.clock.now += S
    assert await resolved(there, alert(container_id=hex_id(0x11)[:12])) == ""


async def test_what_was_known_stays_known_while_the_scout_is_away() -> None:
    """And a scout that hangs is waited for once, not at every look."""
    runtime = Runtimes((POD,))
    there = place(runtime=runtime)
    await there.targets.all()
    runtime.hangs = True
    there.clock.now += 5 * S
    loop = asyncio.get_running_loop()
    began, listed = loop.time(), runtime.listed
    for _ in range(20):
        assert await resolved(there, alert(namespace="shop", pod=POD.pod)) == "netns:cni-1"
        there.clock.now += S // 25
    assert runtime.listed == listed + 1
    assert loop.time() - began < 30  # one patience of 0.1 s, on however slow a machine


async def test_without_a_runtime_the_api_tells_by_address() -> None:
    """This node's pods hold addresses; finished ones and those in the host's network do not."""
    known = facts_of(replace(POD, addresses=("10.244.0.7",)))
    for facts, name in (
        (known, POD.pod),
        (replace(known, finished=True), ""),
        (replace(known, host_network=True), ""),
        (replace(known, node=THERE), ""),
    ):
        there = place(runtime=None, cluster=Clustered([facts]))
        found = (await there.targets.all())[0]
        assert found.identity.pod == name
        assert found.name == "netns:cni-1"


async def test_the_settings_name_whoever_has_a_container() -> None:
    """An entry with containers alone is found through the runtime; what it leaves open is as it was seen."""
    resident = Resident(identity=Identity(pod="till", containers=(hex_id(0x11)[:12],)))
    there = place(residents=(resident,))
    pod, host = await there.targets.all()
    assert (pod.identity.pod, pod.identity.namespace) == ("till", "shop")
    assert pod.identity.images == ("img:1@sha256:ab",)
    assert host.identity.pod == ""


# --------------------------------------------------------------------------------------- resolution


RESOLVED = {
    "12 digits of a container": (alert(container_id=hex_id(0x11)[:12]), "netns:cni-1"),
    "a whole container id": (alert(container_id=hex_id(0x11)), "netns:cni-1"),
    "the sandbox": (alert(container_id=hex_id(0x10)[:12]), "netns:cni-1"),
    "container.full_id": (alert(fields={"container.full_id": hex_id(0x11)}), "netns:cni-1"),
    "k8s.pod.sandbox_id": (alert(fields={"k8s.pod.sandbox_id": hex_id(0x10)[:12]}), "netns:cni-1"),
    "k8s.pod.uid": (alert(fields={"k8s.pod.uid": POD.uid}), "netns:cni-1"),
    "names": (alert(namespace="shop", pod=POD.pod), "netns:cni-1"),
    "a pod's name alone": (alert(pod=POD.pod), "netns:cni-1"),
    "dockershim's name": (
        alert(fields={"container.name": f"k8s_main_{POD.pod}_shop_{POD.uid}_0"}),
        "netns:cni-1",
    ),
    "dockershim's name of another pod": (
        alert(fields={"container.name": f"k8s_main_{POD.pod}_shop_12345678-other_0"}),
        "",
    ),
    "a process": (alert(pid=77), "netns:cni-1"),
    "an address": (alert(connection=connected("10.244.0.7", "203.0.113.9")), "netns:cni-1"),
    "a name, and another uid": (
        alert(namespace="shop", pod=POD.pod, fields={"k8s.pod.uid": "99999999-ffff"}),
        "",
    ),
    "hostile ids": (
        alert(fields={"container.full_id": "../../etc", "k8s.pod.uid": "x'; --", "a": 1}),
        "",
    ),
}


@pytest.mark.parametrize("name", RESOLVED)
@pytest.mark.parametrize("cluster", [False, True])
async def test_an_alert_finds_its_pod_by_whatever_names_it(name: str, cluster: bool) -> None:
    """Container, sandbox, uid, names, process, address: with a cluster and without."""
    asked, wanted = RESOLVED[name]
    there = place(
        recorder=Recorded((NETNS, target("host", "192.0.2.1")), processes={77: 42}),
        cluster=Clustered([facts_of(POD)]) if cluster else None,
    )
    assert await resolved(there, asked) == wanted


async def test_the_container_is_believed_before_the_names() -> None:
    """Names can be of the wrong pod; the id cannot."""
    other = sandbox(0x50, "other", inode=43, created_ns=100 * S)
    there = place(
        recorder=Recorded((NETNS, target("netns:cni-2", inode=43, since_s=100))),
        runtime=Runtimes((POD, other)),
    )
    asked = alert(container_id=hex_id(0x51)[:12], namespace="shop", pod=POD.pod)
    assert await resolved(there, asked) == "netns:cni-2"


async def test_a_pods_name_used_again_is_told_apart_by_uid_then_by_time() -> None:
    """A StatefulSet's pod: the uid decides; without one, who was there at T0."""
    old = sandbox(0x60, "db-0", inode=50, created_ns=100 * S, gone_ns=890 * S)
    new = sandbox(0x70, "db-0", inode=51, created_ns=895 * S)
    there = place(
        recorder=Recorded(
            (
                target("netns:a", inode=50, since_s=100, gone_s=890, key="old"),
                target("netns:b", inode=51, since_s=895, key="new"),
            )
        ),
        runtime=Runtimes((old, new)),
    )
    named = alert(namespace="shop", pod="db-0")
    assert await resolved(there, replace(named, time_ns=880 * S)) == "old"
    assert await resolved(there, named) == "new"
    for uid, wanted in ((old.uid, "old"), (new.uid, "new")):
        asked = replace(named, fields={"k8s.pod.uid": uid})
        assert await resolved(there, asked) == wanted


async def test_a_container_that_ended_still_names_its_pod() -> None:
    """It crashed and another took its place in the same sandbox."""
    runtime = Runtimes((POD,))
    there = place(runtime=runtime)
    await there.targets.all()
    runtime.living = (replace(POD, containers=(Container(id=hex_id(0x12)),)),)
    there.clock.now += 2 * S
    for id in (hex_id(0x11), hex_id(0x12)):
        assert await resolved(there, alert(container_id=id[:12])) == "netns:cni-1"


async def test_a_container_just_created_is_asked_for_afresh() -> None:
    """Nobody has told of it yet: the runtime is asked by id, and its namespace recorded from now on."""
    late = sandbox(0x80, "late", inode=60, created_ns=899 * S)
    runtime = Runtimes((POD,), late={hex_id(0x81)[:12]: (2, late)})
    there = place(
        recorder=Recorded((NETNS,), processes={0x80: 60}),
        runtime=runtime,
    )
    assert await resolved(there, alert(container_id=hex_id(0x81)[:12])) == "attached-128"
    assert runtime.found == [hex_id(0x81)[:12]] * 2


async def test_strangers_hold_nobody_up() -> None:
    """A storm of alerts about unknown containers: each is answered, few are waited for, all may be tried later."""
    runtime = Runtimes((POD,))
    there = place(runtime=runtime)
    await there.targets.all()
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(200):
        answer = await there.targets.resolve(alert(container_id=f"{number + 4096:012x}"))
        assert answer.target is None
        assert answer.later
        assert "is not known here" in answer.reason
    assert len(runtime.found) < 100
    assert loop.time() - began < 60


async def test_what_comes_late_is_found_late() -> None:
    """With two seconds of patience, beside the others."""
    late = sandbox(0x80, "late", inode=60, created_ns=899 * S)
    runtime = Runtimes((POD,), late={hex_id(0x81)[:12]: (4, late)})
    there = place(recorder=Recorded((NETNS,), processes={0x80: 60}), runtime=runtime)
    asked = alert(container_id=hex_id(0x81)[:12])
    answer = await there.targets.resolve(asked)
    assert answer.later
    assert answer.target is None
    found = (await there.targets.resolve_late(asked)).target
    assert found is not None
    assert found.identity.pod == "late"
    with_patience = await there.targets.resolve_late(alert(namespace="shop", pod=POD.pod))
    assert with_patience.target


async def test_a_runtime_that_hangs_costs_a_moment_only() -> None:
    """The alert is answered without it."""
    there = place(runtime=Runtimes((POD,), hangs=True))
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await there.targets.resolve(alert(container_id="abcabcabcabc"))
    assert answer.target is None
    assert loop.time() - began < 30


async def test_a_pod_in_the_hosts_network_has_the_hosts_ring_and_its_own_name() -> None:
    """By container, uid and names; the alert's connection is what narrows it, and the reason says so."""
    proxy = sandbox(0x90, "proxy", host_network=True, inode=1, addresses=())
    there = place(runtime=Runtimes((POD, proxy)))
    for asked in (
        alert(container_id=hex_id(0x91)[:12]),
        alert(fields={"k8s.pod.uid": proxy.uid}),
        alert(namespace="shop", pod="proxy", connection=connected("192.0.2.1", "203.0.113.9")),
    ):
        answer = await there.targets.resolve(asked)
        assert answer.target
        assert (answer.target.key, answer.target.kind) == ("host", TargetKind.HOST)
        assert answer.target.title == "shop/proxy"
        narrowed = "narrows them" if asked.connection else "nothing in the alert narrows them"
        assert narrowed in answer.reason
    host = (await there.targets.find("host")).target
    assert host
    assert host.title == "host"
    assert {each.title for each in await there.targets.all()} == {"shop/" + POD.pod, "host"}


async def test_whoever_is_not_recorded_is_told_so() -> None:
    """Known by the runtime, and without a namespace that the recorder has: the reason says why."""
    lonely = sandbox(0xA0, "lonely", inode=99, created_ns=10 * S)
    proxy = sandbox(0xB0, "proxy", host_network=True)
    there = place(
        recorder=Recorded((NETNS,)),
        runtime=Runtimes((replace(lonely, gone_ns=980 * S), proxy)),
    )
    for name, word in (("lonely", "it is gone"), ("proxy", "recorder.host")):
        answer = await there.targets.resolve(alert(namespace="shop", pod=name))
        assert answer.target is None
        assert word in answer.reason
        assert word in (await there.targets.find(f"shop/{name}")).reason


async def test_a_living_pod_that_is_not_recorded_is_attached_when_it_is_needed() -> None:
    """By a process of its, the moment an alert names it."""
    lonely = sandbox(0xA0, "lonely", inode=99, created_ns=10 * S)
    there = place(
        recorder=Recorded((NETNS,), processes={0xA0: 99}), runtime=Runtimes((POD, lonely))
    )
    assert await resolved(there, alert(namespace="shop", pod="lonely")) == "attached-160"


# --------------------------------------------------------------------------------------- other nodes


FAR = facts_of(sandbox(0xC0, "far", addresses=("10.244.1.9",)), THERE)


def two_nodes(**parts: object) -> Place:
    there = place(
        recorder=Recorded(
            (NETNS, target("host", "192.0.2.1")),
            processes={77: 42},
        ),
        cluster=Clustered([facts_of(replace(POD, addresses=("10.244.0.7",))), FAR]),
        **parts,
    )
    there.book.holds("192.0.2.2", Holder(kind=HolderKind.NODE, name=THERE), 0)
    return there


ELSEWHERE = {
    "by name": (alert(namespace="shop", pod="far"), "shop/far@node-2"),
    "by name and uid": (
        alert(namespace="shop", pod="far", fields={"k8s.pod.uid": FAR.uid}),
        "shop/far@node-2",
    ),
    "by name, but another uid": (
        alert(namespace="shop", pod="far", fields={"k8s.pod.uid": "00000000-dead"}),
        "",
    ),
    "by container and Falco's node": (
        alert(container_id=hex_id(0xC1)[:12], hostname=THERE),
        "shop/far@node-2",
    ),
    "a container nobody knows, on a node that is known": (
        alert(container_id="abcabcabcabc", hostname=THERE),
        "node/node-2@node-2",
    ),
    "by k8s.node.name": (
        alert(container_id="abcabcabcabc", fields={"k8s.node.name": "node-7"}),
        "node/node-7@node-7",
    ),
    "a process of another node": (alert(pid=77, hostname=THERE), "node/node-2@node-2"),
    "the host of another node": (alert(on_host=True, hostname=THERE), "node/node-2@node-2"),
    "the same process number here": (alert(pid=77, hostname=HERE), "netns:cni-1"),
    "Falco's own pod as hostname": (alert(pid=77, hostname="falco-x7z"), "netns:cni-1"),
    "by address": (alert(connection=connected("10.244.1.9", "203.0.113.1")), "shop/far@node-2"),
    "from there to a pod here": (
        alert(
            container_id=hex_id(0xC1)[:12],
            hostname=THERE,
            connection=connected("10.244.1.9", "10.244.0.7"),
        ),
        "shop/far@node-2",
    ),
}


@pytest.mark.parametrize("name", ELSEWHERE)
async def test_an_alert_for_another_node_says_which(name: str) -> None:
    """A central Falcosidekick sends everything to one node: names, ids, hostname and addresses tell."""
    asked, wanted = ELSEWHERE[name]
    assert await resolved(two_nodes(), asked) == wanted


async def test_a_successor_of_the_same_name_is_not_the_pod_that_was_meant() -> None:
    """It was created after the event."""
    there = two_nodes()
    assert there.cluster
    there.cluster.everywhere[1] = replace(FAR, created_ns=950 * S)
    assert await resolved(there, alert(namespace="shop", pod="far")) == ""


@pytest.mark.parametrize("trouble", ["away", "hangs"])
async def test_an_api_server_in_trouble_costs_a_moment_only(trouble: str) -> None:
    """What is known here is answered as ever; what is not is answered without it."""
    there = two_nodes()
    setattr(there.cluster, trouble, True)
    began = asyncio.get_running_loop().time()
    assert await resolved(there, alert(container_id=hex_id(0x11)[:12])) == "netns:cni-1"
    assert await resolved(there, alert(namespace="shop", pod="far")) == ""
    assert asyncio.get_running_loop().time() - began < 30


# --------------------------------------------------------------------------------------- recording


POLICY = Policy(
    default=Mode.OFF,
    selectors=(Selector(namespace="shop", record=Mode.FULL, weight=3),),
    privacy={"secret": Mode.HEADERS},
)


async def test_everybody_is_recorded_as_the_policy_says() -> None:
    """Told once, told anew when it changes, and again after a while; the host is nobody's to switch off."""
    quiet = sandbox(
        0xD0, "quiet", inode=70, created_ns=1, annotations={"tripshark.dev/record": "off"}
    )
    there = place(
        recorder=Recorded((NETNS, target("netns:q", inode=70), target("host"), target("netns:?"))),
        runtime=Runtimes((POD, quiet)),
        policy=POLICY,
    )
    assert await there.targets.reconcile() == 2
    told = there.recorder.told[-1]
    assert {key: (each.mode, each.weight) for key, each in told.items()} == {
        "netns:cni-1": (Mode.FULL, 3),
        "netns:q": (Mode.OFF, 3),
    }
    assert await there.targets.reconcile() == 0
    assert there.runtime
    there.runtime.living = (POD, replace(quiet, annotations={"tripshark.dev/record": "headers"}))
    there.clock.now += S
    assert await there.targets.reconcile() == 1
    assert there.recorder.told[-1]["netns:q"].mode is Mode.HEADERS  # type: ignore[index]
    there.clock.now += 100 * S
    assert await there.targets.reconcile() == 2
    assert len(there.recorder.told) == 3


async def test_annotations_are_those_of_now() -> None:
    """The API tells what was changed since the pod was made; the runtime only what it was made with."""
    changed = facts_of(POD, annotations={"tripshark.dev/record": "headers"})
    there = place(policy=Policy(), cluster=Clustered([changed]))
    await there.targets.reconcile()
    assert there.recorder.told[-1]["netns:cni-1"].mode is Mode.HEADERS  # type: ignore[index]


async def test_namespaces_that_the_recorder_does_not_find_are_attached() -> None:
    """By a process in them, unless the policy says no, the pod is gone, or it lives in the host's network."""
    pods = (
        sandbox(0x100, "wanted", inode=80),
        sandbox(0x200, "unwanted", inode=81, annotations={"tripshark.dev/record": "off"}),
        sandbox(0x300, "gone", inode=82, gone_ns=5),
        sandbox(0x400, "guest", host_network=True),
        sandbox(0x500, "vanished", inode=83),
    )
    there = place(
        recorder=Recorded((), processes={0x100: 80, 0x200: 81, 0x300: 82, 0x400: 1}),
        runtime=Runtimes(pods),
        policy=POLICY,
    )
    await there.targets.reconcile()
    assert [each.identity.pod for each in await there.targets.all()] == ["wanted"]
    assert set(there.recorder.told[-1]) == {"attached-256"}


async def test_who_is_not_recorded_by_policy_is_told_so() -> None:
    """The recorder keeps the target without rings: its note says who decided."""
    there = place(
        recorder=Recorded((replace(NETNS, rings=()),)),
        policy=Policy(default=Mode.OFF),
    )
    assert "it is not recorded" in (await there.targets.all())[0].note


async def test_a_recorder_that_takes_no_orders_is_given_none() -> None:
    """And one that is away says so."""

    class Plain:
        async def targets(self) -> tuple[()]:
            return ()

        async def inode_of(self, pid: int) -> None:
            return None

        async def attach(self, pid: int) -> TargetKey:
            raise AssertionError(pid)

    there = place(policy=POLICY)
    plain = LocalTargets(Plain(), (), there.clock, node=HERE, policy=POLICY)
    assert await plain.reconcile() == 0
    there.recorder.away = True
    with pytest.raises(Transient):
        await there.targets.reconcile()


# --------------------------------------------------------------------------------------- people


async def test_people_find_pods_nodes_and_workloads_by_every_promised_name() -> None:
    """`ns/pod`, `container:ID`, `netns:NAME`, `ns/deployment/name`, `node:NAME`; here, or on another node."""
    there = two_nodes()
    for name in (
        f"shop/{POD.pod}",
        f"container:{hex_id(0x11)[:12]}",
        f"container:{hex_id(0x10)}",
        "netns:cni-1",
        "shop/deployment/checkout",
        "shop/deploy/checkout",
    ):
        found = await there.targets.find(name)
        assert found.target, name
        assert found.target.key == "netns:cni-1"
    assert (await there.targets.find("node:node-1")).target == (
        await there.targets.find("host")
    ).target
    assert (await there.targets.find("node:node-2")).elsewhere == Elsewhere(node=THERE)
    far = await there.targets.find("shop/far")
    assert far.elsewhere == Elsewhere(node=THERE, namespace="shop", pod="far", uid=FAR.uid)
    for name in ("shop/nobody", "shop/deployment/nothing", "container:fff", "a/b/c/d", "//", ""):
        unknown = await there.targets.find(name)
        assert unknown.target is None
        assert unknown.elsewhere is None
        assert "recorded are" in unknown.hint


async def test_a_container_only_the_runtime_knows_is_found_for_people_too() -> None:
    """By asking afresh."""
    late = sandbox(0x80, "late", inode=60)
    there = place(
        recorder=Recorded((), processes={0x80: 60}),
        runtime=Runtimes((), late={hex_id(0x81)[:12]: (1, late)}),
    )
    found = await there.targets.find(f"container:{hex_id(0x81)[:12]}")
    assert found.target
    assert found.target.identity.pod == "late"


# --------------------------------------------------------------------------------------- odds and ends


async def test_many_who_look_at_once_look_once() -> None:
    """Whoever comes while another asks the recorder gets the same answer."""
    there = place()
    await asyncio.gather(*(there.targets.all() for _ in range(20)))
    assert there.recorder.asked == 1


async def test_a_heavy_node_is_looked_at_less_often() -> None:
    """Where a look takes long, alerts come first; the next news are handled all the same."""
    there = place(policy=Policy())
    there.targets._look_s = 0.03
    assert await there.targets.reconcile() == 1


async def test_whoever_sees_a_pod_first_has_it_recorded_as_it_must_be() -> None:
    """An alert or a page that asks between two pieces of news leaves nothing undone; a command tells nobody anything."""
    there = place(policy=POLICY)
    await there.targets.resolve(alert(namespace="shop", pod=POD.pod))
    assert there.recorder.told[-1]["netns:cni-1"].weight == 3  # type: ignore[index]
    assert await there.targets.reconcile() == 0
    command = place()
    await command.targets.all()
    assert command.recorder.told == []


async def test_a_container_started_again_is_there_with_both_its_namespaces() -> None:
    """By one id: the time tells which is meant, and each keeps its own inode."""

    def run(start_s: int, inode: int, gone_s: int = 0) -> Sandbox:
        made = sandbox(0x30, "web", inode=inode, created_ns=S, gone_ns=gone_s * S)
        container = Container(id=hex_id(0x30), started_ns=start_s * S)
        return replace(made, runtime="docker", namespace="", uid="", containers=(container,))

    runtime = Runtimes((run(100, 0),))
    there = place(
        recorder=Recorded((target("netns:x", inode=77, since_s=100, key="first"),)),
        runtime=runtime,
    )
    await there.targets.all()
    runtime.living = (run(100, 77),)  # the inode is known a moment later
    there.clock.now += 2 * S
    assert [each.title for each in await there.targets.all()] == ["web"]
    there.recorder.found = (
        target("netns:x", inode=77, since_s=100, gone_s=800, key="first"),
        target("netns:y", inode=78, since_s=801, key="second"),
    )
    runtime.living = (run(801, 78), run(100, 77, gone_s=800))
    there.clock.now += 2 * S
    assert [each.title for each in await there.targets.all()] == ["web", "web"]
    for at_s, key in ((700, "first"), (900, "second")):
        asked = replace(alert(container_id=hex_id(0x30)[:12]), time_ns=at_s * S)
        assert await resolved(there, asked) == key
    runtime.living = (run(801, 0, gone_s=1003),)  # gone: its process and its inode with it
    there.clock.now += 2 * S
    await there.targets.all()
    known = there.targets._sandboxes
    assert {(each.inode, each.gone_ns // S) for each in known.all()} == {(77, 800), (78, 1003)}
    there.clock.now += 3600 * S
    await there.targets.all()
    runtime.living = ()
    there.clock.now += 2 * S
    await there.targets.all()
    assert not list(known.all())
    assert not known._places


async def test_no_more_sandboxes_are_kept_than_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first known goes first."""
    monkeypatch.setattr("tripshark.targets.known.MAX_SANDBOXES", 3)
    there = place(runtime=Runtimes(tuple(sandbox(n * 16, f"p{n}", inode=n) for n in range(1, 9))))
    await there.targets.all()
    assert [each.pod for each in there.targets._sandboxes.all()] == ["p6", "p7", "p8"]


async def test_residents_known_by_process_are_attached() -> None:
    """A process that is gone is no error."""
    residents = (
        Resident(pid=77, identity=Identity(pod="a")),
        Resident(pid=78, identity=Identity(pod="b")),
        Resident(netns="x", identity=Identity(pod="c")),
    )
    there = place(recorder=Recorded((), processes={77: 5}), residents=residents, runtime=None)
    await there.targets.attach_residents()
    assert [each.identity.pod for each in await there.targets.all()] == ["a"]
    assert (await there.targets.find("pid:78")).hint


async def test_two_namespaces_pods_of_one_name_are_nobody_without_their_namespace() -> None:
    """The name alone must be unambiguous."""
    twin = replace(sandbox(0x20, POD.pod, inode=43, created_ns=S), namespace="other")
    there = place(
        recorder=Recorded((NETNS, target("netns:cni-2", inode=43, since_s=1))),
        runtime=Runtimes((POD, twin)),
    )
    assert await resolved(there, alert(pod=POD.pod)) == ""
    assert await resolved(there, alert(pod=POD.pod, namespace="other")) == "netns:cni-2"


async def test_the_hosts_processes_mean_the_host_where_it_is_recorded() -> None:
    """And the reason says what to do where it is not."""
    there = place()
    assert await resolved(there, alert(on_host=True)) == "host"
    there = place(recorder=Recorded((NETNS,)))
    answer = await there.targets.resolve(alert(on_host=True, pid=7))
    assert "recorder.host" in answer.reason
    assert "process 7 is gone" in answer.reason


@pytest.mark.parametrize("who", ["container", "pod", "address"])
async def test_strangers_hold_up_nobody_for_long_whoever_is_silent(who: str) -> None:
    """Alerts are taken in order: when runtime and API hang, a hundred about strangers cost less than ten would alone."""
    shop = sandbox(0x10, "web", inode=7)
    there = Place(
        recorder=Recorded(found=(target("netns:a", "10.0.0.7", inode=7, since_s=1),)),
        runtime=Runtimes(living=(shop,)),
        cluster=Clustered(everywhere=[facts_of(shop)]),
    )
    await there.targets.all()
    assert there.runtime is not None
    assert there.cluster is not None
    there.runtime.hangs = there.cluster.hangs = True
    began = asyncio.get_running_loop().time()
    for number in range(100):
        said = {
            "container": {"container_id": f"{0xABC000000000 + number:012x}"},
            "pod": {"namespace": "far", "pod": f"p{number}"},
            "address": {"connection": connected("10.9.0.1", f"10.9.1.{number}")},
        }[who]
        answer = await there.targets.resolve(alert(**said))
        assert answer.target is None
        assert answer.later  # it is tried again beside the others
        known = await there.targets.resolve(alert(container_id=hex_id(0x11)[:12]))
        assert known.target is not None
    assert asyncio.get_running_loop().time() - began < 2.5


async def test_what_the_api_says_late_is_heard_beside_the_others() -> None:
    """With the patience of those who hold up nobody a pod elsewhere is found all the same."""
    far = facts_of(sandbox(0x20, "late"), node=THERE)
    there = Place(cluster=Clustered(everywhere=[far]))
    assert there.cluster is not None
    there.cluster.hangs = True
    about = alert(namespace="shop", pod="late")
    assert (await there.targets.resolve(about)).later
    there.cluster.hangs = False
    found = await there.targets.resolve_late(about)
    assert found.elsewhere is not None
    assert found.elsewhere.node == THERE
