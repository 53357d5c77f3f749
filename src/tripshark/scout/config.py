"""What the scout is told when it is started; it reads no file and no environment."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from tripshark.errors import BadInput

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
        problems = []
        if not 0 < len(self.socket.encode()) < 108:
            problems.append("socket must be a path of at most 107 bytes")
        if self.tombstone_s <= 0:
            problems.append("tombstone_s must be positive")
        if not 0.1 <= self.every_s <= 3600:
            problems.append("every_s must be between 0.1 and 3600")
        problems += [
            f"{each[:80]!r} cannot be the path of a socket"
            for each in self.sockets
            if not (each.startswith("/") and len(each.encode()) < 108 and "\0" not in each)
        ]
        if problems:
            raise BadInput("; ".join(problems), where=_WHERE)

    @classmethod
    def from_json(cls, text: str) -> ScoutConfig:
        """What `to_json` wrote; names left out have their default. Raises `BadInput`."""
        try:
            given = json.loads(text)
        except ValueError as problem:
            raise BadInput(f"no JSON: {problem}", where=_WHERE) from problem
        if not isinstance(given, dict):
            raise BadInput("not a JSON object", where=_WHERE)
        kinds = {each.name: each.type for each in fields(cls)}
        values: dict[str, object] = {}
        for name, value in given.items():
            match kinds.get(name), value:
                case "int", int() if not isinstance(value, bool):
                    values[name] = value
                case "float", (int() | float()) if not isinstance(value, bool):
                    values[name] = float(value)
                case "str", str():
                    values[name] = value
                case "tuple[int, ...]", list() if all(type(each) is int for each in value):
                    values[name] = tuple(value)
                case "tuple[str, ...]", list() if all(type(each) is str for each in value):
                    values[name] = tuple(value)
                case None, _:
                    raise BadInput(f"unknown name {name!r}", where=_WHERE)
                case kind, _:
                    raise BadInput(f"{name} must be {kind}", where=_WHERE)
        if "socket" not in values:
            raise BadInput("socket is missing", where=_WHERE)
        return cls(**values)  # type: ignore[arg-type]  # each was matched against its field's type above

    def to_json(self) -> str:
        return json.dumps(asdict(self))
