"""What the recorder is told when it is started; it reads no file and no environment."""

from __future__ import annotations

from dataclasses import dataclass

from tripshark.errors import BadInput
from tripshark.formats import startup
from tripshark.model.recording import Mode

MIB = 1 << 20
_WHERE = "the recorder's configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderConfig:
    """Everything that may be decided about recording. Bytes are ring memory unless said otherwise."""

    socket: str  # path of the unix socket, made with mode 0660
    group: int = (
        -1
    )  # gid that owns the socket and whose members may connect; -1: the recorder's own
    allowed_uids: tuple[int, ...] = ()  # besides root, the recorder's own uid and the group
    per_target: int = 16 * MIB
    total: int = 512 * MIB
    copies: int = 256 * MIB  # tombstones and frozen histories, used bytes only
    tombstone_s: int = 600
    snaplen: int = 262_144  # bytes kept of each packet, when no filter says otherwise
    flow_cut: int = 0  # bytes in full per flow and direction, of the rest headers; 0: all
    filter: str = ""  # cBPF as hex, for frames that begin with an Ethernet header; "": everything
    filter_raw: str = ""  # the same for interfaces whose packets begin with the IP header (tun)
    include: tuple[str, ...] = ("*",)  # namespaces by name, globs
    exclude: tuple[str, ...] = ()
    host: bool = True  # record the host's own namespace as target `host`
    netns_dirs: tuple[str, ...] = ("/run/netns", "/run/docker/netns")  # each may not exist yet
    mode: str = "full"  # off, headers or full: of namespaces of which nothing is known yet

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be positive"
            for name in ("per_target", "total", "copies", "tombstone_s", "snaplen")
            if getattr(self, name) <= 0
        ]
        if not 0 <= self.flow_cut < 1 << 30:
            problems.append("flow_cut must be less than 1 GiB, 0 for never")
        if self.mode not in tuple(Mode):
            problems.append("mode must be off, headers or full")
        problems += [
            f"{each!r} is no absolute path" for each in self.netns_dirs if each[:1] != "/"
        ]
        for name in ("filter", "filter_raw"):
            try:
                program = bytes.fromhex(getattr(self, name))
            except ValueError:
                problems.append(f"{name} must be hex digits")
                continue
            if len(program) % 8 or len(program) > 8 * 4096:
                problems.append(f"{name} must be up to 4096 instructions of 8 bytes")
        problems += startup.socket_problems(self.socket)
        if problems:
            raise BadInput("; ".join(problems), where=_WHERE)

    @classmethod
    def from_json(cls, text: str) -> RecorderConfig:
        """What `to_json` wrote; names left out have their default. Raises `BadInput`."""
        return startup.from_json(cls, text, where=_WHERE)

    def to_json(self) -> str:
        return startup.to_json(self)
