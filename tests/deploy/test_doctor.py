"""`tripshark doctor` in a cluster: each thing that is missing is named, with what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control import Plane
from tests.e2e.conftest import network, requires_root
from tests.e2e.machine import Network
from tripshark import settings
from tripshark.programs import examination_cluster, examination_pod
from tripshark.programs.check import Check
from tripshark.programs.examination_pod import Container

__all__ = ["network"]

HOSTED = "1 1 0:1 / /run/netns ro,relatime {} - tmpfs tmpfs rw"


def container(tmp_path: Path, **proc: str) -> Container:
    """A recorder's container whose /proc says this; everything else is missing."""
    for name, text in proc.items():
        path = tmp_path / "proc" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    netns = tmp_path / "netns"
    netns.mkdir(exist_ok=True)
    return Container(
        part="recorder",
        proc=tmp_path / "proc",
        netns_dirs=(str(netns),),
        sockets=(str(tmp_path / "containerd.sock"),),
        held=0,
    )


def found(checks: object) -> dict[str, Check]:
    return {each.name: each for each in checks}  # type: ignore[attr-defined]


def test_everything_that_a_pod_lacks_is_named(tmp_path: Path) -> None:
    """No capability, no hostPID, no seccomp, no namespace, no runtime: each with its remedy in the manifest's words."""
    inside = {
        "1__cmdline": "/opt/tripshark/bin/python\0-m\0tripshark",
        "self__status": "Seccomp:\t0\n",
    }
    told = found(examination_pod.examine(container(tmp_path, **inside)))
    assert (told["capabilities"].state, told["hostPID"].state) == ("bad", "bad")
    assert "CAP_SYS_ADMIN" in told["capabilities"].words
    assert "Autopilot" in told["capabilities"].remedy
    assert "hostPID: true" in told["hostPID"].remedy
    assert told["container runtime"].state == "bad"
    assert "/run/k3s/containerd" in told["container runtime"].remedy
    assert told["seccomp"].state == "limited"
    assert told["namespaces"].state == "limited"


def test_apparmor_is_told_from_selinux(tmp_path: Path) -> None:
    """The profile that forbids the host's namespace is named."""
    made = container(tmp_path, **{"1__cmdline": "/sbin/init", "self__attr__current": "cri-containerd.apparmor.d (enforce)"})  # fmt: skip
    told = found(examination_pod.examine(made))
    assert "appArmorProfile: Unconfined" in told["host"].remedy
    assert "cri-containerd.apparmor.d" in told["host"].remedy


def test_a_name_without_its_mount_is_a_bad_sign(tmp_path: Path) -> None:
    """An empty file where the runtime mounted a namespace: propagation is missing."""
    made = container(tmp_path, **{"1__cmdline": "/sbin/init"})
    (tmp_path / "netns" / "cni-1").touch()
    told = found(examination_pod.examine(made))
    assert told["namespaces"].state == "bad"
    assert "HostToContainer" in told["namespaces"].remedy


@pytest.mark.root
@requires_root
def test_a_private_mount_is_found_before_and_after_a_pod_starts(network: Network) -> None:
    """With real mounts: what is mounted on the node later does not arrive, and doctor sees that it would not."""
    look = """
import subprocess, sys
from tripshark.programs.examination_pod import Container, _netns
subprocess.run(["mount", "--bind", "/run/netns", "/run/netns"], check=True)
subprocess.run(["mount", "--make-private", "/run/netns"], check=True)
for _ in range(2):
    print([each.state for each in _netns(Container(part="recorder"), "/run/netns")], flush=True)
    sys.stdin.readline()
"""
    network.namespace("before")
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", sys.executable, "-c", look],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "['bad']\n"
        network.namespace("after")
        process.stdin.write("again\n")
        process.stdin.flush()
        assert process.stdout.readline() == "['bad']\n"
    finally:
        process.communicate("\n")


@pytest.mark.parametrize(
    ("fields", "arrives"),
    [("master:7", True), ("shared:7", True), ("", False), ("propagate_from:7", False)],
)
def test_propagation_is_read_from_the_mounts(fields: str, arrives: bool) -> None:
    """HostToContainer is a slave mount, Bidirectional a shared one, None a private one."""
    assert examination_pod._propagated(HOSTED.format(fields), "/run/netns") is arrives
    assert examination_pod._propagated(HOSTED.format(fields), "/elsewhere") is None


# -------------------------------------------------------------------------------------------- the cluster


async def asked(plane: Plane, config: Path, *, node: str = "") -> dict[str, list[Check]]:
    loaded = settings.load(
        None,
        {"kubernetes.kubeconfig": str(config), "kubernetes.node": node or None},
        environ={},
    )
    environ = {"KUBERNETES_SERVICE_HOST": "192.0.2.1"} if node else {}
    checks: dict[str, list[Check]] = {}
    async for each in examination_cluster.examine(loaded, environ):
        checks.setdefault(each.name, []).append(each)
    return checks


WHO = "system:serviceaccount:tripshark:tripshark"


async def test_missing_rights_are_named_and_given_ones_are_not(
    real_api: Plane, roles: Callable[[], None]
) -> None:
    """The server itself is asked, right by right; with the chart's role nothing is missing."""
    config = real_api.user(WHO)
    lacking = (await asked(real_api, config, node="node-1"))["rights"][0]
    assert lacking.state == "limited"
    assert "get pods (pods)" in lacking.words
    roles()
    assert (await asked(real_api, config, node="node-1"))["rights"][0].state == "good"


def _node(name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    info = {"osImage": "Bottlerocket OS 1.20", "containerRuntimeVersion": "containerd://1.7.2"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {"providerID": "aws:///eu-1/i-0"},
        "status": {"nodeInfo": info},
    }


def test_nodes_on_which_nothing_can_run_are_counted() -> None:
    """Fargate, Autopilot, virtual and Windows nodes: each with what to do instead."""
    nodes = [
        _node("ip-10-0-0-1", {}),
        _node("fargate-ip-10-0-0-2", {"eks.amazonaws.com/compute-type": "fargate"}),
        _node("gk3-pool-1", {}),
        _node("virtual-node-aci", {"type": "virtual-kubelet"}),
        _node("aks-win", {"kubernetes.io/os": "windows"}),
    ]
    checks = examination_cluster._platform(nodes[:1], nodes)
    assert "EKS or AWS, Bottlerocket OS 1.20, containerd://1.7.2" in checks[0].words
    assert [each.state for each in checks[1:]] == ["limited"] * 4
    words = " ".join(each.words for each in checks)
    assert all(each in words for each in ("Fargate", "Autopilot", "virtual node", "Windows"))


async def test_why_no_pod_was_started_is_told_from_outside(real_api: Plane) -> None:
    """A DaemonSet whose pods were refused: the server's own words, and what to do about them."""
    with real_api.namespace() as namespace:
        labels = {"app.kubernetes.io/name": "tripshark", "app.kubernetes.io/component": "node"}
        pod = {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "x", "image": "x"}]},
        }
        base = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
        real_api.call("POST", base, {
            "metadata": {"name": "tripshark", "labels": labels},
            "spec": {"selector": {"matchLabels": labels}, "template": pod},
        })  # fmt: skip
        status = {"desiredNumberScheduled": 3, "currentNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}  # fmt: skip
        real_api.call(
            "PATCH", f"{base}/tripshark/status", {"status": status},
            kind="application/merge-patch+json",
        )  # fmt: skip
        real_api.call("POST", f"/api/v1/namespaces/{namespace}/events", {
            "metadata": {"name": "tripshark.1"}, "type": "Warning", "reason": "FailedCreate",
            "message": 'Error creating: pods "tripshark-x" is forbidden: violates PodSecurity "baseline:latest"',
            "involvedObject": {"kind": "DaemonSet", "name": "tripshark", "namespace": namespace},
        })  # fmt: skip
        service = {"selector": labels, "ports": [{"port": 2803}]}
        real_api.call("POST", f"/api/v1/namespaces/{namespace}/services", {
            "metadata": {"name": "tripshark", "labels": labels}, "spec": service,
        })  # fmt: skip
        told = await asked(real_api, real_api.kubeconfig)
    rollout = [each for each in told["pods"] if namespace in each.words]
    assert [(each.state, "0 of 3" in each.words) for each in rollout] == [("bad", True)]
    (refused,) = told["refused"]
    assert refused.remedy.startswith(f"kubectl label namespace {namespace} pod-security")
    assert told["webhook"][0].state == "limited"
    assert "rights" not in told


async def test_a_cluster_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    """No traceback, and the remark that captures go on."""
    config = tmp_path / "kubeconfig"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n"
        "contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {}}]\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n"
    )
    loaded = settings.load(None, {"kubernetes.kubeconfig": str(config)}, environ={})
    (check,) = [each async for each in examination_cluster.examine(loaded, {})]
    assert (check.name, check.state) == ("cluster", "bad")


async def test_without_a_cluster_nothing_is_said() -> None:
    """On a plain host there is no word of Kubernetes."""
    loaded = settings.load(None, {}, environ={})
    assert not [each async for each in examination_cluster.examine(loaded, {})]
    assert examination_pod.here(loaded, {}) is None
