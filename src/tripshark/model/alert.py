"""What happened, when, to whom, and which of its claims about the network can be trusted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NewType

AlertId = NewType("AlertId", str)
Address = IPv4Address | IPv6Address
Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


class Priority(IntEnum):
    """Falco's priorities; the numbers are syslog's severities, smaller is worse."""

    EMERGENCY = 0
    ALERT = 1
    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFORMATIONAL = 6
    DEBUG = 7

    @property
    def title(self) -> str:
        """The word as Falco writes it: `Critical`."""
        return self.name.capitalize()

    @classmethod
    def named(cls, word: str) -> Priority | None:
        """The priority a word means, in any case; Falco's rule files also say `Info`."""
        wanted = word.strip().upper()
        return cls.__members__.get("INFORMATIONAL" if wanted == "INFO" else wanted)


class Proto(StrEnum):
    """Transport protocols that a filter can name."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    SCTP = "sctp"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One side of a connection. `None` means the alert does not say, or may not be believed."""

    address: Address | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The connection an alert names, normalised from whichever fields can be trusted.

    `client` and `server` may be flipped by Falco (accept, bound UDP): filters match both directions.
    """

    client: Endpoint
    server: Endpoint
    proto: Proto | None = None
    listening: bool = False
    """A listening socket: only `server` is filled, often with port alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One Falco event, normalised. `fields` keeps everything else as it came (hostile)."""

    rule: str
    priority: Priority
    time_ns: int  # T0: when the event happened, CLOCK_REALTIME nanoseconds
    source: str = "syscall"
    output: str = ""
    hostname: str | None = None
    tags: tuple[str, ...] = ()
    uuid: str | None = None  # Falcosidekick's id per event
    fields: Mapping[str, Json] = field(default_factory=dict)
    connection: Connection | None = None
    hints: tuple[Endpoint, ...] = ()
    """Addresses found in `proc.cmdline`: they may widen a filter and never narrow it."""
    container_id: str | None = None  # 12 hex digits or more; "host" becomes on_host
    on_host: bool = False
    pid: int | None = None  # host pid, where the user added proc.pid
    namespace: str | None = None
    pod: str | None = None
    process: str | None = None
    cmdline: str | None = None

    @property
    def is_internal(self) -> bool:
        """Falco about itself: metrics, drops. A heartbeat, never a reason to capture."""
        return self.source == "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An alert that is durable: it has a place in the journal and may be promised to the sender."""

    id: AlertId
    seq: int  # place in the journal, strictly rising
    received_ns: int
    alert: Alert
    body: bytes  # verbatim, as it came
    via: str  # "webhook", "file:/var/log/falco.json", "stdin", "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What Falco says about itself. Counters run since Falco's start; None: this message has none."""

    kind: str  # "metrics", "drops" or "other"
    time_ns: int
    hostname: str | None
    version: str | None = None
    start_ns: int | None = None  # a new value means Falco was restarted
    duration_s: int | None = None
    events: int | None = None  # seen by the kernel side
    drops: int | None = None  # events the kernel side lost before any rule saw them
    output_drops: int | None = None  # alerts lost in Falco's own output queue


def missing(value: Json) -> bool:
    """Falco writes "not there" as null, as an empty string and as the string `<NA>`."""
    return value is None or value in ("", "<NA>")


def meaning(alert: Alert, target: str) -> str:
    """What makes two alerts the same: rule, target and peer; 64 hex digits, stable over restarts.

    Left out on purpose: the client's port (a new one for each retry of a beacon), the time and
    the text. `target` is the target's key or title. The `uuid` of an alert tells a resend from a
    repeat and is compared beside this, not within.
    """
    connection = alert.connection
    peers = (connection.server,) if connection is not None else alert.hints
    said = [alert.rule, target, sorted(f"{peer.address}:{peer.port}" for peer in peers)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
