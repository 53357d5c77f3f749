"""What the pod we run in lets us do, as the kernel tells it from inside the container."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tripshark.programs.check import Check
from tripshark.recorder import capabilities, namespaces
from tripshark.scout.config import NETNS_DIRS, USUAL
from tripshark.settings import Settings

_INITIAL_PID_NAMESPACE = 0xEFFF_FFFC  # PROC_PID_INIT_INO: the kernel's own, never another's
_AUTOPILOT = "GKE Autopilot and Fargate allow none of it: use nodes of your own there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """Which of our containers this is, and where its view of the node lies."""

    part: str  # "recorder" or "node"
    proc: Path = Path("/proc")
    netns_dirs: Sequence[str] = NETNS_DIRS
    sockets: Sequence[str] = USUAL
    held: int = field(default_factory=capabilities.held)


def here(settings: Settings, environ: Mapping[str, str] = os.environ) -> Container | None:
    """The container of ours that we are in; None outside a pod."""
    if not environ.get("KUBERNETES_SERVICE_HOST"):
        return None
    sockets = [str(each) for each in settings.containers.sockets] or USUAL
    return Container(part="recorder" if os.geteuid() == 0 else "node", sockets=sockets)


def examine(container: Container) -> Iterator[Check]:
    """Everything that the manifest should have given to this container."""
    yield from _seccomp(container)
    if container.part == "recorder":
        yield from _capabilities(container)
        yield from _host(container)
        for directory in container.netns_dirs:
            yield from _netns(container, directory)
        yield from _runtimes(container)
    else:
        yield Check(
            "container",
            "good",
            "the responder's: an ordinary user; ask the recorder too, kubectl exec -c recorder",
        )


def _capabilities(container: Container) -> Iterator[Check]:
    lacking = [n for n in capabilities.KEPT if not container.held >> n & 1]
    if not lacking:
        yield Check("capabilities", "good", "all four that recording needs, and no privileged pod")
        return
    needed = any(number in capabilities.NEEDED for number in lacking)
    names = ", ".join(capabilities.KEPT[number].split()[0] for number in lacking)
    yield Check(
        "capabilities",
        "bad" if needed else "limited",
        f"without {names} {'nothing' if needed else 'not everything'} can be recorded",
        "give the container recorder securityContext.capabilities.add of the chart's manifest, and let Pod Security "
        f"(namespace label enforce=privileged) or the SCC pass it. {_AUTOPILOT}",
    )


def _host(container: Container) -> Iterator[Check]:
    if not _sees_host(container.proc):
        yield Check(
            "hostPID",
            "bad",
            "only this pod's processes are seen: neither the host nor pods by pid can be recorded",
            f"hostPID: true in the pod's spec. {_AUTOPILOT}",
        )
        return
    try:
        os.close(os.open(container.proc / "1/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as problem:
        profile = _text(container.proc / "self/attr/current")
        confined = bool(profile) and "unconfined" not in profile
        yield Check(
            "host",
            "limited",
            f"the host's namespace cannot be recorded: {problem.strerror}",
            f"AppArmor profile {profile} forbids it: appArmorProfile: Unconfined for the container recorder"
            if confined
            else "SELinux: seLinuxOptions.type spc_t for the container recorder; else CAP_SYS_PTRACE is lacking",
        )
        return
    yield Check("hostPID", "good", "the host's processes are seen, and its network namespace")


def _sees_host(proc: Path) -> bool:
    """The first process is the node's, not ours. (In kind the node's is not the machine's.)"""
    try:
        if (proc / "self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE:
            return True
    except OSError:
        pass
    return "tripshark" not in _text(proc / "1/cmdline")


def _netns(container: Container, directory: str) -> Iterator[Check]:
    try:
        names = sorted(each.name for each in Path(directory).iterdir())
    except OSError:
        if directory == container.netns_dirs[0]:
            yield Check(
                "namespaces",
                "bad",
                f"{directory} is not here: no pod is seen",
                "mount it from the node (hostPath, mountPropagation: HostToContainer); the chart: runtime.netnsDirectory",
            )
        return
    flat = [name for name in names if not namespaces.inode(f"{directory}/{name}")]
    propagated = _propagated(_text(container.proc / "self/mountinfo"), directory)
    remedy = "mountPropagation: HostToContainer for that mount, and not Bidirectional nor None"
    if flat:
        yield Check(
            "namespaces",
            "bad",
            f"{len(flat)} of {len(names)} names in {directory} are empty files here, such as {flat[0]!r}: "
            "what the runtime mounts there does not arrive",
            remedy,
        )
    elif propagated is False:
        yield Check(
            "namespaces", "bad", f"pods that start from now on are not seen in {directory}", remedy
        )
    elif names:
        yield Check("namespaces", "good", f"{len(names)} in {directory}, new ones arrive")
    elif directory == container.netns_dirs[0]:
        yield Check(
            "namespaces",
            "limited",
            f"none in {directory}: no pod with a network of its own runs here, or the runtime keeps them elsewhere",
            "see where: ls -i /proc/*/ns/net on the node, mount | grep nsfs; the chart: runtime.netnsDirectory",
        )


def _propagated(mounts: str, directory: str) -> bool | None:
    """Whether mounts of the host below it arrive here (mountinfo: `master:` or `shared:`); None: it is no mount of ours."""
    for line in mounts.splitlines():
        before, _, _ = line.partition(" - ")
        fields = before.split()
        if len(fields) > 5 and fields[4] in (directory, "/var" + directory):
            return any(each.startswith(("master:", "shared:")) for each in fields[6:])
    return None


def _runtimes(container: Container) -> Iterator[Check]:
    problems = []
    for path in container.sockets:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(5)
            try:
                asking.connect(path)
            except OSError as problem:
                problems.append(f"{path} ({problem.strerror or problem})")
            else:
                yield Check("container runtime", "good", f"answers at {path}")
                return
    yield Check(
        "container runtime",
        "bad",
        "no socket of a runtime can be used: " + ", ".join(problems),
        "mount the folder of the socket (the chart: runtime.socketDirectory and runtime.sockets). k3s, RKE2: "
        "/run/k3s/containerd; MicroK8s: /var/snap/microk8s/common/run; OpenShift: /var/run/crio; with SELinux: spc_t",
    )


def _seccomp(container: Container) -> Iterator[Check]:
    found = re.search(r"^Seccomp:\s*(\d)", _text(container.proc / "self/status"), re.MULTILINE)
    if found and found[1] == "0":
        yield Check(
            "seccomp",
            "limited",
            "no system call filter on this container",
            "securityContext.seccompProfile.type: RuntimeDefault (it lets all that is needed pass)",
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""
