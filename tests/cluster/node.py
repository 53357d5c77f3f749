"""A whole Kubernetes on this machine for tests: control plane, scheduler, controllers, and a kubelet with real pods.

`real_node` (fixture, one for a module of tests, ~15 s: it costs a tenth of a processor as long as it is there) gives a `RealNode`:

    real_node.plane                    # its API server (tests.cluster.control.Plane), not the one of `real_api`
    real_node.name                     # the node's name, "node1"
    real_node.containerd.socket        # its runtime (tests.containers.runtime.Containerd)
    real_node.run("shop", "web", ["/bin/httpd", "-f", "-p", "80", "-h", "/www"])     # a pod; returns when it runs
    real_node.wait_for(lambda: …, "what")
    real_node.pods("shop")             # every pod as the API has it

Deployments, DaemonSets, Jobs work as anywhere; images are `localhost/work:1` (busybox) and nothing else; there is no DNS and no
kube-proxy. Needs root, what the containerd fixture needs, etcd, and all four daemons in $TRIPSHARK_KUBE_BIN.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from tests.cluster.control import BIN, Answer, ControlPlane, Json, control_plane
from tests.cluster.control import why_not as no_control_plane
from tests.containers.image import PAUSE, WORK
from tests.containers.runtime import FOREVER, Containerd, start_containerd
from tests.containers.runtime import why_not as no_containers
from tests.processes import killed_with_us

T = TypeVar("T")

_DAEMONS = ("kubelet", "kube-controller-manager", "kube-scheduler")
# what a kubelet changes on the machine it believes to be its own
_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
)
_MADE = ("/var/lib/kubelet", "/var/log/pods", "/var/log/containers")


def why_not() -> str:
    """Why there is no node here; "" when there is."""
    if reason := no_containers():
        return reason
    if os.environ.get("KUBECONFIG"):
        return "a node of our own is not made where a cluster is given (KUBECONFIG)"
    if reason := no_control_plane():
        return reason
    missing = [each for each in _DAEMONS if not (BIN / each).exists()]
    return (
        f"no node: {', '.join(missing)} not in the folder named by TRIPSHARK_KUBE_BIN"
        if missing
        else ""
    )


class RealNode:
    """One node and its cluster."""

    def __init__(self, folder: Path, plane: ControlPlane, containerd: Containerd) -> None:
        self.name = "node1"
        self.folder = folder
        self.plane = plane
        self.containerd = containerd
        self._starter = ThreadPoolExecutor(1)  # who dies with us dies with the thread
        self._daemons: list[subprocess.Popen[bytes]] = []

    @property
    def kubeconfig(self) -> Path:
        return self.plane.kubeconfig

    # ---------------------------------------------------------------- pods

    def run(
        self,
        namespace: str,
        name: str,
        argv: Sequence[str] = FOREVER,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        host_network: bool = False,
        restart: str = "Never",
    ) -> Json:
        """A pod by itself; returns it when it runs (or has ended already) and has an address."""
        self.plane.ensure("/api/v1/namespaces", {"metadata": {"name": namespace}})
        self._wait_for_account(namespace)
        container = {"name": "main", "image": WORK, "command": list(argv)}
        meta = {
            "name": name,
            "labels": dict(labels or {}),
            "annotations": dict(annotations or {}),
        }
        spec = {
            "containers": [container],
            "hostNetwork": host_network,
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": 1,
        }
        base = f"/api/v1/namespaces/{namespace}/pods"
        self.plane.call("POST", base, {"metadata": meta, "spec": spec})

        def found() -> Json | None:
            pod = self.plane.call("GET", f"{base}/{name}")
            status = pod["status"]
            begun = status.get("phase") in ("Running", "Succeeded", "Failed")
            return pod if begun and status.get("podIP") else None

        return self.wait_for(found, f"{namespace}/{name} to run")

    def delete(self, namespace: str, name: str) -> None:
        """Delete a pod, and wait until it is gone."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        self.plane.call("DELETE", path)
        self.wait_for(lambda: not self._exists(path), f"the end of {name}")

    def pods(self, namespace: str) -> list[Json]:
        items: list[Json] = self.plane.call("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        return items

    def _exists(self, path: str) -> bool:
        try:
            self.plane.call("GET", path)
        except Answer as no:
            if no.code != 404:
                raise
            return False
        return True

    def _wait_for_account(self, namespace: str) -> None:
        """Pods are refused until the controllers have made the namespace's account and its token."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        self.wait_for(
            lambda: self._exists(path) and self.plane.call("GET", path).get("secrets"),
            f"the service account of {namespace}",
        )

    def wait_for(self, condition: Callable[[], T], what: str, seconds: float = 90) -> T:
        """The first true answer."""
        deadline = time.monotonic() + seconds
        while not (answer := condition()):
            for each in self._daemons:
                assert each.poll() is None, f"{each.args!r} ended: {self._logs()}"
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}: {self._logs()}"
            time.sleep(0.05)
        return answer

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Returns when the node is ready."""
        for name in ("kube-controller-manager", "kube-scheduler"):
            extra = []
            if name == "kube-controller-manager":
                keys = self.plane.folder
                extra = [
                    f"--service-account-private-key-file={keys}/sa.key",
                    f"--root-ca-file={keys}/ca.crt",
                    "--use-service-account-credentials=false",
                ]
            common = ["--leader-elect=false", "--port=0", "--secure-port=0"]
            self._spawn(name, f"--kubeconfig={self.kubeconfig}", *common, *extra)
        config = self.folder / "kubelet.yaml"
        config.write_text(yaml.safe_dump(self._kubelet()))
        self._spawn(
            "kubelet",
            f"--config={config}",
            f"--kubeconfig={self.kubeconfig}",
            f"--root-dir={self.folder}/kubelet",
            f"--cert-dir={self.folder}/pki",
            f"--volume-plugin-dir={self.folder}/plugins",
            "--container-runtime=remote",
            f"--container-runtime-endpoint=unix://{self.containerd.socket}",
            f"--image-service-endpoint=unix://{self.containerd.socket}",
            f"--hostname-override={self.name}",
            f"--pod-infra-container-image={PAUSE}",
            f"--node-ip={_own_address()}",
        )
        self.wait_for(self._ready, "the node to be ready")
        _put_back(self._sysctls)

    def _ready(self) -> bool:
        path = f"/api/v1/nodes/{self.name}"
        if not self._exists(path):
            return False
        conditions = self.plane.call("GET", path)["status"].get("conditions", ())
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def prepare(self) -> None:
        self._sysctls = {each: Path("/proc/sys", each).read_text() for each in _SYSCTLS}
        self._made = [each for each in _MADE if not os.path.exists(each)]
        for hierarchy in _hierarchies():
            own = hierarchy / self.folder.name
            own.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / name).exists():  # the first version's: nothing is inherited
                    (own / name).write_text((hierarchy / name).read_text())

    def close(self) -> None:
        """Nothing is left of the node; its runtime and control plane are closed by whoever made them."""
        for each in self._daemons:
            each.kill()
            each.wait()
        self._starter.shutdown()
        with contextlib.suppress(Exception):  # the runtime removes what is left with itself
            self.containerd.remove_all()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([each for each in mounts if each.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        for folder, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
            if f"/{self.folder.name}" in folder:  # only the empty ones go
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        for path in self._made:
            shutil.rmtree(path, ignore_errors=True)
        _put_back(self._sysctls)

    def _kubelet(self) -> dict[str, Any]:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.folder.name}",  # or it ends the pods of any other kubelet here
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "makeIPTablesUtilChains": False,  # the machine's iptables are left alone
            "oomScoreAdj": 0,  # without CAP_SYS_RESOURCE it cannot be lowered
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "address": "127.0.0.1",
            "port": port,
            "readOnlyPort": 0,
            "healthzPort": 0,
            "evictionHard": {
                "imagefs.available": "1%",
                "nodefs.available": "1%",
                "memory.available": "50Mi",
            },
            "imageGCHighThresholdPercent": 100,
            "fileCheckFrequency": "2s",
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "1s",
            "maxPods": 110,
        }

    def _spawn(self, name: str, *argv: str) -> None:
        def start() -> subprocess.Popen[bytes]:
            with (self.folder / f"{name}.log").open("ab") as log:
                return subprocess.Popen(
                    [str(BIN / name), *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    start_new_session=True,
                    preexec_fn=killed_with_us,
                )

        self._daemons.append(self._starter.submit(start).result())

    def _logs(self) -> str:
        return "\n".join(
            each.read_text(errors="replace")[-1500:] for each in self.folder.glob("*.log")
        )


def _hierarchies() -> list[Path]:
    """Of cgroups: one of the second version, or many of the first."""
    root = Path("/sys/fs/cgroup")
    return (
        [root]
        if (root / "cgroup.procs").exists()
        else [p.parent for p in root.glob("*/cgroup.procs")]
    )


def _own_address() -> str:
    """An address of this machine that is not loopback and not of a test's bridge."""
    found = subprocess.run(
        ["ip", "-json", "-4", "addr"], capture_output=True, text=True, check=True
    ).stdout
    for link in json.loads(found):
        if not link["ifname"].startswith(("lo", "ts-", "veth")):
            for each in link["addr_info"]:
                return str(each["local"])
    pytest.skip("a kubelet needs an address other than loopback")


def _put_back(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        with contextlib.suppress(OSError):
            Path("/proc/sys", name).write_text(value)


@contextlib.contextmanager
def start_node() -> Iterator[RealNode]:
    """A node of one's own."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ts-node-")))
        containerd = stack.enter_context(start_containerd())
        # with the admission of service accounts, which needs the controllers
        plane = stack.enter_context(control_plane(arguments=["--allow-privileged=true"]))
        made = RealNode(folder, plane, containerd)
        made.prepare()
        stack.callback(made.close)
        made.start()
        yield made


@pytest.fixture(scope="module")
def real_node() -> Iterator[RealNode]:
    """A whole Kubernetes for the module, see the module's docstring."""
    if reason := why_not():
        pytest.skip(reason)
    with start_node() as made:
        yield made
