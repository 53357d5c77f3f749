"""Real pods for tests: a containerd of our own, in a private folder, driven over CRI as a kubelet drives it.

Use the fixture `containerd` (one for the whole session; tests that need it are skipped, saying why, without root or
without Debian's containerd, runc, containernetworking-plugins, busybox-static):

    def test_something(containerd: Containerd) -> None:
        pod = containerd.run_pod("web", "shop", argv=["/bin/httpd", "-f", "-p", "8080", "-h", "/www"])
        other = containerd.run_pod("client", "shop", labels={"app": "client"})   # sleeps until removed
        containerd.exec(other, ["/bin/wget", "-q", "-O", "-", f"http://{pod.ip}:8080/"]).stdout  # "hello from pod"
        containerd.remove_pod(pod)      # stop_pod first where the states between matter

`containerd.socket` is the CRI socket, `containerd.gateway` the machine's own address on the pods' bridge (something
that listens there is a pod's "outside"). `pod.inode` is the network namespace's, `pod.pids` the host pids of its
containers, `pod.container_ids[0][:12]` what Falco calls `container.id`. Pods left over are removed with the session;
remove yours with the test all the same: `with containerd.pod(…) as pod:` does both. Inside an async test call these in a thread
(`await asyncio.to_thread(containerd.run_pod, "web")`) when something else must go on meanwhile: a pod takes 0.3 s.

`with start_containerd() as mine:` makes another one, for tests that restart it or need two. Each has its own bridge
(ts-cni0, ts-cni1, …) and subnet (10.213.0.0/24, 10.213.1.0/24, …), so that several test runs share a machine. Namespaces are
/run/netns/cni-… as everywhere. At the end nothing is left: no process, mount, bridge, namespace, cgroup.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from tests.containers import cri
from tests.containers.cri import message
from tests.containers.image import BUSYBOX, PAUSE, WORK, write_images
from tests.processes import ended_with_us

FOREVER = ("/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")

_NEEDED = {
    "containerd": ("/usr/bin/containerd", "/usr/local/bin/containerd"),
    "runc": ("/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc"),
    "containernetworking-plugins": ("/usr/lib/cni/bridge", "/opt/cni/bin/bridge"),
    "busybox-static": (BUSYBOX,),
}
_LOCKS = Path("/run/lock")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_SLOTS = 32

_CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  enable_selinux = false
  disable_apparmor = true
  # without CAP_SYS_RESOURCE runc cannot lower the score, and dies of it
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
    max_conf_num = 1
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "{runc}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that runs; everything as it was when it was started."""

    name: str
    namespace: str
    uid: str
    sandbox_id: str
    container_ids: tuple[str, ...]
    ip: str  # "" with the host's network
    netns: str  # "/var/run/netns/cni-…", "" with the host's network
    inode: int  # of its network namespace
    pids: tuple[int, ...]  # of its containers' first processes, as the host numbers them
    config: bytes = field(repr=False)  # PodSandboxConfig, as CRI wants it again for each container


@dataclass(frozen=True, slots=True)
class Output:
    code: int
    stdout: str
    stderr: str


class Containerd:
    """A containerd and its pods. `folder` must be short (unix sockets) and is deleted at the end."""

    def __init__(self, folder: Path, slot: int) -> None:
        self.folder = folder
        self.slot = slot
        self.socket = str(folder / "containerd.sock")
        self.bridge = f"ts-cni{slot}"
        self.gateway = f"10.213.{slot}.1"
        self.subnet = f"10.213.{slot}.0/24"
        self.pid = 0
        self._child: subprocess.Popen[bytes] | None = None

    # ---- pods ------------------------------------------------------------------------------------------------

    def run_pod(
        self,
        name: str,
        namespace: str = "default",
        uid: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        argv: Sequence[str] | None = FOREVER,
        host_network: bool = False,
    ) -> Pod:
        """A pod with one container `main`; with `argv=None` only its sandbox. Returns when it runs."""
        uid = uid or str(uuid.uuid4())
        sandbox_id, config = self.run_sandbox(
            name, namespace, uid, labels, annotations, host_network
        )
        containers: tuple[str, ...] = ()
        pids: tuple[int, ...] = ()
        if argv is not None:
            containers = (self._run_container(sandbox_id, config, "main", argv),)
            pids = (self.container_pid(containers[0]),)
        status = self.call("PodSandboxStatus", message(f1=sandbox_id, f2=1))
        info = json.loads(dict(_pairs(status, 2))["info"])
        spaces = info["runtimeSpec"]["linux"]["namespaces"]
        netns = next((each.get("path", "") for each in spaces if each["type"] == "network"), "")
        return Pod(
            name=name,
            namespace=namespace,
            uid=uid,
            sandbox_id=sandbox_id,
            container_ids=containers,
            ip=cri.one(status, 1, 5, 1).decode(),
            netns="" if host_network else netns,
            inode=os.stat("/proc/self/ns/net" if host_network else netns).st_ino,
            pids=pids,
            config=config,
        )

    def run_sandbox(
        self,
        name: str,
        namespace: str = "default",
        uid: str = "",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        host_network: bool = False,
    ) -> tuple[str, bytes]:
        """Only the sandbox: (its id, its configuration)."""
        uid = uid or str(uuid.uuid4())
        known = {
            "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.uid": uid,
        }
        logs = self.folder / "logs" / f"{namespace}_{name}_{uid}"
        logs.mkdir(parents=True, exist_ok=True)
        # not below kubepods: a kubelet on this machine would end what it does not know there
        cgroup = f"/ts-pods{self.slot}/pod{uid}"
        options = message(f1=2 if host_network else 0, f2=1, f3=0)
        config = message(
            f1=message(f1=name, f2=uid, f3=namespace, f4=0),
            f2="" if host_network else name[:63],
            f3=str(logs),
            f6=known | dict(labels or {}),
            f7=dict(annotations or {}),
            f8=message(f1=cgroup, f2=message(f1=options)),
        )
        answer = self.call("RunPodSandbox", message(f1=config))
        return cri.one(answer, 1).decode(), config

    def add_container(self, pod: Pod, name: str, argv: Sequence[str] = FOREVER) -> str:
        """One more container in a running pod; its id."""
        return self._run_container(pod.sandbox_id, pod.config, name, argv)

    def _run_container(self, sandbox_id: str, pod: bytes, name: str, argv: Sequence[str]) -> str:
        labels = {
            key: value for key, value in _pairs(pod, 6) if key.startswith("io.kubernetes.pod.")
        }  # as a kubelet labels it
        options = cri.one(pod, 8, 2, 1)
        config = message(
            f1=message(f1=name, f2=0),
            f2=message(f1=WORK),
            f3=list(argv),
            f9=labels | {"io.kubernetes.container.name": name},
            f10={"io.kubernetes.container.restartCount": "0"},
            f11=f"{name}/0.log",
            f15=message(f2=message(f3=options)),
        )
        (Path(cri.one(pod, 3).decode()) / name).mkdir(exist_ok=True)
        answer = self.call("CreateContainer", message(f1=sandbox_id, f2=config, f3=pod))
        container = cri.one(answer, 1).decode()
        self.call("StartContainer", message(f1=container))
        return container

    def container_pid(self, container: str) -> int:
        """The host pid of its first process; 0 when it has ended."""
        status = self.call("ContainerStatus", message(f1=container, f2=1))
        return int(json.loads(dict(_pairs(status, 2))["info"])["pid"])

    def exec(self, pod: Pod | str, argv: Sequence[str], timeout: int = 30) -> Output:
        """Run a program in a container: of a pod its first, or by container id."""
        container = pod.container_ids[0] if isinstance(pod, Pod) else pod
        answer = self.call("ExecSync", message(f1=container, f2=list(argv), f3=timeout))
        code = next((value for key, value in cri.fields(answer) if key == 3), 0)
        assert isinstance(code, int)
        return Output(code, cri.one(answer, 1).decode(), cri.one(answer, 2).decode())

    def stop_pod(self, pod: Pod | str) -> None:
        """As when a pod is deleted: processes and namespace are gone, the runtime still knows it."""
        self.call("StopPodSandbox", message(f1=_id(pod)))

    def remove_pod(self, pod: Pod | str) -> None:
        """Gone without a trace."""
        self.stop_pod(pod)
        self.call("RemovePodSandbox", message(f1=_id(pod)))

    def remove_all(self) -> None:
        for each in cri.many(self.call("ListPodSandbox"), 1):
            self.remove_pod(cri.one(each, 1).decode())

    @contextlib.contextmanager
    def pod(
        self,
        name: str,
        namespace: str = "default",
        *,
        uid: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        argv: Sequence[str] | None = FOREVER,
        host_network: bool = False,
    ) -> Iterator[Pod]:
        """`run_pod`, removed at the end of the block (if it still is there)."""
        made = self.run_pod(name, namespace, uid, labels, annotations, argv, host_network)
        try:
            yield made
        finally:
            with contextlib.suppress(cri.CriError):
                self.remove_pod(made)

    def call(self, method: str, request: bytes = b"") -> bytes:
        """Any other call of the CRI."""
        return cri.call(self.socket, method, request)

    # ---- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it (again); pods that ran before still do."""
        (self.folder / "cni").mkdir(parents=True, exist_ok=True)
        (self.folder / "cni" / "10-bridge.conflist").write_text(json.dumps(self._network()))
        config = self.folder / "config.toml"
        config.write_text(
            _CONFIG.format(
                folder=self.folder,
                pause=PAUSE,
                runc=_found("runc"),
                plugins=os.path.dirname(_found("containernetworking-plugins")),
            )
        )
        with (self.folder / "containerd.log").open("ab") as log:
            self._child = _spawn([_found("containerd"), "--config", str(config)], log)
        self.pid = self._child.pid
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, cri.CriError):
                self.call("Version")
                return
            words = (self.folder / "containerd.log").read_text(errors="replace")[-2000:]
            assert self._child.poll() is None, f"containerd ended: {words}"
            assert time.monotonic() < deadline, f"containerd did not become ready: {words}"
            time.sleep(0.02)

    def import_images(self) -> None:
        archive = self.folder / "images.tar"
        write_images(archive)
        subprocess.run(
            ["ctr", "-a", self.socket, "-n", "k8s.io", "images", "import", str(archive)],
            check=True,
            capture_output=True,
            timeout=120,
        )
        archive.unlink()

    def kill(self, number: int = signal.SIGTERM) -> None:
        """End containerd itself; its pods go on."""
        if self._child is None:
            return
        self._child.send_signal(number)
        self._child.wait(30)
        self._child = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        """Remove every pod and every trace."""
        if self._child is None:
            self.start()
        with contextlib.suppress(OSError, cri.CriError):
            self.remove_all()
        self.kill()
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)
        self._unmount()
        for path in [
            *glob.glob(f"/sys/fs/cgroup/*/ts-pods{self.slot}"),
            f"/sys/fs/cgroup/ts-pods{self.slot}",
        ]:
            for each, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(each)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _unmount(self) -> None:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([each for each in mounts if each.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)

    def _network(self) -> dict[str, object]:
        return {
            "cniVersion": "0.4.0",
            "name": f"ts{self.slot}",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": True,
                    "ipMasq": False,  # then iptables is not touched
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.folder / "addresses"),
                        "ranges": [[{"subnet": self.subnet}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }


def _id(pod: Pod | str) -> str:
    return pod.sandbox_id if isinstance(pod, Pod) else pod


def _pairs(data: bytes, number: int) -> Iterator[tuple[str, str]]:
    """The entries of a map of texts."""
    for each in cri.many(data, number):
        yield cri.one(each, 1).decode(), cri.one(each, 2).decode()


def _found(package: str) -> str:
    """Where its program is; "" when it is not installed."""
    return next((path for path in _NEEDED[package] if os.access(path, os.X_OK)), "")


def _spawn(argv: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=ended_with_us,
    )


def why_not() -> str:
    """Why no containerd can be started here; "" when it can."""
    if os.geteuid() != 0:
        return "containers need root"
    missing = [package for package in _NEEDED if not _found(package)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return ""


@contextlib.contextmanager
def start_containerd() -> Iterator[Containerd]:
    """A containerd of one's own, with both images and no pods."""
    with slot("containerd") as number, forwarding_restored():
        made = Containerd(Path(f"/tmp/ts-containerd-{number}"), number)
        left_over = made.folder.exists()  # by a run that was killed: nobody else has this slot
        try:
            made.start()
            if left_over:
                made.remove_all()
            made.import_images()
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def slot(kind: str) -> Iterator[int]:
    """A number that nobody else on this machine has; the kernel gives it back with the process."""
    _LOCKS.mkdir(parents=True, exist_ok=True)
    for number in range(_SLOTS):
        path = _LOCKS / f"ts-{kind}-{number}"
        with path.open("w") as lock:
            if not _locked(lock, fcntl.LOCK_EX) or not _is(lock, path):
                continue
            try:
                yield number
            finally:
                path.unlink(missing_ok=True)
            return
    pytest.fail(f"too many of {kind} are running")


@contextlib.contextmanager
def forwarding_restored() -> Iterator[None]:
    """The bridge plugin turns forwarding on for the machine: the last of us puts it back."""
    with (_LOCKS / "ts-containerd-forwarding").open("a+") as saved:
        if _locked(
            saved, fcntl.LOCK_EX
        ):  # the first of us; a word of somebody killed still counts
            saved.seek(0)
            if not saved.read():
                saved.write(_FORWARDING.read_text())
                saved.flush()
        fcntl.flock(saved, fcntl.LOCK_SH)
        yield
        if _locked(saved, fcntl.LOCK_EX):
            saved.seek(0)
            _FORWARDING.write_text(saved.read())
            saved.truncate(0)


def _is(file: IO[str], path: Path) -> bool:
    """Whether the open file is still the one of that name: whoever had it before us deleted it, perhaps just now."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _locked(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.fixture(scope="session")
def containerd() -> Iterator[Containerd]:
    """A real containerd for the whole session, see the module's docstring."""
    if reason := why_not():
        pytest.skip(reason)
    with start_containerd() as made:
        yield made
