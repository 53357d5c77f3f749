"""What the scout is told when it is started; it reads no file and no environment."""

from __future__ import annotations

from dataclasses import dataclass

from tripshark.errors import BadInput
from tripshark.formats import startup

USUAL = (  # where runtimes listen by themselves
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",  # k3s and RKE2
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/cri-dockerd.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
)
NETNS_DIRS = ("/run/netns", "/run/docker/netns")  # where runtimes put namespaces
_WHERE = "the scout's configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoutConfig:
    """Everything that may be decided about asking runtimes."""

    socket: str  # path of the unix socket, made with mode 0660
    group: int = -1  # gid that owns the socket and whose members may connect; -1: the scout's own
    allowed_uids: tuple[int, ...] = ()  # besides root, the scout's own uid and the group
    sockets: tuple[str, ...] = ()  # of runtimes; empty: the usual places
    tombstone_s: int = 600  # how long dead pods are remembered
    every_s: float = 3.0  # between two looks when nothing stirs
    netns_dirs: tuple[str, ...] = NETNS_DIRS

    def __post_init__(self) -> None:
        problems = startup.socket_problems(self.socket)
        if self.tombstone_s <= 0:
            problems.append("tombstone_s must be positive")
        if not 0.1 <= self.every_s <= 3600:
            problems.append("every_s must be between 0.1 and 3600")
        problems += [
            f"{each[:80]!r} cannot be the path of a socket"
            for each in self.sockets
            if not each.startswith("/") or startup.socket_problems(each)
        ]
        if problems:
            raise BadInput("; ".join(problems), where=_WHERE)

    @classmethod
    def from_json(cls, text: str) -> ScoutConfig:
        """What `to_json` wrote; names left out have their default. Raises `BadInput`."""
        return startup.from_json(cls, text, where=_WHERE)

    def to_json(self) -> str:
        return startup.to_json(self)
