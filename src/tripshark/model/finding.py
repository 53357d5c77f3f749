"""What the analysis concluded: who talked to whom, and whether the flow the alert named is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tripshark.model.alert import Connection, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the analyst is told about the alert; plain values, nothing it could use elsewhere."""

    t0_ns: int
    target: str  # "payments/checkout-7d9f"
    addresses: tuple[str, ...]  # the target's own
    connections: tuple[Connection, ...]  # named by the incident's alerts
    names: Mapping[str, str] = field(default_factory=dict)  # address → name, as in the file
    manifest_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Two endpoints and what went each way; `a` is the target's side where it is known."""

    proto: str
    a: str  # address
    a_port: int
    b: str
    b_port: int
    packets_ab: int
    packets_ba: int
    bytes_ab: int
    bytes_ba: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """One tshark pass over one evidence file."""

    manifest_sha256: str
    tool: str  # "TShark 4.0.17"
    sandbox: tuple[str, ...]  # what actually held: "uid", "landlock", "seccomp", …
    packets: int
    first_ns: int
    last_ns: int
    conversations: tuple[Conversation, ...] = ()
    dns: tuple[Mapping[str, Json], ...] = ()  # {name, type, answers, asked_ns, frame}
    sni: tuple[Mapping[str, Json], ...] = ()  # {name, server, frame}
    http: tuple[Mapping[str, Json], ...] = ()  # {host, method, uri, server, frame}
    names: Mapping[str, str] = field(
        default_factory=dict
    )  # address → DNS name the capture itself proves
    flow_captured: bool | None = None  # None: the alerts name no flow
    seconds_before_alert: float = 0.0  # from the first packet to T0
    truncated: bool = False  # lists were cut at their bound
    summary: str = ""  # the one paragraph
